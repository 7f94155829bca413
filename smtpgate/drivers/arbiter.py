"""gunicorn's arbiter, with a reload and an upgrade that lose no connection and never stand in each other's way.

Owns the processes of the group: which workers serve, which are about to, which have been told to end. gunicorn's own
arbiter waits in a HUP until the old workers are gone, closes listeners before it knows that the new ones can be
opened, and ends the whole service when one new worker cannot start. Here a reload is a state, not a wait:

    HUP     the configuration is read, its listeners are opened (those held already are kept), its workers start.
            The old ones serve on until the new ones do; then they retire, and listeners that are gone are closed.
            Whatever fails before that point is told, and changes nothing.
    USR2    the program is started anew beside this one, with our sockets. It reads the configuration itself.
    WINCH   all workers retire; the other program serves. HUP brings them back.
    TERM    the service ends; sessions finish their transaction. INT and QUIT: at once.

A worker that retires accepts no more; its sessions live on, as long as graceful_timeout. Refuses to know what is in
a configuration (`Configuration` does) and what workers do with connections.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gunicorn import systemd
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from smtpgate.drivers.listening import SYSTEMD_FDS, Bind, CannotBind, ListeningSocket, inherited, listen
from smtpgate.drivers.worker import RETIRE, SmtpWorker

EXIT_TAKEN: Final = 1
EXIT_EXEC: Final = 126  # as sh(1): found, and cannot be run
# How soon the arbiter notices that new workers serve; otherwise it looks around once a second.
CHANGE_POLL: Final = 0.05
START_LIMIT: Final = 30.0  # seconds that the workers of a new configuration may take until they serve
RESPAWN_PAUSE: Final = 1.0  # seconds between two workers that cannot start; gunicorn would give up


class Configuration(Protocol):
    """What is in force, as its keeper shows it. `started` is opaque here: kept to go back to."""

    started: Any

    def binds(self) -> Sequence[Bind]:
        """Where to listen, in the order in which a worker's Gate expects its sockets."""

    def renew(self) -> bool:
        """Read it again and put it in force; False, and told to the operator: it is broken, and nothing changed."""

    def settle(self) -> None:
        """What was read again is what the next workers begin with. Never raises."""

    def refuse(self, problem: str) -> None:
        """Tell the operator."""


@dataclass(slots=True)
class _Before:
    """What serves, and what is gone back to, until the workers of a new configuration serve, or `until`."""

    started: Any
    settings: Any
    sockets: list[ListeningSocket]
    workers: dict[int, SmtpWorker]
    until: float


class ProxyArbiter(Arbiter):  # type: ignore[misc] # gunicorn has no types
    """The first process. Binds in the constructor; exits with EXIT_TAKEN, and the reason told, where it cannot.

    WORKERS and LISTENERS, gunicorn's names, are those of the configuration in force.
    """

    def __init__(self, app: Any, configuration: Configuration) -> None:
        self._configuration = configuration
        self._before: _Before | None = None
        self._retired: dict[int, SmtpWorker] = {}
        self._ends: dict[int, float] = {}  # of the retired: when patience is over
        self._proven = False  # a worker has served: from now on one that cannot start does not end the others
        self._next_spawn = 0.0
        handed = inherited(os.environ, os.getpid())
        try:
            self.LISTENERS = listen(configuration.binds(), handed)
        except CannotBind as error:
            configuration.refuse(str(error))
            sys.exit(EXIT_TAKEN)
        for one in set(handed).difference(self.LISTENERS):
            one.close(unlink=False)
        self._held = set(self.LISTENERS)
        self.WORKERS: dict[int, SmtpWorker] = {}
        super().__init__(app)
        # gunicorn would run `python gunicorn/__main__.py` where it was `python -m gunicorn`: another sys.path.
        self.START_CTX["args"] = [sys.executable, *sys.orig_argv[1:]]

    # --- signals -------------------------------------------------------------------------------------------

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        signals: list[int] = super().wait_for_signals(timeout if self._before is None else CHANGE_POLL)
        return signals

    def reload(self) -> None:
        earlier = self._configuration.started
        if not self._configuration.renew():
            return
        try:
            sockets = listen(self._configuration.binds(), self._held)
        except CannotBind as error:
            self._configuration.started = earlier
            self._configuration.refuse(f"{error}; nothing has changed")
            return
        self._held.update(sockets)
        settings = self.app.cfg
        try:
            self.app.reload()
        except SystemExit:  # gunicorn's answer to settings of its own that are broken; told already
            self.app.cfg = settings
            self._configuration.started = earlier
            self._close_unused()
            return
        self._configuration.settle()
        until = time.monotonic() + START_LIMIT
        if self._before is None:
            self._before = _Before(earlier, settings, self.LISTENERS, self.WORKERS, until)
        else:  # one that has not come to serve is replaced
            self._before.until = until
            self._retire(self.WORKERS)
        self.LISTENERS, self.WORKERS, self._next_spawn = sockets, {}, 0.0
        self._close_unused()
        self.setup(self.app)
        self.log.reopen_files()
        self.cfg.on_reload(self)
        self.manage_workers()

    def handle_winch(self) -> None:
        if not self.cfg.daemon and _has_terminal():
            self.log.info("WINCH is ignored: a terminal sends it whenever its window changes")
            return
        self.log.info("All workers retire; HUP brings them back")
        self.num_workers = 0
        self.manage_workers()

    def reexec(self) -> None:
        for one in self._held:
            one.sock.set_inheritable(one in self.LISTENERS)
        parent = os.getpid()
        try:
            super().reexec()
        except OSError as error:
            if os.getpid() == parent:
                raise
            # The child cannot become the new program (its folder or interpreter is gone). It must not live on as a
            # second arbiter: what gunicorn does with an exception there ends the workers of this one.
            self.log.error("The new program cannot be started: %s", error)
            os._exit(EXIT_EXEC)

    def stop(self, graceful: bool = True) -> None:
        if self.reexec_pid:
            # For systemd the service goes on in the other program.
            systemd.sd_notify(f"MAINPID={self.reexec_pid}", self.log)
        self._proven = True
        for workers in (self._retired, self._before.workers if self._before else {}):
            self.WORKERS.update(workers)
        self._retired, self._before, self.LISTENERS = {}, None, []
        self._close_unused()
        super().stop(graceful)

    # --- workers -------------------------------------------------------------------------------------------

    def manage_workers(self) -> None:
        oldest = sorted(self.WORKERS, key=lambda pid: self.WORKERS[pid].age)
        self._retire({pid: self.WORKERS.pop(pid) for pid in oldest[: -self.num_workers or None]})
        if time.monotonic() >= self._next_spawn:
            super().manage_workers()
        serving = [worker.serving for worker in self.WORKERS.values()]
        self._proven = self._proven or any(serving)
        if self._before is not None:
            if len(serving) >= self.num_workers and all(serving):
                self._change(self._before)
            elif time.monotonic() > self._before.until:
                self._revert(self._before, f"its workers do not serve after {START_LIMIT:.0f} s")
        for pid, end in self._ends.items():
            # Again each time: a worker that was being born did not hear the first one.
            self.kill_worker(pid, RETIRE if time.monotonic() < end else signal.SIGKILL)

    def reap_workers(self) -> None:
        self._reap(self._retired)
        if self._before is not None:
            self._reap(self._before.workers)
        while True:
            try:
                super().reap_workers()
                return
            except HaltServer as failure:
                if self._before is not None:
                    self._revert(self._before, "its workers cannot start")
                elif self._proven:
                    self.log.error("%s The others go on; the next try follows", failure.reason)
                    self._next_spawn = time.monotonic() + RESPAWN_PAUSE
                else:
                    raise

    def let_go(self) -> None:
        """In a worker, right after the fork: what it inherited, and what others are to end, is closed.

        A copy of a listening socket that nobody accepts from would keep clients waiting.
        """
        for one in self._held.difference(self.LISTENERS):
            one.close(unlink=False)
        for worker in [*self._retired.values(), *(self._before.workers.values() if self._before else ())]:
            worker.tmp.close()

    def _change(self, before: _Before) -> None:
        """The new workers serve: the old ones have had their time."""
        self._before = None
        self._retire(before.workers)
        self._close_unused()
        self.log.info("The new configuration is in force")

    def _revert(self, before: _Before, reason: str) -> None:
        self._before = None
        self._retire(self.WORKERS)
        self.LISTENERS, self.WORKERS = before.sockets, before.workers
        self._close_unused()
        self._configuration.started, self.app.cfg = before.started, before.settings
        self.setup(self.app)
        self._configuration.refuse(f"{reason}; the configuration of before stays in force")

    def _retire(self, workers: dict[int, SmtpWorker]) -> None:
        for pid, worker in workers.items():
            self._retired[pid] = worker
            self._ends[pid] = time.monotonic() + worker.cfg.graceful_timeout
            self.kill_worker(pid, RETIRE)

    def _reap(self, workers: dict[int, SmtpWorker]) -> None:
        """Those that gunicorn, which asks for any child, would not know."""
        for pid, worker in list(workers.items()):
            try:
                ended, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended = pid  # gunicorn was faster
            if ended:
                del workers[pid]
                self._ends.pop(pid, None)
                worker.tmp.close()
                self.cfg.child_exit(self, worker)

    # --- sockets -------------------------------------------------------------------------------------------

    def _close_unused(self) -> None:
        """Those of no configuration that may come to serve. A unix socket's path goes too, unless another program
        shares it: the one that we were upgraded from, the one that we are upgraded to, systemd.
        """
        used = {*self.LISTENERS, *(self._before.sockets if self._before else ())}
        for one in self._held - used:
            one.close(unlink=not (self.master_pid or self.reexec_pid or SYSTEMD_FDS in os.environ))
        self._held = used


def let_go(arbiter: ProxyArbiter, _worker: SmtpWorker) -> None:
    """gunicorn's `post_fork` hook."""
    arbiter.let_go()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
