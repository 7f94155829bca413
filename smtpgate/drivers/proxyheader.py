"""The PROXY header that opens a connection to a backend, as octets (HAProxy's doc/proxy-protocol.txt, 2020/03/05).

Owns the layout of versions 1 and 2, and which of the client's TLS facts go into it. Refuses to know sockets: the
dialler writes the header before anything else. Reading such a header is a listener's matter, not this module's.

The addresses are the client's and that of our listener which it reached, as nginx's mail proxy sends them. Where
there are none to tell (a client on a unix socket, a probe of our own), the receiver is to take the connection for
what it is, ours.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal

from smtpgate.session.streams import Peer, TlsInfo

Version = Literal["v1", "v2"]
Address = IPv4Address | IPv6Address

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # section 2.2
LOCAL: Final = 0x20  # version 2, command LOCAL
PROXY: Final = 0x21
UNSPEC: Final = 0x00
TCP4: Final = 0x11
TCP6: Final = 0x21
UNKNOWN_V1: Final = b"PROXY UNKNOWN\r\n"
LOCAL_V2: Final = SIGNATURE + struct.pack("!BBH", LOCAL, UNSPEC, 0)

# Section 2.2.x, the type-length-value fields.
PP2_TYPE_AUTHORITY: Final = 0x02
PP2_TYPE_SSL: Final = 0x20
PP2_SUBTYPE_SSL_VERSION: Final = 0x21
PP2_SUBTYPE_SSL_CN: Final = 0x22
PP2_SUBTYPE_SSL_CIPHER: Final = 0x23
PP2_CLIENT_SSL: Final = 0x01
PP2_CLIENT_CERT_CONN: Final = 0x02
PP2_CLIENT_CERT_SESS: Final = 0x04
# "zero if the client presented a certificate and it was successfully verified": what else went wrong is not told.
VERIFIED: Final = 0
NOT_VERIFIED: Final = 1

# Section 2.2: a receiver has room for 536 octets at least. A longer name says nothing that anybody needs.
MAX_VALUE: Final = 255

# The first common name of an RFC 2253 text. What is special in it has a backslash before it, and octets beyond ASCII
# may stand as a backslash and two hex digits (section 2.4).
_COMMON_NAME = re.compile(rb"(?:^|[,+])CN=((?:\\.|[^,+\\])*)", re.IGNORECASE)
_ESCAPED = re.compile(rb"\\([0-9A-Fa-f]{2}|.)")


def of(version: Version, client: Peer | None, tls: TlsInfo | None, own: Peer) -> bytes:
    """The header for a client's connection. client: its two ends, with our listener's as the local one.

    An IPv4 and an IPv6 address together become two IPv6 ones, as in nginx: the header has room for one family.
    tls: what version 2 tells of the client's own TLS; version 1 has no place for it. own: our connection to the
    backend, for when there is no client to tell of.
    """
    ends = None if client is None else _ends(client.host, client.local_host)
    if client is None or ends is None:
        return _unspoken(version, own)
    source, destination = ends
    if version == "v1":
        return _line(source, destination, client.port, client.local_port)
    code = TCP4 if source.version == 4 else TCP6
    body = source.packed + destination.packed + struct.pack("!HH", client.port, client.local_port) + _tls(tls)
    return SIGNATURE + struct.pack("!BBH", PROXY, code, len(body)) + body


def _unspoken(version: Version, own: Peer) -> bytes:
    """Take the connection for what it is. Version 1 has UNKNOWN for that, which Postfix 3.7 answers with a 421: it is
    told the connection's own ends instead, which comes to the same.
    """
    if version == "v2":
        return LOCAL_V2
    ends = _ends(own.local_host, own.host)
    return UNKNOWN_V1 if ends is None else _line(ends[0], ends[1], own.local_port, own.port)


def _line(source: Address, destination: Address, port: int, local_port: int) -> bytes:
    family = "TCP4" if source.version == 4 else "TCP6"
    return f"PROXY {family} {source} {destination} {port} {local_port}\r\n".encode("ascii")


def _ends(source: str, destination: str) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address] | None:
    try:
        pair = ip_address(source), ip_address(destination)
    except ValueError:  # "unix:"
        return None
    if isinstance(pair[0], IPv4Address) and isinstance(pair[1], IPv4Address):
        return pair[0], pair[1]
    return _as_v6(pair[0]), _as_v6(pair[1])


def _as_v6(address: IPv4Address | IPv6Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)  # RFC 4291 section 2.5.5.2


def _tls(tls: TlsInfo | None) -> bytes:
    if tls is None:
        return b""
    client, verify, name = PP2_CLIENT_SSL, NOT_VERIFIED, b""
    certificate = tls.certificate
    if certificate is not None and certificate.verify != "NONE":
        # A session that was resumed has its certificate too; which of the two it was, nobody told us.
        client |= PP2_CLIENT_CERT_CONN | PP2_CLIENT_CERT_SESS
        verify = VERIFIED if certificate.verify == "SUCCESS" else NOT_VERIFIED
        name = _common_name(certificate.subject)
    value = struct.pack("!BI", client, verify) + _field(PP2_SUBTYPE_SSL_VERSION, tls.protocol.encode())
    if name:
        value += _field(PP2_SUBTYPE_SSL_CN, name)
    if tls.cipher:
        value += _field(PP2_SUBTYPE_SSL_CIPHER, tls.cipher.encode())
    authority = _field(PP2_TYPE_AUTHORITY, tls.sni.encode()) if tls.sni else b""
    return authority + struct.pack("!BH", PP2_TYPE_SSL, len(value)) + value


def _field(kind: int, value: bytes) -> bytes:
    value = value[:MAX_VALUE]
    return struct.pack("!BH", kind, len(value)) + value


def _common_name(subject: str) -> bytes:
    match = _COMMON_NAME.search(subject.encode("utf-8", "replace"))
    if match is None:
        return b""
    return _ESCAPED.sub(lambda one: bytes.fromhex(one[1].decode()) if len(one[1]) == 2 else one[1], match[1])
