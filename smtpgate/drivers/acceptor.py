"""Accepting connections of one listening socket, so that there is always somebody who answers.

What gevent's StreamServer does, but for three things. While its pool is full it stops accepting, so that clients wait
in the backlog for nothing: here whoever may not come in is told so. Where no descriptor is left it prints a traceback
and waits up to a second, without a word to anybody (reference/security.md F4): here the reserve descriptor answers.
And it makes a greenlet for every connection: one that is turned away gets none.

Owns accept() and what can go wrong with it. Refuses to know who may come in and what is said (`listener.Gate`).
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

import gevent
import gevent.socket

from smtpgate.drivers.admission import Refusal
from smtpgate.drivers.descriptors import KERNEL_POLL, ReserveDescriptor

# Connections that one wake-up takes; between two of them sessions get their turn. StreamServer's.
MAX_ACCEPT: Final = 100
# The same where several processes accept from one socket: of more the first that is awake would have too many, and
# with 1 a client stands behind a flood for a wake-up each (measured: 23 ms at the 99th percentile; with 4, 8 ms).
MAX_ACCEPT_SHARED: Final = 4
# Seconds until the next try where even the reserve was of no use. StreamServer waits up to 1.
PAUSE: Final = 0.1
LIBEV_READ: Final = 1  # EV_READ, as gevent.socket itself writes it

# No descriptor is left, in this process or in all.
NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
# The client has gone while it waited (accept(2)): the next one may be there.
GONE: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR})

Connection = tuple[gevent.socket.socket, Any]


class Doorkeeper(Protocol):
    """Gate, as it is seen from here. None of these may block."""

    def admit(self, index: int, address: Any) -> Refusal | None:
        """Count the connection in, or say why not."""

    def turn_away(self, index: int, sock: gevent.socket.socket, address: Any, refusal: Refusal) -> None:
        """Tell the client; closes the socket."""


class Acceptor:
    """Accepts from the non-blocking `sock`, the listener `index` of the doorkeeper, from start() to close().

    serve: is given index, socket and address of who was admitted; must not block. most: connections a wake-up.
    """

    def __init__(
        self,
        sock: gevent.socket.socket,
        index: int,
        doorkeeper: Doorkeeper,
        serve: Callable[[int, gevent.socket.socket, Any], object],
        reserve: ReserveDescriptor,
        most: int = MAX_ACCEPT,
    ) -> None:
        # Asked for once: it takes longer than accept() itself.
        self._family = sock.family
        if self._family != socket.AF_UNIX:
            # Inherited by all that are accepted (tcp(7)): see SocketStream, for which it is a system call each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock, self._most = sock, most
        self._index, self._doorkeeper, self._serve, self._reserve = index, doorkeeper, serve, reserve
        self._loop = gevent.get_hub().loop
        self._poller = KERNEL_POLL()
        self._poller.register(sock.fileno(), select.POLLIN)
        self._watcher: Any = None
        self._timer: Any = None

    def start(self) -> None:
        if self._watcher is None:
            self._watcher = self._loop.io(self._sock.fileno(), LIBEV_READ)
            self._watcher.start(self._accept)

    def close(self) -> None:
        """Accept nobody any more, and close the socket."""
        self._stop()
        self._sock.close()

    def _stop(self) -> None:
        for watcher in (self._watcher, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._watcher = self._timer = None

    def _accept(self) -> None:
        """Called by the hub. Who is not taken now wakes us again at once."""
        for taken in range(self._most):
            # To look whether there is one more takes a tenth of the exception that says so.
            if taken and not self._poller.poll(0):
                return
            connection = self._next()
            if connection is None:
                return
            sock, address = connection
            refusal = self._doorkeeper.admit(self._index, address)
            if refusal is None:
                self._serve(self._index, sock, address)
            else:
                self._doorkeeper.turn_away(self._index, sock, address, refusal)

    def _next(self) -> Connection | None:
        try:
            return self._take()
        except BlockingIOError:  # that was the last one, or another process was faster
            return None
        except OSError as error:
            if error.errno in GONE:
                return None
            if error.errno not in NO_DESCRIPTOR or not self._reserve.lend(self._turn_away_one):
                self._pause()
            return None

    def _take(self) -> Connection:
        # accept() would wait, and nobody waits in the hub.
        descriptor, address = self._sock._accept()  # type: ignore[attr-defined] # as StreamServer does
        return gevent.socket.socket(self._family, socket.SOCK_STREAM, 0, fileno=descriptor), address

    def _turn_away_one(self) -> bool:
        """With the one descriptor that is free now: whether it was of any use."""
        try:
            sock, address = self._take()
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._doorkeeper.turn_away(self._index, sock, address, Refusal.DESCRIPTORS)
        return True

    def _pause(self) -> None:
        """The connection stays in the backlog, and would wake us at once again."""
        self._stop()
        self._timer = self._loop.timer(PAUSE)
        self._timer.start(self._resume)

    def _resume(self) -> None:
        self._stop()
        self.start()
