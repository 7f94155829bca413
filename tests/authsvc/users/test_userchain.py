from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from authsvc.users.model import StoreDownError, User
from authsvc.users.userchain import UserChain

OLD, NEW = User("test", ("{SSHA}old",)), User("test", ("{SSHA}new",))


@dataclass
class Store:
    """Has `user`, or none, or is down; notes what it is asked."""

    user: User | None = None
    down: bool = False
    asked: list[object] = field(default_factory=list)

    def find(self, login: str) -> User | None:
        self.asked.append(login)
        if self.down:
            raise StoreDownError("away")
        return self.user

    def upgrade(self, before: User, after: User) -> bool:
        self.asked.append((before, after))
        return True


def test_the_first_that_knows_the_name_answers() -> None:
    stores = Store(), Store(OLD), Store(NEW)
    assert UserChain(stores).find("test") == OLD
    assert [store.asked for store in stores] == [["test"], ["test"], []]


def test_a_disabled_user_is_found_and_ends_the_search() -> None:
    disabled = User("test", enabled=False)
    assert UserChain([Store(disabled), Store(OLD)]).find("test") == disabled


def test_nobody_knows_the_name() -> None:
    stores = Store(), Store()
    assert UserChain(stores).find("test") is None
    assert [store.asked for store in stores] == [["test"], ["test"]]


def test_after_a_store_that_is_down_none_is_asked() -> None:
    stores = Store(), Store(down=True), Store(OLD)
    with pytest.raises(StoreDownError, match="away"):
        UserChain(stores).find("test")
    assert stores[2].asked == []


def test_a_store_that_is_down_is_not_needed_for_the_users_before_it() -> None:
    assert UserChain([Store(OLD), Store(down=True)]).find("test") == OLD


def test_an_upgrade_goes_to_the_store_of_the_user() -> None:
    stores = Store(), Store(OLD), Store(OLD)
    assert UserChain(stores).upgrade(OLD, NEW)
    assert [store.asked for store in stores] == [["test"], ["test", (OLD, NEW)], []]


def test_nothing_is_upgraded_where_the_user_is_gone() -> None:
    assert not UserChain([Store()]).upgrade(OLD, NEW)
