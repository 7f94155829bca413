"""`gatectl user …`: the users of the auth service, in whatever store they are.

Owns the commands' words, where a password comes from, and the exit status: 0 done, 1 the answer is no (no such user,
a wrong password, a store that takes no changes), 2 the command or the configuration is wrong, 3 a store gave no
answer. A password is asked for, or read as one line from a pipe, and never taken from the command line, where
everybody on the machine sees it. Refuses to know how stores keep users.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from authsvc import config
from authsvc.answer.contract import is_user_name
from authsvc.proof import crammd5, schemes
from authsvc.proof.passwords import Passwords
from authsvc.startup import CONF_VARIABLE
from authsvc.users.model import NotWritableError, StoreDownError, User, WritableStore
from authsvc.users.sources import Source
from authsvc.users.sqlusers import SqlUsers
from authsvc.users.stores import open_writable
from authsvc.users.userrecord import EXPECTED_NAME, RecordError
from smtpgate.clock import SystemClock
from smtpgate.document import DocumentError
from smtpgate.units import InvalidValue, parse_name, show

from .outcomes import Configuration, NoAnswer
from .places import default_conf


class Stores:
    """The stores of a configuration, opened as they are needed."""

    def __init__(self, conf: Path, chosen: int | None) -> None:
        try:
            loaded = config.load(conf, os.environ)
        except DocumentError as error:
            raise Configuration(str(error)) from None
        self._sources: Sequence[Source] = loaded.users
        if chosen is not None and not 1 <= chosen <= len(self._sources):
            listed = ", ".join(f"{number} {source}" for number, source in enumerate(self._sources, start=1))
            raise click.UsageError(f"--store {chosen}: there is no such store; expected one of: {listed}")
        self._chosen = chosen
        # The number of the first of `all`.
        self.first = chosen or 1
        self.passwords = partial(Passwords, loaded.methods.argon2id, plain=loaded.methods.plain_passwords)
        self._plain = loaded.methods.plain_passwords

    def all(self) -> list[tuple[Source, WritableStore]]:
        """In the order of the configuration; the one of --store alone, where that is given."""
        sources = self._sources if self._chosen is None else [self._sources[self._chosen - 1]]
        clock = SystemClock()
        try:
            stores = [(source, open_writable(source, clock, plain=self._plain)) for source in sources]
        except ValueError as error:
            raise Configuration(str(error)) from None
        for _, store in stores:
            if isinstance(store, SqlUsers):
                click.get_current_context().call_on_close(store.close)
        return stores

    def holding(self, name: str) -> tuple[Source, WritableStore, User]:
        """The first store with that user, as the service would find it; status 1 if there is none."""
        for source, store in self.all():
            user = asked(source, partial(store.find, name))
            if user is not None:
                return source, store, user
        raise click.ClickException(f"there is no user {show(name)}")


def asked(source: Source, question: Callable[[], Any]) -> Any:
    """What the question gives; its failures as this command's."""
    try:
        return question()
    except StoreDownError as error:
        raise NoAnswer(f"{source}: {error}") from None
    except NotWritableError as error:
        raise click.ClickException(f"{source}: {error}") from None


def _named(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """For --plan and --pool."""
    if value is None:
        return None
    try:
        return parse_name(value)
    except InvalidValue as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _user_name(_context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not is_user_name(value):
        raise click.BadParameter(f"{show(value)} cannot be a user's name; expected {EXPECTED_NAME}", param=parameter)
    return value


name_argument = click.argument("name", callback=_user_name)
cram_option = click.option(
    "--cram-md5/--no-cram-md5",
    "cram",
    default=None,
    help="Keep what AUTH CRAM-MD5 needs, too. Whoever steals that can log in with it.",
)


@click.group()
@click.option(
    "-c",
    "--config",
    "--conf",
    "conf",
    type=click.Path(path_type=Path),
    envvar=CONF_VARIABLE,
    default=default_conf("authsvc.yaml"),
    show_default="conf/authsvc.yaml of a checkout, else /etc/smtpgate/authsvc.yaml",
    help=f"The auth service's configuration. {CONF_VARIABLE} names another one, too.",
)
@click.option("--store", type=int, help="Only this one of `users:`, counted from 1.")
@click.pass_context
def user(context: click.Context, conf: Path, store: int | None) -> None:
    """The users of the auth service."""
    # Made when a command asks for it: `hash` needs no configuration.
    context.obj = partial(Stores, conf, store)


@user.command()
@name_argument
@click.option("--plan", callback=_named, help="A name that limits and routes can match.")
@click.option("--pool", callback=_named, help="A pool of policies/ that wins over its routes.")
@click.option("--disabled", is_flag=True, help="As if there were no such user, until `enable`.")
@cram_option
@click.pass_obj
def add(
    stores: Callable[[], Stores], name: str, plan: str | None, pool: str | None, disabled: bool, cram: bool
) -> None:
    """Add the user NAME to the first store, or to that of --store."""
    opened = stores()
    known = opened.all()
    for source, store in known:
        if asked(source, partial(store.find, name)) is not None:
            raise click.ClickException(
                f"{show(name)} is there already, in {source}; `gatectl user passwd` changes it"
            )
    source, store = known[0]
    made = User(name, _forms(opened.passwords(), read_password(), bool(cram)), plan, pool, enabled=not disabled)
    asked(source, lambda: store.put(made))
    click.echo(f"added {show(name)} to {source}")


@user.command(short_help="Give a user another password.")
@name_argument
@cram_option
@click.pass_obj
def passwd(stores: Callable[[], Stores], name: str, cram: bool | None) -> None:
    """Give NAME another password. All that it had before are gone."""
    opened = stores()
    source, store, found = opened.holding(name)
    if cram is None:
        cram = any(form.startswith(crammd5.PREFIX) for form in found.passwords)
    forms = _forms(opened.passwords(), read_password(), cram)
    asked(source, lambda: store.put(replace(found, passwords=forms)))
    click.echo(f"changed {show(name)} in {source}")


@user.command(short_help="Let a user log in no more.")
@name_argument
@click.pass_obj
def disable(stores: Callable[[], Stores], name: str) -> None:
    """Treat NAME as if there were no such user."""
    _enable(stores(), name, False)


@user.command()
@name_argument
@click.pass_obj
def enable(stores: Callable[[], Stores], name: str) -> None:
    """Let NAME log in again."""
    _enable(stores(), name, True)


@user.command(short_help="Remove a user.")
@name_argument
@click.pass_obj
def remove(stores: Callable[[], Stores], name: str) -> None:
    """Remove NAME from the first store that has it."""
    source, store, found = stores().holding(name)
    asked(source, lambda: store.remove(found.name))
    click.echo(f"removed {show(name)} from {source}")


@user.command("list", short_help="Print the users.")
@click.pass_obj
def list_users(stores: Callable[[], Stores]) -> None:
    """Print each user: store, name, enabled or disabled, plan, pool, schemes of the passwords; tabs in between."""
    opened = stores()
    for number, (source, store) in enumerate(opened.all(), start=opened.first):
        for name in asked(source, partial(_sorted_names, store)):
            found = asked(source, partial(_find_or_tell, source, store, name))
            if found is not None:
                click.echo("\t".join([str(number), *_columns(found)]))


@user.command(short_help="Is this the password?")
@name_argument
@click.pass_obj
def verify(stores: Callable[[], Stores], name: str) -> None:
    """Ask for NAME's password and tell whether it is right, as the service would."""
    opened = stores()
    source, _, found = opened.holding(name)
    form = opened.passwords().verify(found.passwords, read_password(confirm=False))
    if form is None:
        raise click.ClickException(f"the password is not that of {show(name)} in {source}")
    if not found.enabled:
        raise click.ClickException(f"the password is right, but {show(name)} is disabled in {source}")
    click.echo(f"the password is right, by {schemes.parse(form).scheme}, in {source}")


@user.command(short_help="Make the table in SQL stores.")
@click.pass_obj
def init(stores: Callable[[], Stores]) -> None:
    """Make the table smtpgate_users in SQL stores without a query of their own."""
    made = 0
    for source, store in stores().all():
        if isinstance(store, SqlUsers) and store.is_own:
            asked(source, store.make_table)
            click.echo(f"smtpgate_users is in {source}")
            made += 1
    if not made:
        raise click.ClickException("no SQL store of the configuration is without a query of its own")


@user.command("hash", short_help="Print the hashes of a password.")
def hash_password() -> None:
    """Ask for a password and print its hashes, as two lines for a user in conf/users.yaml.

    A pipe may give the password as one line: echo secret | gatectl user hash
    """
    octets = read_password()
    click.echo(f'password: "{_made(Passwords(), octets)}"')
    click.echo(f'cram_md5: "{crammd5.make(octets)}"')


def read_password(*, confirm: bool = True) -> bytes:
    """From the terminal, unseen and twice, or one line from a pipe."""
    if sys.stdin.isatty():
        text = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
        password: bytes = text.encode("utf-8")
    else:
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")
    if not password:
        raise click.ClickException("no password given; expected one line of text")
    return password


def _made(passwords: Passwords, password: bytes) -> str:
    try:
        return passwords.make(password)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _forms(passwords: Passwords, password: bytes, cram: bool) -> tuple[str, ...]:
    made = _made(passwords, password)
    return (made, crammd5.make(password)) if cram else (made,)


def _enable(stores: Stores, name: str, enabled: bool) -> None:
    source, store, found = stores.holding(name)
    asked(source, lambda: store.put(replace(found, enabled=enabled)))
    click.echo(f"{'enabled' if enabled else 'disabled'} {show(name)} in {source}")


def _sorted_names(store: WritableStore) -> list[str]:
    return sorted(store.names())


def _find_or_tell(source: Source, store: WritableStore, name: str) -> User | None:
    """One record that makes no user is told of, and does not hide the others."""
    try:
        return store.find(name)
    except RecordError as error:
        click.echo(f"{source}: {show(name)}: {error}", err=True)
        return None


def _columns(found: User) -> list[str]:
    return [
        found.name,
        "enabled" if found.enabled else "disabled",
        found.plan or "-",
        found.pool or "-",
        ",".join(_scheme(form) for form in found.passwords) or "-",
    ]


def _scheme(form: str) -> str:
    try:
        return schemes.parse(form).scheme
    except schemes.StoredFormError:
        return "unknown"
