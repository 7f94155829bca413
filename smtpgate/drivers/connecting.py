"""A TCP connection to one address, as a stream.

Owns whose fault it is that there is none: the other side's, or this machine's. Refuses to know names, pools, and what
is tried next (`dial`, `backends`).
"""

from __future__ import annotations

import errno
import socket
from typing import Final

import gevent.socket

from smtpgate.clock import Deadline
from smtpgate.drivers.backendtls import ClientTls
from smtpgate.drivers.ends import reason_of
from smtpgate.drivers.stream import SocketStream
from smtpgate.session.streams import StreamLost, StreamTimeout

# What keeps a connection from being made and is this machine's fault: no descriptor, or no memory, is left.
OUR_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class OutOfResources(StreamLost):
    """A connection could not be made for want of something here, which says nothing of the peer."""


def connect(address: str, port: int, deadline: Deadline, client_tls: ClientTls | None = None) -> SocketStream:
    """A TCP connection to a textual address. Raises StreamTimeout, StreamLost (no route, refused), OutOfResources."""
    try:
        sock = gevent.socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise _not_connected(error) from None
    try:
        remaining = deadline.remaining()
        if remaining <= 0:  # a socket's timeout of 0 would mean "do not wait"
            raise TimeoutError
        sock.settimeout(remaining)
        sock.connect((address, port))
        return SocketStream(sock, client_tls=client_tls)
    except TimeoutError:
        sock.close()
        raise StreamTimeout from None
    except OSError as error:
        sock.close()
        raise _not_connected(error) from None
    except BaseException:  # a killed greenlet leaves no socket behind
        sock.close()
        raise


def _not_connected(error: OSError) -> StreamLost:
    return (OutOfResources if error.errno in OUR_OWN else StreamLost)(reason_of(error))
