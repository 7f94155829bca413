"""GET /metrics, and nothing else: the page that Prometheus reads.

Owns what is answered, and to how many at once. In the proxy each worker serves it on a socket that the arbiter has
bound, beside its sessions and not counted among them, as long as the worker lives. In the auth service it is an
application at an address of its own. Refuses to know what is counted.
"""

from __future__ import annotations

import atexit
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import gevent
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from smtpgate.clock import Clock
from smtpgate.drivers import metricsgather
from smtpgate.drivers.journal import LineJournal
from smtpgate.drivers.metricsfolder import FolderCollector, MetricsFolder, Slot
from smtpgate.drivers.metricsgather import Gather
from smtpgate.drivers.metricsvalues import Families
from smtpgate.journal import Journal

PATH: Final = "/metrics"
# Prometheus asks every 15 s; two of them, a person, and one that hangs.
MAX_SCRAPES: Final = 8
# Seconds from a connection to its end; Prometheus' scrape_timeout is 10.
SCRAPE_TIMEOUT: Final = 10.0
# Seconds that a worker's end waits for answers under way; one takes 10 ms.
END_TIMEOUT: Final = 1.0
# Seconds between two looks at what has been counted: what a killed worker's death may cost.
INTERVAL: Final = 1.0


class WorkerMetrics:
    """A worker's part: it publishes what it has counted, and answers for all.

    gathers: are asked first, each time. Raises nothing of theirs: a bug there is a line in the log.
    """

    def __init__(
        self, slot: Slot, families: Families, gathers: Iterable[Gather], clock: Clock, journal: Journal
    ) -> None:
        self._slot = slot
        self._families = families
        self._gathers = tuple(gathers)
        self._clock = clock
        self._journal = journal
        self._lag = families.gauge(
            "smtpgate_worker_loop_lag_seconds",
            "By which a worker was late for what it does every second, the last time.",
            "max",
            "worker",
        )
        self._told: set[str] = set()
        self._server: WSGIServer | None = None
        self.application = application(slot.folder, self.publish)

    def run(self) -> None:
        """For a greenlet of its own: publish for ever."""
        label = (str(self._slot.number),)
        while True:
            self.publish()
            due = self._clock.monotonic() + INTERVAL
            self._clock.sleep(INTERVAL)
            self._lag.set(max(0.0, self._clock.monotonic() - due), label)

    def publish(self) -> None:
        """What has been counted until now is told from now on, by every worker."""
        try:
            for gather in self._gathers:
                gather()
            self._slot.write(self._families)
        except Exception:  # noqa: BLE001 - a bug of ours must not end the metrics for good
            self._tell_once("bug", traceback=traceback.format_exc(limit=-6))
        if not self._slot.room:
            self._tell_once("metrics_full", reason="more series than there is room for; the others are not told")

    def serve(self, sock: Any) -> None:
        """Answer on this listening socket. sock: gevent's."""
        self._server = WSGIServer(
            sock, self.application, spawn=Pool(MAX_SCRAPES), log=None, error_log=None, handler_class=_Handler
        )
        self._server.start()

    def retire(self) -> None:
        """Others are asked from now on, perhaps elsewhere. Who has asked already is answered."""
        if self._server is not None:
            self._server.close()

    def end(self) -> None:
        """The worker ends: the last answers, for END_TIMEOUT at most, and the last word on what was counted."""
        if self._server is not None:
            self._server.stop(END_TIMEOUT)
        self.publish()

    def _tell_once(self, event: str, **fields: str) -> None:
        if event not in self._told:
            self._told.add(event)
            self._journal.error(event, **fields)


def open_metrics(
    folder: MetricsFolder,
    families: Families,
    gathers: Iterable[Gather],
    journal: LineJournal,
    clock: Clock,
    spawn: Callable[..., object],
) -> WorkerMetrics | None:
    """Take a slot and publish in it from now on, to the worker's end; with what every process has to tell of itself.

    spawn: runs a function beside the others. None, and a line in the log, where the disk has no room.
    """
    try:
        slot = folder.claim()
    except OSError as error:
        journal.warning("metrics_unshared", reason=f"{error}; this worker's metrics are not told")
        return None
    log = metricsgather.log(families, journal.tally)
    process = metricsgather.process(families, slot.number, clock)
    metrics = WorkerMetrics(slot, families, [*gathers, log, process], clock, journal)
    spawn(metrics.run)
    atexit.register(metrics.publish)  # gunicorn's worker ends by sys.exit
    return metrics


def application(folder: MetricsFolder, publish: Callable[[], None]) -> WSGIApplication:
    """What every worker has told, this one as of now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FolderCollector(folder))

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != PATH:
            return _short(start_response, "404 Not Found", f"expected {PATH}\n")
        if environ["REQUEST_METHOD"] != "GET":
            return _short(start_response, "405 Method Not Allowed", "expected GET\n", ("Allow", "GET"))
        publish()
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        page = encode(registry)
        headers = [("Content-Type", content_type), ("Content-Length", str(len(page))), ("Connection", "close")]
        start_response("200 OK", headers)
        return [page]

    return answer


class _Handler(WSGIHandler):
    """One request a connection, and no longer than SCRAPE_TIMEOUT: with the next one another worker may be asked."""

    def handle(self) -> None:
        with gevent.Timeout(SCRAPE_TIMEOUT, False):  # type: ignore[arg-type] # its types do not tell: end in silence
            super().handle()

    def log_error(self, msg: str, *args: object) -> None:
        """What is wrong with a request is told to whoever made it."""


def _short(start_response: StartResponse, status: str, text: str, *headers: tuple[str, str]) -> list[bytes]:
    octets = text.encode("ascii")
    described = [("Content-Type", "text/plain"), ("Content-Length", str(len(octets))), ("Connection", "close")]
    start_response(status, [*described, *headers])
    return [octets]
