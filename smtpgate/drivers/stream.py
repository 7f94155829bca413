"""Sockets as Streams: the only place that reads and writes TCP, unix sockets and TLS for a session.

Owns buffer sizes, TCP_NODELAY and the translation of every OSError into StreamLost or StreamTimeout. Refuses to
know SMTP.
"""

from __future__ import annotations

import fcntl
import select
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol

import gevent
import gevent.socket
from greenlet import greenlet

from smtpgate.clock import Deadline
from smtpgate.drivers.alarm import Alarm
from smtpgate.drivers.backendtls import ClientTls, Key
from smtpgate.drivers.clienthello import ClientHello, NoClientHello, parse
from smtpgate.drivers.descriptors import KERNEL_POLL
from smtpgate.drivers.ends import peer_of, reason_of
from smtpgate.drivers.listenertls import NO_PROTOCOL_ALERT, ForeignProtocol
from smtpgate.drivers.tlslayer import TlsFault, TlsLayer
from smtpgate.routing.model import BackendTls
from smtpgate.session.streams import READ_SIZE, Peer, StreamInterrupted, StreamLost, StreamTimeout, TlsInfo

# Octets that abort_on_close() reads ahead; one read hands them out. A client that pipelines more is not looked
# at any further: that many commands say that it is there.
MAX_AHEAD: Final = READ_SIZE


class TlsAcceptor(Protocol):
    """ListenerTls, as it is seen from here."""

    def begin(self, hello: ClientHello) -> TlsLayer:
        """As ListenerTls.begin."""

    def learn(self, hello: ClientHello, layer: TlsLayer) -> TlsInfo:
        """As ListenerTls.learn."""


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
        self._sock = sock
        # It never waits by itself: we do (Alarm), and only where there is something to wait for. A timeout of its own
        # would have to be set anew before every read and write.
        sock.settimeout(0.0)
        inner: Any = sock  # gevent's types know nothing of its watchers, and of the kernel's socket that it has
        self._alarm = Alarm()
        self._input, self._output = inner._read_event, inner._write_event
        self._poller: select.poll | None = None
        # gevent's recv and send are Python around the kernel's, so that they can wait.
        self._recv: Callable[[int], bytes] = inner._sock.recv
        self._send_some: Callable[[bytes | memoryview], int] = inner._sock.send
        self._spoke = False  # and has not listened since
        self._layer: TlsLayer | None = None
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
            layer = self._layer
            if layer is None:
                return self._receive(limit, deadline)
            data = layer.read(limit) if layer.more else None
            while data is None:
                if layer.unsent:
                    self._send(layer.records(), deadline)
                layer.feed(self._receive(READ_SIZE, deadline))
                data = layer.read(limit)
            return data
        except _Interrupted:
            raise StreamInterrupted from None
        except TimeoutError:
            raise StreamTimeout from None
        except TlsFault as fault:
            raise self._broken(str(fault)) from None
        except OSError as error:
            raise StreamLost(reason_of(error)) from None
        finally:
            self._reading = False

    def _receive(self, limit: int, deadline: Deadline) -> bytes:
        """What the wire has. Raises TimeoutError, OSError."""
        if self._spoke:
            # The answer to what has just been said is not here yet: to look for it is a system call in vain.
            self._spoke = False
            self._alarm.wait(self._input, deadline)
        while True:
            try:
                return self._recv(limit)
            except BlockingIOError:
                pass
            self._alarm.wait(self._input, deadline)

    def _broken(self, reason: str) -> StreamLost:
        """The peer has broken TLS: the alert that says so is sent if there is room for it."""
        if self._layer is not None:
            self._say(self._layer.records())
        return StreamLost(reason)

    def _say(self, octets: bytes) -> None:
        """As far as that goes without waiting."""
        try:
            if octets:
                self._send_some(octets)
        except OSError:
            pass

    def readable(self) -> bool:
        if self._ahead:
            return True
        if (self._layer is None or not self._layer.more) and not self._poll():
            return False
        return self._layer is None or self._is_said()

    def _is_said(self) -> bool:
        """Whether what arrived under TLS is anybody's words: a session ticket is not, and comes when it likes."""
        try:
            said = self._hear()
        except (OSError, TlsFault):
            return True  # broken: read() will tell how
        if said is None:
            return False
        self._ahead = said
        return True

    def _hear(self) -> bytes | None:
        """What is here to be read, None where nothing is. Raises OSError, TlsFault; does not wait."""
        layer = self._layer
        if layer is not None and layer.more:
            said = layer.read(READ_SIZE)
            if said is not None:
                return said
        try:
            octets = self._recv(READ_SIZE)
        except BlockingIOError:
            return None
        if layer is None:
            return octets
        layer.feed(octets)
        return layer.read(READ_SIZE)

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
            data = self._hear()
        except OSError as error:
            gone = reason_of(error)
        except TlsFault as fault:
            gone = str(fault)
        else:
            if data is None:
                return
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
            self._send(data if self._layer is None else self._layer.write(data), deadline)
            self._spoke = True
        except TimeoutError:
            raise StreamTimeout from None
        except TlsFault as fault:
            raise self._broken(str(fault)) from None
        except OSError as error:
            raise StreamLost(reason_of(error)) from None

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

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        assert self._acceptor is not None
        self._ahead = b""  # said in clear behind STARTTLS: nobody's words (CVE-2011-0411)
        try:
            hello, records = self._client_hello(deadline)
            layer = self._acceptor.begin(hello)
        except TimeoutError:
            raise StreamTimeout from None
        except ForeignProtocol as foreign:
            self._say(NO_PROTOCOL_ALERT)
            self._end_of_words()
            raise StreamLost(f"TLS handshake: {foreign}") from None
        except NoClientHello as none:
            raise StreamLost(f"TLS handshake: {none}") from None
        except OSError as error:
            raise StreamLost(f"TLS handshake: {reason_of(error)}") from None
        layer.feed(records)
        self._shake(layer, deadline)
        try:
            self.tls = self._acceptor.learn(hello, layer)
        except ValueError as fault:
            raise StreamLost(f"TLS handshake: client's certificate: {fault}") from None
        return self.tls

    def _client_hello(self, deadline: Deadline) -> tuple[ClientHello, bytes]:
        """The client's first message, and all that has arrived. Raises TimeoutError, OSError, NoClientHello."""
        octets = bytearray()
        needed = 1
        while True:
            piece = self._receive(READ_SIZE, deadline)
            if not piece:
                raise NoClientHello("client closed the connection")
            octets += piece
            if len(octets) >= needed:
                found = parse(bytes(octets))
                if not isinstance(found, int):
                    return found, bytes(octets)
                needed = found

    def start_client_tls(self, settings: BackendTls, server_name: str, deadline: Deadline) -> TlsInfo:
        assert self._client_tls is not None, "only a stream to a backend is a TLS client"
        if self._ahead:
            raise StreamLost("backend spoke in clear where TLS begins")
        key = (settings, server_name, self.peer.host, self.peer.port)
        try:
            layer = self._client_tls.layer(key)
        except ValueError as fault:
            raise StreamLost(f"TLS handshake: {fault}") from None
        self._shake(layer, deadline)
        self._session = key
        self.tls = TlsInfo(layer.protocol, layer.cipher)
        return self.tls

    def _shake(self, layer: TlsLayer, deadline: Deadline) -> None:
        """The handshake. Where it fails nobody says a word in clear any more. Raises StreamLost, StreamTimeout."""
        try:
            while not layer.shake():
                if layer.unsent:
                    self._send(layer.records(), deadline)
                    self._spoke = True
                layer.feed(self._receive(READ_SIZE, deadline))
            if layer.is_urgent:
                self._send(layer.records(), deadline)
            self._layer = layer
        except TimeoutError:
            raise StreamTimeout from None
        except TlsFault as fault:
            self._say(layer.records())
            raise StreamLost(f"TLS handshake: {fault}") from None
        except OSError as error:
            raise StreamLost(f"TLS handshake: {reason_of(error)}") from None
        finally:
            if self._layer is None:
                self._end_of_words()

    def _end_of_words(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def interrupt(self) -> None:
        """Wake a read that is waiting, so that its session notices the drain, or stress. Does nothing otherwise."""
        if self._reading:
            gevent.get_hub().cancel_wait(self._input, _Interrupted())

    def close(self, linger: Callable[[int], object] | None = None) -> None:
        """linger: given the descriptor, which is its own from then on, where something that nobody has read waits in
        the socket: closing that would take our last words back (`lingering`).
        """
        self._alarm.close()
        layer, self._layer = self._layer, None
        if layer is not None:
            if self._session is not None and self._client_tls is not None:
                self._client_tls.remember(layer, self._session)
            self._say(layer.end())
        try:
            if linger is not None and self._unread():
                linger(self._sock.detach())
            else:
                self._sock.close()
        except OSError:
            pass

    def _unread(self) -> int:
        """Octets that have arrived; an end of the connection is none."""
        descriptor = self._sock.fileno()
        if descriptor < 0:  # closed already
            return 0
        return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
