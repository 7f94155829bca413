"""`gatectl policy explain`: what happens to a session, and by which line of which file.

Owns the command's words: how facts are given, and how an explanation reads. What it says is `smtpgate.explain`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from smtpgate.clock import SystemClock
from smtpgate.document import DocumentError
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.drivers.quotas import PATIENCE
from smtpgate.drivers.store import open_store
from smtpgate.explain.facts import YEARS, Question
from smtpgate.explain.session import (
    EventSaid,
    LimitSaid,
    RouteSaid,
    at_event,
    explain_event,
    explain_route,
    without_matches,
)
from smtpgate.explain.wording import number, outcome_text, route_text, seconds, verdict_text, where_text
from smtpgate.policy.model import Event
from smtpgate.policy.store import BucketStore, StoreUnavailable
from smtpgate.policy.storeuri import MEMORY, parse_store_uri
from smtpgate.units import InvalidValue, parse_size

from .outcomes import Configuration, NoAnswer
from .proxyconf import conf_option, json_option, policies_of, read_conf
from .tables import print_json, print_table

COLUMNS: Final = ("limit", "verdict", "subject", "now", "of", "wait", "terms", "match", "where")
NUMBERS: Final = ("now", "of", "wait")
EVENTS: Final = tuple(event.value for event in Event)


def _octets(_context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_size(int(value) if value.isdecimal() else value)
    except InvalidValue as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _time(_context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.year not in YEARS:
        expected = 'a date and time with its zone, e.g. "2026-12-01T22:30:00Z"'
        raise click.BadParameter(f"{value} is no time; expected {expected}", param=parameter)
    return moment.timestamp()


@click.command(short_help="What a session meets: limits, route and pool.")
@click.option("--ip", required=True, help='The client\'s address, or "unix:".')
@click.option("--user", help="The name that the auth service returns. Left out: nobody logs in.")
@click.option("--login", help="The name that the client types; that of --user, if left out.")
@click.option("--plan", help="The plan that the auth service gives.")
@click.option("--method", help="How the client logs in: plain, cram-md5, …")
@click.option("--sender", help='MAIL FROM; "" is the null sender.')
@click.option("--rcpt", help="RCPT TO.")
@click.option(
    "--size", callback=_octets, help="Of the message: 4096, 10MiB. At eod the real one, at mail the announced."
)
@click.option("--recipients", type=click.IntRange(min=0), default=0, help="Accepted already in this message.")
@click.option("--messages", type=click.IntRange(min=0), default=0, help="Accepted already in this session.")
@click.option("--helo", help="What the client calls itself.")
@click.option("--listener", help="The listener's name; that of the configuration, if it has one only.")
@click.option("--tls/--no-tls", default=None, help="Is the connection encrypted?")
@click.option("--at", callback=_time, help="When, with its zone: 2026-12-01T22:30:00Z. Left out: now.")
@click.option("--event", "events", multiple=True, type=click.Choice(EVENTS), help="Only this one; several are fine.")
@click.option("--policies", type=click.Path(path_type=Path), help="Another folder than the configuration's: a draft.")
@click.option("--store/--no-store", default=True, help="Ask the store for balances.", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Show the limits, too, that do not match.")
@conf_option
@json_option
def explain(
    ip: str,
    user: str | None,
    login: str | None,
    rcpt: str | None,
    at: float | None,
    events: tuple[str, ...],
    policies: Path | None,
    store: bool,
    everything: bool,
    conf: Path,
    as_json: bool,
    **given: Any,
) -> None:
    """Which exemptions, overrides, limits, route and pool a session meets, from which file and line.

    Without --event: connect, auth where --user is given, mail, and rcpt, data and eod where --rcpt is. The balances
    are those of now, from the store of the configuration; nothing is taken. A verdict of `unknown` tells what is to
    be given for a better one.
    """
    loaded = read_conf(conf)
    folder = policies or policies_of(loaded, conf)
    try:
        snapshot = PolicyFolder.check(folder, backend=loaded.backend.settings)
    except DocumentError as error:
        raise Configuration.of(error) from None
    clock = SystemClock()
    if given["listener"] is None and len(loaded.listeners) == 1:
        given["listener"] = loaded.listeners[0].name
    question = Question(ip=ip, user=user, login=login, rcpt=rcpt, **given)
    facts = question.facts(clock.now() if at is None else at)
    chosen = [Event(name) for name in events] or question.events()
    with ExitStack() as stack:
        asked = _opened(loaded.store, stack) if store else None
        try:
            said = [
                explain_event(snapshot.policy, event, at_event(facts, event), asked, clock, host=loaded.server_name)
                for event in chosen
            ]
        except StoreUnavailable as error:
            public = parse_store_uri(loaded.store).public
            raise NoAnswer(f"{public}: {error}; --no-store leaves balances out") from None
    route = explain_route(snapshot, at_event(facts, Event.MAIL if rcpt is None else Event.RCPT))
    if as_json:
        print_json(_as_dict(snapshot.version_hash, said, route, everything))
        return
    _print(said, route, everything)
    if asked is None and store:
        click.echo("balances: memory:// is counted by each process for itself, and nobody else can see it", err=True)


def _opened(uri: str, stack: ExitStack) -> BucketStore | None:
    if parse_store_uri(uri).scheme == MEMORY:
        return None
    store = open_store(uri, clock=SystemClock(), timeout=PATIENCE)
    close = getattr(store, "close", None)
    if close is not None:
        stack.callback(close)
    return store


# --- how it reads -------------------------------------------------------------------------------------------


def _as_dict(version: str, said: Sequence[EventSaid], route: RouteSaid, everything: bool) -> dict[str, Any]:
    events = []
    for one in said:
        shown = one.limits if everything else without_matches(one.limits)
        events.append({**dataclasses.asdict(one), "limits": [dataclasses.asdict(limit) for limit in shown]})
    return {"version": version, "events": events, "route": dataclasses.asdict(route)}


def _print(said: Sequence[EventSaid], route: RouteSaid, everything: bool) -> None:
    for one in said:
        shown = list(one.limits) if everything else without_matches(one.limits)
        click.echo(f"{one.event}: {outcome_text(one)}")
        if shown:
            print_table(COLUMNS, [_row(limit) for limit in shown], right=NUMBERS)
        click.echo("")
    click.echo(f"route: {route_text(route)}")


def _row(said: LimitSaid) -> tuple[str, ...]:
    return (
        said.limit,
        verdict_text(said),
        said.key if said.subject is None else said.subject,
        "" if said.now is None else number(said.now),
        "" if said.of is None else number(said.of),
        "" if not said.wait else seconds(said.wait),
        said.terms,
        said.match,
        where_text(said),
    )
