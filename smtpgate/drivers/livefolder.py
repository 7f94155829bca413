"""The live board as a folder, for a proxy whose store is memory://: one machine, one user.

    <state_dir>/live/<pid>-<began>.json   the latest report of a worker; how old it is, the file's own time tells
    <state_dir>/live/orders.json          an operator's orders, an array; not there where there are none

Files are replaced by rename, so a reader sees one report or the next; orders are edited under a lock. A worker that
was killed leaves its file behind: whoever publishes next removes it after KEEP seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from smtpgate.clock import Clock
from smtpgate.drivers.livejson import (
    MAX_OCTETS,
    orders_from_json,
    orders_to_json,
    report_from_json,
    report_to_json,
)
from smtpgate.live import KEEP, MAX_ORDERS, MAX_REPORTS, STALE, Order, Report, Sighting
from smtpgate.policy.store import StoreUnavailable

FOLDER: Final = "live"
ORDERS: Final = "orders.json"


class FolderBoard:
    """A `liveboard.LiveBoard` in `state_dir`. The folder is made when something is first written, for the owner of
    `state_dir` alone: users' names and addresses stand in it.
    """

    blocking = True

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._folder = state_dir / FOLDER
        self._clock = clock
        self.public = str(self._folder)

    def __repr__(self) -> str:
        return f"<FolderBoard {self.public}>"

    def publish(self, report: Report) -> None:
        with self._disk():
            self._replace(_file_of(report), report_to_json(report))
            self._forget()

    def withdraw(self, report: Report) -> None:
        with self._disk():
            (self._folder / _file_of(report)).unlink(missing_ok=True)

    def sightings(self) -> list[Sighting]:
        with self._disk():
            found = [self._sighting(path) for path in self._files()[:MAX_REPORTS]]
        kept = [one for one in found if one is not None and one.age <= KEEP]
        return sorted(kept, key=lambda one: (one.report.node, one.report.pid, one.report.began))

    def reports(self) -> list[Report]:
        return [one.report for one in self.sightings() if one.age <= STALE]

    def orders(self) -> list[Order]:
        with self._disk():
            return self._orders()

    def drain(self, pool: str, backend: str, by: str) -> Order:
        order = Order(pool, backend, by, self._clock.now())
        with self._editing() as orders:
            orders[:] = [one for one in orders if not one.concerns(pool, backend)]
            if len(orders) >= MAX_ORDERS:
                raise StoreUnavailable(f"{MAX_ORDERS} orders are in force already")
            orders.append(order)
        return order

    def undrain(self, pool: str, backend: str) -> bool:
        with self._editing() as orders:
            left = [one for one in orders if not one.concerns(pool, backend)]
            found = len(left) < len(orders)
            orders[:] = left
        return found

    def close(self) -> None:
        """Nothing is open."""

    # --- the folder ---

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == ".json" and path.name != ORDERS)
        except FileNotFoundError:
            return []

    def _sighting(self, path: Path) -> Sighting | None:
        try:
            with path.open("rb") as file:
                written, octets = os.fstat(file.fileno()).st_mtime, file.read(MAX_OCTETS + 1)
        except FileNotFoundError:  # it was withdrawn meanwhile
            return None
        report = report_from_json(octets)
        # A clock that was set back makes nobody younger than now.
        return None if report is None else Sighting(report, max(0.0, self._clock.now() - written))

    def _forget(self) -> None:
        """Take away what workers that were killed have left."""
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                if self._clock.now() - path.stat().st_mtime > KEEP:
                    path.unlink()

    def _orders(self) -> list[Order]:
        try:
            with (self._folder / ORDERS).open("rb") as file:
                found = orders_from_json(file.read(MAX_OCTETS + 1))
        except FileNotFoundError:
            return []
        if found is None:
            raise StoreUnavailable(f"{self._folder / ORDERS} is not a file of orders; remove it to have none")
        return sorted(found, key=lambda order: (order.pool, order.backend))[:MAX_ORDERS]

    @contextmanager
    def _editing(self) -> Iterator[list[Order]]:
        """The orders, to be changed in place; written when the block ends without an error."""
        with self._disk():
            self._make_folder()
            directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Goes with the descriptor, also when the process is killed.
                fcntl.flock(directory, fcntl.LOCK_EX)
                orders = self._orders()
                yield orders
                self._replace(ORDERS, orders_to_json(orders))
            finally:
                os.close(directory)

    def _replace(self, name: str, octets: bytes) -> None:
        """Not synced: after a crash of the machine a report is old anyway, and an order is the old or the new one."""
        self._make_folder()
        fresh = self._folder / f".{name}.new"
        fresh.unlink(missing_ok=True)  # a killed writer's; what is given away below must be of our own making
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            self._give(descriptor)
            file.write(octets)
        os.replace(fresh, self._folder / name)

    def _make_folder(self) -> None:
        os.makedirs(self._folder.parent, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)
            directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                self._give(directory)
            finally:
                os.close(directory)

    def _give(self, descriptor: int) -> None:
        """What root makes here, by `gatectl drain`, is the workers' too, who may be another user."""
        if os.geteuid() == 0:
            owner = os.stat(self._folder.parent)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(f"{error.filename or self._folder}: {error.strerror or error}") from None


def _file_of(report: Report) -> str:
    return f"{report.pid}-{report.began:.3f}.json"
