"""A worker's part in the live board: it publishes its report, and carries out what an operator has ordered.

Owns when (every INTERVAL, in a greenlet of its own) and what becomes of a board that cannot be reached: nothing. Mail
flows as before, the orders that were last read stay in force, and the log has one line of it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final

import gevent

from smtpgate.clock import Clock
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.liveboard import LiveBoard
from smtpgate.drivers.livereport import WorkerReports
from smtpgate.journal import Journal
from smtpgate.live import INTERVAL, Order, Report
from smtpgate.policy.store import StoreUnavailable

# Seconds for each of connect and reply: a report that takes longer is replaced by the next one soon.
PATIENCE: Final = 0.5

Orders = dict[str, dict[str, str]]  # pool -> backend -> who says so


class LivePublisher:
    """start() once. drain() and end() are told by whoever ends the worker."""

    def __init__(
        self, board: LiveBoard, reports: WorkerReports, backends: PoolBackends, clock: Clock, journal: Journal
    ) -> None:
        self._board = board
        self._reports = reports
        self._backends = backends
        self._clock = clock
        self._journal = journal
        self._orders: Orders = {}
        self._latest: Report | None = None
        self._reached = True

    def start(self) -> None:
        """Go on for ever; the orders are read at once."""
        gevent.spawn(self._run)

    def drain(self) -> None:
        """The worker ends when its sessions have."""
        self._reports.draining = True

    def end(self) -> None:
        """The worker ends now: nobody is to miss it. It waits no longer than a report may, and raises nothing."""
        if self._latest is not None:
            with contextlib.suppress(StoreUnavailable):
                self._board.withdraw(self._latest)
        self._board.close()

    def step(self) -> None:
        """One round: orders, then a report. A board that cannot be reached is a line in the log, once."""
        try:
            self._obey(_by_pool(self._call(self._board.orders)))
            self._latest = self._reports.make()
            self._call(self._board.publish, self._latest)
        except StoreUnavailable as error:
            if self._reached:
                self._journal.warning("reports_down", board=self._board.public, reason=str(error))
            self._reached = False
        else:
            if not self._reached:
                self._journal.info("reports_up", board=self._board.public)
            self._reached = True

    def _run(self) -> None:
        while True:
            try:
                self.step()
            except Exception:  # noqa: BLE001 - a bug of ours must not end the reports for good
                self._journal.error("bug", traceback=traceback.format_exc(limit=-6))
            self._clock.sleep(INTERVAL)

    def _obey(self, orders: Orders) -> None:
        before, self._orders = self._orders, orders
        if orders == before:
            return
        self._backends.obey(orders)
        for pool, backends in orders.items():
            for backend, by in backends.items():
                if before.get(pool, {}).get(backend) != by:
                    self._journal.warning("backend_drained", pool=pool, backend=backend, by=by)
        for pool, backends in before.items():
            for backend in backends.keys() - orders.get(pool, {}).keys():
                self._journal.info("backend_undrained", pool=pool, backend=backend)

    def _call(self, act: Callable[..., Any], *args: Any) -> Any:
        """What waits for a disk waits in a thread: sessions go on meanwhile."""
        return gevent.get_hub().threadpool.apply(act, args) if self._board.blocking else act(*args)


def _by_pool(orders: Iterable[Order]) -> Orders:
    found: Orders = {}
    for order in orders:
        found.setdefault(order.pool, {})[order.backend] = order.by
    return found
