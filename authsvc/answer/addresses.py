"""Host names of backends -> literal addresses, because a stock nginx takes nothing else in Auth-Server.

Owns a small cache: a name is looked up at most once in LIFETIME, and an address that was found stays in use
while the name servers do not answer; a name that has none yet is asked for again after RETRY. The lookup itself is
handed in.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from smtpgate.clock import Clock

# Seconds. HAProxy holds a valid answer for 10 s, nginx' resolver obeys the TTL; getaddrinfo tells no TTL.
LIFETIME: Final = 30.0
# Seconds. A name without an address is a backend that nobody is sent to: HAProxy's `timeout retry` is 1 s too.
RETRY: Final = 1.0
# As many backends as are worth remembering whether they are written as addresses.
KNOWN_HOSTS: Final = 4096


class LookupFailedError(Exception):
    """The name has no address now. `str()` is for the log."""


@dataclass(slots=True)
class _Entry:
    """address: the last that was found. good_until: monotonic. looking: a lookup is under way."""

    address: str | None = None
    good_until: float = -math.inf
    looking: bool = False


class Addresses:
    """lookup: a host name -> one of its addresses; raises LookupFailedError, may let other greenlets run."""

    def __init__(self, clock: Clock, lookup: Callable[[str], str]) -> None:
        self._clock = clock
        self._lookup = lookup
        self._entries: dict[str, _Entry] = {}

    def follow(self, hosts: Collection[str]) -> None:
        """Forget names that are gone, and look up those that are new, so that no client waits for it.

        Waits for each: to be called where nobody is waiting.
        """
        self._entries = {host: entry for host, entry in self._entries.items() if host in hosts}
        for host in hosts:
            self.literal(host)

    def literal(self, host: str) -> str | None:
        """An address of `host`, which may be an address itself; None if none was ever found."""
        if (written := _written(host)) is not None:
            return written
        entry = self._entries.setdefault(host, _Entry())
        if self._clock.monotonic() < entry.good_until:
            return entry.address
        if entry.looking and entry.address is not None:
            # One lookup at a time: whoever asks meanwhile takes the old address.
            return entry.address
        entry.looking = True
        try:
            entry.address = self._lookup(host)
        except LookupFailedError:
            pass
        finally:
            entry.looking = False
            lifetime = RETRY if entry.address is None else LIFETIME
            entry.good_until = self._clock.monotonic() + lifetime
        return entry.address


@lru_cache(maxsize=KNOWN_HOSTS)
def _written(host: str) -> str | None:
    """An address as ipaddress spells it; None for a name. Asked for each answer, and there are few backends."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None
