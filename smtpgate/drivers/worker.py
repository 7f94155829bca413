"""gunicorn's gevent worker, serving SMTP instead of HTTP.

Owns the StreamServers of one process, its heartbeat and its end. gunicorn's arbiter binds the sockets, starts and
restarts workers and passes signals on; its "WSGI application" is here a Gate that serves one connection a call.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers.listener import Gate

HEARTBEAT: Final = 1.0  # seconds; the arbiter kills a worker that is silent for its `timeout`
DRAIN_POLL: Final = 0.05  # how soon after the last session a draining worker ends
STOP_TIMEOUT: Final = 1.0  # seconds that cut sessions have to say goodbye


class SmtpWorker(GeventWorker):  # type: ignore[misc] # gunicorn has no types
    """One worker process. `self.wsgi` is the Gate that smtpgate.main built in this process."""

    def init_process(self) -> None:
        # Before the signal handlers, and in this process: an Event belongs to a hub.
        self._told_to_end = Event()
        super().init_process()

    def handle_exit(self, sig: Any, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._told_to_end.set()  # or clients at rest would hear of it up to a heartbeat later

    def run(self) -> None:
        gate: Gate = self.wsgi
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
        self._drain(gate, sessions)

    def _drain(self, gate: Gate, sessions: Pool) -> None:
        """Wait for the sessions under way, as long as graceful_timeout; then cut them."""
        gate.drain()
        deadline = Deadline(SystemClock(), gate.graceful_timeout)
        while len(sessions) and not deadline.expired:
            self.notify()
            gevent.sleep(DRAIN_POLL)
        if not len(sessions):
            return
        self.log.warning("graceful_timeout is over: %d sessions are cut", len(sessions))
        sessions.kill(timeout=STOP_TIMEOUT)
