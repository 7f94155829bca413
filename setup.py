"""How smtpgate is built; what it is, pyproject.toml says.

Pure Python, unless SMTPGATE_USE_MYPYC=1: then mypyc makes extension modules of those that every message runs through.
The name is that of mypy's own MYPY_USE_MYPYC, as charset-normalizer and others have it.

    SMTPGATE_USE_MYPYC=1 pip install .

mypyc leaves the constructor of a dataclass to Python, and one that is frozen sets each field by object.__setattr__:
the forty of a message took a quarter of its time in session, smtp, policy and the log. So what is compiled is a copy
of the sources in which their dataclasses have constructors (`with_constructors`). All else of them is as it was.
"""

import ast
import contextlib
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
VARIABLE = "SMTPGATE_USE_MYPYC"
# What mypyc reads, and the C files that it makes of it.
SOURCES = ROOT / "build" / "mypyc"

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
            "acceptor",
            "accesslog",
            "admission",
            "alarm",
            "authcache",
            "authhttp",
            "authwire",
            "backends",
            "connecting",
            "decisionlog",
            "dial",
            "ends",
            "holds",
            "idle",
            "journal",
            "lease",
            "listener",
            "logline",
            "logqueue",
            "metrics",
            "metricsports",
            "metricsvalues",
            "peek",
            "policies",
            "proxyheader",
            "records",
            "rediscall",
            "rediskeys",
            "redisscript",
            "redisstore",
            "servants",
            "shaper",
            "store",
            "stream",
            "tlslayer",
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

    copy_sources(SOURCES)
    with contextlib.chdir(SOURCES):
        # One group: calls between its modules are C calls. A file each: two cores compile them.
        made = mypycify(
            compiled_modules(), opt_level="2", debug_level="0", multi_file=True, target_dir=str(SOURCES / "c")
        )
    for one in made:
        # setuptools takes no absolute paths here.
        one.sources = [os.path.relpath(path, ROOT) for path in one.sources]
        one.depends = [os.path.relpath(path, ROOT) for path in one.depends]
        # gcc defines __unix, which mypyc's name for an attribute `_unix` runs into.
        one.extra_compile_args = [*(one.extra_compile_args or []), "-U__unix"]
    return made


def copy_sources(to: Path) -> None:
    """The package as mypyc is to see it."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(ROOT / "smtpgate", to / "smtpgate", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)  # mypy's settings
    for name in compiled_modules():
        (to / name).write_text(with_constructors((ROOT / name).read_text()))


def with_constructors(source: str) -> str:
    """A module with a constructor in each dataclass that has none of its own. Every line stays where it is, for
    tracebacks: a constructor takes the place of its class's docstring.
    """
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and is_plain_dataclass(node):
            words = node.body[0]
            made = constructor(node)
            lines[words.lineno - 1 : words.end_lineno] = [f"    {made}", *[""] * (words.end_lineno - words.lineno)]
    return "\n".join(lines) + "\n"


def is_plain_dataclass(node: ast.ClassDef) -> bool:
    """Whether its constructor sets its fields and does no more. A class without a docstring has no room for it."""
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
    return (
        len(decorators) == 1
        and decorators <= {"dataclass(frozen=True, slots=True)", "dataclass(slots=True)"}
        and not (node.bases or methods & {"__init__", "__post_init__"})
        and ast.get_docstring(node) is not None
        and any(isinstance(one, ast.AnnAssign) for one in node.body)
    )


def constructor(node: ast.ClassDef) -> str:
    """What dataclasses makes of the fields of a class, in one line."""
    takes, sets = ["self"], []
    for one in node.body:
        if isinstance(one, ast.AnnAssign):
            name, kind, value = ast.unparse(one.target), ast.unparse(one.annotation), one.value
            said = {}
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
                said = {word.arg: ast.unparse(word.value) for word in value.keywords}
            default = said.get("default") if said else value and ast.unparse(value)
            given = name
            if "default_factory" in said:
                kind, default = f"{kind} | None", "None"
                given = f"({said['default_factory']})() if {name} is None else {name}"
            if said.get("init") == "False":
                given = str(default)
            else:
                takes.append(f"{name}: {kind}" if default is None else f"{name}: {kind} = {default}")
            sets.append(f"self.{name} = {given}")
    # mypy has checked the class as it is written.
    ignored = "# type: ignore[misc, unused-ignore] # a frozen field is read-only"
    return f"def __init__({', '.join(takes)}) -> None: {'; '.join(sets)}  {ignored}"


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
