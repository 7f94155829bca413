from __future__ import annotations

from dataclasses import replace

import gevent
import pytest

from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.passwords import Passwords
from authsvc.proof.upgrade import MAX_PENDING, Upgrader
from authsvc.users.model import NotWritableError, StoreDownError, User

SSHA = "{SSHA}fA3ujFAeJB9vLS0DypkD0CK1pbwOQfMx"  # doveadm pw -s SSHA -p 1234
CRAM = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"
USER = User("test", (CRAM, SSHA), plan="gold")


class Store:
    """Compares and swaps, as the port wants it."""

    def __init__(self, *users: User) -> None:
        self.users = {user.name: user for user in users}
        self.asked: list[tuple[User, User]] = []
        self.fault: Exception | None = None

    def find(self, login: str) -> User | None:
        return self.users.get(login)

    def upgrade(self, before: User, after: User) -> bool:
        self.asked.append((before, after))
        if self.fault is not None:
            raise self.fault
        if self.users.get(before.name) != before:
            return False
        self.users[before.name] = after
        return True


@pytest.fixture
def store() -> Store:
    return Store(USER)


@pytest.fixture
def upgrader(store: Store, cheap_passwords: Passwords, bulkhead: Bulkhead, journal) -> Upgrader:
    return Upgrader(store, cheap_passwords, bulkhead, journal)


def settle(upgrader: Upgrader) -> None:
    with gevent.Timeout(10):
        while upgrader._pending:
            gevent.sleep(0.001)


def test_an_old_form_becomes_argon2id_after_the_login(
    upgrader: Upgrader, store: Store, cheap_passwords: Passwords, journal
) -> None:
    upgrader.consider(USER, b"1234")
    assert store.users["test"] == USER
    settle(upgrader)
    changed = store.users["test"]
    assert changed == replace(USER, passwords=(CRAM, changed.passwords[1]))
    assert changed.passwords[1].startswith("{ARGON2ID}$argon2id$")
    assert cheap_passwords.verify(changed.passwords[1:], b"1234") is not None
    assert journal.lines == [("info", "password_upgraded", {"user": "test"})]


def test_a_form_that_is_good_is_left_alone(upgrader: Upgrader, store: Store, cheap_passwords: Passwords) -> None:
    upgrader.consider(replace(USER, passwords=(cheap_passwords.make(b"1234"), CRAM)), b"1234")
    assert upgrader._pending == set()
    assert store.asked == []


def test_an_edit_meanwhile_is_not_undone(upgrader: Upgrader, store: Store, journal) -> None:
    disabled = replace(USER, enabled=False)
    upgrader.consider(USER, b"1234")
    store.users["test"] = disabled
    settle(upgrader)
    assert store.users["test"] == disabled
    fields = {"user": "test", "reason": "the store did not take it"}
    assert journal.lines == [("info", "password_not_upgraded", fields)]


@pytest.mark.parametrize("fault", [StoreDownError, NotWritableError])
def test_a_store_that_does_not_take_it(upgrader: Upgrader, store: Store, journal, fault: type[Exception]) -> None:
    store.fault = fault("connection refused")
    upgrader.consider(USER, b"1234")
    settle(upgrader)
    fields = {"user": "test", "reason": "connection refused"}
    assert journal.lines == [("warning", "password_not_upgraded", fields)]
    assert "1234" not in repr(journal.lines)


def test_one_job_a_user_and_few_at_all(upgrader: Upgrader, store: Store) -> None:
    users = [replace(USER, name=f"user{number}") for number in range(MAX_PENDING + 3)]
    store.users |= {user.name: user for user in users}
    for user in [users[0], users[0], *users]:
        upgrader.consider(user, b"1234")
    settle(upgrader)
    assert sorted(before.name for before, _ in store.asked) == [user.name for user in users[:MAX_PENDING]]
