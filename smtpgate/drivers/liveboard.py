"""How workers' reports and an operator's orders travel: through the shared store, or through a folder.

Whoever publishes, shows or orders opens the same board from its own configuration (`open_board`): the workers of all
nodes, the console, gatectl. With a shared store the board is in it (`liveredis`); with memory://, where there is one
node, it is the folder `live` in `state_dir` (`livefolder`).

Owns the port and its bounds. Refuses to know what a report says (`live`) and who makes it (`livereport`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from smtpgate.clock import Clock
from smtpgate.drivers.livefolder import FolderBoard
from smtpgate.drivers.liveredis import RedisBoard
from smtpgate.live import Order, Report, Sighting
from smtpgate.policy.storeuri import MEMORY, parse_store_uri

# Seconds for each of connect and reply. No session waits for it.
PATIENCE: Final = 2.0


class NoBoard(ValueError):
    """The configuration names no place that another process could look at."""


class LiveBoard(Protocol):
    """Each method raises policy.store.StoreUnavailable where the place cannot be reached, and nothing else.

    public: the place, for people; nothing secret. blocking: whether its calls wait for a disk, which stops all
    greenlets of a thread.
    """

    public: str
    blocking: bool

    def publish(self, report: Report) -> None:
        """Replace what this worker has said before."""

    def withdraw(self, report: Report) -> None:
        """The worker ends."""

    def sightings(self) -> list[Sighting]:
        """The latest report of each worker that is there, or was within KEEP seconds, by node and pid.

        One that cannot be read (a newer version's, perhaps) is left out.
        """

    def reports(self) -> list[Report]:
        """Those that are younger than STALE."""

    def orders(self) -> list[Order]:
        """All that are in force, by pool and backend."""

    def drain(self, pool: str, backend: str, by: str) -> Order:
        """No new sessions for this backend until `undrain`. by: who says so. Whether it exists is not asked: names
        are those of the policies, which each worker compares. A second order replaces the first.
        """

    def undrain(self, pool: str, backend: str) -> bool:
        """Take the order back. False: there was none."""

    def close(self) -> None:
        """Let go of connections. Never raises; the board stays usable."""


def open_board(store_uri: str, state_dir: Path | None, clock: Clock, patience: float = PATIENCE) -> LiveBoard:
    """The board of a configuration whose `store` and `state_dir` these are. Connects to nothing.

    patience: seconds for each of connect and reply, where the store is shared. Raises NoBoard for memory:// without
    a state_dir, and ValueError, without any part of the URI, for what is no store.
    """
    store = parse_store_uri(store_uri)
    if store.scheme != MEMORY:
        return RedisBoard(store, clock, patience)
    if state_dir is None:
        raise NoBoard("memory:// is each process's own, and there is no state_dir; expected redis://… or a state_dir")
    return FolderBoard(state_dir, clock)
