"""The command of tools/fuzz: every target of tests/fuzz for some time, each in a process of its own.

The corpora in tests/fuzz/corpus are where it starts. What it finds on the way is kept in var/fuzz, which is nobody's
but this machine's; what is worth keeping for all belongs into the corpus.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

ROOT: Final = Path(__file__).resolve().parent.parent
CORPUS: Final = ROOT / "tests/fuzz/corpus"
FOUND: Final = ROOT / "var/fuzz"
PYTHONPATH: Final = os.pathsep.join(str(ROOT / part) for part in (".", "tests", "tests/lib"))

# One input by hand: with the traceback where it breaks the invariant.
REPLAY: Final = "import sys; from fuzz.targets import TARGETS; TARGETS[sys.argv[1]](open(sys.argv[2], 'rb').read())"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--seconds", type=click.IntRange(min=1), default=60, show_default=True, help="For each target.")
@click.option("--replay", type=click.Path(exists=True, dir_okay=False), help="Run this input only, on one target.")
def fuzz(targets: tuple[str, ...], seconds: int, replay: str | None) -> None:
    """Fuzz TARGETs, all of them if none is named, and stop at the first input that breaks an invariant.

    With atheris in the virtual environment (pip install atheris) libFuzzer guides the search by what an input
    reaches, without it hypothesis goes by chance.
    """
    known = sorted(path.name for path in CORPUS.iterdir())
    for name in targets:
        if name not in known:
            raise click.BadParameter(f"{name} is no target; expected one of {', '.join(known)}", param_hint="TARGET")
    if replay is not None:
        if len(targets) != 1:
            raise click.UsageError("--replay needs one TARGET, the one that the input is for")
        sys.exit(_python("-c", REPLAY, targets[0], replay))
    for name in targets or _present(known):
        folder = FOUND / name
        folder.mkdir(parents=True, exist_ok=True)
        click.echo(f"== {name}, {seconds} s")
        status = _python("-m", "fuzz.engine", name, str(seconds), str(folder))
        if status:
            click.echo(
                f"{name} failed; the input is in {folder}, run it with: tools/fuzz {name} --replay FILE", err=True
            )
            sys.exit(1)


def _present(known: list[str]) -> list[str]:
    """The targets of this version: a corpus may wait for its parser."""
    listed = subprocess.run(
        [sys.executable, "-c", "from fuzz.targets import TARGETS; print(*TARGETS)"],
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in known if name in listed.stdout.split()]


def _python(*arguments: str) -> int:
    return subprocess.run([sys.executable, *arguments], env=_environment(), cwd=ROOT, check=False).returncode


def _environment() -> dict[str, str]:
    # Where the tests find their modules: pyproject.toml, pythonpath.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [PYTHONPATH, os.environ.get("PYTHONPATH")]))}


if __name__ == "__main__":
    fuzz(prog_name="fuzz")
