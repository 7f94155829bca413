"""How smtpgate is built; what it is, pyproject.toml says.

Pure Python, unless SMTPGATE_USE_MYPYC=1: then mypyc makes extension modules of those that every message runs through.
The name is that of mypy's own MYPY_USE_MYPYC, as charset-normalizer and others have it.

    SMTPGATE_USE_MYPYC=1 pip install .
"""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
VARIABLE = "SMTPGATE_USE_MYPYC"

# What runs for each message. What only reads configuration and policies gains nothing, and stays as it is.
HOT = (
    "smtpgate/clock.py",
    "smtpgate/journal.py",
    "smtpgate/smtp/*.py",
    "smtpgate/policy/*.py",
    "smtpgate/routing/*.py",
    "smtpgate/session/*.py",
    *(
        f"smtpgate/drivers/{name}.py"
        for name in (
            "accesslog",
            "alarm",
            "authcache",
            "authhttp",
            "authwire",
            "backends",
            "decisionlog",
            "dial",
            "holds",
            "idle",
            "lease",
            "listener",
            "logline",
            "logqueue",
            "peek",
            "policies",
            "proxyheader",
            "records",
            "rediscall",
            "rediskeys",
            "redisscript",
            "redisstore",
            "shaper",
            "store",
            "stream",
            "waiting",
        )
    ),
)
# What mypyc cannot compile, or not to the same behaviour, with the reason.
NOT_COMPILED = {
    "smtpgate/policy/bucket.py": "its class is extended in plain Python, by tests",
    "smtpgate/policy/compile.py": "a dataclass with a field of type `object`: KeyError at import",
    "smtpgate/policy/schema.py": "pydantic models",
    "smtpgate/policy/storeuri.py": "pydantic",
    "smtpgate/routing/model.py": "a generic dataclass: AttributeError at import",
    "smtpgate/routing/router.py": "a generic dataclass: AttributeError at import",
    "smtpgate/routing/schema.py": "pydantic models",
    "smtpgate/routing/table.py": "a subclass of tuple",
}


def compiled_modules() -> list[str]:
    """Paths from the root, in a fixed order."""
    found = {path.relative_to(ROOT).as_posix() for pattern in HOT for path in ROOT.glob(pattern)}
    return sorted(path for path in found - NOT_COMPILED.keys() if not path.endswith("__init__.py"))


def extensions() -> list[Extension]:
    from mypyc.build import mypycify

    # One group: calls between its modules are C calls. A file each: two cores compile them.
    made = mypycify(compiled_modules(), opt_level="2", debug_level="0", multi_file=True)
    for one in made:
        # gcc defines __unix, which mypyc's name for an attribute `_unix` runs into.
        one.extra_compile_args = [*(one.extra_compile_args or []), "-U__unix"]
    return made


class BuildSideBySide(build_ext):
    """As many C files at once as there are cores: setuptools compiles those of one extension one after another."""

    def build_extensions(self) -> None:
        one_by_one = self.compiler.compile

        def compile(sources: list[str], *arguments: Any, **options: Any) -> list[str]:  # noqa: A001 - its name there
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = list(pool.map(lambda source: one_by_one([source], *arguments, **options), sources))
            return [name for names in made for name in names]

        self.compiler.compile = compile
        super().build_extensions()


def needed() -> list[str]:
    """For the build: mypy in the version that the tests ran with, and whatever the modules import, for its types."""
    locked = (ROOT / "requirements-dev.txt").read_text()
    tools = re.findall(r"^((?:mypy|types-gevent)==\S+)", locked, re.MULTILINE)
    direct = (ROOT / "requirements.in").read_text().splitlines()
    return [*tools, *(line for line in direct if line and not line.startswith("#"))]


if __name__ == "__main__":
    if os.environ.get(VARIABLE) == "1":
        # setup_requires: what pyproject.toml cannot say, that a build of this kind needs more than the plain one. pip
        # asks for it with egg_info, before any of it is there.
        made = [] if "egg_info" in sys.argv else extensions()
        setup(ext_modules=made, cmdclass={"build_ext": BuildSideBySide}, setup_requires=needed())
    else:
        setup()
