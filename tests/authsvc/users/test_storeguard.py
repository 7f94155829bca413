from __future__ import annotations

import pytest

from authsvc.users.model import StoreDownError, User
from authsvc.users.storeguard import GuardedUsers
from authsvc.users.userrecord import RecordError

TEST = User("test")


class Store:
    """Answers `answer`, or raises it; counts the questions."""

    def __init__(self) -> None:
        self.answer: User | StoreDownError | None = TEST
        self.asked = 0

    def find(self, login: str) -> User | None:
        self.asked += 1
        if isinstance(self.answer, StoreDownError):
            raise self.answer
        return self.answer

    def ping(self) -> None:
        self.find("")

    def upgrade(self, before: User, after: User) -> bool:
        return self.find(before.name) == before


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def guarded(store: Store, clock, journal) -> GuardedUsers:
    return GuardedUsers(store, "redis://127.0.0.1", clock, journal)


def fail(guarded: GuardedUsers, times: int = 1) -> list[str]:
    faults = []
    for _ in range(times):
        with pytest.raises(StoreDownError) as caught:
            guarded.find("test")
        faults.append(str(caught.value))
    return faults


def test_what_the_store_says_is_passed_on(guarded: GuardedUsers, store: Store) -> None:
    assert guarded.find("test") == TEST
    assert guarded.upgrade(TEST, User("test", ("x",)))
    store.answer = None
    assert guarded.find("test") is None
    assert not guarded.upgrade(TEST, TEST)


def test_a_fault_names_the_store(guarded: GuardedUsers, store: Store) -> None:
    store.answer = StoreDownError("away")
    assert fail(guarded) == ["redis://127.0.0.1: away"]


def test_after_three_faults_the_store_is_left_alone_but_for_one_probe(
    guarded: GuardedUsers, store: Store, clock, journal
) -> None:
    store.answer = StoreDownError("away")
    faults = fail(guarded, 5)
    assert faults[2:] == ["redis://127.0.0.1: away"] + ["redis://127.0.0.1: not asked, it gave no answer of late"] * 2
    assert store.asked == 3
    clock.time += 2.0
    fail(guarded, 3)
    assert store.asked == 4
    down = ("error", "user_store_down", {"store": "redis://127.0.0.1", "reason": "away"})
    assert journal.lines == [down]
    store.answer = TEST
    clock.time += 2.0
    assert guarded.find("test") == TEST
    assert guarded.find("test") == TEST
    assert journal.lines == [down, ("info", "user_store_up", {"store": "redis://127.0.0.1"})]


def test_faults_far_apart_leave_it_in_use(guarded: GuardedUsers, store: Store, clock, journal) -> None:
    store.answer = StoreDownError("away")
    for _ in range(6):
        fail(guarded)
        clock.time += 6.0
    assert store.asked == 6
    assert journal.lines == []


def test_a_record_that_makes_no_user_closes_nobody_else_out(guarded: GuardedUsers, store: Store, journal) -> None:
    store.answer = RecordError("plan is not a name")
    assert fail(guarded, 10) == ["redis://127.0.0.1: plan is not a name"] * 10
    with pytest.raises(RecordError):
        guarded.find("test")
    store.answer = TEST
    assert guarded.find("test") == TEST
    assert journal.lines == []


def test_an_upgrade_that_fails_counts_too(guarded: GuardedUsers, store: Store) -> None:
    store.answer = StoreDownError("away")
    for _ in range(3):
        with pytest.raises(StoreDownError, match=r"^redis.*: away$"):
            guarded.upgrade(TEST, TEST)
    with pytest.raises(StoreDownError, match="not asked"):
        guarded.upgrade(TEST, TEST)


def test_reachable_asks_whatever_the_breaker_says(guarded: GuardedUsers, store: Store) -> None:
    assert guarded.reachable()
    store.answer = StoreDownError("away")
    fail(guarded, 3)
    assert not guarded.reachable()
    store.answer = None
    assert guarded.reachable()
