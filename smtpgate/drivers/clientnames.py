"""The names of clients: PTR, and forward confirmation, by name servers of the operator's choice.

Owns the words in which nginx tells what came of it (reference/auth_http.md section 5), a bounded cache by the
answers' TTLs, and that sessions which wait for the same address share one look-up. Refuses to know what a name is
good for: it goes to auth_http and to backends, and no limit counts by it.

dnspython asks; under gevent its sockets wait without stopping others.
"""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, cast

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
import dns.reversename
import gevent
from dns.nameserver import Do53Nameserver
from gevent.event import AsyncResult

from smtpgate.clock import Clock
from smtpgate.units import HostPort

UNAVAILABLE: Final = "[UNAVAILABLE]"
TEMPUNAVAIL: Final = "[TEMPUNAVAIL]"

# Names that are remembered: about 10 MB. Postfix' anvil and HAProxy's tables are of that order.
MAX_NAMES: Final = 50_000
# Seconds. However short the TTL is, a client that connects again at once is not looked up again; however long it is,
# a name is confirmed once a day; a failure is asked again soon.
MIN_TTL: Final = 10.0
MAX_TTL: Final = 86_400.0
FAILURE_TTL: Final = 30.0
# What may stand in a header, a log line and an XCLIENT command (CVE-2026-28753).
_NAME = re.compile(r"[A-Za-z0-9-][A-Za-z0-9.-]{0,252}")


class ClientNames:
    """Looks up names through `servers`, by their addresses. timeout: seconds for each of the two look-ups."""

    def __init__(self, servers: Sequence[HostPort], timeout: float, clock: Clock) -> None:
        self._clock = clock
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [Do53Nameserver(server.host, server.port) for server in servers]
        self._resolver.lifetime = timeout
        # One server that is down must not use up the time of all.
        self._resolver.timeout = timeout / (len(servers) + 1)
        self._resolver.cache = None
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()  # address -> (name, good until)
        self._asked: dict[str, AsyncResult[str]] = {}

    def name_of(self, host: str) -> str:
        """The confirmed name of a client's address, UNAVAILABLE (it has none) or TEMPUNAVAIL (nobody can say now).

        Waits for the name servers, at most twice the timeout. Raises nothing of its own.
        """
        known = self._known.get(host)
        if known is not None and self._clock.monotonic() < known[1]:
            return known[0]
        asked = self._asked.get(host)
        if asked is None:
            asked = self._asked[host] = AsyncResult()
            # A greenlet of its own: whoever asked first may leave while others still wait for the answer.
            gevent.spawn(self._look_up, host, asked)
        return cast(str, asked.get())

    def _look_up(self, host: str, asked: AsyncResult[str]) -> None:
        name, ttl = TEMPUNAVAIL, FAILURE_TTL
        try:
            name, ttl = self._confirmed(host)
        finally:
            del self._asked[host]
            self._known[host] = (name, self._clock.monotonic() + min(max(ttl, MIN_TTL), MAX_TTL))
            self._known.move_to_end(host)
            if len(self._known) > MAX_NAMES:
                self._known.popitem(last=False)
            asked.set(name)

    def _confirmed(self, host: str) -> tuple[str, float]:
        """(what to say, seconds for which it is good)."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return TEMPUNAVAIL, MAX_TTL  # a unix socket: there is nothing to look up
        try:
            pointer = self._resolver.resolve(dns.reversename.from_address(host), dns.rdatatype.PTR)
        except dns.resolver.NXDOMAIN:
            return UNAVAILABLE, FAILURE_TTL
        except (dns.exception.DNSException, OSError):
            return TEMPUNAVAIL, FAILURE_TTL
        target: dns.name.Name = pointer[0].target
        name = target.to_text(omit_final_dot=True)
        if not _NAME.fullmatch(name):
            return TEMPUNAVAIL, FAILURE_TTL
        kind = dns.rdatatype.A if address.version == 4 else dns.rdatatype.AAAA
        try:
            forward = self._resolver.resolve(target, kind)
        except dns.resolver.NXDOMAIN:
            return UNAVAILABLE, FAILURE_TTL
        except (dns.exception.DNSException, OSError):
            return TEMPUNAVAIL, FAILURE_TTL
        good = min(pointer.expiration, forward.expiration) - self._clock.now()
        if not any(ipaddress.ip_address(record.address) == address for record in forward):
            return UNAVAILABLE, good
        return name, good
