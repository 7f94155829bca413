"""One connection to one backend, ready for its greeting.

Owns the order of what comes before SMTP: look-up, TCP, PROXY header, implicit TLS; which of a name's addresses is
tried first; and that each gets an equal part of the time, so that one that drops SYNs does not use up the others'.
Refuses to know pools and who asks.
"""

from __future__ import annotations

from typing import Final

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers import proxyheader
from smtpgate.drivers.backendtls import ClientTls
from smtpgate.drivers.connecting import OutOfResources, connect
from smtpgate.drivers.resolver import Resolver
from smtpgate.drivers.stream import SocketStream
from smtpgate.routing.model import BackendSettings
from smtpgate.session.ports import Seeker
from smtpgate.session.streams import StreamLost, StreamTimeout

# Of one name in one dial: with more, the parts of a connect timeout get shorter than a lost SYN's second (RFC 6298).
MAX_ADDRESSES: Final = 4
# Seconds for which an address that failed is tried after the others: nginx's fail_timeout.
FAIL_TIMEOUT: Final = 10.0
MAX_REMEMBERED: Final = 1024  # addresses for it, and names whose turn is known


class Dialler:
    """The connections that one process makes to backends."""

    def __init__(self, clock: Clock, resolver: Resolver, tls: ClientTls) -> None:
        self._clock = clock
        self._resolver = resolver
        self._tls = tls
        self._turns: dict[str, int] = {}
        self._failed: dict[tuple[str, int], float] = {}  # when it may come first again, monotonic seconds

    def dial(
        self, host: str, port: int, settings: BackendSettings, seeker: Seeker | None, deadline: Deadline
    ) -> SocketStream:
        """Connect to a name or an address. seeker: whose connection a PROXY header tells of, None for our own.

        Raises StreamTimeout (every address was silent), StreamLost with the last one's reason, OutOfResources.
        """
        addresses = self._ordered(host, port, deadline)
        fault = ""  # its words: an exception that a frame keeps keeps that frame
        for tried, address in enumerate(addresses):
            part = Deadline(self._clock, deadline.remaining() / (len(addresses) - tried))
            try:
                stream = self._open(address, port, host, settings, seeker, part)
            except OutOfResources:
                raise
            except StreamTimeout:
                self._note(address, port)
            except StreamLost as lost:
                self._note(address, port)
                fault = str(lost) if address == host else f"{address}: {lost}"
            else:
                self._failed.pop((address, port), None)
                return stream
        raise StreamLost(fault) if fault else StreamTimeout

    def _open(
        self, address: str, port: int, host: str, settings: BackendSettings, seeker: Seeker | None, deadline: Deadline
    ) -> SocketStream:
        stream = connect(address, port, deadline, self._tls)
        try:
            if settings.proxy_protocol != "off":
                client, tls = (None, None) if seeker is None else (seeker.peer, seeker.tls)
                stream.write(proxyheader.of(settings.proxy_protocol, client, tls, stream.peer), deadline)
            if settings.tls.mode == "implicit":
                stream.start_client_tls(settings.tls, settings.tls.server_name or host, deadline)
        except BaseException:  # a killed greenlet leaves no connection behind
            stream.close()
            raise
        return stream

    def _ordered(self, host: str, port: int, deadline: Deadline) -> tuple[str, ...]:
        """The addresses to try. IPv4 first, within each family one further at each dial, so that all are used; those
        that failed just now come last.
        """
        addresses = self._resolver.addresses(host, deadline)
        if len(addresses) == 1:
            return addresses
        if len(self._turns) >= MAX_REMEMBERED:
            self._turns.clear()
        turn = self._turns[host] = self._turns.get(host, -1) + 1
        now = self._clock.monotonic()
        ordered: list[str] = []
        for sixth in (False, True):
            family = [address for address in addresses if (":" in address) is sixth]
            if family:
                start = turn % len(family)
                ordered += family[start:] + family[:start]
        ordered.sort(key=lambda address: self._failed.get((address, port), 0.0) > now)
        return tuple(ordered[:MAX_ADDRESSES])

    def _note(self, address: str, port: int) -> None:
        self._failed.pop((address, port), None)
        if len(self._failed) >= MAX_REMEMBERED:
            del self._failed[next(iter(self._failed))]  # the oldest
        self._failed[address, port] = self._clock.monotonic() + FAIL_TIMEOUT
