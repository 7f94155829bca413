"""Accepting connections of one listening socket, so that there is always somebody who answers.

A gevent StreamServer, of which three things are not good enough here and are overridden. While its pool is full it
stops accepting, so that clients wait in the backlog for nothing: we have no pool, and whoever may not come in is told
so. Where no descriptor is left it prints a traceback and waits up to a second, without a word to anybody
(reference/security.md F4): the reserve descriptor answers. And it makes a greenlet for every connection: one that is
turned away gets none.

Owns accept() and what can go wrong with it. Refuses to know who may come in and what is said (`listener.Gate`).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

import gevent.socket
from gevent.server import StreamServer

from smtpgate.drivers.admission import Refusal
from smtpgate.drivers.descriptors import ReserveDescriptor

# Connections that one wake-up takes; between two of them sessions get their turn. gevent's default.
MAX_ACCEPT: Final = 100
# Seconds until the next try where even the reserve was of no use. gevent waits up to 1.
PAUSE: Final = 0.1

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


class Acceptor(StreamServer):
    """Accepts from the non-blocking `sock`, the listener `index` of the doorkeeper, from start() to close().

    serve: is given index, socket and address of who was admitted; must not block. most: connections a wake-up; 1
    where several processes accept from one socket, or the first one that is awake takes them all.
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
        super().__init__(sock)
        if sock.family != socket.AF_UNIX:
            # Inherited by all that are accepted (tcp(7)): see SocketStream, for which it is a system call each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.max_accept = most
        self._index, self._doorkeeper, self._serve, self._reserve = index, doorkeeper, serve, reserve

    def do_read(self) -> Connection | None:  # type: ignore[override] # as gevent's own, which its types do not tell
        """Called by the hub. The next connection; None ends this wake-up, and another follows if there are more."""
        try:
            return self._take()
        except BlockingIOError:  # another process was faster
            return None
        except OSError as error:
            if error.errno in GONE:
                return None
            if error.errno not in NO_DESCRIPTOR or not self._reserve.lend(self._turn_away_one):
                self._pause()
            return None

    def do_handle(self, *connection: Any) -> None:
        sock, address = connection
        refusal = self._doorkeeper.admit(self._index, address)
        if refusal is None:
            self.handle(sock, address)
        else:
            self._doorkeeper.turn_away(self._index, sock, address, refusal)

    def handle(self, sock: gevent.socket.socket, address: Any) -> None:
        self._serve(self._index, sock, address)

    def _take(self) -> Connection:
        # accept() would wait, and nobody waits in the hub.
        descriptor, address = self.socket._accept()  # type: ignore[attr-defined] # as StreamServer does
        return gevent.socket.socket(self.socket.family, self.socket.type, 0, fileno=descriptor), address

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
        self.stop_accepting()
        self._timer = self.loop.timer(PAUSE)
        self._timer.start(self._start_accepting_if_started)  # type: ignore[attr-defined, call-arg] # BaseServer's way
