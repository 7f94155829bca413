"""What the console's pages are made of: handed in by whoever builds the service (wsgi), opened by nobody here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from authsvc.console.edits import Edits
from authsvc.console.traffic import Traffic
from smtpgate.clock import Clock
from smtpgate.drivers.liveboard import LiveBoard
from smtpgate.drivers.policyfile import FolderStatus
from smtpgate.drivers.quotas import Quotas
from smtpgate.journal import Journal
from smtpgate.live import Order, Report, Sighting
from smtpgate.policy.store import BucketStore, StoreUnavailable
from smtpgate.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Sources:
    """board: None where no other process can be seen, `no_board` says why. quotas, store: None where each process
    counts for itself (memory://). snapshot: the policies in force here; status: of their folder. host: for {host} in
    replies.
    """

    board: LiveBoard | None
    no_board: str
    quotas: Quotas | None
    store: BucketStore | None
    snapshot: Callable[[], Snapshot]
    status: Callable[[], FolderStatus]
    edits: Edits
    traffic: Traffic
    host: str
    clock: Clock
    journal: Journal

    def sightings(self) -> list[Sighting]:
        """Raises StoreUnavailable, as all that asks the board."""
        return [] if self.board is None else self.board.sightings()

    def reports(self) -> list[Report]:
        return [] if self.board is None else self.board.reports()

    def orders(self) -> list[Order]:
        return [] if self.board is None else self.board.orders()


def watch(sources: Sources, interval: float) -> None:
    """Sample the traffic for ever, every `interval` seconds. A board that cannot be reached leaves a gap."""
    while True:
        try:
            sources.traffic.add(sources.reports(), sources.clock.now())
        except StoreUnavailable:
            pass  # the pages tell of it
        sources.clock.sleep(interval)
