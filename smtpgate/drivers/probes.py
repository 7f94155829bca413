"""Probes: sessions of our own that ask a backend how it is.

Owns what is said (greeting, EHLO, STARTTLS as sessions would, EHLO, QUIT: never a connection that just drops), how
often, and that probes of many backends do not come at once. What a finding means, rise and fall, is
`routing.health`'s; who probes at all is `drivers.healthwatch`'s.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import gevent

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers.backends import Dial
from smtpgate.drivers.connecting import OutOfResources
from smtpgate.journal import Journal
from smtpgate.routing.model import BackendSettings, BackendSpec, HealthSpec, PoolSpec, State
from smtpgate.session import handshake
from smtpgate.session.link import BackendLink, LinkLost
from smtpgate.session.ports import Identity
from smtpgate.session.streams import StreamLost, StreamTimeout
from smtpgate.smtp import encode
from smtpgate.smtp.extensions import Extensions

# The first probes of a start come within this many seconds, spread; HAProxy too does not wait a whole interval.
FIRST: Final = 1.0
# Each wait is up to this part shorter or longer, as with HAProxy's spread-checks.
JITTER: Final = 0.1

# Nobody is introduced: a probe speaks for the proxy itself.
_NOBODY: Final = Identity("unix:", "[UNAVAILABLE]", None, extended=True, login=None)


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe's result. reason: why it failed. extensions: of the EHLO that sessions hear, None if none was."""

    up: bool
    reason: str = ""
    extensions: Extensions | None = None


class Prober:
    """Asks one backend once. server_name: ours, for EHLO."""

    def __init__(self, clock: Clock, dial: Dial, server_name: str) -> None:
        self._clock = clock
        self._dial = dial
        self._server_name = server_name

    def probe(self, backend: BackendSpec, settings: BackendSettings, health: HealthSpec) -> Finding:
        """Takes at most `health.timeout`. Never raises for what a backend does; OutOfResources is our own matter."""
        deadline = Deadline(self._clock, health.timeout)
        try:
            stream = self._dial(backend.host, backend.port, settings, None, deadline)
        except OutOfResources:
            raise
        except StreamTimeout:
            return Finding(False, "connect timed out")
        except StreamLost as lost:
            return Finding(False, str(lost))
        link = BackendLink(stream, self._clock)
        try:
            return Finding(True) if health.probe == "connect" else self._greet(link, backend, settings, deadline)
        finally:
            link.close()

    def _greet(
        self, link: BackendLink, backend: BackendSpec, settings: BackendSettings, deadline: Deadline
    ) -> Finding:
        anonymous = replace(settings, xclient="off", auth=None)
        try:
            handshake.greet(link, self._server_name, backend.host, _NOBODY, anonymous, deadline)
        except handshake.HandshakeRefused as refused:
            self._leave(link, deadline)
            return Finding(False, str(refused))
        except handshake.TlsMissing as missing:
            self._leave(link, deadline)
            return Finding(False, str(missing))
        except LinkLost as lost:
            return Finding(False, str(lost))
        extensions = link.extensions
        self._leave(link, deadline)
        return Finding(True, "", extensions)

    @staticmethod
    def _leave(link: BackendLink, deadline: Deadline) -> None:
        try:
            link.ask(encode.QUIT, deadline=deadline)
        except LinkLost:  # it may leave as it likes
            pass


@dataclass(frozen=True, slots=True)
class Subject:
    """A backend as it is probed. One that was edited is another."""

    pool: str
    backend: BackendSpec
    settings: BackendSettings
    health: HealthSpec


class Probes:
    """The probes of one process, each backend in a greenlet of its own. chance: numbers drawn evenly from [0, 1).
    report: told of each finding.
    """

    def __init__(
        self,
        clock: Clock,
        prober: Prober,
        chance: Callable[[], float],
        report: Callable[[Subject, Finding], None],
        journal: Journal,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._prober = prober
        self._chance = chance
        self._report = report
        self._running: dict[Subject, gevent.Greenlet[[Subject], None]] = {}

    def watch(self, pools: Mapping[str, PoolSpec]) -> None:
        """From now on these, and no others. One that is off is not asked."""
        wanted = {
            Subject(name, backend, spec.settings, spec.health)
            for name, spec in pools.items()
            for backend in spec.backends
            if spec.health.probe != "off" and backend.state is not State.OFF
        }
        for gone in self._running.keys() - wanted:
            self._running.pop(gone).kill(block=False)
        for new in wanted - self._running.keys():
            self._running[new] = gevent.spawn(self._run, new)

    def stop(self) -> None:
        self.watch({})

    def _run(self, subject: Subject) -> None:
        gevent.sleep(self._chance() * min(FIRST, subject.health.every))
        while True:
            began = self._clock.monotonic()
            try:
                finding = self._prober.probe(subject.backend, subject.settings, subject.health)
                self._report(subject, finding)
            except OutOfResources as ours:
                self._journal.warning(
                    "probe_failed", pool=subject.pool, backend=subject.backend.name, reason=str(ours)
                )
            except Exception:  # noqa: BLE001 - a bug of ours must not end the probes for good
                self._journal.error("bug", traceback=traceback.format_exc(limit=-6))
            interval = subject.health.every * (1 - JITTER + 2 * JITTER * self._chance())
            gevent.sleep(max(0.0, interval - (self._clock.monotonic() - began)))
