"""Who may come in: how many connections there are in all, from one address and from one network.

Owns the counts of one worker process, and nothing that does IO: it is asked between accept() and the first octet of a
connection, where a flood is cheapest to refuse (reference/security.md F3). Each worker counts for itself; what has to
hold for all of them together is a policy's `concurrency` with `event: connect`. Refuses to know what a refused client
is told.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from smtpgate.policy.addresses import Prefixes, net_of
from smtpgate.units import UNIX

# What one customer has: a provider's /24, and the /64 that every IPv6 link is (RFC 4291 section 2.5.4).
NETWORK: Final = Prefixes(24, 64)
PER_ADDRESS: Final = 50  # Postfix's smtpd_client_connection_count_limit
# Parts of max_sessions. Postfix is under stress when its last process is taken; a tenth is left here, so that who
# comes next is still let in. The lower one keeps a flood from beginning it at each connection: all sessions are told.
STRESS_BEGINS: Final = 0.9
STRESS_ENDS: Final = 0.8
PER_NETWORK: Final = 500  # ten busy addresses: a university's gateways, an office's NAT


# Addresses that are known to be banned; the oldest go first, and cost a session again.
MAX_BANNED: Final = 10_000


class Refusal(enum.Enum):
    """Why a connection is not let in: the key of conf/proxy.yaml that says so, what has run out, or that the address
    is banned: by a limit, or for a guess that had no place (`drivers.authhttp`).
    """

    FULL = "max_sessions"
    ADDRESS = "max_sessions_per_ip"
    NETWORK = "max_sessions_per_network"
    DESCRIPTORS = "descriptors"
    BANNED = "ban"


@dataclass(frozen=True, slots=True)
class AddressLimits:
    """Connections that one address, and one network of NETWORK, may have at a listener; 0 is any number. None: what
    is right for most, and any number from this machine itself, where what runs is seldom one client.
    """

    per_address: int | None = None
    per_network: int | None = None


class Stress:
    """Whether so many of `most` places are taken that nobody may keep one waiting for long."""

    def __init__(self, most: int) -> None:
        self._begins, self._ends = most * STRESS_BEGINS, most * STRESS_ENDS
        self.on = False

    def taken(self, count: int) -> bool:
        """So many are taken now: whether that has begun it, or ended it."""
        before = self.on
        self.on = count > (self._ends if before else self._begins)
        return self.on is not before


class Crowd:
    """The connections of one listener, and who is banned there. now: monotonic seconds."""

    def __init__(self, limits: AddressLimits) -> None:
        self._limits = limits
        self._addresses: dict[str, int] = {}
        self._networks: dict[str, int] = {}
        self._banned: dict[str, tuple[float, bytes]] = {}

    def __len__(self) -> int:
        """Addresses that are counted."""
        return len(self._addresses)

    def ban(self, host: str, seconds: float, words: bytes, now: float) -> None:
        """Nobody from this address enters for so many seconds. words: what it is told."""
        self._banned.pop(host, None)
        if len(self._banned) >= MAX_BANNED:
            del self._banned[next(iter(self._banned))]
        self._banned[host] = now + seconds, words

    def words(self, host: str) -> bytes:
        """To an address that is banned; b"" where it is not."""
        return self._banned.get(host, (0.0, b""))[1]

    def enter(self, host: str, now: float) -> Refusal | None:
        """Count a connection of a textual address, or tell why not. Who has entered must leave."""
        if host == UNIX:
            return None
        if host in self._banned:
            if now < self._banned[host][0]:
                return Refusal.BANNED
            del self._banned[host]
        network = net_of(host, NETWORK) or host
        address, neighbours = self._addresses.get(host, 0), self._networks.get(network, 0)
        of_address, of_network = self._limits.per_address, self._limits.per_network
        if of_address is None or of_network is None:
            local = host == "::1" or host.startswith("127.")
            if of_address is None:
                of_address = 0 if local else PER_ADDRESS
            if of_network is None:
                of_network = 0 if local else PER_NETWORK
        if 0 < of_address <= address:
            return Refusal.ADDRESS
        if 0 < of_network <= neighbours:
            return Refusal.NETWORK
        self._addresses[host] = address + 1
        self._networks[network] = neighbours + 1
        return None

    def leave(self, host: str) -> None:
        if host == UNIX:
            return
        _one_less(self._addresses, host)
        _one_less(self._networks, net_of(host, NETWORK) or host)


def _one_less(counts: dict[str, int], key: str) -> None:
    count = counts[key] - 1
    if count:
        counts[key] = count
    else:
        del counts[key]  # or every address that was ever seen would stay
