"""`gatectl drain` and `undrain`: an operator's order that a backend gets no new sessions, for all nodes at once.

Owns the commands' words, and the look whether there is such a backend. Each worker takes the order up with its next
report (`drivers.livepublisher`), and goes on obeying it whatever the policies are edited to. Exit status: see
`boards`.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from smtpgate.drivers.liveboard import LiveBoard
from smtpgate.explain import fleet
from smtpgate.live import INTERVAL, STALE, Report
from smtpgate.policy.store import StoreUnavailable
from smtpgate.units import InvalidValue, parse_name

from .boards import board_of, nobody
from .outcomes import NO
from .proxyconf import DEFAULT_CONF, conf_option, json_option
from .tables import print_json

# Seconds between two looks at whether the sessions have ended.
LOOK: Final = INTERVAL / 2
# Seconds that completion waits for the store: whoever presses TAB does not wait longer.
IMPATIENT: Final = 0.3

Place = tuple[str, str]


class BackendName(click.ParamType):  # type: ignore[type-arg] # generic in some versions of click
    """POOL/BACKEND, and what there is of it for completion."""

    name = "POOL/BACKEND"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        pool, slash, backend = value.partition("/")
        try:
            if not slash:
                raise InvalidValue("has no slash", "POOL/BACKEND, as `gatectl pools` shows them")
            return parse_name(pool), parse_name(backend)
        except InvalidValue as error:
            self.fail(f"{value!r} {error}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with board_of(ctx.params.get("conf") or DEFAULT_CONF, IMPATIENT) as board:
                names = [f"{pool}/{backend}" for pool, backend in _backends(board.reports())]
        except click.ClickException:
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command(short_help="Give a backend no new sessions, on all nodes.")
@click.argument("backend", metavar="POOL/BACKEND", type=BackendName())
@click.option("--by", metavar="NAME", help="Who orders it.  [default: you, at this machine]")
@click.option(
    "--wait",
    is_flag=False,
    flag_value=300.0,
    default=None,
    metavar="[SECONDS]",
    type=click.FloatRange(min=0.0),
    help="Wait until no session has it any more, at most SECONDS (300).",
)
@click.option("--force", is_flag=True, help="Also where no worker knows of such a backend.")
@conf_option
@json_option
def drain(backend: Place, by: str | None, wait: float | None, force: bool, conf: Path, as_json: bool) -> None:
    """Give the backend POOL/BACKEND no new sessions, in any worker of any node, until `gatectl undrain`.

    Workers take it up within 4 s. Sessions that have it keep it until they end; connections that rest are closed.
    The order is kept in the store: it outlasts edits of the policies and restarts. With the last backend of a pool
    drained, clients get the pool's `unavailable`. With --wait the exit status is 1 where sessions still have it when
    the time is up, and where no worker reports.
    """
    pool, name = backend
    with board_of(conf) as board:
        reports = board.reports()
        if not force:
            _known(backend, _backends(reports))
        order = board.drain(pool, name, by or _operator())
        if not reports:
            click.echo(f"{nobody(board).text}; it is taken up when one starts", err=True)
        left = None if wait is None else _sessions_left(board, backend, wait)
    if as_json:
        print_json({**asdict(order), "sessions": left})
    else:
        click.echo(f"{pool}/{name}: {fleet.drained(order)}{'' if wait is None else _told(left)}")
    if wait is not None and left != 0:
        raise click.exceptions.Exit(NO)


@click.command(short_help="Take a drain back.")
@click.argument("backend", metavar="POOL/BACKEND", type=BackendName())
@conf_option
@json_option
def undrain(backend: Place, conf: Path, as_json: bool) -> None:
    """Let the backend POOL/BACKEND have new sessions again, as the policies say. Workers take it up within 4 s.

    It begins with `slow_start`, where its pool has one. The exit status is 1 where nobody had drained it.
    """
    pool, name = backend
    with board_of(conf) as board:
        found = board.undrain(pool, name)
    if as_json:
        print_json({"pool": pool, "backend": name, "undrained": found})
    elif found:
        click.echo(f"{pool}/{name}: no longer drained")
    if not found:
        message = f"{pool}/{name} is not drained by an operator; `gatectl pools` shows what it is"
        raise click.ClickException(message)


def _known(backend: Place, known: Sequence[Place]) -> None:
    """Ends the command where workers have reported, and none of them has such a backend."""
    if known and backend not in known:
        names = ", ".join(f"{pool}/{name}" for pool, name in known)
        raise click.UsageError(
            f"{backend[0]}/{backend[1]}: no worker knows of it; expected one of {names} (or --force)"
        )


def _backends(reports: Sequence[Report]) -> list[Place]:
    return [(pool.name, one.name) for pool in fleet.pools(reports) for one in pool.backends]


def _told(left: int | None) -> str:
    if left is None:
        return "; no worker reports, so it is not known whether a session still has it"
    return f"; {left} sessions still have it" if left else "; no session has it any more"


def _sessions_left(board: LiveBoard, backend: Place, seconds: float) -> int | None:
    """Sessions that still have the backend when there are none, or the time is up; only what was reported after the
    order counts. None where nobody has reported for STALE seconds, be it that the store is away: the order is given.
    """
    began = heard = time.monotonic()
    while True:
        time.sleep(LOOK)
        now = time.monotonic()
        reports = _reports(board)
        views = [
            one
            for report in reports
            for pool in report.pools
            for one in pool.backends
            if (pool.name, one.name) == backend
        ]
        left = sum(one.connections for one in views)
        obeyed = all(one.state in ("drain", "off") for one in views)
        passed = now - began
        if not reports:
            if now - heard >= STALE or passed >= seconds:
                return None
            continue
        heard = now
        if (obeyed and not left) or passed >= seconds:
            return left
        if sys.stderr.isatty():
            click.echo(f"\r{left} sessions, {passed:.0f} s \x1b[K", err=True, nl=False)


def _reports(board: LiveBoard) -> Sequence[Report]:
    try:
        return board.reports()
    except StoreUnavailable:
        return ()


def _operator() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's, which may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
