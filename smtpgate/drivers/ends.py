"""The two ends of a connected socket as text, and the words for what went wrong between them.

Owns how an address is spelt that a log line, a limit's key or the auth service is told. Refuses to know what is said.
"""

from __future__ import annotations

import errno
from typing import Any

import gevent.socket

from smtpgate.session.streams import Peer, StreamLost
from smtpgate.units import UNIX


def peer_of(sock: gevent.socket.socket, address: Any = None) -> Peer:
    """The two ends. address: the other one's, where accept() has told it. Raises StreamLost: a client that has gone
    already has no name any more.
    """
    try:
        local = sock.getsockname()
        if not isinstance(local, tuple):  # a path; to look at `family` takes ten times as long
            return Peer(UNIX, 0, UNIX, 0)
        remote = sock.getpeername() if address is None else address
    except OSError as error:
        raise StreamLost(reason_of(error)) from None
    return Peer(_textual(remote[0]), remote[1], _textual(local[0]), local[1])


def host_of(address: Any) -> str:
    """The textual address in what accept() tells, "unix:" for a unix socket's."""
    return _textual(address[0]) if isinstance(address, tuple) else UNIX


def reason_of(error: OSError) -> str:
    """For the log, "ECONNRESET: Connection reset by peer"."""
    if error.errno is not None:
        return f"{errno.errorcode.get(error.errno, error.errno)}: {error.strerror}"
    return str(error) or type(error).__name__


def _textual(host: str) -> str:
    """A v4-mapped address is the IPv4 client that it stands for; zones are a local matter."""
    return host.removeprefix("::ffff:").partition("%")[0]
