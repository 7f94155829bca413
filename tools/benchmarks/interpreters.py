"""Which Python runs smtpgate while it is measured, and what is known of it.

Owns the choice: an operator runs the distribution's Python, which may be half as fast again as the one that made
.venv (one that is built from source has no profile-guided optimisation unless it is asked for). One of the same minor
version can use what .venv holds, its compiled modules too; no other can.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import compiled

SYSTEM: Final = "/usr/bin/python3"
ROOT: Final = Path(__file__).resolve().parents[2]
TIMEOUT: Final = 30.0

# Run by the interpreter itself. Debian names no flag for what it has done (its rules call make's profile-opt), so a
# loop of plain Python tells how fast it is.
ASK: Final = """
import json, sys, sysconfig, time

def loop():
    total, seen = 0, {}
    for n in range(100_000):
        seen[n & 255] = total
        total += len(seen) + n % 7
        if f"{n}".endswith("7"):
            total ^= 1

def timed():
    began = time.process_time()
    loop()
    return time.process_time() - began

asked = [flag for flag in ("--enable-optimizations", "--with-lto") if flag in sysconfig.get_config_var("CONFIG_ARGS")]
print(json.dumps({
    "tag": sys.implementation.cache_tag,
    "version": sys.version.split()[0],
    "flags": asked,
    "loop": min(timed() for _ in range(5)),
}))
"""


class InterpreterError(Exception):
    """A Python that cannot run smtpgate with what .venv holds. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """path: the program. flags: the optimisations that it was configured with by name. loop: milliseconds of CPU for
    a fixed loop of plain Python, the least of five.
    """

    path: str
    version: str
    flags: tuple[str, ...]
    loop: float

    def command(self, *, built: bool) -> tuple[str, ...]:
        """The beginning of a command line that runs it with this project's modules and .venv's. built: with the
        compiled ones, where there are any. It is exec'd, so that the process is the program.
        """
        modules = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
        return ("/usr/bin/env", f"PYTHONPATH={modules}", f"{compiled.VARIABLE}={int(built)}", self.path)

    def __str__(self) -> str:
        flags = " ".join(self.flags) or "no optimisation named in CONFIG_ARGS"
        return f"Python {self.version}, {self.path}, {flags}, {self.loop:.1f} ms for a fixed loop"


def known(path: str) -> Interpreter:
    """The interpreter at a path, or of a name in PATH. Raises InterpreterError."""
    found = shutil.which(path)
    if found is None:
        raise InterpreterError(f"{path}: there is no such program")
    told = _ask(found)
    if told["tag"] != sys.implementation.cache_tag:
        raise InterpreterError(
            f"{path} is {told['tag']}: what .venv holds is compiled for {sys.implementation.cache_tag}"
        )
    # Resolved, so that the table names /usr/bin/python3.11 and not what it is called today; .venv's is no real path.
    real = found if Path(found).is_relative_to(sys.prefix) else str(Path(found).resolve())
    return Interpreter(real, told["version"], tuple(told["flags"]), 1e3 * told["loop"])


def own() -> Interpreter:
    """The one of .venv, which runs this."""
    return known(sys.executable)


def usual() -> Interpreter:
    """The distribution's, if it can use what .venv holds; else .venv's own."""
    try:
        return known(SYSTEM)
    except InterpreterError:
        return own()


def _ask(program: str) -> dict[str, Any]:
    try:
        done = subprocess.run([program, "-c", ASK], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InterpreterError(f"{program}: {error}") from error
    if done.returncode != 0:
        raise InterpreterError(f"{program} is no Python that can be asked: {done.stderr.strip()[-200:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told
