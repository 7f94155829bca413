"""`tools/compile`: the extension modules of this checkout, built beside it and never into it.

Owns where a build goes (`compiled.folder`) and that it is whole when it is there: it is made under another name and
renamed. How it is made is setup.py's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import click

import compiled

# Builds of older sources that stay: going back and forth between two branches compiles nothing anew.
KEPT: Final = 4
# A build takes a minute or two on two cores.
TIMEOUT: Final = 1800.0
MAKING: Final = ".making-"
TAIL: Final = 30  # lines of a failed build that are shown


class BuildError(Exception):
    """The build failed. `str()` is the end of what it said."""


def build() -> Path:
    """The folder of the build of these sources, made if it is not there. Raises BuildError."""
    target = compiled.folder()
    if target.is_dir():
        return target
    compiled.BUILDS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=MAKING, dir=compiled.BUILDS) as name:
        made, scratch = Path(name) / "lib", Path(name) / "objects"
        _run(["-q", "build", "--build-base", str(scratch), "--build-lib", str(made)], Path(name))
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # somebody else was first
                raise
    _forget(target)
    return target


def _run(arguments: list[str], folder: Path) -> None:
    """setup.py, in a copy of the sources: what it makes beside the modules does not stay."""
    copy = folder / "sources"
    copy_sources(copy)
    try:
        run = subprocess.run(
            [sys.executable, "setup.py", *arguments],
            cwd=copy,
            env={**os.environ, "SMTPGATE_USE_MYPYC": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"not done after {TIMEOUT:.0f} s") from None
    if run.returncode != 0:
        raise BuildError("\n".join(run.stdout.splitlines()[-TAIL:]))


def copy_sources(to: Path) -> None:
    """All that setup.py and pyproject.toml name: each package has to be there, whether it is compiled or not."""
    for name in ("smtpgate", "authsvc", "tools/commands"):
        shutil.copytree(
            compiled.ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.so")
        )
    for name in (*compiled.RECIPE, "requirements.in", "README.md", "LICENSE"):
        shutil.copy(compiled.ROOT / name, to / name)


def _forget(newest: Path) -> None:
    """All builds but the newest, and what a killed one has left."""
    for path in compiled.BUILDS.glob(f"{MAKING}*"):
        if path.stat().st_mtime < time.time() - TIMEOUT:
            shutil.rmtree(path, ignore_errors=True)
    others = [path for path in compiled.BUILDS.iterdir() if path != newest and not path.name.startswith(".")]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Compile what every message runs through. SMTPGATE_COMPILED=1 python proxy.py uses it."""
    if compiled.folder().is_dir():
        click.echo(f"{compiled.folder()}: made already")
        return
    began = time.monotonic()
    try:
        target = build()
    except BuildError as error:
        click.echo(f"{error}", err=True)
        click.echo("tools/compile: cannot build; the plain sources run as ever", err=True)
        sys.exit(1)
    modules = len(list((target / "smtpgate").rglob("*.so")))
    click.echo(f"{target}: {modules} modules in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
