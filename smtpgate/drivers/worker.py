"""gunicorn's gevent worker, serving SMTP instead of HTTP.

Owns the StreamServers of one process, its heartbeat and its end. The arbiter binds the sockets, starts and restarts
workers and tells them to end; its "WSGI application" is here a Gate that serves one connection a call.

There are two ways to end. RETIRE (a reload, an upgrade): others serve in our place, so we stop accepting, and the
sessions live on. TERM: the service ends, so sessions at rest are told goodbye, and the others with the end of their
transaction. Either way what is left after graceful_timeout is cut.
"""

from __future__ import annotations

import gc
import signal
from functools import partial
from typing import Any, Final

from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers.listener import Gate

HEARTBEAT: Final = 1.0  # seconds; the arbiter kills a worker that is silent for its `timeout`
DRAIN_POLL: Final = 0.1  # how soon a worker whose sessions live on hears of a TERM
STOP_TIMEOUT: Final = 1.0  # seconds that cut sessions have to say goodbye
# Of those that gunicorn's workers have no use for the one that no terminal sends: a window that is resized sends
# WINCH to the whole process group, one that is closed HUP.
RETIRE: Final = signal.SIGUSR2
# Objects made, and not yet freed, until the collector looks for circles among the youngest. CPython's 700 is a dozen
# sessions; this is a hundred, whose circles take it 2 ms.
GC_THRESHOLD: Final = 5000


class SmtpWorker(GeventWorker):  # type: ignore[misc] # gunicorn has no types
    """One worker process. `self.wsgi` is the Gate that smtpgate.main built in this process."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)  # in the arbiter: it keeps this object too, and of us sees only the heartbeat
        self._born = self.tmp.last_update()

    @property
    def serving(self) -> bool:
        """Whether the worker has begun to accept connections. For the arbiter."""
        return bool(self.tmp.last_update() != self._born)

    def init_process(self) -> None:
        # Before the signal handlers, and in this process: an Event belongs to a hub.
        self._told_to_end = Event()
        self._draining = False
        super().init_process()

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(RETIRE, self._handle_retire)
        signal.siginterrupt(RETIRE, False)

    def _handle_retire(self, _sig: Any, _frame: Any) -> None:
        self.alive = False
        self._told_to_end.set()

    def handle_exit(self, sig: Any, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._draining = True
        self._told_to_end.set()  # or clients at rest would hear of it up to a heartbeat later

    def run(self) -> None:
        gate: Gate = self.wsgi
        settle_memory()
        sessions = Pool(self.worker_connections)
        servers = []
        for index, sock in enumerate(self.sockets):
            server = StreamServer(sock, handle=partial(gate, index), spawn=sessions)
            if self.cfg.workers > 1:
                server.max_accept = 1  # one connection a wake-up, or the first worker awake takes them all
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            self._told_to_end.wait(HEARTBEAT)
        for server in servers:
            server.close()
        self._finish(gate, sessions)

    def _finish(self, gate: Gate, sessions: Pool) -> None:
        """Wait for the sessions under way, as long as graceful_timeout; then cut them."""
        gate.retire()
        deadline = Deadline(SystemClock(), gate.graceful_timeout)
        told = False
        while len(sessions) and not deadline.expired:
            self.notify()
            if self._draining and not told:
                gate.drain()
                told = True
            sessions.join(min(DRAIN_POLL, deadline.remaining()))
        if not len(sessions):
            return
        self.log.warning("graceful_timeout is over: %d sessions are cut", len(sessions))
        sessions.kill(timeout=STOP_TIMEOUT)


def settle_memory() -> None:
    """What has been loaded stays for good: the garbage collector need not look at it again. It is 80,000 objects, in
    which a full collection finds nothing in 100 ms, while every session waits. Nor does one come first: of what was
    loaded it would find thirty to be garbage.
    """
    gc.freeze()
    _, *older = gc.get_threshold()
    gc.set_threshold(GC_THRESHOLD, *older)
