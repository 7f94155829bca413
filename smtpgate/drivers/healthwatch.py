"""What the workers of one node know of the backends together.

One of them leads: it probes every backend of every pool and publishes what it finds, with what the backends offer in
EHLO. All of them publish whom their breakers have ejected. Four times a second each looks at what the others have
said and tells its own pools. Owns that exchange and the log line of each change of state; the counting is
`routing.health`'s, the shared memory `drivers.nodestate`'s.

Entries name backends by pool, name and address: workers read an edited policy some moments apart, and must not take
one machine's state for another's.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import gevent

from smtpgate.clock import Clock
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.nodestate import LEADER, Board
from smtpgate.drivers.probes import Finding, Probes, Subject
from smtpgate.journal import Journal
from smtpgate.routing.model import PoolSpec
from smtpgate.smtp import capabilities
from smtpgate.smtp.extensions import Extensions

INTERVAL: Final = 0.25  # seconds between two looks: what one worker finds out, all know within a second
MAX_REASON: Final = 120  # characters of a reason that is shared

# Pool, backend, "host:port".
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """What was found out of a backend. since: monotonic seconds, which all processes of a machine count alike.

    offer: the EHLO keywords that a listener could offer, with their parameters; None where nobody has asked yet.
    """

    up: bool
    reason: str
    since: float
    offer: dict[str, list[str]] | None = None

    @property
    def extensions(self) -> Extensions | None:
        if self.offer is None:
            return None
        return Extensions(MappingProxyType({name: tuple(words) for name, words in self.offer.items()}))


class HealthWatch:
    """One worker's part. offered: told of the EHLO lines for listeners with `capabilities: auto`, as they change."""

    def __init__(
        self,
        clock: Clock,
        backends: PoolBackends,
        board: Board,
        journal: Journal,
        offered: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._clock = clock
        self._backends = backends
        self._board = board
        self._journal = journal
        self._offered = offered
        self._probes: Probes | None = None
        self._probed: dict[Key, Entry] = {}  # the leader's findings: our own, or as read
        self._turned: dict[Key, Entry] = {}  # the turns of our own breakers
        self._lines = capabilities.MINIMUM
        self._draining = False

    def start(self, probes: Probes) -> None:
        """Go on for ever. probes: for when this worker leads; they report to `found`."""
        self._probes = probes
        gevent.spawn(self._run)

    def edited(self) -> None:
        """The pools are others now."""
        if self._probes is not None and self._board.leads:
            self._probes.watch(self._specs())
            self._publish()
        self._tell_probed()
        self._consider()

    def drain(self) -> None:
        """This worker ends: another one is to lead, at once."""
        self._draining = True
        if self._probes is not None:
            self._probes.stop()
        self._board.resign()

    def found(self, subject: Subject, finding: Finding) -> None:
        """A probe's result, where this worker leads."""
        name = subject.backend.name
        key = (subject.pool, name, _address(subject.backend.host, subject.backend.port))
        if not self._board.leads or key != self._key(subject.pool, name):
            return  # edited away while its probe went on
        pool, now = self._backends.pools[subject.pool], self._clock.monotonic()
        before = self._probed.get(key, Entry(True, "", now))
        offer = before.offer if finding.extensions is None else _offer(finding.extensions)
        entry = Entry(before.up, before.reason, before.since, offer)
        if pool.probed(name, finding.up, finding.reason, now):
            entry = Entry(finding.up, finding.reason[:MAX_REASON], now, offer)
            self._log(subject.pool, name, entry, by="probe")
            self._backends.serve()
        if self._probed.get(key) != entry:
            self._probed[key] = entry
            self._publish()
            self._consider()

    def turned(self, pool: str, name: str, up: bool) -> None:
        """A breaker of ours has closed (up) or opened."""
        key = self._key(pool, name)
        if key is None:
            return  # edited away while its session went on
        now = self._clock.monotonic()
        reason = "" if up else self._reason(pool, name, now)[:MAX_REASON]
        entry = self._turned[key] = Entry(up, reason, now)
        self._turned = {one: turn for one, turn in self._turned.items() if self._is_recent(turn)}
        self._log(pool, name, entry, by="sessions")
        self._board.publish(_document(self._turned))
        self._consider()

    def look(self) -> None:
        """One look at what the others have said. Does not wait.

        First what a leader before us has found: whoever follows it goes on from there.
        """
        self._read()
        if not self._draining and not self._board.leads and self._board.lead():
            self._journal.info("health_leader")
            if self._probes is not None:
                self._probes.watch(self._specs())
            self._publish()

    def _read(self) -> None:
        news = self._board.news()
        for area, document in news:
            entries = _entries(document)
            if area == LEADER:
                self._probed = entries
                self._tell_probed()
            else:
                self._tell_turned(entries)
        if news:
            self._backends.serve()
            self._consider()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a bug of ours must not end the exchange for good
                self._journal.error("bug", traceback=traceback.format_exc(limit=-6))
            gevent.sleep(INTERVAL)

    # --- telling our pools -----------------------------------------------------------------------------------------

    def _tell_probed(self) -> None:
        if self._board.leads:
            return  # they have told us
        for (pool, name, _), entry in self._still_probed().items():
            self._backends.pools[pool].told(name, entry.up, entry.reason, entry.since)

    def _tell_turned(self, entries: Mapping[Key, Entry]) -> None:
        for (pool, name, _), entry in self._known(entries).items():
            if self._is_recent(entry):
                self._backends.pools[pool].told(name, entry.up, entry.reason, entry.since, passive=True)

    def _known(self, entries: Mapping[Key, Entry]) -> dict[Key, Entry]:
        """Those that are in our pools, at the same address."""
        keys = {
            (pool, backend.name, _address(backend.host, backend.port))
            for pool, spec in self._specs().items()
            for backend in spec.backends
        }
        return {key: entry for key, entry in entries.items() if key in keys}

    def _still_probed(self) -> dict[Key, Entry]:
        """What probes have found of our backends; of one that is probed no more nobody could ever take it back."""
        specs = self._specs()
        return {key: entry for key, entry in self._known(self._probed).items() if specs[key[0]].health.probe != "off"}

    def _is_recent(self, entry: Entry) -> bool:
        """An ejection from long ago is over; whoever said so may be dead."""
        longest = max((spec.breaker.open for spec in self._specs().values()), default=0.0)
        return self._clock.monotonic() - entry.since < longest

    # --- what others hear ------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        self._probed = self._still_probed()
        if not self._board.publish(_document(self._probed), as_leader=True):
            self._journal.warning("health_unshared", reason="the shared memory has no room for so many backends")

    def _consider(self) -> None:
        """What all backends offer that take sessions. One that was not asked yet may offer nothing."""
        offers: list[Extensions | None] = []
        now = self._clock.monotonic()
        for name, pool in self._backends.pools.items():
            live = {view.name for view in pool.view(now) if view.state in ("up", "backup")}
            for backend in pool.spec.backends:
                if backend.name in live:
                    entry = self._probed.get((name, backend.name, _address(backend.host, backend.port)))
                    offers.append(entry.extensions if entry else None)
        if not offers:
            return  # nobody is there; what they will take when they are back is not known to have changed
        known = [offer for offer in offers if offer is not None]
        lines = capabilities.common(known) if len(known) == len(offers) else capabilities.MINIMUM
        if lines != self._lines:
            self._lines = lines
            self._offered(lines)

    def _log(self, pool: str, name: str, entry: Entry, *, by: str) -> None:
        now = self._clock.now() - (self._clock.monotonic() - entry.since)
        since = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if entry.up:
            self._journal.info("backend_up", pool=pool, backend=name, by=by, since=since)
        else:
            self._journal.warning("backend_down", pool=pool, backend=name, by=by, reason=entry.reason, since=since)

    def _specs(self) -> dict[str, PoolSpec]:
        return {name: pool.spec for name, pool in self._backends.pools.items()}

    def _reason(self, pool: str, name: str, now: float) -> str:
        return next(view.reason for view in self._backends.pools[pool].view(now) if view.name == name)

    def _key(self, pool: str, name: str) -> Key | None:
        state = self._backends.pools.get(pool)
        for backend in () if state is None else state.spec.backends:
            if backend.name == name:
                return pool, name, _address(backend.host, backend.port)
        return None


def _address(host: str, port: int) -> str:
    return f"{host}:{port}"


def _offer(extensions: Extensions) -> dict[str, list[str]]:
    """What a listener could offer of it; the rest would only fill the shared memory."""
    return {name: list(extensions.params(name)) for name in (*capabilities.CARRIED, "SIZE") if extensions.has(name)}


def _document(entries: Mapping[Key, Entry]) -> list[Any]:
    return [[*key, asdict(entry)] for key, entry in entries.items()]


def _entries(document: Any) -> dict[Key, Entry]:
    return {(pool, name, address): Entry(**fields) for pool, name, address, fields in document or ()}
