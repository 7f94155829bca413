"""A TLS ClientHello, read before the handshake: which name the client asks for, and which protocols it offers.

Owns the few octets of RFC 8446 sections 4.1.2 and 5.1 and RFC 6066 section 3 that are needed to choose a certificate
and to refuse a client that speaks another protocol (ALPN, RFC 7301). Python's ssl hands out the one in a callback and
the other not at all: its servers go on without ALPN where no protocol is shared (CVE-2021-3618, "ALPACA").

Reads nothing itself, and does not judge the rest of the message: that is OpenSSL's work, which gets the same octets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HANDSHAKE: Final = 0x16
CLIENT_HELLO: Final = 1
RECORD_HEAD: Final = 5
# RFC 8446 section 5.1: a record's most octets. A ClientHello with post-quantum key shares has some 1,800.
MAX_RECORD: Final = 1 << 14
# Records that a ClientHello may be spread over: more octets than any client sends, and what OpenSSL takes.
MAX_HELLO: Final = 1 << 16
# So many of them at most: each is gone through again with all that were before it.
MAX_RECORDS: Final = 64

_SERVER_NAME: Final = 0
_ALPN: Final = 16
_HOST_NAME: Final = 0


class NoClientHello(ValueError):
    """What arrived is not the beginning of a TLS handshake. `str()` is for the log."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """server_name: in lower case, None where the client names none. protocols: of ALPN, in its order; None where it
    does not use ALPN.
    """

    server_name: str | None
    protocols: tuple[bytes, ...] | None


def parse(data: bytes) -> ClientHello | int:
    """The ClientHello at the beginning of `data`, or how many octets are needed at least to say more.

    Raises NoClientHello.
    """
    message = bytearray()
    at = 0
    for _ in range(MAX_RECORDS):
        if len(data) < at + RECORD_HEAD:
            _check_head(data[at:])
            return at + RECORD_HEAD
        _check_head(data[at : at + RECORD_HEAD])
        length = int.from_bytes(data[at + 3 : at + RECORD_HEAD], "big")
        if not 0 < length <= MAX_RECORD:
            raise NoClientHello(f"a TLS record of {length} octets")
        end = at + RECORD_HEAD + length
        if len(data) < end:
            return end
        message += data[at + RECORD_HEAD : end]
        at = end
        if message[0] != CLIENT_HELLO:
            raise NoClientHello(f"a TLS handshake that begins with message {message[0]}")
        if len(message) >= 4:
            size = 4 + int.from_bytes(message[1:4], "big")
            if size > MAX_HELLO:
                raise NoClientHello(f"a ClientHello of {size} octets")
            if len(message) >= size:
                return _parse_message(_Reader(bytes(message[4:size])))
    raise NoClientHello(f"a ClientHello in more than {MAX_RECORDS} TLS records")


def _check_head(head: bytes) -> None:
    if head[:1] not in (b"", bytes([HANDSHAKE])) or head[1:2] not in (b"", b"\x03"):
        raise NoClientHello("no TLS handshake")


class _Reader:
    """Takes vectors off the front. Raises NoClientHello where one is longer than what is left."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if len(self.data) < count:
            raise NoClientHello("a ClientHello that ends too early")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def vector(self, length_octets: int) -> bytes:
        return self.take(int.from_bytes(self.take(length_octets), "big"))


def _parse_message(hello: _Reader) -> ClientHello:
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression
    extensions: dict[int, bytes] = {}
    if hello.data:
        rest = _Reader(hello.vector(2))
        while rest.data:
            kind = int.from_bytes(rest.take(2), "big")
            extensions[kind] = rest.vector(2)
    return ClientHello(_server_name(extensions.get(_SERVER_NAME)), _protocols(extensions.get(_ALPN)))


def _server_name(extension: bytes | None) -> str | None:
    if not extension:
        return None
    names = _Reader(_Reader(extension).vector(2))
    while names.data:
        kind, name = names.take(1)[0], names.vector(2)
        if kind == _HOST_NAME:
            text = name.decode("ascii", "replace").lower()
            return text if text.isprintable() and text.isascii() else None
    return None


def _protocols(extension: bytes | None) -> tuple[bytes, ...] | None:
    if extension is None:
        return None
    offered = _Reader(_Reader(extension).vector(2))
    protocols = []
    while offered.data:
        protocols.append(offered.vector(1))
    return tuple(protocols)
