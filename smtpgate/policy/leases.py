"""Sets of members that expire: slots and their holders, values seen before, networks of a login.

The in-process twin of Redis' sorted sets whose scores are deadlines. Owns no clock; bounded in sets and in members.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict


class Leases:
    """At most `max_keys` sets; the one written longest ago makes room."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        # key -> member -> deadline; members in the order of their last writing.
        self._sets: OrderedDict[str, dict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sets)

    def count(self, key: str, now: float) -> int:
        """Members of `key` whose deadline has not passed, those before them forgotten. Exact where all deadlines of a
        key are as far from their writing, as leases are.
        """
        members = self._sets.get(key)
        if members is None:
            return 0
        _expire(members, now)
        if not members:
            del self._sets[key]
        return len(members)

    def holds(self, key: str, member: str, now: float) -> bool:
        members = self._sets.get(key)
        return members is not None and members.get(member, now) > now

    def put(self, key: str, member: str, now: float, seconds: float, keep: int | None = None) -> None:
        """Add `member` for so many seconds, or move its deadline. keep: how many members stay; the one put longest
        ago goes first.
        """
        members = self._sets.setdefault(key, {})
        # A set that is written again and again would else keep its dead for ever.
        _expire(members, now)
        members.pop(member, None)
        members[member] = now + seconds
        if keep is not None and len(members) > keep:
            del members[next(iter(members))]
        self._sets.move_to_end(key)
        if len(self._sets) > self._max_keys:
            self._sets.popitem(last=False)

    def drop(self, key: str, member: str) -> None:
        members = self._sets.get(key)
        if members is not None:
            members.pop(member, None)
            if not members:
                del self._sets[key]


def _expire(members: dict[str, float], now: float) -> None:
    for member in list(itertools.takewhile(lambda member: members[member] <= now, members)):
        del members[member]
