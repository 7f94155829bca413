"""A connected byte stream as a session sees it: who is at its ends, what TLS says of them, and how it fails.

Owns the words for that; refuses to know sockets, and what is said on the stream.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from smtpgate.clock import Deadline
from smtpgate.routing.model import BackendTls

# Octets of one read.
READ_SIZE: Final = 64 * 1024
# Octets of one read of a text that nobody shapes: a quarter of the system calls, and of what is done once a read. The
# kernel holds more than that of any client that is faster than its backend.
TEXT_READ_SIZE: Final = 256 * 1024


class StreamLost(Exception):
    """The connection broke (reset, broken pipe, TLS error). `str()` is for the log, never for a peer."""


class StreamTimeout(Exception):
    """The deadline passed before the peer did its part."""


class StreamInterrupted(Exception):
    """A read was woken because the process drains, or has come under stress. Nothing is lost; read again."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The two ends of a connection. host is a textual address, "unix:" for a unix socket; ports are 0 there."""

    host: str
    port: int
    local_host: str
    local_port: int


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a handshake found where the listener asks for certificates (auth_http.md section 3, rows 17-22).

    verify: "SUCCESS", "NONE" (the client showed none) or "FAILED:<reason>". subject and issuer: RFC 2253
    names. serial: upper-case hex. fingerprint: SHA-1, lower-case hex. pem: the certificate.
    """

    verify: str
    subject: str = ""
    issuer: str = ""
    serial: str = ""
    fingerprint: str = ""
    pem: bytes = b""


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """protocol and cipher in OpenSSL's names ("TLSv1.3", "TLS_AES_256_GCM_SHA384"); sni as the client asked.

    certificate is None where the listener asks clients for none.
    """

    protocol: str
    cipher: str
    sni: str | None = None
    certificate: ClientCertificate | None = None


@dataclass(frozen=True, slots=True)
class Proxied:
    """What a PROXY header said of the client.

    via: the textual address of who has sent it, or "unix:". ends: the client and where it connected to. tls: that of
    the client and the sender, None where it does not say.
    """

    via: str
    ends: Peer
    tls: TlsInfo | None = None


class Stream(Protocol):
    """A connected byte stream; one greenlet reads and writes it.

    peer: the client, also where a PROXY header has told of it.
    """

    peer: Peer
    tls: TlsInfo | None

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        """Some bytes, at most `limit`; b"" at the end of the stream.

        Raises StreamTimeout, StreamLost, StreamInterrupted.
        """

    def readable(self) -> bool:
        """Whether octets, an end or an error wait to be read. Never blocks, never raises."""

    def abort_on_close(self) -> AbstractContextManager[None]:
        """For waits on somebody else, as HAProxy's option of that name: within it, as soon as the peer is gone,
        StreamLost is raised wherever this greenlet waits.

        What the peer says meanwhile is kept for read(). A peer that said something and then ended its side may
        want it answered (`printf … | nc -N`): its end is not taken for its absence, a reset is.
        """

    def write(self, data: bytes, deadline: Deadline) -> None:
        """All of `data`, blocking while the peer is slow: that is the backpressure.

        Raises StreamTimeout, StreamLost.
        """

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        """The server's side of a TLS handshake. Raises StreamTimeout, StreamLost."""

    def start_client_tls(self, settings: BackendTls, server_name: str, deadline: Deadline) -> TlsInfo:
        """The client's side, towards a backend: chain and name are checked where `settings.verify` says so.

        Nothing may be left unread, here or by the caller: what the backend said in clear behind its 220 is nobody's
        words (reference/security.md C2). Raises StreamTimeout, StreamLost.
        """

    def close(self) -> None:
        """Never raises; may be called twice."""
