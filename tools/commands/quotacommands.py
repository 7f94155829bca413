"""`gatectl quota …`: what the limits have counted, read from the store that the proxies share.

Owns the commands' words and their columns. Exit status: 0 done, 1 nothing there, 2 the command or the configuration
is wrong (memory:// among that: its counts are in the proxy's own processes), 3 the store gave no answer.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from smtpgate.drivers.quotas import Banned, Bucket, Item, NotShared, Places, Quotas, Seen
from smtpgate.explain.wording import number, rate, seconds
from smtpgate.policy.store import StoreUnavailable

from .outcomes import Configuration, NoAnswer
from .proxyconf import conf_option, json_option, read_conf
from .tables import print_json, print_table

# Rows of a list. A store of a busy site holds a hundred thousand buckets, and nobody reads them all.
DEFAULT_MOST: Final = 1000

KINDS: Final = {Bucket: "bucket", Places: "places", Seen: "seen", Banned: "ban"}
COLUMNS: Final = ("kind", "limit", "subject", "now", "of", "rate", "full in", "denied", "note")
NUMBERS: Final = ("now", "of", "rate", "full in", "denied")

Opened = Callable[[], Quotas]


@click.group()
@conf_option
@click.pass_context
def quota(context: click.Context, conf: Path) -> None:
    """Balances, places and bans in the store, as of now.

    A LIMIT is a name of policies/, a SUBJECT is written as `quota list` shows it: ann@example.com, 192.0.2.7,
    2001:db8::/64, "192.0.2.7|ann".
    """

    def opened() -> Quotas:
        try:
            quotas = Quotas(read_conf(conf).store)
        except NotShared as error:
            raise Configuration(f"{conf}: store: {error}; expected a store that is shared, e.g. redis://") from None
        context.call_on_close(quotas.close)
        return quotas

    context.obj = opened


@quota.command("list")
@click.option("--limit", default="*", show_default=True, help="Only limits that fit: a name, or with * ? [a-z].")
@click.option("--subject", default="*", show_default=True, help="Only subjects that fit.")
@click.option("--most", type=click.IntRange(min=1), default=DEFAULT_MOST, show_default=True, help="Rows at most.")
@json_option
@click.pass_obj
def list_quotas(opened: Opened, limit: str, subject: str, most: int, as_json: bool) -> None:
    """Everything that is counted, one row each.

    A subject without a row has a full bucket and holds no place. LIMIT/after counts the denials of an escalation.
    """
    with _asking(opened) as quotas:
        found = list(itertools.islice(quotas.find(limit, subject), most + 1))
    items = sorted(found[:most], key=_order)
    if as_json:
        print_json([_as_dict(item) for item in items])
    else:
        _print(items)
    if len(found) > most:
        note = f"there are more than {most}: --limit and --subject choose, --most shows more"
        click.echo(note, err=True)


@quota.command(short_help="What a limit has counted of a subject.")
@click.argument("limit")
@click.argument("subject")
@json_option
@click.pass_obj
def show(opened: Opened, limit: str, subject: str, as_json: bool) -> None:
    """What LIMIT has counted of SUBJECT: bucket, escalation, places, values of `distinct`, ban."""
    with _asking(opened) as quotas:
        items = quotas.of(limit, subject)
    if as_json:
        print_json([_as_dict(item) for item in items])
    elif items:
        _print(items)
    if not items:
        message = f"nothing is counted for {subject} of {limit}: its bucket is full, and it holds no place"
        raise click.ClickException(message)


@quota.command(short_help="Forget it: a full bucket, no places held.")
@click.argument("limit")
@click.argument("subject")
@json_option
@click.pass_obj
def reset(opened: Opened, limit: str, subject: str, as_json: bool) -> None:
    """Forget what LIMIT has counted of SUBJECT: a full bucket, no denials, no places held.

    Sessions that hold a place hold it again when they renew it, within 20 s. A ban stays: see `unban`.
    """
    with _asking(opened) as quotas:
        keys = quotas.reset(limit, subject)
    if as_json:
        print_json({"limit": limit, "subject": subject, "keys": keys})
    elif keys:
        click.echo(f"reset {limit} of {subject}")
    if not keys:
        raise click.ClickException(f"nothing was counted for {subject} of {limit}")


@quota.command(short_help="Put tokens into a bucket.")
@click.argument("limit")
@click.argument("subject")
@click.argument("tokens", type=click.FloatRange(min=0, min_open=True))
@json_option
@click.pass_obj
def grant(opened: Opened, limit: str, subject: str, tokens: float, as_json: bool) -> None:
    """Put TOKENS into the bucket of SUBJECT, as far as they fit below its burst.

    A bucket never holds more than its burst. Whoever shall have more for some time gets an override with `until` in
    policies/, which every process takes within 2 s.
    """
    if not math.isfinite(tokens):
        raise click.BadParameter("expected a number of tokens", param_hint="TOKENS")
    with _asking(opened) as quotas:
        changed = quotas.grant(limit, subject, tokens)
    if changed is None:
        raise click.ClickException(f"{limit} has no bucket of {subject}: it is full already")
    before, after = changed
    if as_json:
        print_json({"before": _as_dict(before), "after": _as_dict(after)})
        return
    click.echo(f"{limit} of {subject}: {number(before.tokens)} -> {number(after.tokens)} of {number(after.burst)}")
    if before.tokens + tokens > after.burst:
        click.echo("the rest did not fit: an override in policies/ raises burst and rate", err=True)


@quota.command()
@click.argument("subject")
@json_option
@click.pass_obj
def unban(opened: Opened, subject: str, as_json: bool) -> None:
    """Lift the ban of SUBJECT, whichever limit made it."""
    with _asking(opened) as quotas:
        lifted = quotas.unban(subject)
    if as_json:
        print_json({"subject": subject, "lifted": lifted})
    elif lifted:
        click.echo(f"lifted the ban of {subject}")
    if not lifted:
        raise click.ClickException(f"{subject} is not banned")


@contextmanager
def _asking(opened: Opened) -> Iterator[Quotas]:
    quotas = opened()
    try:
        yield quotas
    except StoreUnavailable as error:
        raise NoAnswer(f"{quotas.public}: {error}") from None


def _order(item: Item) -> tuple[str, str, str]:
    return item.limit, item.subject, KINDS[type(item)]


def _as_dict(item: Item) -> dict[str, Any]:
    return {"kind": KINDS[type(item)], **dataclasses.asdict(item)}


def _print(items: Sequence[Item]) -> None:
    print_table(COLUMNS, [_row(item) for item in items], right=NUMBERS)


def _row(item: Item) -> tuple[str, ...]:
    head = (KINDS[type(item)], item.limit, item.subject)
    match item:
        case Bucket():
            now, burst = number(item.tokens), number(item.burst)
            return (*head, now, burst, rate(item.rate), seconds(item.full_in), str(item.denied), "")
        case Places():
            return (*head, str(item.taken), "", "", "", "", f"the first ends in {seconds(item.next_in)}")
        case Seen():
            return (*head, str(item.values), "", "", "", "", "")
        case Banned():
            return (*head, "", "", "", "", "", f"{seconds(item.rest)} left, by {item.source}")
