"""Sockets as Streams: the only place that reads and writes TCP, unix sockets and TLS for a session.

Owns buffer sizes, TCP_NODELAY and the translation of every OSError into StreamLost or StreamTimeout. Refuses to
know SMTP.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import gevent
import gevent.socket
import gevent.ssl
from gevent.monkey import get_original
from gevent.timeout import Timeout
from greenlet import greenlet

from smtpgate.clock import Deadline
from smtpgate.session.ports import Peer, StreamInterrupted, StreamLost, StreamTimeout, TlsInfo

# Bodies move by large reads: 64 KiB and more saves system calls, 256 KiB saves little beyond (ARCHITECTURE.md).
READ_SIZE: Final = 65536
# Octets that abort_on_close() reads ahead; one read hands them out. A client that pipelines more is not looked
# at any further: that many commands say that it is there.
MAX_AHEAD: Final = READ_SIZE
LIBEV_READ: Final = 1  # EV_READ, as gevent.socket itself writes it


class _Interrupted(Exception):
    """Thrown into a greenlet that waits for its client, by interrupt()."""


class SocketStream:
    """A Stream over a connected gevent socket. `context` serves start_tls; None where the listener has no TLS."""

    def __init__(self, sock: gevent.socket.socket, context: gevent.ssl.SSLContext | None = None) -> None:
        self._sock = sock
        self._context = context
        self.peer = _peer(sock)
        self.tls: TlsInfo | None = None
        self._reading = False
        self._ahead = b""  # what abort_on_close() has read
        if sock.family != socket.AF_UNIX:
            # Replies and commands are small and awaited: without it Nagle and delayed ACK cost 40 ms each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, deadline: Deadline) -> bytes:
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        self._reading = True
        try:
            self._sock.settimeout(_budget(deadline))
            if self.tls is None:
                return self._sock.recv(READ_SIZE)
            # gevent waits the whole timeout again for each piece of a TLS record: the deadline must stand above.
            with Timeout(_budget(deadline), TimeoutError):
                return self._sock.recv(READ_SIZE)
        except _Interrupted:
            raise StreamInterrupted from None
        except TimeoutError:
            raise StreamTimeout from None
        except OSError as error:
            raise StreamLost(_reason(error)) from None
        finally:
            self._reading = False

    def readable(self) -> bool:
        if self._ahead:
            return True
        # gevent's own poll() makes and starts watchers, 15 us of them; the kernel's takes one.
        poll: select.poll = get_original("select", "poll")()
        poll.register(self._sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    @contextmanager
    def abort_on_close(self) -> Iterator[None]:
        """As gevent.Timeout does it: a watcher in the hub that throws into the greenlet that made it.

        It has to read: an end that lies behind unread octets is seen by nothing else, and under TLS the end is a
        record (close_notify) like any other.
        """
        watcher = gevent.get_hub().loop.io(self._sock.fileno(), LIBEV_READ)
        watcher.start(partial(self._look, watcher, gevent.getcurrent()))
        try:
            yield
        finally:
            watcher.stop()
            watcher.close()

    def _look(self, watcher: Any, waiting: greenlet) -> None:
        """Called by the hub when there is something to read; must not block."""
        self._sock.settimeout(0.0)
        try:
            data = self._sock.recv(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            gone = _reason(error)
        else:
            self._ahead += data
            if data and len(self._ahead) < MAX_AHEAD:
                return
            gone = "" if self._ahead else "client closed the connection"
        watcher.stop()
        if gone:
            waiting.throw(StreamLost(gone))

    def write(self, data: bytes, deadline: Deadline) -> None:
        try:
            if self.tls is None:
                self._send(data, deadline)
            else:
                with Timeout(_budget(deadline), TimeoutError):
                    self._send(data, deadline)
        except TimeoutError:
            raise StreamTimeout from None
        except OSError as error:
            raise StreamLost(_reason(error)) from None

    def _send(self, data: bytes, deadline: Deadline) -> None:
        # A loop of send(): gevent's sendall asks the kernel for the socket's type at every call.
        view = memoryview(data)
        self._sock.settimeout(_budget(deadline))
        sent = self._sock.send(view)
        while sent < len(view):
            view = view[sent:]
            self._sock.settimeout(_budget(deadline))
            sent = self._sock.send(view)

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        assert self._context is not None
        self._ahead = b""  # said in clear behind STARTTLS: nobody's words (CVE-2011-0411)
        self._sock.settimeout(None)
        try:
            with Timeout(deadline.remaining(), TimeoutError):
                self._sock = self._context.wrap_socket(self._sock, server_side=True)
        except TimeoutError:
            raise StreamTimeout from None
        except (OSError, ValueError) as error:
            raise StreamLost(f"TLS handshake: {_reason(error)}") from None
        cipher = self._sock.cipher()
        self.tls = TlsInfo(protocol=self._sock.version() or "", cipher=cipher[0] if cipher else "")
        return self.tls

    def interrupt(self) -> None:
        """Wake a read that is waiting, so that its session notices the drain. Does nothing otherwise."""
        watcher = getattr(self._sock, "_read_event", None)
        if self._reading and watcher is not None:
            gevent.get_hub().cancel_wait(watcher, _Interrupted())

    def close(self) -> None:
        try:
            if isinstance(self._sock, gevent.ssl.SSLSocket):
                # Say close_notify, so that the peer can tell an end from a cut; do not wait for its own.
                self._sock.settimeout(0.0)
                self._sock.unwrap()
        except (OSError, ValueError):
            pass
        try:
            self._sock.close()
        except OSError:
            pass


def connect(host: str, port: int, deadline: Deadline) -> SocketStream:
    """A TCP connection to a backend. Raises StreamTimeout, StreamLost (no route, refused, unknown name)."""
    try:
        # One budget for the look-up and for all addresses that it gives.
        with Timeout(_budget(deadline), TimeoutError):
            return SocketStream(gevent.socket.create_connection((host, port)))
    except TimeoutError:
        raise StreamTimeout from None
    except OSError as error:
        raise StreamLost(_reason(error)) from None


def _budget(deadline: Deadline) -> float:
    """Seconds left; a socket timeout of 0 would mean "do not block" instead of "too late"."""
    remaining = deadline.remaining()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _peer(sock: gevent.socket.socket) -> Peer:
    """The two ends; a client that has gone already has no name any more."""
    if sock.family == socket.AF_UNIX:
        return Peer("unix:", 0, "unix:", 0)
    try:
        host, port = sock.getpeername()[:2]
        local_host, local_port = sock.getsockname()[:2]
    except OSError as error:
        raise StreamLost(_reason(error)) from None
    return Peer(_textual(host), port, _textual(local_host), local_port)


def _textual(host: str) -> str:
    """A v4-mapped address is the IPv4 client that it stands for; zones are a local matter."""
    return host.removeprefix("::ffff:").partition("%")[0]


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{errno.errorcode.get(error.errno, error.errno)}: {error.strerror}"
    return str(error) or type(error).__name__
