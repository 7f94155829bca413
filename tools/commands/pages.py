"""What a command shows: tables and lines, once or again and again (`--watch`), for people or as JSON.

Owns the look and the repetition. A terminal gets drawn tables, a pipe aligned text; `--json` prints one document, and
with `--watch` one a line. Refuses to know what is shown.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from .tables import drawn, finite, plain, print_json, visible

# Seconds between two looks, where --watch does not say: workers report as often (smtpgate.live.INTERVAL).
EVERY: Final = 2.0
# Redis is asked each time.
SHORTEST: Final = 0.5

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table. right: the columns of numbers."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """One line. bad: what is not as it should be."""

    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown at once. value: the same for programs. status: the exit status that it means."""

    parts: Sequence[Sheet | Note]
    value: Any
    status: int = 0


def watch_option(command: F) -> F:
    """`--watch [SECONDS]`."""
    return click.option(
        "--watch",
        "every",
        is_flag=False,
        flag_value=EVERY,
        default=None,
        metavar="[SECONDS]",
        type=click.FloatRange(min=SHORTEST),
        help=f"Show it again every SECONDS ({EVERY:g}), until ^C.",
    )(command)


def show(look: Callable[[], Page], *, as_json: bool, every: float | None) -> None:
    """Print what `look` gives; with `every`, look again after so many seconds, for ever. Ends the command with the
    page's status, if that is not 0.
    """
    if every is None:
        page = look()
        if as_json:
            print_json(page.value)
        else:
            _print(page)
    elif as_json:
        page = _repeat(look, every, lambda page: click.echo(json.dumps(finite(page.value), ensure_ascii=True)))
    elif sys.stdout.isatty():
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            page = _repeat(look, every, lambda page: live.update(_rendered(page), refresh=True))
        _print(page)
    else:
        page = _repeat(look, every, _print)
    if page.status:
        raise click.exceptions.Exit(page.status)


def _repeat(look: Callable[[], Page], every: float, tell: Callable[[Page], object]) -> Page:
    """The last page, when ^C has ended it."""
    page = look()
    try:
        while True:
            tell(page)
            time.sleep(every)
            page = look()
    except KeyboardInterrupt:
        return page


def _print(page: Page) -> None:
    if sys.stdout.isatty():
        Console().print(_rendered(page))
        return
    for part in page.parts:
        for line in plain(part.columns, part.rows, right=part.right) if isinstance(part, Sheet) else [part.text]:
            click.echo(visible(line))


def _rendered(page: Page) -> RenderableType:
    return Group(
        *(
            drawn(part.columns, part.rows, right=part.right)
            if isinstance(part, Sheet)
            else Text(visible(part.text), style="bold red" if part.bad else "")
            for part in page.parts
        )
    )
