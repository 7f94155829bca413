"""`tools/bench`: smtpgate beside nginx, HAProxy and no proxy at all, on one machine, in one run.

Owns the order of rounds (contenders take turns, so that a machine that gets slower is slow for all), and that a run
that proves nothing is thrown away and said so.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import click
import yaml
from rich.console import Console

from authsvc.proof.passwords import Passwords
from tools.benchmarks import contenders, parts, profile
from tools.benchmarks.contenders import OURS, Contender, NotAsAskedError, Setting
from tools.benchmarks.interpreters import ROOT, Interpreter, InterpreterError, known, usual
from tools.benchmarks.report import as_json, machine, show, show_parts
from tools.benchmarks.runs import PASSWORD, USERS, Course, Measured, SpoiltError, backend
from tools.benchmarks.workloads import Workload, chosen

ROUNDS: Final = 5
QUICK_ROUNDS: Final = 1
SECONDS: Final = 1.5
QUICK_SECONDS: Final = 0.5
MAX_SPOILT: Final = 3
PLAIN_WIDTH: Final = 220  # characters of the table in a file

T = TypeVar("T")
Results = dict[str, dict[str, list[Measured]]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="One short round of each, some two minutes in all; not W6 and W8.")
@click.option("--only", default="", metavar="W1,W3", help="These workloads; W5 stands for all that begin with it.")
@click.option("--rounds", type=click.IntRange(1), default=None, help=f"Rounds of each.  [default: {ROUNDS}]")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 60), default=None, help=f"Of a run, about.  [default: {SECONDS}]"
)
@click.option(
    "--contenders",
    "wanted",
    default="",
    metavar="nginx,smtpgate",
    help="Only these. `plain` is smtpgate without its extension modules, `venv` that under .venv's Python.",
)
@click.option(
    "--python", default="", metavar="PATH", help="What runs smtpgate.  [default: /usr/bin/python3, if it can]"
)
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write every run there.")
@click.option(
    "--profile",
    "profiled",
    default="",
    metavar="W1",
    help="No table: what smtpgate's worker spends its time on under these workloads (perf, py-spy).",
)
def main(
    quick: bool,
    only: str,
    rounds: int | None,
    seconds: float | None,
    wanted: str,
    python: str,
    target: Path | None,
    profiled: str,
) -> None:
    """Measure smtpgate beside the installed nginx and HAProxy, on loopback."""
    # Or all that was started would go on without us: each is in a session of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    try:
        interpreter = known(python) if python else usual()
    except InterpreterError as error:
        raise click.UsageError(str(error)) from error
    names = [name for name in wanted.split(",") if name]
    if unknown := [name for name in names if name not in contenders.KINDS]:
        raise click.UsageError(f"--contenders: {', '.join(unknown)}; there are {', '.join(contenders.KINDS)}")
    if not names or "smtpgate" in names or not {"W7", "W10"}.isdisjoint(only.split(",")):
        _compile(interpreter, console)
    bench = Bench(interpreter, names, console, quick=quick)
    rounds, seconds = rounds or (QUICK_ROUNDS if quick else ROUNDS), seconds or (QUICK_SECONDS if quick else SECONDS)
    with tempfile.TemporaryDirectory(prefix="smtpgate-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        bench.prepare(folder)
        if profiled:
            for workload in chosen(profiled, quick=False):
                bench.profile(workload, folder)
            return
        began = time.monotonic()
        workloads = chosen(only, quick=quick)
        results = {one.key: bench.rounds(one, folder, rounds, seconds) for one in workloads}
        found = bench.parts(only, folder, rounds)
    told = {name: contenders.describe(name, interpreter) for name in OURS if any(name in r for r in results.values())}
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()))
    for name, what in told.items():
        console.print(f"{name}: {what}")
    show(results, {workload.key: workload for workload in workloads}, console)
    show_parts(found, console)
    console.print(f"\n{rounds} rounds in {time.monotonic() - began:.0f} s; runs thrown away: {len(bench.spoilt)}")
    if target is not None:
        target.write_text(json.dumps(as_json(results, found, told, bench.spoilt), indent=1))


def _compile(python: Interpreter, console: Console) -> None:
    """smtpgate runs compiled where that can be done: for the interpreter that runs it."""
    with console.status("compiling"):
        argv = [*python.command(built=False), "-m", "tools.compile"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"smtpgate cannot be compiled:\n{done.stderr[-2000:]}")
    console.print(f"compiled: {done.stdout.strip()}")


class Bench:
    """What one call of the command does. spoilt: the runs that were thrown away, each a line."""

    def __init__(self, python: Interpreter, names: Sequence[str], console: Console, *, quick: bool) -> None:
        self._python, self._names, self._console, self._quick = python, names, console, quick
        self._certificate: tuple[Path, Path] | None = None
        self._users = ""
        self.spoilt: list[str] = []

    def prepare(self, folder: Path) -> None:
        """A certificate, and the users."""
        self._certificate = _certificate(folder)
        self._users = _users()

    def rounds(self, workload: Workload, folder: Path, rounds: int, seconds: float) -> dict[str, list[Measured]]:
        """Each contender's runs; they take turns. One that cannot be warmed up has none."""
        runs: dict[str, list[Measured]] = {}
        place = folder / workload.key
        place.mkdir()
        running: list[Contender] = []
        with self._console.status(f"{workload.key}: {workload.title}"), backend(workload, place / "backend") as sink:
            port, arrived = sink
            try:
                courses = {}
                for name in self._contenders(workload):
                    running.append(self._start(workload, name, place / name, port))
                    courses[name] = Course(workload, running[-1], arrived)
                    runs[name] = []
                for name, course in list(courses.items()):
                    if self._try(course.warm_up, workload, name) is None:
                        del courses[name]
                for number in range(rounds):
                    # Back and forth: whoever is first in a round is last in the next.
                    for name, course in list(courses.items())[:: -1 if number % 2 else 1]:
                        found = self._try(partial(course.run, seconds), workload, name)
                        if found is not None:
                            runs[name].append(found)
            finally:
                for contender in running:
                    contender.stop()
        return runs

    def parts(self, only: str, folder: Path, rounds: int) -> dict[str, list[parts.Figures]]:
        """W7 and W10."""
        wanted = only.split(",") if only else ["W7", "W10"]
        found: dict[str, list[parts.Figures]] = {}
        with self._console.status("W7 and W10"):
            if "W7" in wanted:
                decisions = 20_000 if self._quick else 60_000
                found["W7"] = parts.limiter(folder / "W7", decisions, rounds, self._python)
            if "W10" in wanted:
                requests = 2_000 if self._quick else 10_000
                found["W10"] = parts.authsvc(folder / "W10", requests, self._users, rounds, self._python)
        return found

    def profile(self, workload: Workload, folder: Path) -> None:
        """What the busiest process of each contender spends its time on; by itself smtpgate, compiled and plain."""
        place = folder / workload.key
        place.mkdir()
        with backend(workload, place / "backend") as (port, arrived):
            for name in self._names or ("smtpgate", "plain"):
                contender = self._start(workload, name, place / name, port)
                try:
                    course = Course(workload, contender, arrived)
                    course.warm_up()
                    plain = isinstance(contender, contenders.Gate) and not contender.compiled
                    told = profile.top(course, contender.proxies(), place / name, python=plain)
                    print(f"\n{workload.key} {name}\n{told}", flush=True)
                finally:
                    contender.stop()

    def _contenders(self, workload: Workload) -> list[str]:
        """Where there is little time the octets of HAProxy and the bare backend are looked at once, in W1."""
        if self._names:
            return list(self._names)
        spared = ("direct", "haproxy") if self._quick and workload.key != "W1" else ()
        return [name for name in workload.contenders if name not in spared]

    def _start(self, workload: Workload, name: str, folder: Path, port: int) -> Contender:
        setting = Setting(port, self._python, **workload.setting)
        if setting.tls != "off":
            setting = replace(setting, certificate=self._certificate)
        if setting.auth:
            setting = replace(setting, users=self._users)
        try:
            return contenders.start(name, folder, setting)
        except NotAsAskedError as error:
            raise click.ClickException(f"{workload.key}: {error}") from error

    def _try(self, run: Callable[[], T], workload: Workload, name: str) -> T | None:
        """A run that proves something, within a few tries; None if there was none."""
        for _ in range(MAX_SPOILT):
            try:
                return run()
            except SpoiltError as spoilt:
                self.spoilt.append(f"{workload.key} {name}: {spoilt}")
                self._console.print(f"[red]a run was thrown away: {self.spoilt[-1]}[/]")
        return None


def _certificate(folder: Path) -> tuple[Path, Path]:
    chain, key = folder / "chain.pem", folder / "key.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=proxy.example.net"]
    subprocess.run([*new, "-out", str(chain), "-keyout", str(key)], check=True, capture_output=True)
    return chain, key


def _users() -> str:
    """USERS users with one password, hashed once, at the full cost."""
    hashed = Passwords().make(PASSWORD.encode())
    text: str = yaml.safe_dump({"users": {f"user{n}@example.com": {"password": str(hashed)} for n in range(USERS)}})
    return text


if __name__ == "__main__":
    main()
