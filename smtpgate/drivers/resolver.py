"""Host names of backends -> addresses, in the background.

Owns how long an answer is good (its TTL, within bounds), that a name in use is asked for again before anybody has to
wait, and that a name server which is down changes nothing: the last answer stays good for a day (RFC 8767). The hosts
file comes first, as with getaddrinfo. The DNS itself is dnspython's, on the name servers and the search list of
resolv.conf; its sockets are those that gevent has patched, so no thread is needed. Refuses to know what an address is
wanted for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

import dns.exception
import dns.resolver
import gevent
from gevent.event import Event

from smtpgate.clock import Clock, Deadline
from smtpgate.session.streams import StreamLost, StreamTimeout

MIN_TTL: Final = 1.0  # a TTL of 0 would mean a question for each connection
MAX_TTL: Final = 3600.0  # an hour: longer than that nobody waits for a move to be noticed
# RFC 8767 section 5: between a day and three. A name server is mended in that time, or nobody misses it.
MAX_STALE: Final = 86400.0
STALE_PATIENCE: Final = 1.8  # seconds for a new answer where there is an old one: RFC 8767 section 5
RETRY: Final = 5.0  # seconds until a question that failed is asked again; RFC 8767 section 5 says at most 30
LIFETIME: Final = 4.0  # of one question, whoever answers: less than a connect (drivers.backends.CONNECT_TIMEOUT)
# A name that nobody asked for in so long is asked for no more, until somebody does.
IDLE: Final = 600.0
MAX_NAMES: Final = 1024  # more than policies name; what edits leave behind is forgotten, the least used first


class NoSuchName(Exception):
    """The name servers know the name, or its domain, and say that it has no address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """addresses: IPv4 before IPv6, each in the order of the answer. ttl: seconds, the least of the whole chain."""

    addresses: tuple[str, ...]
    ttl: float


class NameServers:
    """The DNS as resolv.conf describes it. Read again when the file changes; without one, a server on this machine.

    port: of every name server.
    """

    def __init__(self, conf: str = "/etc/resolv.conf", port: int = 53) -> None:
        self._conf = conf
        self._port = port
        self._stamp: tuple[int, ...] | None = None
        self._resolver: dns.resolver.Resolver | None = None

    def ask(self, name: str) -> Answer:
        """Both families; where nobody could tell one of them, the other is good until it can be asked again. Raises
        NoSuchName, or dns.exception.DNSException where nobody answered.
        """
        resolver = self._current()
        addresses: list[str] = []
        ttl = MAX_TTL
        fault: dns.exception.DNSException | None = None
        for kind in ("A", "AAAA"):
            try:
                answer = resolver.resolve(name, kind, lifetime=LIFETIME, search=True, raise_on_no_answer=False)
            except dns.resolver.NXDOMAIN:
                raise NoSuchName(f"{name} does not exist") from None
            except dns.exception.DNSException as error:
                fault = fault or error
                if isinstance(error, dns.resolver.LifetimeTimeout):
                    break  # the other family's question would wait as long
                continue
            if answer.rrset is not None:
                addresses += [record.address for record in answer]
                ttl = min(ttl, answer.chaining_result.minimum_ttl)
        if addresses:
            return Answer(tuple(addresses), ttl if fault is None else min(ttl, RETRY))
        if fault is not None:
            try:
                raise fault
            finally:
                del fault  # its traceback has this frame
        raise NoSuchName(f"{name} has no address")

    def _current(self) -> dns.resolver.Resolver:
        stamp = _stamp(self._conf)
        if self._resolver is None or stamp != self._stamp:
            try:
                resolver = dns.resolver.Resolver(self._conf)
            except dns.resolver.NoResolverConfiguration:
                resolver = dns.resolver.Resolver(configure=False)
                resolver.nameservers = ["127.0.0.1"]  # as resolv.conf(5) says
            resolver.port = self._port
            self._resolver, self._stamp = resolver, stamp
        return self._resolver


@dataclass(slots=True)
class _Name:
    """addresses: the last that were told, () if there are none. told: when. fault: why there is nothing newer.

    settled: set once the question that is under way, or the last one, was answered somehow.
    """

    used: float
    addresses: tuple[str, ...] = ()
    told: float = 0.0
    fault: str = ""
    settled: Event = field(default_factory=Event)
    keeper: gevent.Greenlet[[str, _Name], None] | None = None


class Resolver:
    """Addresses by name for one process. ask: the DNS. warn: told when a name cannot be asked for any more."""

    def __init__(
        self,
        clock: Clock,
        ask: Callable[[str], Answer] | None = None,
        *,
        hosts: str = "/etc/hosts",
        warn: Callable[[str, str], None] = lambda name, reason: None,
    ) -> None:
        self._clock = clock
        self._ask = NameServers().ask if ask is None else ask
        self._hosts = HostsFile(hosts)
        self._warn = warn
        self._names: dict[str, _Name] = {}

    def addresses(self, host: str, deadline: Deadline) -> tuple[str, ...]:
        """At least one. An address is its own answer. Waits only for a name that is new, or was not used for long.

        Raises StreamLost (no such name, or nobody answers and no old answer is left), StreamTimeout.
        """
        if _is_address(host):
            return (host,)
        if known := self._hosts.get(host):
            return known
        name = self._used(host.lower())
        if not name.settled.is_set():
            patience = deadline.remaining()
            name.settled.wait(min(patience / 2, STALE_PATIENCE) if name.addresses else patience)
        now = self._clock.monotonic()
        if name.addresses and now - name.told <= MAX_STALE:
            return name.addresses
        if not name.settled.is_set():
            raise StreamTimeout
        raise StreamLost(f"look-up of {host}: {name.fault}")

    def close(self) -> None:
        """Ask no more."""
        for name in self._names.values():
            if name.keeper is not None:
                name.keeper.kill()
        self._names.clear()

    def _used(self, host: str) -> _Name:
        now = self._clock.monotonic()
        name = self._names.get(host)
        if name is None:
            if len(self._names) >= MAX_NAMES:
                self._forget(min(self._names, key=lambda one: self._names[one].used))
            name = self._names[host] = _Name(now)
        name.used = now
        if name.keeper is None:
            name.settled.clear()
            name.keeper = gevent.spawn(self._keep, host, name)
        return name

    def _forget(self, host: str) -> None:
        keeper = self._names.pop(host).keeper
        if keeper is not None:
            keeper.kill(block=False)

    def _keep(self, host: str, name: _Name) -> None:
        """Ask, and again whenever the answer is too old, as long as somebody uses the name."""
        try:
            while True:
                gevent.sleep(self._refresh(host, name))
                if self._clock.monotonic() - name.used > IDLE:
                    return
        finally:
            name.keeper = None

    def _refresh(self, host: str, name: _Name) -> float:
        """One question. Returns the seconds until the next."""
        wait = RETRY
        try:
            answer = self._ask(host)
        except NoSuchName as none:
            name.addresses = ()  # that is an answer too, and newer than the last one
            self._failed(host, name, str(none))
        except dns.exception.DNSException as error:
            self._failed(host, name, str(error) or type(error).__name__)
        except OSError as error:  # no route, no socket
            self._failed(host, name, error.strerror or str(error))
        else:
            name.addresses, name.told, name.fault = answer.addresses, self._clock.monotonic(), ""
            wait = min(max(answer.ttl, MIN_TTL), MAX_TTL)
        name.settled.set()
        return wait

    def _failed(self, host: str, name: _Name, reason: str) -> None:
        if not name.fault:
            self._warn(host, reason)
        name.fault = reason


class HostsFile:
    """hosts(5), read again when it changes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._names: dict[str, tuple[str, ...]] = {}

    def get(self, host: str) -> tuple[str, ...]:
        """All addresses of a name, IPv4 before IPv6; () if it is not there."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            self._names = self._read()
        return self._names.get(host.lower(), ())

    def _read(self) -> dict[str, tuple[str, ...]]:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                lines = file.readlines()
        except OSError:
            return {}
        found: dict[str, list[str]] = {}
        for line in lines:
            address, *names = line.partition("#")[0].split() or [""]
            if _is_address(address):
                for name in names:
                    found.setdefault(name.lower(), []).append(address)
        return {
            name: tuple(sorted(dict.fromkeys(those), key=lambda one: ":" in one)) for name, those in found.items()
        }


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
