"""`tools/bench`: smtpgate beside nginx, HAProxy and no proxy at all, on one machine, in one run.

Owns the order of rounds (contenders take turns, so that a machine that gets slower is slow for all), and that a run
that proves nothing is thrown away and said so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import yaml
from peers.postfix import Postfix
from rich.console import Console

from authsvc.proof.passwords import Passwords
from tools import compile  # noqa: A004 - its command's name
from tools.benchmarks import parts
from tools.benchmarks.report import as_json, machine, show, show_parts
from tools.benchmarks.workloads import (
    PASSWORD,
    USERS,
    WORKLOADS,
    Measured,
    Sink,
    SpoiltError,
    Workload,
    measure,
    prepare,
)

ROUNDS: Final = 5
QUICK_ROUNDS: Final = 1
MAX_SPOILT: Final = 3
PLAIN: Final = "plain"
PLAIN_WIDTH: Final = 220  # characters of the table in a file

Results = dict[str, dict[str, list[Measured]]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="One short round of each, under two minutes in all.")
@click.option("--only", default="", metavar="W1,W3", help="These workloads; W5 stands for all that begin with it.")
@click.option("--rounds", type=click.IntRange(1), default=None, help=f"Rounds of each.  [default: {ROUNDS}]")
@click.option(
    "--contenders",
    default="",
    metavar="nginx,smtpgate",
    help="Only these. `plain` is smtpgate without its extension modules.",
)
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write every run there.")
def main(quick: bool, only: str, rounds: int | None, contenders: str, target: Path | None) -> None:
    """Measure smtpgate beside the installed nginx and HAProxy, on loopback."""
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    chosen = _chosen(only, quick=quick)
    names = [name for name in contenders.split(",") if name]
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    if not names or "smtpgate" in names:
        _compile(console)
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="smtpgate-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        users = _users()
        shared = {"certificate": _certificate(folder), "users": users}
        for workload in chosen:
            with console.status(f"{workload.key}: {workload.title}"):
                results[workload.key] = _rounds(
                    workload,
                    folder / workload.key,
                    shared,
                    names or _usual(workload, quick=quick),
                    rounds,
                    workload.quick if quick else workload.messages,
                    console,
                )
        found = _parts(only, folder, users, rounds, quick=quick)
    console.print(", ".join(f"{name} {value}" for name, value in machine().items()))
    show(results, {workload.key: workload for workload in chosen}, console)
    show_parts(found, console)
    if target is not None:
        target.write_text(json.dumps(as_json(results, found), indent=1))


def _compile(console: Console) -> None:
    """smtpgate runs compiled where that can be done."""
    try:
        with console.status("compiling"):
            console.print(f"smtpgate: compiled, {compile.build()}")
    except compile.BuildError as error:
        console.print(f"[red]{error}[/]\nsmtpgate: plain Python, as there is no build")


def _usual(workload: Workload, *, quick: bool) -> Sequence[str]:
    """Where there is little time the octets of HAProxy and the bare backend are looked at once, in W1."""
    spared = ("direct", "haproxy") if quick and workload.key != "W1" else ()
    return [name for name in workload.contenders if name not in spared]


def _chosen(only: str, *, quick: bool) -> list[Workload]:
    wanted = [key for key in only.split(",") if key]
    found = [
        one
        for one in WORKLOADS
        if not wanted or any(one.key == key or one.key.startswith(f"{key}-") for key in wanted)
    ]
    return [one for one in found if one.quick or not quick]


def _rounds(
    workload: Workload,
    folder: Path,
    shared: Mapping[str, Any],
    names: Sequence[str],
    rounds: int,
    messages: int,
    console: Console,
) -> dict[str, list[Measured]]:
    """Each contender's runs; they take turns."""
    folder.mkdir()
    running = {}
    with _backend(workload, folder / "backend") as (port, arrived):
        try:
            for name in (*workload.contenders, PLAIN):
                if name in names:
                    running[name] = prepare(workload, name, folder / name, port, shared)
            runs: dict[str, list[Measured]] = {name: [] for name in running}
            for name, contender in running.items():  # nobody is measured while it wakes up
                _try(partial(measure, workload, contender, max(messages // 10, USERS), arrived), name, console)
            for number in range(rounds):
                # Back and forth: whoever is first in a round is last in the next.
                for name, contender in list(running.items())[:: -1 if number % 2 else 1]:
                    found = _try(partial(measure, workload, contender, messages, arrived), name, console)
                    if found is not None:
                        runs[name].append(found)
            return runs
        finally:
            for contender in running.values():
                contender.stop()


def _try(run: Callable[[], Measured], name: str, console: Console) -> Measured | None:
    """A run that proves something, within a few tries."""
    for _ in range(MAX_SPOILT):
        try:
            return run()
        except SpoiltError as spoilt:
            console.print(f"[red]{name}: a run was thrown away: {spoilt}[/]")
    return None


@contextmanager
def _backend(workload: Workload, folder: Path) -> Iterator[tuple[int, Callable[[], int]]]:
    """The port of what takes the messages, and how many it has taken."""
    if workload.postfix:
        # Taken is what counts: no message is kept.
        postfix = Postfix("bench", {"smtpd_milters": "", "virtual_transport": "discard:", "in_flow_delay": "0"})
        with_discard = postfix.folder / "etc/master.cf"
        with_discard.write_text(with_discard.read_text() + "discard unix - - n - - discard\n")
        postfix.start()
        try:
            # One such line a message: "postfix/bench/cleanup[7]: 297A02201F9: message-id=<...>".
            yield postfix.port, lambda: len(re.findall(r"/cleanup\[\d+\]: \w+: message-id=", postfix.log()))
        finally:
            postfix.remove()
        return
    sink = Sink(folder)
    try:
        yield sink.port, sink.arrived
    finally:
        sink.stop()


def _parts(only: str, folder: Path, users: str, rounds: int, *, quick: bool) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    wanted = only.split(",") if only else ["W7", "W10"]
    if "W7" in wanted:
        found["W7"] = parts.limiter(folder / "W7", 20_000 if quick else 100_000, rounds)
    if "W10" in wanted:
        found["W10"] = parts.authsvc(folder / "W10", 2_000 if quick else 20_000, users, rounds)
    return found


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
