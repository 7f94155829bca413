"""Client addresses as numbers: networks that contain them, and the part of one that counts as one client.

Owns `unix:`, the client that has no address. Refuses to know patterns' signs, sets and keys.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from smtpgate.units import EXPECTED_CIDR, InvalidValue, Network, parse_cidr

UNIX: Final = "unix:"
# Parsed addresses that are remembered: a session asks several times, and clients come back.
ADDRESS_CACHE: Final = 4096
V4_BITS: Final = 32
V6_BITS: Final = 128


@dataclass(frozen=True, slots=True)
class Prefixes:
    """How many bits of an address count as one client: by default an IPv4 host, an IPv6 link (RFC 4291)."""

    v4: int = V4_BITS
    v6: int = 64


WHOLE_ADDRESS: Final = Prefixes(V4_BITS, V6_BITS)


@functools.lru_cache(maxsize=ADDRESS_CACHE)
def parse_client(text: str) -> tuple[int, int] | None:
    """A textual address -> (version, number), None if it is none. v4-mapped is IPv4, a scope id is dropped."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, int(address)


def net_of(client: str, prefixes: Prefixes) -> str | None:
    """`192.0.2.1`, `192.0.2.0/24`, `2001:db8::/64`; a full-length prefix is not written. "unix:" stays.

    None for a text that is no address.
    """
    return _net_of(client, prefixes.v4, prefixes.v6)


@functools.lru_cache(maxsize=ADDRESS_CACHE)
def _net_of(client: str, v4_bits: int, v6_bits: int) -> str | None:
    parsed = parse_client(client)
    if parsed is None:
        return UNIX if client.startswith(UNIX) else None
    version, number = parsed
    # By shifts: ipaddress' networks take 8 us each, and a flood brings as many new ones as there are clients.
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    if version == 4:
        bits, shift = v4_bits, V4_BITS - v4_bits
        address = ipaddress.IPv4Address(number >> shift << shift)
    else:
        bits, shift = v6_bits, V6_BITS - v6_bits
        address = ipaddress.IPv6Address(number >> shift << shift)
    return f"{address}/{bits}" if shift else str(address)


def parse_networks(patterns: Sequence[str]) -> list[Network]:
    """All but UNIX. Raises InvalidValue with the pattern's index as path."""
    networks = []
    for index, pattern in enumerate(patterns):
        if pattern == UNIX:
            continue
        try:
            networks.append(parse_cidr(pattern))
        except InvalidValue as error:
            expected = f"{error.expected or EXPECTED_CIDR}, {UNIX}"
            raise InvalidValue(error.message, expected, value=pattern, path=(index,)) from None
    return networks


def place_of(network: Network) -> tuple[int, int, int]:
    """(version, bits that do not count, number without them): where tables of networks keep it."""
    shift = network.max_prefixlen - network.prefixlen
    return network.version, shift, int(network.network_address) >> shift


class ClientSet:
    """Networks and `unix:`; one look-up for each prefix length that occurs."""

    __slots__ = ("_by_prefix", "_unix")

    def __init__(self, networks: Iterable[Network], *, unix: bool = False) -> None:
        by_prefix: dict[tuple[int, int], set[int]] = {}
        for version, shift, number in map(place_of, networks):
            by_prefix.setdefault((version, shift), set()).add(number)
        self._by_prefix = tuple((version, shift, frozenset(s)) for (version, shift), s in by_prefix.items())
        self._unix = unix

    def __call__(self, client: str) -> bool:
        parsed = parse_client(client)
        if parsed is None:
            return self._unix and client.startswith(UNIX)
        family, number = parsed
        return any(version == family and number >> shift in numbers for version, shift, numbers in self._by_prefix)


def client_set(patterns: Sequence[str]) -> ClientSet:
    """Raises InvalidValue with the pattern's index as path."""
    return ClientSet(parse_networks(patterns), unix=UNIX in patterns)
