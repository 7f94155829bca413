"""Users in a database: a row each, with the columns of authsvc.users.userrecord, through SQLAlchemy Core.

Owns the statements' way to the database: parameters always bound, one bounded pool, one deadline for a look-up
whatever it waits for, and what a row means. Waiting lets other greenlets run where gevent has patched the process
before this is imported: psycopg then waits with select, PyMySQL is Python throughout. SQLite waits for no network;
a lock that another program holds is waited for here and not in its C code. Connects at the first look-up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import sqlalchemy
from gevent import Timeout
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

from authsvc.users import sqldrivers
from authsvc.users.model import NotWritableError, StoreDownError, User
from authsvc.users.sources import OWN, SqlSource
from authsvc.users.userrecord import RecordError, join_forms, read_record, write_record
from smtpgate.clock import Clock, Deadline

# Seconds: for a connection to be made, for the server to work on one statement, and for a connection of the pool.
CONNECT_TIMEOUT: Final = 2.0
STATEMENT_TIMEOUT: Final = 2.0
# Seconds for one look-up with all that it waits for: within the 10 s that our proxy waits for an answer.
DEADLINE: Final = CONNECT_TIMEOUT + STATEMENT_TIMEOUT
# Connections a process: with 4 workers 16 of PostgreSQL's default 100. A look-up takes one for a millisecond or two.
MAX_CONNECTIONS: Final = 4
# Seconds between two tries at an SQLite database that is locked.
LOCKED_INTERVAL: Final = 0.02
# Rows that `names` fetches at a time.
FETCH: Final = 1000

T = TypeVar("T")


class SqlUsers:
    """A RemoteStore and WritableStore. Raises ValueError, without the URL's secrets, for one that is not readable."""

    def __init__(self, source: SqlSource, clock: Clock) -> None:
        self._statements = source.statements
        self._query = text(source.statements.query)
        self._clock = clock
        self._engine = _engine(source)
        # Their names are compared without regard to case, accents and trailing spaces, by default.
        self._needs_name = self._engine.dialect.name in ("mysql", "mariadb")

    @property
    def is_own(self) -> bool:
        """Whether the table is smtpgate_users."""
        return self._statements == OWN

    def find(self, login: str) -> User | None:
        """See UserStore.find. What the database finds equal is found."""
        return self._run(lambda connection: self._look_up(connection, login))

    def ping(self) -> None:
        """See RemoteStore.ping."""
        self._run(lambda connection: connection.execute(text("SELECT 1")).scalar())

    def upgrade(self, before: User, after: User) -> bool:
        """See UpgradableStore.upgrade. By the statement of that name alone: False without one."""
        statement = self._statements.upgrade
        if statement is None:
            return False
        values = {"login": before.name, "password": join_forms(after), "old": join_forms(before)}

        def upgrade(connection: Connection) -> bool:
            return self._look_up(connection, before.name) == before and _execute(connection, statement, values) == 1

        return self._run(upgrade)

    def put(self, user: User) -> None:
        """See WritableStore.put. Nothing is changed if the statements cannot keep all of the user."""
        add, change = self._statement("add"), self._statement("change")
        values = {"login": user.name, **write_record(user)}

        def put(connection: Connection) -> None:
            there = self._look_up(connection, user.name) is not None
            changed = _execute(connection, change if there else add, values)
            if changed != 1:
                raise NotWritableError(f"the statement changed {changed} rows; expected 1")
            _compare(user, self._look_up(connection, user.name))

        self._run(put)

    def remove(self, name: str) -> bool:
        """See WritableStore.remove."""
        statement = self._statement("remove")
        return self._run(lambda connection: _execute(connection, statement, {"login": name}) > 0)

    def names(self) -> Iterator[str]:
        """See WritableStore.names. All are fetched at once, so that nobody's pace holds a connection."""
        statement = self._statement("list")
        return iter(self._run(lambda connection: [str(name) for name in connection.scalars(text(statement))]))

    def make_table(self) -> None:
        """Make the table of `sources.OWN`, if it is not there. Raises StoreDownError, NotWritableError."""
        if not self.is_own:
            raise NotWritableError("the store has a query of its own, so that its table is not ours to make")
        try:
            sqldrivers.make_file(self._engine.url)
        except OSError as error:
            raise NotWritableError(f"the database cannot be made: {error.strerror}") from None
        self._run(lambda connection: sqldrivers.METADATA.create_all(connection))

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._engine.dispose()

    def _statement(self, name: str) -> str:
        statement: str | None = getattr(self._statements, name)
        if statement is None:
            raise NotWritableError(f"no statement `{name}` is configured beside the store's query")
        return statement

    def _look_up(self, connection: Connection, login: str) -> User | None:
        with connection.execute(self._query, {"login": login}) as result:
            rows = result.mappings().fetchmany(2)
        if not rows:
            return None
        if len(rows) > 1:
            raise RecordError("the query gives several rows for one login; expected one")
        row: Mapping[str, object] = dict(rows[0])
        if self._needs_name and "name" not in row:
            raise RecordError(
                "the query gives no column `name`; MariaDB finds Test for test, and limits have to know who it is"
            )
        return read_record(login, row)

    def _run(self, work: Callable[[Connection], T]) -> T:
        """`work` in one transaction. Raises StoreDownError, and what `work` raises beside SQLAlchemy's errors."""
        # For what a server's own limit cannot end: one that is stopped, or whose packets are lost. Not an Exception:
        # SQLAlchemy then knows that the connection is in the middle of something, and throws it away.
        timeout = Timeout(DEADLINE)
        try:
            with timeout, _translated():
                return self._until_unlocked(work)
        except Timeout as fired:
            if fired is not timeout:
                raise
            raise StoreDownError(f"no answer in {DEADLINE:g} s") from None

    def _until_unlocked(self, work: Callable[[Connection], T]) -> T:
        deadline = Deadline(self._clock, STATEMENT_TIMEOUT)
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not _is_locked(error) or deadline.expired:
                    raise
            self._clock.sleep(LOCKED_INTERVAL)


def _engine(source: SqlSource) -> Engine:
    try:
        url = sqldrivers.prepared(make_url(source.url))
        if source.password is not None:
            url = url.set(password=source.password)
        engine = sqlalchemy.create_engine(
            url,
            pool_size=MAX_CONNECTIONS,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT,
            # A connection that the server closed meanwhile costs a new one, not a failed login.
            pool_pre_ping=True,
            # Parameters are names of users and hashes of passwords.
            hide_parameters=True,
            connect_args=sqldrivers.connect_args(url, CONNECT_TIMEOUT, STATEMENT_TIMEOUT),
        )
    except (SQLAlchemyError, ValueError, TypeError):
        # The text may quote the URL.
        raise ValueError(f"{source} cannot be read; expected e.g. sqlite:///users.db") from None
    sqldrivers.resolve_names(engine)
    return engine


def _execute(connection: Connection, statement: str, values: Mapping[str, Any]) -> int:
    """The number of rows that a statement changed. It takes of the values those that it names."""
    clause = text(statement)
    named = clause.compile().params
    return connection.execute(clause, {name: value for name, value in values.items() if name in named}).rowcount


def _compare(wanted: User, found: User | None) -> None:
    """Raises NotWritableError where a statement left something out, such as `enabled`."""
    if found is None:
        raise NotWritableError("the query does not find what the statement wrote")
    if sorted(found.passwords) != sorted(wanted.passwords):
        raise NotWritableError("the statements do not keep all passwords of the user; cram_md5 needs its own column")
    for name in ("name", "plan", "pool", "enabled"):
        if getattr(found, name) != getattr(wanted, name):
            raise NotWritableError(f"the statements and the query do not keep `{name}` of the user")


def _is_locked(error: DBAPIError) -> bool:
    """Whether another program is writing to the SQLite database."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    # The extended codes of SQLITE_BUSY have it in their low octet.
    return (
        isinstance(error.orig, sqlite3.OperationalError) and code is not None and code & 0xFF == sqlite3.SQLITE_BUSY
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (DataError, UnicodeError) as error:
        # This login cannot be asked for, such as one that the database's encoding has no characters for.
        raise RecordError(f"the database does not take this login: {_reason(error)}") from None
    except (SQLAlchemyError, OSError, RuntimeError) as error:
        # OSError from looking up a host name, RuntimeError from PyMySQL where it lacks a package for a login.
        raise StoreDownError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """One line of what happened, without the statement and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"
