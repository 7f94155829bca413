"""Looking at the first octets of a connection without taking them from whoever reads next.

A PROXY header stands before a TLS handshake, and a handshake is OpenSSL's to read: what is not ours must stay in the
socket. The kernel wakes us when enough has arrived (SO_RCVLOWAT), so a header in many segments costs no polling.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Final, TypeVar

import gevent
import gevent.socket
from gevent.monkey import get_original

from smtpgate.clock import Deadline

T = TypeVar("T")

# Seconds between two looks at a unix socket: its poll() does not heed SO_RCVLOWAT.
UNIX_POLL: Final = 0.005


class PeerGone(Exception):
    """The connection ended before enough had arrived."""


def peek(sock: gevent.socket.socket, parse: Callable[[bytes], T | int], limit: int, deadline: Deadline) -> T:
    """What `parse` makes of the first octets; it says how many it needs at least, never more than `limit`.

    Takes nothing. Raises TimeoutError, OSError, PeerGone, and whatever parse does.
    """
    needed = 1
    try:
        while True:
            data = _wait_for(sock, needed, limit, deadline)
            found = parse(data)
            if not isinstance(found, int):
                return found
            needed = found
    finally:
        if needed > 1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _wait_for(sock: gevent.socket.socket, needed: int, limit: int, deadline: Deadline) -> bytes:
    if needed > 1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)
    while True:
        remaining = deadline.remaining()
        if remaining <= 0:
            raise TimeoutError
        gevent.socket.wait_read(sock.fileno(), remaining, TimeoutError())
        sock.settimeout(remaining)
        data = sock.recv(limit, socket.MSG_PEEK)
        if len(data) >= needed:
            return data
        if _has_ended(sock):
            raise PeerGone
        if sock.family == socket.AF_UNIX:
            gevent.sleep(UNIX_POLL)


def _has_ended(sock: gevent.socket.socket) -> bool:
    """Whether the peer will send no more. A peek cannot tell: what has arrived hides the end behind it."""
    poll: select.poll = get_original("select", "poll")()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def take(sock: gevent.socket.socket, count: int, deadline: Deadline) -> bytes:
    """Exactly `count` octets that have arrived. Raises TimeoutError, OSError, PeerGone."""
    taken = b""
    while len(taken) < count:
        remaining = deadline.remaining()
        if remaining <= 0:
            raise TimeoutError
        sock.settimeout(remaining)
        piece = sock.recv(count - len(taken))
        if not piece:
            raise PeerGone
        taken += piece
    return taken
