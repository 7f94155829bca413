"""Several user stores, asked in the order of conf/authsvc.yaml.

Owns what an answer means for the next store: "found", even if the user is disabled, ends the search; "unknown" asks
the next; "no answer" ends it too, since the user may well be there and have another password, or none, there than
in the next. Refuses to know what the stores are.
"""

from __future__ import annotations

from collections.abc import Sequence

from authsvc.users.model import UpgradableStore, User


class UserChain:
    """An UpgradableStore over others."""

    def __init__(self, stores: Sequence[UpgradableStore]) -> None:
        self._stores = tuple(stores)

    def find(self, login: str) -> User | None:
        """The first store's that knows the name. Raises StoreDownError if one before it gives no answer."""
        for store in self._stores:
            user = store.find(login)
            if user is not None:
                return user
        return None

    def upgrade(self, before: User, after: User) -> bool:
        """In the store that `find` takes the user from. Raises StoreDownError."""
        for store in self._stores:
            if store.find(before.name) is not None:
                return store.upgrade(before, after)
        return False
