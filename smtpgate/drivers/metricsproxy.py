"""All that one worker of the proxy counts, put together: what is between it and its ports, and what is asked.

Without a folder nobody asks for metrics: then nothing is counted, and nothing stands between anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from smtpgate.clock import Clock
from smtpgate.drivers import metricsgather
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.journal import LineJournal
from smtpgate.drivers.listener import Gate
from smtpgate.drivers.listenertls import ListenerTls
from smtpgate.drivers.metrics import Metrics
from smtpgate.drivers.metricsfolder import MetricsFolder
from smtpgate.drivers.metricsports import BackendCounts, CountedBackends
from smtpgate.drivers.metricsserver import WorkerMetrics, open_metrics
from smtpgate.drivers.metricsvalues import Families
from smtpgate.drivers.policyfile import FolderStatus
from smtpgate.policy.engine import Engine
from smtpgate.session.observing import Records
from smtpgate.session.ports import Backends


class ProxyMetrics:
    """folder: where all workers' are put together; None counts nothing."""

    def __init__(self, folder: MetricsFolder | None, clock: Clock, journal: LineJournal) -> None:
        self._folder = folder
        self._clock = clock
        self._journal = journal
        self._families = Families()
        self._records = None if folder is None else Metrics(self._families)
        self._leases = None if folder is None else BackendCounts(self._families, clock)

    @property
    def families(self) -> Families | None:
        """Where more may be counted."""
        return None if self._folder is None else self._families

    @property
    def readers(self) -> tuple[Records, ...]:
        """Who is told of the sessions' records."""
        return () if self._records is None else (self._records,)

    def held(self, limit: str) -> None:
        """A session stands in line for a limit (`drivers.holds`)."""
        if self._records is not None:
            self._records.held(limit)

    def backends(self, backends: Backends) -> Backends:
        return backends if self._leases is None else CountedBackends(backends, self._leases)

    def start(
        self,
        gate: Gate,
        engine: Engine,
        pools: PoolBackends,
        tls: Mapping[str, ListenerTls],
        status: Callable[[], FolderStatus] | None,
        spawn: Callable[..., object],
    ) -> WorkerMetrics | None:
        """Publish from now on. status: of the policies, None without any. None: nobody asks, or there is no room."""
        if self._folder is None or self._records is None:
            return None
        families, clock = self._families, self._clock
        gathers = [
            self._records.gather,
            metricsgather.door(families, lambda: gate.refused, lambda: gate.stressed),
            metricsgather.limits(families, engine),
            metricsgather.pools(families, pools, clock),
            metricsgather.certificates(families, tls, clock),
        ]
        if status is not None:
            gathers.append(metricsgather.policies(families, status))
        return open_metrics(self._folder, families, gathers, self._journal, clock, spawn)
