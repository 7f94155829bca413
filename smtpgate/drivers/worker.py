"""gunicorn's gevent worker, serving SMTP instead of HTTP.

Owns the acceptors of one process, its heartbeat and its end. The arbiter binds the sockets, starts and restarts
workers and tells them to end; its "WSGI application" is here a Gate that serves one connection a call. Privileges are
dropped before that Gate is made (`privileges`).

There are two ways to end. RETIRE (a reload, an upgrade): others serve in our place, so we stop accepting, and the
sessions live on. TERM: the service ends, so sessions at rest are told goodbye, and the others with the end of their
transaction. Either way what is left after graceful_timeout is cut.
"""

from __future__ import annotations

import signal
from typing import Any, Final

import gevent
from gevent.event import Event
from gunicorn.workers.ggevent import GeventWorker

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers import acceptor, heap, privileges
from smtpgate.drivers.acceptor import Acceptor
from smtpgate.drivers.descriptors import ReserveDescriptor
from smtpgate.drivers.garbage import Keeper
from smtpgate.drivers.lingering import LINGER_TIMEOUT
from smtpgate.drivers.listener import Gate
from smtpgate.drivers.servants import Servants

HEARTBEAT: Final = 1.0  # seconds; the arbiter kills a worker that is silent for its `timeout`
DRAIN_POLL: Final = 0.1  # how soon a worker whose sessions live on hears of a TERM
STOP_TIMEOUT: Final = 1.0  # seconds that cut sessions have to say goodbye
LAST_WORDS_POLL: Final = 0.02  # how soon the end of the last one that lingers ends the process
# Of those that gunicorn's workers have no use for the one that no terminal sends: a window that is resized sends
# WINCH to the whole process group, one that is closed HUP.
RETIRE: Final = signal.SIGUSR2


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
        privileges.drop(self.cfg.uid, self.cfg.gid)
        heap.keep_pieces()
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
        garbage = Keeper()
        sessions = Servants(gate)
        reserve = ReserveDescriptor()
        most = acceptor.MAX_ACCEPT_SHARED if self.cfg.workers > 1 else acceptor.MAX_ACCEPT

        def serve(*connection: Any) -> None:
            garbage.session_begins()
            sessions.call(*connection)

        bound = enumerate(self.sockets[: gate.addresses])
        acceptors = [Acceptor(sock, index, gate, serve, reserve, most) for index, sock in bound]
        for one in acceptors:
            one.start()
        for sock in self.sockets[gate.addresses :]:
            if gate.metrics is None:
                sock.close()
            else:
                gate.metrics.serve(sock)
        while self.alive:
            self.notify()
            garbage.look(len(sessions))
            self._told_to_end.wait(HEARTBEAT)
        for one in acceptors:
            one.close()
        if gate.metrics is not None and not self._draining:
            gate.metrics.retire()  # where the service ends instead, it is of use to see how the sessions do
        self._finish(gate, sessions)
        if gate.metrics is not None:
            gate.metrics.end()
        self._wait_for_last_words(gate)

    def _finish(self, gate: Gate, sessions: Servants) -> None:
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

    def _wait_for_last_words(self, gate: Gate) -> None:
        """Until those who were told goodbye while they spoke have heard it: our end closes their sockets too."""
        deadline = Deadline(SystemClock(), LINGER_TIMEOUT)
        while len(gate.lingering) and not deadline.expired:
            gevent.sleep(LAST_WORDS_POLL)
        gate.lingering.close()
