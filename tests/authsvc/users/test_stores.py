"""Every kind of user store side by side: the same users, the same answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from peers.mariadb import MariaDB
from peers.postgres import Postgres
from peers.redis import Redis

from authsvc import config
from authsvc.users.model import StoreDownError, User, WritableStore
from authsvc.users.sqlusers import SqlUsers
from authsvc.users.stores import OpenStores, open_stores, open_writable
from smtpgate.clock import SystemClock

SSHA = "{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
ARGON2ID = "{ARGON2ID}$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$1UexDQN/TZayQt6ad1P45h3ch7cbOL+8CsFEzxAiuU0"
CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"
USERS = {
    user.name: user
    for user in (
        User("test", (SSHA,)),
        User("full", (SSHA, CRAM_MD5), "gold", "bulk"),
        User("disabled", (SSHA,), enabled=False),
        User("empty"),
        User("jürgen 😀@example.com", (CRAM_MD5,)),
        User('it\'s 100%_\\ "quoted"*', (SSHA,), plan="7"),
        User("x" * 320, (SSHA,)),
    )
}
STRANGERS = ("Test", "TEST", "tést", "tes", "test%", "t*", "' OR '1'='1", "x" * 319, "jürgen 😀", ":login", "{user}")


@pytest.fixture
def conf(tmp_path: Path, redis_server: Redis, postgres: Postgres, mariadb: MariaDB) -> config.Config:
    """Every kind, empty."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "users.yaml").write_text("users: {}\n")
    (tmp_path / "users.passwd").write_text("# none yet\n")
    (tmp_path / "secret").write_text(mariadb.password + "\n")
    (tmp_path / "authsvc.yaml").write_text(f"""
policies: policies
users:
  - {{file: users.yaml}}
  - {{passwd_file: users.passwd}}
  - {{redis: "{redis_server.uri}"}}
  - {{sql: "sqlite:///users.db"}}
  - {{sql: "{postgres.url}"}}
  - {{sql: "{mariadb.url}", password_file: secret}}
""")
    return config.load(tmp_path / "authsvc.yaml", {})


@pytest.fixture
def stores(conf: config.Config) -> Iterator[dict[str, WritableStore]]:
    opened = {str(source): open_writable(source, SystemClock(), plain=False) for source in conf.users}
    for store in opened.values():
        if isinstance(store, SqlUsers):
            store.make_table()
        for name in list(store.names()):
            store.remove(name)
    yield opened
    for store in opened.values():
        if isinstance(store, SqlUsers):
            store.close()


@pytest.fixture
def opened(conf: config.Config, journal) -> Iterator[Callable[[], OpenStores]]:
    """Opens all of them as a worker does, anew at each call."""
    with ExitStack() as stack:

        def open_all() -> OpenStores:
            made = open_stores(conf, {}, SystemClock(), journal)
            stack.callback(made.close)
            return made

        yield open_all


def test_the_same_users_the_same_answers(stores: dict[str, WritableStore]) -> None:
    for store in stores.values():
        for user in USERS.values():
            store.put(user)
    for name, store in stores.items():
        assert {login: store.find(login) for login in USERS} == USERS, name
        assert {login: store.find(login) for login in STRANGERS} == dict.fromkeys(STRANGERS), name
        assert set(store.names()) == set(USERS), name


def test_the_same_changes_the_same_answers(stores: dict[str, WritableStore]) -> None:
    before, after = USERS["full"], replace(USERS["full"], passwords=(ARGON2ID, CRAM_MD5))
    for name, store in stores.items():
        store.put(User("other"))
        store.put(before)
        store.put(replace(before, enabled=False, plan=None))
        assert not store.upgrade(before, after), name
        store.put(before)
        assert store.upgrade(before, after), name
        assert not store.upgrade(before, after), name
        assert store.find("full") == after, name
        assert [store.remove(login) for login in ("full", "full", "other")] == [True, False, True], name
        assert list(store.names()) == [], name


def test_the_service_asks_them_in_their_order(
    stores: dict[str, WritableStore], opened: Callable[[], OpenStores]
) -> None:
    for number, store in enumerate(stores.values()):
        for later in range(number, len(stores)):
            store.put(User(f"user{later}", plan=f"from{number}"))
    service = opened()
    # Where there are several, the first wins.
    assert [service.users.find(f"user{number}") for number in range(6)] == [
        User(f"user{number}", plan="from0") for number in range(6)
    ]
    for number, store in enumerate(itertools.islice(stores.values(), 5)):
        assert service.users.find("nobody") is None
        store.remove("user5")
        assert opened().users.find("user5") == User("user5", plan=f"from{number + 1}")
    assert service.ready()


def test_a_better_form_of_a_password_goes_to_the_store_of_the_user(
    stores: dict[str, WritableStore], opened: Callable[[], OpenStores]
) -> None:
    for number, store in enumerate(stores.values()):
        store.put(User(f"user{number}", (SSHA,)))
    service = opened()
    for number, store in enumerate(stores.values()):
        before = User(f"user{number}", (SSHA,))
        assert service.users.upgrade(before, replace(before, passwords=(ARGON2ID,)))
        assert store.find(before.name) == User(before.name, (ARGON2ID,))


def test_a_store_that_is_down_is_not_passed_over(
    stores: dict[str, WritableStore], opened: Callable[[], OpenStores], redis_server: Redis
) -> None:
    names = list(stores)
    stores[names[0]].put(User("before"))
    stores[names[5]].put(User("behind"))
    service = opened()
    assert service.users.find("behind") == User("behind")
    redis_server.stop()
    assert service.users.find("before") == User("before")
    with pytest.raises(StoreDownError, match=rf"^redis://127\.[0-9.]+:{redis_server.port}/0: ConnectionError: "):
        service.users.find("another")
    assert not service.ready()


def test_a_broken_file_keeps_the_users_of_before(
    conf: config.Config, stores: object, journal, tmp_path: Path
) -> None:
    yaml, lines = tmp_path / "users.yaml", tmp_path / "users.passwd"
    lines.write_text("nonsense")
    opened = open_stores(conf, {lines: {"old": User("old")}}, SystemClock(), journal)
    assert opened.users.find("old") == User("old")
    assert not opened.ready()
    assert journal.lines == [
        ("info", "users_loaded", {"file": str(yaml), "users": 0}),
        ("error", "users_rejected", {"problems": [f"{lines}:1:1: the line has no colon; expected NAME:PASSWORD"]}),
    ]
    assert len(opened.watchers) == 2
