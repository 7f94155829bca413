"""`gatectl policy simulate`: a log with `log.decisions`, replayed through a policy.

Owns reading the log and how the outcome is shown. What would have happened is `simulation`'s.
"""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import click

from smtpgate.document import DocumentError, render
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.explain.wording import number
from smtpgate.policy import record
from smtpgate.policy.record import Asked, Refunded
from smtpgate.units import InvalidValue

from .logs import MAX_LINE, opened
from .outcomes import Configuration
from .proxyconf import json_option
from .simulated import Difference, Result
from .simulation import Simulation
from .tables import print_json, print_table

DEFAULT_TOP: Final = 10
COLUMNS: Final = (
    *("limit", "event", "checked", "held", "held s", "denied", "would deny", "refunded"),
    *("log: held", "log: denied", "log: would deny"),
)
# What simulation wants of a log, found before the line is parsed: a busy log has many others.
_WANTED = re.compile(rb'"event": ?"(?:decision|refund|release|session|transaction)"')


@click.command(short_help="Replay a log against a draft of the policies.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--log",
    required=True,
    type=click.Path(path_type=Path),
    help="The proxy's log, of `log: {format: json, decisions: true}`; - is standard input, *.gz is unpacked.",
)
@click.option("--top", type=click.IntRange(min=0), default=DEFAULT_TOP, show_default=True, help="Subjects to tell.")
@click.option("--apart", is_flag=True, help="Each process counts for itself: the log is of a proxy with memory://.")
@json_option
def simulate(folder: Path, log: Path, top: int, apart: bool, as_json: bool) -> None:
    """What the policies in FOLDER would have answered to the questions of a log.

    Balances begin full at the first record. For each limit: how often it was asked, how many sessions it would have
    held and refused, and what the log says of that; who would have been refused most; and which questions would have
    been answered otherwise.

    A log does not show what clients would have done instead: who is refused here and was not then does not ask again.
    """
    try:
        snapshot = PolicyFolder.check(folder)
    except DocumentError as error:
        raise Configuration.of(error) from None
    simulation = Simulation(snapshot.policy, apart=apart)
    with opened(log, task="replaying") as lines:
        records, skipped = _replay(simulation, str(log), lines)
    if not records:
        raise Configuration(f"{log}: holds no records of decisions; expected a log of `log: {{decisions: true}}`")
    result = simulation.result(top)
    if as_json:
        head = {"version": snapshot.version_hash, "records": records, "skipped": skipped}
        print_json({**head, **dataclasses.asdict(result)})
        return
    _print(result, records, skipped)


def _replay(simulation: Simulation, name: str, lines: IO[bytes]) -> tuple[int, int]:
    """The records that were replayed, and the lines that looked like one and are no JSON: a log that is being written
    ends in half a line.
    """
    records = skipped = 0
    count = 0
    while line := lines.readline(MAX_LINE):
        count += 1
        if not _WANTED.search(line):
            continue
        try:
            value = json.loads(line)
            event = value["event"]
        except (ValueError, TypeError, KeyError, RecursionError):
            skipped += 1
            continue
        try:
            records += _feed(simulation, event, value)
        except InvalidValue as error:
            where = f"{name}:{count}: {render(error.path)}: "
            raise Configuration(f"{where}{error}") from None
    return records, skipped


def _feed(simulation: Simulation, event: str, value: dict[str, Any]) -> bool:
    """True for a record of a decision, of a refund or of a release."""
    pid = value.get("pid")
    process = pid if isinstance(pid, int) else 0
    if event in ("session", "transaction"):
        session = value.get("session")
        if isinstance(session, str):
            simulation.end(event, session, process)
        return False
    if event not in record.KINDS:
        return False  # the pattern stood inside of a text
    one = record.read(event, value)
    if isinstance(one, Asked):
        simulation.decision(one, process)
    elif isinstance(one, Refunded):
        simulation.refund(one, process)
    else:
        simulation.release(one)
    return True


# --- how it reads -------------------------------------------------------------------------------------------


def _print(result: Result, records: int, skipped: int) -> None:
    click.echo(f"{records} records from {_moment(result.first)} to {_moment(result.last)}")
    click.echo("")
    rows = [
        (
            one.limit,
            one.event or "(not in this policy)",
            *map(str, (one.checked, one.held)),
            number(one.held_seconds),
            *map(str, (one.denied, one.shadow, one.refunded)),
            *map(str, (one.logged_held, one.logged_denied, one.logged_shadow)),
        )
        for one in result.limits
    ]
    print_table(COLUMNS, rows, right=COLUMNS[2:])
    if result.subjects:
        click.echo("\nwho is refused or held most")
        subjects = [(one.limit, one.subject, str(one.denied), str(one.held)) for one in result.subjects]
        print_table(("limit", "subject", "denied", "held"), subjects, right=("denied", "held"))
    click.echo("")
    told = f"{result.newly_denied} refused that were allowed, {result.newly_allowed} allowed that were refused"
    click.echo(f"of {result.questions} questions: {told}")
    if result.examples:
        click.echo("the first of them")
        columns = ("at", "event", "session", "client", "user", "then", "now")
        print_table(columns, [_example(one) for one in result.examples])
    if result.unreleased:
        click.echo(
            f"{result.unreleased} places are held at the end: the log does not say when they were left", err=True
        )
    if skipped:
        click.echo(f"{skipped} lines are no JSON and were skipped", err=True)


def _example(one: Difference) -> tuple[str, ...]:
    return (
        _moment(one.at),
        one.event,
        one.session or "",
        one.client,
        one.user or "",
        one.logged or "allowed",
        one.simulated or "allowed",
    )


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
