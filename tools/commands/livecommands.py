"""`gatectl status`, `sessions`, `pools`, `top` and `denials`: what the workers of all nodes tell of themselves.

Owns the commands' words; the tables are `livepages`'. What is shown is some seconds old at most: workers report every
2 s. Exit status: see `boards`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from smtpgate.units import UNIX, Network

from . import livepages
from .boards import board_of
from .pages import show, watch_option
from .proxyconf import conf_option, json_option

DEFAULT_ROWS: Final = 50

F = TypeVar("F", bound=Callable[..., Any])


def most_option(command: F) -> F:
    """`--most ROWS`."""
    return click.option(
        "--most",
        type=click.IntRange(min=1),
        default=DEFAULT_ROWS,
        show_default=True,
        help="Rows at most.",
    )(command)


class ClientChoice(click.ParamType):  # type: ignore[type-arg] # generic in some versions of click
    """An address, a network, or "unix:"."""

    name = "ADDRESS|NETWORK"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network | str:
        if value == UNIX or not isinstance(value, str):
            return value  # type: ignore[no-any-return] # converted before
        try:
            return ipaddress.ip_network(value, strict=False)
        except ValueError:
            self.fail(f"{value!r} is not an address; expected e.g. 192.0.2.7, 2001:db8::/64 or unix:", param, ctx)


CLIENT: Final = ClientChoice()


@click.command(short_help="Is all well? Nodes, versions, policies, rates.")
@click.option("--workers", is_flag=True, help="A row for each worker process, not for each node.")
@watch_option
@conf_option
@json_option
def status(workers: bool, every: float | None, conf: Path, as_json: bool) -> None:
    """Is all well? Nodes, versions, policies, store, rates; and what is not as it should be, a line each.

    The exit status is 1 where something is wrong: a worker that has said nothing for 10 s, policies that were
    rejected or differ between workers, a store that is away, a backend that is down. A rate is that of the last
    minute; MEMORY is that of all workers of a node.
    """
    with board_of(conf) as board:
        show(lambda: livepages.status(board, workers), as_json=as_json, every=every)


@click.command(short_help="The sessions that are open now.")
@click.option("--user", metavar="NAME", help="Only of this user: a name, or with * ? [a-z].")
@click.option("--client", type=CLIENT, help="Only from there.")
@click.option("--listener", metavar="NAME", help="Only of this listener.")
@click.option("--backend", metavar="NAME", help="Only of those that have this backend now.")
@click.option(
    "--most",
    "--limit",
    "most",
    type=click.IntRange(min=1),
    default=DEFAULT_ROWS,
    show_default=True,
    help="Rows at most.",
)
@watch_option
@conf_option
@json_option
def sessions(
    user: str | None,
    client: Network | str | None,
    listener: str | None,
    backend: str | None,
    most: int,
    every: float | None,
    conf: Path,
    as_json: bool,
) -> None:
    """The sessions that are open now, on all nodes, the newest first.

    FOR is how long each has lasted, MAILS how many transactions it has begun. A worker tells of its 500 oldest
    sessions; a last line says so where there are more.
    """
    chosen = livepages.Choice(user=user, client=client, listener=listener, backend=backend)
    with board_of(conf) as board:
        show(lambda: livepages.sessions(board, chosen, most), as_json=as_json, every=every)


@click.command(short_help="Pools and their backends.")
@watch_option
@conf_option
@json_option
def pools(every: float | None, conf: Path, as_json: bool) -> None:
    """Pools and their backends, as all workers together see them.

    STATE is up, down (probes fail), ejected (sessions failed), drain or off; workers that do not agree are counted.
    CONNS are sessions that have a connection, IDLE connections that are kept, WAITING sessions in the pool's queue.
    WEIGHT is that of the policy.
    """
    with board_of(conf) as board:
        show(lambda: livepages.pools(board), as_json=as_json, every=every)


@click.command(short_help="Who is refused or held most, by which rule.")
@click.option("--limit", metavar="NAME", help="Only of this limit: a name, or with * ? [a-z].")
@click.option(
    "--by",
    type=click.Choice(["both", "denied", "held"]),
    default="both",
    show_default=True,
    help="What puts a subject at the top.",
)
@most_option
@watch_option
@conf_option
@json_option
def top(limit: str | None, by: str, most: int, every: float | None, conf: Path, as_json: bool) -> None:
    """The subjects that limits have refused or held most often, with the line of the limit.

    Each worker counts since it began, or since SINCE; it forgets who has not been refused for an hour, and tells of
    its first 50.
    """
    with board_of(conf) as board:
        show(lambda: livepages.top(board, limit, by, most), as_json=as_json, every=every)


@click.command(short_help="The latest refusals by limits.")
@click.option("--limit", metavar="NAME", help="Only by this limit: a name, or with * ? [a-z].")
@click.option("--user", metavar="NAME", help="Only of this user: a name, or with * ? [a-z].")
@click.option("--client", type=CLIENT, help="Only from there.")
@most_option
@watch_option
@conf_option
@json_option
def denials(
    limit: str | None,
    user: str | None,
    client: Network | str | None,
    most: int,
    every: float | None,
    conf: Path,
    as_json: bool,
) -> None:
    """The latest refusals by limits, the newest first: who, at what, by which line, and when it could pass again.

    Each worker tells of its last 100; the log has all of them, as `denied`. In shadow: a limit that only watches
    would have refused.
    """
    chosen = livepages.Choice(user=user, client=client, limit=limit)
    with board_of(conf) as board:
        show(lambda: livepages.denials(board, chosen, most), as_json=as_json, every=every)
