from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from gevent.event import Event

from authsvc.users.model import StoreDownError, User
from authsvc.users.sources import Caching
from authsvc.users.usercache import CachedUsers

OLD, NEW = User("test", ("{SSHA}old",)), User("test", ("{SSHA}new",))


class Store:
    """Has the users of a dict, unless `fault` is set; notes each question; waits for `gate`."""

    def __init__(self, *users: User) -> None:
        self.users = {user.name: user for user in users}
        self.asked: list[str] = []
        self.fault: BaseException | None = None
        self.gate = Event()
        self.gate.set()

    def find(self, login: str) -> User | None:
        self.asked.append(login)
        self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return self.users.get(login)

    def upgrade(self, before: User, after: User) -> bool:
        self.users[after.name] = after
        return True


@pytest.fixture
def store() -> Store:
    return Store(OLD)


@pytest.fixture
def cached(store: Store, clock) -> CachedUsers:
    return CachedUsers(store, clock, Caching(found=30.0, unknown=5.0))


def test_a_user_is_asked_for_again_when_the_time_is_over(cached: CachedUsers, store: Store, clock) -> None:
    assert cached.find("test") == OLD
    store.users["test"] = NEW
    clock.time += 29.9
    assert cached.find("test") == OLD
    clock.time += 0.1
    assert cached.find("test") == NEW
    assert store.asked == ["test"] * 2


def test_a_user_who_was_added_is_seen_within_the_time_of_unknown_names(
    cached: CachedUsers, store: Store, clock
) -> None:
    assert cached.find("new") is None
    store.users["new"] = User("new")
    clock.time += 4.9
    assert cached.find("new") is None
    clock.time += 0.1
    assert cached.find("new") == User("new")
    assert store.asked == ["new"] * 2


def test_no_answer_is_never_remembered(cached: CachedUsers, store: Store) -> None:
    store.fault = StoreDownError("away")
    for _ in range(2):
        with pytest.raises(StoreDownError, match="away"):
            cached.find("test")
    store.fault = None
    assert cached.find("test") == OLD
    assert store.asked == ["test"] * 3


def test_what_is_known_is_answered_while_the_store_is_away(cached: CachedUsers, store: Store, clock) -> None:
    assert cached.find("test") == OLD
    store.fault = StoreDownError("away")
    clock.time += 29.9
    assert cached.find("test") == OLD
    clock.time += 0.1
    with pytest.raises(StoreDownError):
        cached.find("test")


def test_a_time_of_zero_keeps_nothing(store: Store, clock) -> None:
    cached = CachedUsers(store, clock, Caching(found=0.0, unknown=0.0))
    for name in ("test", "test", "new", "new"):
        cached.find(name)
    assert store.asked == ["test", "test", "new", "new"]


def test_the_name_that_was_not_asked_for_longest_makes_room(store: Store, clock) -> None:
    store.users |= {name: User(name) for name in "abc"}
    cached = CachedUsers(store, clock, Caching(), max_found=2)
    for name in "abac":
        cached.find(name)
    store.asked.clear()
    assert [cached.find(name) for name in "acb"] == [User(name) for name in "acb"]
    assert store.asked == ["b"]


def test_names_that_are_made_up_push_out_no_user(store: Store, clock) -> None:
    cached = CachedUsers(store, clock, Caching(), max_found=2, max_unknown=2)
    cached.find("test")
    for name in "abc":
        cached.find(name)
    store.asked.clear()
    assert cached.find("test") == OLD
    assert store.asked == []
    assert cached.find("a") is None
    assert store.asked == ["a"]


def ask(cached: CachedUsers, times: int) -> list[gevent.Greenlet]:
    asking = [gevent.spawn(cached.find, "test") for _ in range(times)]
    gevent.idle()
    return asking


def test_questions_for_one_name_at_a_time_are_one_look_up(cached: CachedUsers, store: Store) -> None:
    store.gate.clear()
    asking = ask(cached, 5)
    other = gevent.spawn(cached.find, "other")
    gevent.idle()
    assert store.asked == ["test", "other"]
    store.gate.set()
    gevent.joinall([*asking, other], raise_error=True)
    assert [greenlet.value for greenlet in asking] == [OLD] * 5
    assert other.value is None


def test_no_answer_is_told_to_all_who_wait(cached: CachedUsers, store: Store) -> None:
    store.gate.clear()
    store.fault = StoreDownError("away")
    asking = ask(cached, 3)
    store.gate.set()
    gevent.joinall(asking)
    assert [str(greenlet.exception) for greenlet in asking] == ["away"] * 3
    assert store.asked == ["test"]


def end_by_kill(_store: Store, asking: gevent.Greenlet) -> None:
    asking.kill()


def end_by_bug(store: Store, _asking: gevent.Greenlet) -> None:
    store.fault = ZeroDivisionError()
    store.gate.set()


@pytest.mark.parametrize("end", [end_by_kill, end_by_bug])
def test_nobody_waits_for_a_look_up_that_was_given_up(
    cached: CachedUsers,
    store: Store,
    end: Callable[[Store, gevent.Greenlet], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.gate.clear()
    first, second = ask(cached, 2)
    end(store, first)
    second.join(timeout=5)
    assert str(second.exception) == "the look-up was given up"
    store.fault = None
    store.gate.set()
    assert cached.find("test") == OLD


def test_an_upgrade_is_seen_at_once(cached: CachedUsers) -> None:
    assert cached.find("test") == OLD
    assert cached.upgrade(OLD, NEW)
    assert cached.find("test") == NEW
