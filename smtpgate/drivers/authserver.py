"""One auth_http server: its address, its kept-alive connections, and one question on one of them.

Owns the pool of connections and what is done when one breaks. What is said is authwire's; how long it may take,
and who is asked next, is authhttp's. Of geventhttpclient it uses the connection pools (bounds, TLS, gevent
sockets whether or not the process is patched) and not HTTPClient: that sends a GET up to pool size + 1 times when
a server hangs up, and each time counts as a login; it reads headers without bound; and it refuses octets that
nginx sends.

A question is asked twice here only on a connection that was kept alive, that broke before any octet of an answer,
and then once, on a new connection. A server that closes an idle connection just as we write to it does exactly
that, and every reload of the service does it to somebody: without the second try a good login would fail. The
price: a service that dies after it has counted a failed login and before it has answered counts it twice.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakSet

import gevent.socket
import gevent.ssl
from gevent import Timeout
from gevent.monkey import get_original
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool

from smtpgate.drivers import authwire
from smtpgate.drivers.tracebacks import let_go
from smtpgate.session.ports import AuthAnswer, AuthQuery

# Questions at once, to one server. gunicorn's default worker_connections is 1000; password hashing keeps a
# service far below.
MAX_CONNECTIONS: Final = 128
# Seconds to wait for the rest of a body that nobody reads, only to keep its connection.
DRAIN_TIMEOUT: Final = 0.1
READ_SIZE: Final = 4096

EXPECTED: Final = "expected http://host:port/uri, https://host:port/uri or unix:/path:/uri"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the service is. path: of a unix socket. host: of the Host header, an IPv6 address in brackets."""

    host: str
    port: int
    target: str
    tls: bool = False
    path: str | None = None

    @property
    def name(self) -> str:
        """For the log."""
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def parse_url(url: str) -> Endpoint:
    """conf/proxy.yaml `auth_http.url`. Raises ValueError; the URL is not shown, its query may hold a secret."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"auth_http url has characters that no URL has; {EXPECTED}")
    if url.startswith("unix:"):
        path, _, target = url.removeprefix("unix:").partition(":")
        if not path.startswith("/") or not (target or "/").startswith("/"):
            raise ValueError(f"auth_http url is no unix socket; {EXPECTED}")
        return Endpoint("localhost", 0, target or "/", path=path)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"auth_http url has no host and port that can be read; {EXPECTED}") from None
    if parts.scheme not in ("http", "https") or not host or port == 0 or "@" in parts.netloc or parts.fragment:
        raise ValueError(f"auth_http url cannot be used; {EXPECTED}")
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(f"[{host}]" if ":" in host else host, port or (443 if tls else 80), target, tls)


class UnansweredError(Exception):
    """Not one octet of an answer came. `str()` is for the log."""


class _HungUpError(UnansweredError):
    """The connection ended before an octet of the answer."""


class BrokenOffError(authwire.WireError):
    """Octets came, and no whole header: that is nobody's answer. `str()` is for the log."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the server said, and for how many seconds it lets that be said again (Auth-Cache)."""

    answer: AuthAnswer
    lifetime: float


class AuthServer:
    """One of the servers that may be asked. Parameters as AuthHttp's, of which it is a part.

    Raises ValueError for a url or a header that cannot be used, OSError for files that cannot be.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        headers: Mapping[str, str],
        *,
        pass_client_cert: bool,
        max_connections: int,
        ca: str | None,
        certificate: tuple[str, str] | None,
    ) -> None:
        self._endpoint = parse_url(url)
        self._static = [authwire.static_header(name, value) for name, value in headers.items()]
        self._pass_client_cert = pass_client_cert
        self._pool = _open_pool(self._endpoint, timeout, max_connections, ca, certificate)
        # Connections that have carried an exchange, and so may have been closed by the other side since.
        self._used: WeakSet[gevent.socket.socket] = WeakSet()

    @property
    def name(self) -> str:
        """For the log."""
        return self._endpoint.name

    @property
    def idle(self) -> int:
        """Connections that are kept for the next question."""
        return self._pool._socket_queue.qsize()

    def close(self) -> None:
        """Close idle connections; later questions are not asked."""
        self._pool.close()

    def ask(self, query: AuthQuery, *, began: Callable[[], None], done: Callable[[], None]) -> Answered:
        """Ask. began: called with the first octet of an answer; done: when its header is complete.

        Raises UnansweredError where no octet came, so that somebody else may be asked; BrokenOffError or OSError
        where octets came and no whole header; WireError where a header says nothing that can be used; and what the
        caller throws into its waits.
        """
        request = authwire.write_request(
            self._endpoint.target,
            self._endpoint.host,
            query,
            self._static,
            pass_client_cert=self._pass_client_cert,
        )
        sock = self._connection()
        if sock in self._used:
            try:
                return self._exchange(sock, request, began, done)
            except _HungUpError:
                sock = self._fresh_connection()
        return self._exchange(sock, request, began, done)

    def _connection(self) -> gevent.socket.socket:
        """An idle connection, or a new one; waits for a free place."""
        try:
            return self._pool.get_socket()
        except (OSError, UnicodeError, RuntimeError) as error:  # refused, TLS; no host name; pool closed
            let_go(error)
            raise UnansweredError(f"{type(error).__name__}: {error}") from error

    def _fresh_connection(self) -> gevent.socket.socket:
        """A new connection. Idle ones are closed on the way: what ended one of them has likely ended all."""
        while (sock := self._connection()) in self._used:
            self._pool.release_socket(sock)
        return sock

    def _exchange(
        self, sock: gevent.socket.socket, request: bytes, began: Callable[[], None], done: Callable[[], None]
    ) -> Answered:
        """One request and its answer; the socket goes back to the pool or is closed. Raises as `ask`."""
        keep = False
        try:
            block, received = _converse(sock, request, began)
            head = authwire.read_head(block)
            answered = Answered(authwire.read_answer(head), authwire.read_lifetime(head))
            done()  # the answer is here: a body that dawdles must not turn it into a timeout
            keep = _drained(sock, received, authwire.body_length(head))
            return answered
        finally:
            if keep:
                self._used.add(sock)
                self._pool.return_socket(sock)
            else:
                self._pool.release_socket(sock)


def _converse(sock: gevent.socket.socket, request: bytes, began: Callable[[], None]) -> tuple[bytes, int]:
    """Send, then receive until the blank line is there. Raises as AuthServer.ask.

    Out: the header block, and how many octets of the body came with it.
    """
    data = bytearray()
    try:
        sock.sendall(request)
        while (end := authwire.head_end(data)) is None and len(data) <= authwire.MAX_HEAD:
            chunk = sock.recv(READ_SIZE)
            if not chunk:
                break
            if not data:
                began()
            data += chunk
    except OSError as error:
        if data:
            raise
        if isinstance(error, ConnectionError | ssl.SSLEOFError):
            raise _HungUpError(f"hung up without an answer: {error}") from error
        raise UnansweredError(f"{type(error).__name__}: {error}") from error
    if not data:
        raise _HungUpError("hung up without an answer")
    if (end or len(data)) > authwire.MAX_HEAD:
        raise BrokenOffError(f"header of more than {authwire.MAX_HEAD} octets")
    if end is None:
        raise BrokenOffError("hung up before the end of the header")
    return bytes(data[:end]), len(data) - end


def _drained(sock: gevent.socket.socket, received: int, length: int | None) -> bool:
    """Read what is left of the body. True if nothing is left on the connection, so that it may be kept."""
    if length is None:
        return False
    try:
        with Timeout(DRAIN_TIMEOUT, TimeoutError):
            while received < length:
                chunk = sock.recv(READ_SIZE)
                if not chunk:
                    return False
                received += len(chunk)
    except OSError:
        return False
    # A TLS record is decrypted as a whole: what was not read of it is in this process, where no poll will see it.
    left = sock.pending() if isinstance(sock, gevent.ssl.SSLSocket) else 0
    return received == length and not left


# --- connections ---


class _Pool(ConnectionPool):
    """Bounded, kept alive, last in first out."""

    def after_connect(self, sock: gevent.socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _is_socket_alive(self, sock: gevent.socket.socket | None) -> bool:
        # The library's own uses select(), which knows no descriptor above 1023: a busy proxy would keep none.
        if sock is None or sock.fileno() < 0:
            return False
        poll: select.poll = get_original("select", "poll")()
        poll.register(sock.fileno(), select.POLLIN)
        return not poll.poll(0)


class _TlsPool(_Pool, SSLConnectionPool):
    """The same over TLS, with the name of the URL verified."""


class _UnixPool(_Pool):
    def __init__(self, path: str, **options: Any) -> None:
        super().__init__("localhost", 0, "localhost", 0, **options)
        self._path = path

    def _create_socket(self) -> gevent.socket.socket:
        sock = gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.network_timeout)
            sock.connect(self._path)
        except BaseException:  # a killed greenlet, too, leaves no socket behind
            sock.close()
            raise
        return sock


def _open_pool(
    endpoint: Endpoint, timeout: float, size: int, ca: str | None, certificate: tuple[str, str] | None
) -> ConnectionPool:
    # The library's timeouts are for single steps; AuthHttp's own covers them all.
    options: dict[str, Any] = {"size": size, "connection_timeout": timeout, "network_timeout": timeout}
    if endpoint.path is not None:
        return _UnixPool(endpoint.path, **options)
    host = endpoint.host.strip("[]")
    if endpoint.tls:
        context = partial(_client_context, certificate=certificate)
        options |= {"ssl_options": {"ca_certs": ca} if ca else {}, "ssl_context_factory": context}
        return _TlsPool(host, endpoint.port, host, endpoint.port, **options)
    return _Pool(host, endpoint.port, host, endpoint.port, **options)


def _client_context(cafile: str, certificate: tuple[str, str] | None) -> gevent.ssl.SSLContext:
    """A context whose handshakes let other greenlets run. The library's own does not, unless patched."""
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996: the older ones are not to be used
    context.load_verify_locations(cafile)
    if certificate is not None:
        # Without a terminal's passphrase.
        context.load_cert_chain(*certificate, password=lambda: "")
    return context
