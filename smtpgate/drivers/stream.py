"""Sockets as Streams: the only place that reads and writes TCP, unix sockets and TLS for a session.

Owns buffer sizes, TCP_NODELAY and the translation of every OSError into StreamLost or StreamTimeout. Refuses to
know SMTP.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import ssl
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

import gevent
import gevent.socket
import gevent.ssl
from gevent.timeout import Timeout
from greenlet import greenlet

from smtpgate.clock import Deadline
from smtpgate.drivers.alarm import Alarm
from smtpgate.drivers.backendtls import ClientTls, Key
from smtpgate.drivers.descriptors import KERNEL_POLL
from smtpgate.drivers.listenertls import ForeignProtocol
from smtpgate.drivers.peek import PeerGone
from smtpgate.routing.model import BackendTls
from smtpgate.session.streams import READ_SIZE, Peer, StreamInterrupted, StreamLost, StreamTimeout, TlsInfo
from smtpgate.units import UNIX

# Octets that abort_on_close() reads ahead; one read hands them out. A client that pipelines more is not looked
# at any further: that many commands say that it is there.
MAX_AHEAD: Final = READ_SIZE


# What keeps a connection from being made and is this machine's fault: no descriptor, or no memory, is left.
OUR_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class OutOfResources(StreamLost):
    """A connection could not be made for want of something here, which says nothing of the peer."""


class TlsAcceptor(Protocol):
    def accept(self, sock: gevent.socket.socket, deadline: Deadline) -> tuple[gevent.ssl.SSLSocket, TlsInfo]:
        """As ListenerTls.accept."""


class _Interrupted(Exception):
    """Thrown into a greenlet that waits for its client, by interrupt()."""


class _Gone(BaseException):
    """Thrown into a greenlet that waits for somebody else, within abort_on_close(). No Exception: whoever is waited
    for must not be blamed for it on the way.
    """


class SocketStream:
    """A Stream over a connected gevent socket.

    tls serves start_tls, None where the listener has no TLS; client_tls serves start_client_tls, towards backends.
    peer: whom a PROXY header names, None for those that the socket connects. nodelay: the socket has TCP_NODELAY
    already, from the one that accepted it.
    """

    def __init__(
        self,
        sock: gevent.socket.socket,
        tls: TlsAcceptor | None = None,
        client_tls: ClientTls | None = None,
        peer: Peer | None = None,
        *,
        nodelay: bool = False,
    ) -> None:
        self._alarm = Alarm()
        self._hold(sock)
        self._acceptor = tls
        self._client_tls = client_tls
        self._session: Key | None = None  # under which the TLS session may be taken up again
        self.peer = peer or peer_of(sock)
        self.tls: TlsInfo | None = None
        self._reading = False
        self._attended = False  # within abort_on_close()
        self._ahead = b""  # what abort_on_close() has read
        if not nodelay and sock.family != socket.AF_UNIX:
            # Replies and commands are small and awaited: without it Nagle and delayed ACK cost 40 ms each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _hold(self, sock: Any) -> None:
        """This is the socket from now on; its watchers are missing from gevent's types.

        It never waits by itself: we do (_wait), and only where there is something to wait for. A timeout of its own
        would have to be set anew before every read and write.
        """
        self._sock: gevent.socket.socket = sock
        self._input, self._output = sock._read_event, sock._write_event
        self._poller: select.poll | None = None
        sock.settimeout(0.0)
        # gevent's recv and send are Python around the kernel's, so that they can wait.
        self._plain = not isinstance(sock, gevent.ssl.SSLSocket)
        kernel = sock._sock if self._plain else sock
        self._recv: Callable[[int], bytes] = kernel.recv
        self._send_some: Callable[[bytes | memoryview], int] = kernel.send
        self._spoke = False  # and has not listened since

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        if self._ahead:
            # All of it where nobody asks for less: it has its own bound, and it is here already.
            cut = limit if limit < READ_SIZE else len(self._ahead)
            ahead, self._ahead = self._ahead[:cut], self._ahead[cut:]
            return ahead
        self._reading = True
        try:
            if deadline.expired:  # whatever may be here to be read
                raise TimeoutError
            if self._spoke and self._plain:
                # The answer to what has just been said is not here yet: to look for it is a system call in vain.
                self._spoke = False
                self._alarm.wait(self._input, deadline)
            while True:
                try:
                    return self._recv(limit)
                except (BlockingIOError, ssl.SSLWantReadError):
                    event = self._input
                except ssl.SSLWantWriteError:
                    event = self._output
                self._alarm.wait(event, deadline)
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
        if not self._poll():
            return False
        return self.tls is None or self._is_said()

    def _is_said(self) -> bool:
        """Whether what arrived under TLS is anybody's words: a session ticket is not, and comes when it likes."""
        try:
            self._ahead = self._sock.recv(READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            pass  # broken: read() will tell how
        return True

    def _poll(self) -> bool:
        if self._poller is None:
            self._poller = KERNEL_POLL()
            self._poller.register(self._sock.fileno(), select.POLLIN)
        return bool(self._poller.poll(0))

    @contextmanager
    def abort_on_close(self) -> Iterator[None]:
        """As gevent.Timeout does it: a watcher in the hub that throws into the greenlet that started it. It is the
        socket's own: nobody reads from it meanwhile.

        It has to read: an end that lies behind unread octets is seen by nothing else, and under TLS the end is a
        record (close_notify) like any other. One within another does nothing.
        """
        if self._attended:
            yield
            return
        watcher = self._input
        watcher.start(partial(self._look, watcher, gevent.getcurrent()))
        self._attended = True
        try:
            yield
        except _Gone as gone:
            raise StreamLost(str(gone)) from None
        finally:
            self._attended = False
            watcher.stop()

    def _look(self, watcher: Any, waiting: greenlet) -> None:
        """Called by the hub when there is something to read; must not block."""
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
            waiting.throw(_Gone(gone))

    def write(self, data: bytes, deadline: Deadline) -> None:
        try:
            if deadline.expired:
                raise TimeoutError
            if self._plain:
                self._send(data, deadline)
            else:
                self._send_secured(data, deadline)
            self._spoke = True
        except TimeoutError:
            raise StreamTimeout from None
        except OSError as error:
            raise StreamLost(_reason(error)) from None

    def _send(self, data: bytes, deadline: Deadline) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                sent = self._send_some(rest)
            except BlockingIOError:
                sent = 0
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]
            self._alarm.wait(self._output, deadline)

    def _send_secured(self, data: bytes, deadline: Deadline) -> None:
        # Without waiting gevent's send() does not tell which way OpenSSL cannot go on. While it waits, it waits the
        # whole timeout again for each piece of a TLS record: the deadline must stand above.
        view = memoryview(data)
        self._sock.settimeout(None)
        try:
            with Timeout(_budget(deadline), TimeoutError):
                while view:
                    sent = self._sock.send(view)  # mypyc 2.4 evaluates a call within the slice twice
                    view = view[sent:]
        finally:
            self._sock.settimeout(0.0)

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        assert self._acceptor is not None
        self._ahead = b""  # said in clear behind STARTTLS: nobody's words (CVE-2011-0411)
        try:
            with Timeout(_budget(deadline), TimeoutError):
                self._sock, self.tls = self._acceptor.accept(self._sock, deadline)
        except TimeoutError:
            raise StreamTimeout from None
        except PeerGone:
            raise StreamLost("TLS handshake: client closed the connection") from None
        except (OSError, ValueError, ForeignProtocol) as error:
            raise StreamLost(f"TLS handshake: {_reason(error)}") from None
        finally:
            self._hold(self._sock)
        return self.tls

    def start_client_tls(self, settings: BackendTls, server_name: str, deadline: Deadline) -> TlsInfo:
        assert self._client_tls is not None, "only a stream to a backend is a TLS client"
        if self._ahead:
            raise StreamLost("backend spoke in clear where TLS begins")
        key = (settings, server_name, self.peer.host, self.peer.port)
        self._sock.settimeout(None)
        try:
            with Timeout(_budget(deadline), TimeoutError):
                secure = self._client_tls.wrap(self._sock, key)
                self._sock = secure  # whatever becomes of the handshake, this is what close() has to close
                secure.do_handshake()
        except TimeoutError:
            raise StreamTimeout from None
        except (OSError, ValueError) as error:
            raise StreamLost(f"TLS handshake: {_reason(error)}") from None
        finally:
            self._hold(self._sock)
        self._session = key
        return self._secured()

    def _secured(self) -> TlsInfo:
        assert isinstance(self._sock, gevent.ssl.SSLSocket)
        cipher = self._sock.cipher()
        self.tls = TlsInfo(protocol=self._sock.version() or "", cipher=cipher[0] if cipher else "")
        return self.tls

    def interrupt(self) -> None:
        """Wake a read that is waiting, so that its session notices the drain, or stress. Does nothing otherwise."""
        if self._reading:
            gevent.get_hub().cancel_wait(self._input, _Interrupted())

    def close(self, linger: Callable[[int], object] | None = None) -> None:
        """linger: given the descriptor, which is its own from then on, where something that nobody has read waits in
        the socket: closing that would take our last words back (`lingering`).
        """
        self._alarm.close()
        try:
            if isinstance(self._sock, gevent.ssl.SSLSocket):
                if self._session is not None and self._client_tls is not None:
                    self._client_tls.remember(self._sock, self._session)
                # Say close_notify, so that the peer can tell an end from a cut; do not wait for its own.
                self._sock.unwrap()
        except (OSError, ValueError):
            pass
        try:
            if linger is not None and self._unread():
                linger(self._sock.detach())
            else:
                self._sock.close()
        except OSError:
            pass

    def _unread(self) -> int:
        """Octets that have arrived; an end of the connection is none, and a handshake that failed has closed it."""
        descriptor = self._sock.fileno()
        if descriptor < 0:
            return 0
        return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)


def connect(address: str, port: int, deadline: Deadline, client_tls: ClientTls | None = None) -> SocketStream:
    """A TCP connection to a textual address. Raises StreamTimeout, StreamLost (no route, refused), OutOfResources."""
    try:
        sock = gevent.socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise _not_connected(error) from None
    try:
        sock.settimeout(_budget(deadline))
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
    return (OutOfResources if error.errno in OUR_OWN else StreamLost)(_reason(error))


def _budget(deadline: Deadline) -> float:
    """Seconds left; a socket timeout of 0 would mean "do not block" instead of "too late"."""
    remaining = deadline.remaining()
    if remaining <= 0:
        raise TimeoutError
    return remaining


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
        raise StreamLost(_reason(error)) from None
    return Peer(_textual(remote[0]), remote[1], _textual(local[0]), local[1])


def host_of(address: Any) -> str:
    """The textual address in what accept() tells, "unix:" for a unix socket's."""
    return _textual(address[0]) if isinstance(address, tuple) else UNIX


def _textual(host: str) -> str:
    """A v4-mapped address is the IPv4 client that it stands for; zones are a local matter."""
    return host.removeprefix("::ffff:").partition("%")[0]


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not believed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or error.strerror or type(error).__name__  # its errno is OpenSSL's, not the system's
    if isinstance(error, OSError) and error.errno is not None:
        return f"{errno.errorcode.get(error.errno, error.errno)}: {error.strerror}"
    return str(error) or type(error).__name__
