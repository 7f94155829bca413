"""Connections that we have ended and whose peer still speaks: kept until our last words have arrived.

A socket that is closed while unread octets wait in it sends RST, and a peer that meets RST may never see what was
said before it (RFC 2525 section 2.17; nginx's lingering_close). So our side is shut down, and what comes is read and
thrown away, until the peer ends, or time or octets are over. Refuses to know what was said.

It costs no greenlet, and nothing of what sessions may have: connections here are few, or closed as ever.
"""

from __future__ import annotations

import select
import socket
from typing import Any, Final

import gevent
from gevent.monkey import get_original

from smtpgate.drivers.descriptors import KERNEL_POLL

LINGER_TIMEOUT: Final = 2.0  # seconds; nginx's lingering_timeout is 5, for bodies of HTTP
LINGER_OCTETS: Final = 1 << 20  # of one connection; a text that is streamed at us blindly
MAX_LINGERING: Final = 256  # connections at once; a flood's others are closed as ever
READ_SIZE: Final = 1 << 16
LIBEV_READ: Final = 1

_Socket: Final[type[socket.socket]] = get_original("socket", "socket")


def unread(sock: socket.socket) -> bool:
    """Whether octets wait that nobody has read, or the peer has ended. Without them a close is no RST."""
    poller = KERNEL_POLL()
    poller.register(sock.fileno(), select.POLLIN)
    return bool(poller.poll(0))


class Lingering:
    """The connections of one process that are being waited out."""

    def __init__(self, most: int = MAX_LINGERING) -> None:
        self._most = most
        self._open: set[_Parting] = set()
        self._waste = bytearray(READ_SIZE)

    def __len__(self) -> int:
        return len(self._open)

    def take(self, descriptor: int) -> None:
        """Own this connected socket from now on: it is shut down, and closed when its time has come."""
        sock = _Socket(fileno=descriptor)
        sock.setblocking(False)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer has gone already
            sock.close()
            return
        if len(self._open) >= self._most:
            sock.close()
            return
        self._open.add(_Parting(sock, self._waste, self._open.discard))

    def close(self) -> None:
        """All of them, now."""
        for one in list(self._open):
            one.end()


class _Parting:
    def __init__(self, sock: socket.socket, waste: bytearray, ended: Any) -> None:
        self._sock, self._waste, self._ended = sock, waste, ended
        self._left = LINGER_OCTETS
        loop = gevent.get_hub().loop
        self._watchers = (loop.io(sock.fileno(), LIBEV_READ), loop.timer(LINGER_TIMEOUT))
        readable, timer = self._watchers
        readable.start(self._read)
        timer.start(self.end)

    def _read(self) -> None:
        """Called by the hub; must not block."""
        try:
            count = self._sock.recv_into(self._waste)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        self._left -= count
        if count == 0 or self._left <= 0:
            self.end()

    def end(self) -> None:
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        self._sock.close()
        self._ended(self)
