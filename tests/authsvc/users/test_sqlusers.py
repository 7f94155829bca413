"""Users in SQLite, PostgreSQL and MariaDB: each test runs with each of them, unless it says otherwise."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from peers.mariadb import MariaDB
from peers.postgres import Postgres
from peers.process import HOST, free_port

from authsvc.users.model import NotWritableError, StoreDownError, User
from authsvc.users.sources import OWN, SqlSource, Statements
from authsvc.users.sqlusers import STATEMENT_TIMEOUT, SqlUsers
from authsvc.users.userrecord import RecordError
from smtpgate.clock import SystemClock

CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"
TEST = User("test", ("{SSHA}a", "{SSHA}b", CRAM_MD5), "gold", "bulk", enabled=False)

# A mail database as others lay it out.
MAILBOX = (
    "DROP TABLE IF EXISTS mailbox",
    "CREATE TABLE mailbox"
    " (username VARCHAR(255) PRIMARY KEY, pw VARCHAR(255) NOT NULL, active INTEGER, notes VARCHAR(9))",
    "INSERT INTO mailbox VALUES ('test', '{SSHA}a', 1, 'x'), ('off', '{SSHA}b', 0, NULL), ('half', '', NULL, NULL)",
)
THEIRS = Statements(
    "SELECT username AS name, pw AS password, active AS enabled, notes FROM mailbox WHERE username = :login",
    upgrade="UPDATE mailbox SET pw = :password WHERE username = :login AND pw = :old",
    add="INSERT INTO mailbox (username, pw, active) VALUES (:login, :password, 1)",
    change="UPDATE mailbox SET pw = :password WHERE username = :login",
)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> SqlSource:
    """An empty database."""
    if request.param == "sqlite":
        (tmp_path / "users.db").touch()
        return SqlSource(f"sqlite:///{tmp_path}/users.db")
    if request.param == "postgresql":
        return SqlSource(request.getfixturevalue("postgres").url)
    server: MariaDB = request.getfixturevalue("mariadb")
    return SqlSource(server.url, password=server.password)


@pytest.fixture
def opened() -> Iterator[list[SqlUsers]]:
    """What is put in is closed at the end."""
    stores: list[SqlUsers] = []
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def users(source: SqlSource, opened: list[SqlUsers]) -> SqlUsers:
    """Our own table, empty."""
    run(source, "DROP TABLE IF EXISTS smtpgate_users")
    store = SqlUsers(source, SystemClock())
    opened.append(store)
    store.make_table()
    return store


@pytest.fixture
def mailbox(source: SqlSource, opened: list[SqlUsers]) -> SqlUsers:
    run(source, *MAILBOX)
    store = SqlUsers(replace(source, statements=THEIRS), SystemClock())
    opened.append(store)
    return store


def run(source: SqlSource, *statements: str) -> None:
    url = sqlalchemy.make_url(source.url)
    engine = sqlalchemy.create_engine(url.set(password=source.password) if source.password else url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_user_is_added_changed_and_removed(users: SqlUsers) -> None:
    assert (users.find("test"), list(users.names())) == (None, [])
    users.put(TEST)
    users.put(User("jürgen😀"))
    assert users.find("test") == TEST
    assert users.find("jürgen😀") == User("jürgen😀")
    users.put(replace(TEST, plan=None, enabled=True))
    users.put(replace(TEST, plan=None, enabled=True))
    assert users.find("test") == replace(TEST, plan=None, enabled=True)
    assert list(users.names()) == ["jürgen😀", "test"]
    assert users.remove("test")
    assert not users.remove("test")
    assert list(users.names()) == ["jürgen😀"]


def test_our_table_takes_names_to_the_letter(users: SqlUsers) -> None:
    users.put(TEST)
    assert [users.find(name) for name in ("Test", "tést", "tes", "test%", "' OR ''='", "\\", "")] == [None] * 7
    users.put(User("TEST"))
    assert users.find("test") == TEST


def test_a_table_is_made_once(users: SqlUsers) -> None:
    users.put(TEST)
    users.make_table()
    assert users.find("test") == TEST


def test_an_upgrade_takes_the_place_of_what_was_found_and_of_nothing_else(users: SqlUsers) -> None:
    users.put(TEST)
    after = replace(TEST, passwords=("{ARGON2ID}c", CRAM_MD5))
    assert not users.upgrade(replace(TEST, enabled=True), replace(after, enabled=True))
    assert not users.upgrade(User("other"), User("other", ("{SSHA}a",)))
    assert users.find("test") == TEST
    assert users.upgrade(TEST, after)
    assert users.find("test") == after
    assert not users.upgrade(TEST, after)


def test_a_mail_database_that_is_there(mailbox: SqlUsers) -> None:
    assert mailbox.find("test") == User("test", ("{SSHA}a",))
    assert mailbox.find("off") == User("off", ("{SSHA}b",), enabled=False)
    assert mailbox.find("half") == User("half")
    assert mailbox.find("nobody") is None


def test_a_mail_database_is_changed_by_its_own_statements(mailbox: SqlUsers) -> None:
    test = User("test", ("{SSHA}a",))
    assert mailbox.upgrade(test, User("test", ("{ARGON2ID}c",)))
    mailbox.put(User("test", ("{SSHA}d",)))
    mailbox.put(User("new", ("{SSHA}e",)))
    assert [mailbox.find(name) for name in ("test", "new")] == [
        User("test", ("{SSHA}d",)),
        User("new", ("{SSHA}e",)),
    ]


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (User("test", ("{SSHA}a",), enabled=False), "the statements and the query do not keep `enabled` of the user"),
        (User("new", ("{SSHA}a",), "gold"), "the statements and the query do not keep `plan` of the user"),
        (User("new", ("{SSHA}a", CRAM_MD5)), "the statements do not keep all passwords of the user; cram_md5 needs"),
    ],
)
def test_what_the_statements_cannot_keep_is_told_and_nothing_is_changed(
    mailbox: SqlUsers, user: User, message: str
) -> None:
    before = mailbox.find(user.name)
    with pytest.raises(NotWritableError) as caught:
        mailbox.put(user)
    assert str(caught.value).startswith(message)
    assert mailbox.find(user.name) == before


def test_what_no_statement_is_configured_for(mailbox: SqlUsers, source: SqlSource, opened: list[SqlUsers]) -> None:
    for name, change in (("remove", lambda: mailbox.remove("test")), ("list", mailbox.names)):
        with pytest.raises(NotWritableError, match=f"no statement `{name}` is configured beside the store's query"):
            change()
    with pytest.raises(NotWritableError, match="its table is not ours to make"):
        mailbox.make_table()
    reading = SqlUsers(replace(source, statements=Statements(THEIRS.query)), SystemClock())
    opened.append(reading)
    assert not reading.upgrade(User("test", ("{SSHA}a",)), User("test", ("{SSHA}b",)))
    with pytest.raises(NotWritableError, match="no statement `add`"):
        reading.put(TEST)


def faults(source: SqlSource, opened: list[SqlUsers], query: str) -> str:
    store = SqlUsers(replace(source, statements=Statements(query)), SystemClock())
    opened.append(store)
    with pytest.raises(StoreDownError) as caught:
        store.find("hunter2")
    assert "hunter2" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_rows_that_make_no_user(source: SqlSource, opened: list[SqlUsers]) -> None:
    run(source, *MAILBOX)
    several = "SELECT username AS name, pw AS password FROM mailbox WHERE username <> :login"
    assert faults(source, opened, several) == (
        "RecordError: the query gives several rows for one login; expected one"
    )
    bad = "SELECT 'a b' AS plan, username AS name FROM mailbox WHERE username = 'test' AND :login <> ''"
    assert faults(source, opened, bad).startswith("RecordError: plan is not a name; expected 1 to 64 of")


def test_a_query_that_does_not_fit_the_database(source: SqlSource, opened: list[SqlUsers]) -> None:
    fault = faults(source, opened, "SELECT password FROM no_such_table WHERE name = :login")
    assert "no_such_table" in fault
    assert "\n" not in fault
    assert fault.startswith("StoreDownError: ")


def test_mariadb_finds_test_for_TEST_so_it_has_to_tell_the_name(mariadb: MariaDB, opened: list[SqlUsers]) -> None:
    source = SqlSource(mariadb.url, THEIRS, mariadb.password)
    run(source, *MAILBOX)
    store = SqlUsers(source, SystemClock())
    opened.append(store)
    assert store.find("TÉST") == User("test", ("{SSHA}a",))
    nameless = "SELECT pw AS password FROM mailbox WHERE username <> :login AND username = 'test'"
    assert faults(source, opened, nameless).startswith("RecordError: the query gives no column `name`; MariaDB finds")


def test_a_login_that_the_databases_encoding_does_not_have(postgres: Postgres, opened: list[SqlUsers]) -> None:
    source = SqlSource(postgres.url)
    engine = sqlalchemy.create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE latin1 ENCODING 'LATIN1' TEMPLATE template0")
    engine.dispose()
    store = SqlUsers(replace(source, url=postgres.url.removesuffix("postgres") + "latin1"), SystemClock())
    opened.append(store)
    store.make_table()
    store.put(User("jürgen"))
    assert store.find("jürgen") == User("jürgen")
    with pytest.raises(RecordError, match="the database does not take this login: UntranslatableCharacter"):
        store.find("jürgen😀")


def test_postgresql_that_stops_gives_no_answer_and_is_used_again(postgres: Postgres, opened: list[SqlUsers]) -> None:
    store = SqlUsers(SqlSource(postgres.url), SystemClock())
    opened.append(store)
    store.make_table()
    store.put(TEST)
    postgres.stop()
    try:
        for question in (store.ping, lambda: store.find("test"), lambda: store.put(TEST)):
            with pytest.raises(StoreDownError, match=r"connection failed|terminating connection"):
                question()
    finally:
        postgres.start()
    assert store.find("test") == TEST


def test_a_restart_between_two_look_ups_is_not_noticed(postgres: Postgres, opened: list[SqlUsers]) -> None:
    store = SqlUsers(SqlSource(postgres.url), SystemClock())
    opened.append(store)
    store.make_table()
    store.put(TEST)
    postgres.stop()
    postgres.start()
    assert store.find("test") == TEST


@pytest.mark.parametrize("database", ["postgresql", "mariadb"])
def test_a_statement_that_takes_long_is_ended_by_the_server(
    database: str, request: pytest.FixtureRequest, opened: list[SqlUsers]
) -> None:
    if database == "postgresql":
        source = SqlSource(request.getfixturevalue("postgres").url)
        query = "SELECT 'x' AS password FROM pg_sleep(30) WHERE :login <> ''"
    else:
        server: MariaDB = request.getfixturevalue("mariadb")
        source = SqlSource(server.url, password=server.password)
        query = "SELECT 'x' AS password, SLEEP(30) AS name FROM (SELECT 1) AS one WHERE :login <> ''"
    clock = SystemClock()
    began = clock.monotonic()
    assert "time" in faults(source, opened, query)
    assert clock.monotonic() - began == pytest.approx(STATEMENT_TIMEOUT, abs=0.9)


def test_nobody_there(opened: list[SqlUsers]) -> None:
    for url in (
        f"postgresql+psycopg://mail@{HOST}:{free_port()}/mail",
        f"mysql+pymysql://mail@{HOST}:{free_port()}/mail",
        "sqlite:////no/such/folder/users.db",
        "postgresql+psycopg://mail@no-such-host.invalid/mail",
    ):
        assert faults(SqlSource(url), opened, OWN.query).startswith("StoreDownError: ")


def test_a_database_of_sqlite_is_not_made_by_asking_but_by_make_table(tmp_path: Path, opened: list[SqlUsers]) -> None:
    path = tmp_path / "a b.db"
    store = SqlUsers(SqlSource(f"sqlite:///{path}"), SystemClock())
    opened.append(store)
    with pytest.raises(StoreDownError, match="unable to open database file"):
        store.find("test")
    assert not path.exists()
    store.make_table()
    assert path.stat().st_mode & 0o777 == 0o600
    store.put(TEST)
    assert store.find("test") == TEST
    missing = SqlUsers(SqlSource(f"sqlite:///{tmp_path}/no/such.db"), SystemClock())
    opened.append(missing)
    with pytest.raises(NotWritableError, match="the database cannot be made: No such file or directory"):
        missing.make_table()


def test_sqlite_that_another_program_holds_is_waited_for(tmp_path: Path, opened: list[SqlUsers], clock) -> None:
    source = SqlSource(f"sqlite:///{tmp_path}/users.db")
    store = SqlUsers(source, clock)
    opened.append(store)
    store.make_table()
    other = sqlite3.connect(tmp_path / "users.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    sleep = clock.sleep

    def release_after_a_second(seconds: float) -> None:
        sleep(seconds)
        if clock.time > 1001.0 and other.in_transaction:
            other.execute("COMMIT")

    clock.sleep = release_after_a_second
    store.put(TEST)
    assert 1001.0 < clock.time < 1001.1
    clock.sleep = sleep
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreDownError, match="database is locked"):
        store.find("test")
    assert clock.time == pytest.approx(1001.0 + STATEMENT_TIMEOUT, abs=0.1)
    other.close()


@pytest.mark.parametrize("url", ["mysql+pymysql://h:hunter2/x", "sqlite://hunter2@h/x", "hunter2"])
def test_a_url_that_sqlalchemy_cannot_read(url: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read; expected e\.g\. sqlite:///users\.db"):
        SqlUsers(SqlSource(url), SystemClock())
