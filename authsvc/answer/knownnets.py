"""The networks that a login has come from with the right password: the fact known_net of limits.

Owns how long a network is remembered, how many are, and how seldom that is written. Kept in the store of the limits,
for all processes. While that gives no answer nothing is known, and limits that ask do not apply.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from smtpgate.clock import Clock
from smtpgate.policy.fields import canonical_address
from smtpgate.policy.keys import encode
from smtpgate.policy.store import BucketStore, StoreUnavailable

# Seconds, since the last login from there: who is away for a holiday is still known.
LIFETIME: Final = 30 * 86_400.0
# Networks of one login: a home, an office, and what a month of mobile networks hands out.
MAX_NETS: Final = 16
# Seconds for which a network that was noted by this process is not noted again, of the many of LIFETIME.
NOTED_FOR: Final = 3600.0
# Logins and networks that this process knows to have noted. Some 200 octets each.
MAX_NOTED: Final = 10_000


class KnownNets:
    """Over a store. One call each time, at most."""

    def __init__(self, store: BucketStore, clock: Clock, *, noted: int = MAX_NOTED) -> None:
        self._store = store
        self._clock = clock
        self._most = noted
        # Until when, monotonic; all live equally long.
        self._noted: OrderedDict[tuple[str, str], float] = OrderedDict()

    def knows(self, login: str, net: str) -> bool | None:
        """Whether `login` came from `net` within LIFETIME; None where the store does not say."""
        try:
            return self._store.seen(_key(login), net)
        except StoreUnavailable:
            return None

    def note(self, login: str, net: str) -> None:
        """`login` was proven from `net`. Where the store is away it is lost, and the next login brings it again."""
        pair, now = (_key(login), net), self._clock.monotonic()
        if self._noted.get(pair, now) > now:
            return
        try:
            self._store.note(*pair, LIFETIME, MAX_NETS)
        except StoreUnavailable:
            return
        self._noted[pair] = now + NOTED_FOR
        self._noted.move_to_end(pair)
        while len(self._noted) > self._most:
            self._noted.popitem(last=False)


def _key(login: str) -> str:
    return encode(canonical_address(login))
