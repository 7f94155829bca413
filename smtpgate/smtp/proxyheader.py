"""The PROXY protocol's header: octets -> who is behind the proxy in front of us (HAProxy, doc/proxy-protocol.txt).

Owns both versions and every segmentation: `parse` is handed what has arrived so far, and says how much more it needs
before it can say more. Refuses to know who may send a header; that is the listener's matter, and nobody else's word
counts (reference/security.md E2).

Both versions are taken to the letter: one space, no leading zero, a canonical address of the family that is named.
What a sender may leave open is taken as it is meant: UNKNOWN, LOCAL and UNSPEC are a proxy that speaks for itself.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# doc/proxy-protocol.txt section 2.1: the longest line with its CRLF, of two full IPv6 addresses.
MAX_V1: Final = 107
V1_SIGNATURE: Final = b"PROXY "
V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD: Final = 16
# The specification asks for 536 octets at least; a certificate's names make it longer. nginx looks at as many.
MAX_V2: Final = 4096

_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9a-fA-F.:]{2,39}) ([0-9a-fA-F.:]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [ -~]*)?\r\n")
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")

_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES: Final = {0x1: struct.Struct("!4s4sHH"), 0x2: struct.Struct("!16s16sHH"), 0x3: struct.Struct("!108s108s")}
_STREAM: Final = 0x1
_TLV_HEAD: Final = struct.Struct("!BH")
_AUTHORITY, _CRC32C, _SSL = 0x02, 0x03, 0x20
_SSL_HEAD: Final = struct.Struct("!BI")
_SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x21, 0x22, 0x23
_CLIENT_SSL: Final = 0x01

Address = tuple[str, int]


class ProxyHeaderError(ValueError):
    """Not a PROXY header. `str()` is for the log; it quotes nothing of what was sent."""


@dataclass(frozen=True, slots=True)
class ProxiedTls:
    """What the proxy in front says of the client's TLS. Names as OpenSSL's; None where it does not say."""

    version: str | None = None
    cipher: str | None = None
    common_name: str | None = None


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """source: the client; destination: where it connected to; textual addresses and ports.

    None where the header names no addresses of TCP: the proxy speaks for itself (LOCAL), does not know (UNKNOWN), or
    the client came over a unix socket. authority: the name that the client asked for by SNI.
    """

    source: Address | None = None
    destination: Address | None = None
    authority: str | None = None
    tls: ProxiedTls | None = None


def parse(data: bytes) -> tuple[ProxyHeader, int] | int:
    """The header at the beginning of `data` and the number of its octets, or how many octets are needed at least to
    say more (always above len(data)). Raises ProxyHeaderError.
    """
    if not data:
        return 1
    if data[: len(V2_SIGNATURE)] == V2_SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[: len(V1_SIGNATURE)] == V1_SIGNATURE[: len(data)]:
        return _parse_v1(data)
    raise ProxyHeaderError("does not begin as a PROXY header; expected version 1 or 2")


# --- version 1 ---------------------------------------------------------------------------------------------------


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | int:
    end = data.find(b"\n", 0, MAX_V1) + 1
    if not end:
        if len(data) >= MAX_V1:
            raise ProxyHeaderError(f"version 1 line has no end within {MAX_V1} octets")
        return len(data) + 1
    line = data[:end]
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader(), end
    found = _V1.fullmatch(line)
    if found is None:
        raise ProxyHeaderError('version 1 line is malformed; expected "PROXY TCP4|TCP6 source destination port port"')
    family, source, destination, source_port, destination_port = found.groups()
    version = 4 if family == b"TCP4" else 6
    return (
        ProxyHeader(
            (_address(source, version), _port(source_port)),
            (_address(destination, version), _port(destination_port)),
        ),
        end,
    )


def _address(text: bytes, version: int) -> str:
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        raise ProxyHeaderError("version 1 line has an address that is none") from None
    if address.version != version:
        raise ProxyHeaderError("version 1 line has an address of another family than it says")
    return _textual(address)


def _port(text: bytes) -> int:
    if not _PORT.fullmatch(text) or int(text) > 0xFFFF:
        raise ProxyHeaderError("version 1 line has a port that is none; expected 0 to 65535")
    return int(text)


# --- version 2 ---------------------------------------------------------------------------------------------------


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | int:
    if len(data) < V2_HEAD:
        return V2_HEAD
    command, transport = data[12], data[13]
    end = V2_HEAD + int.from_bytes(data[14:V2_HEAD], "big")
    if end > MAX_V2:
        raise ProxyHeaderError(f"version 2 header has {end} octets; expected at most {MAX_V2}")
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"version 2 header has the command 0x{command:02x}; expected LOCAL or PROXY")
    if len(data) < end:
        return end
    if command == _LOCAL:
        return ProxyHeader(), end  # addresses and all that follows are to be ignored
    family, protocol = transport >> 4, transport & 0xF
    if family == 0 or protocol == 0:
        return ProxyHeader(), end  # UNSPEC: "the receiver should ignore address information"
    if family not in _ADDRESSES or protocol != _STREAM:
        raise ProxyHeaderError(f"version 2 header has the transport 0x{transport:02x}; expected a stream")
    layout = _ADDRESSES[family]
    if V2_HEAD + layout.size > end:
        raise ProxyHeaderError("version 2 header is too short for its addresses")
    tlvs = dict(_tlvs(data[V2_HEAD + layout.size : end]))
    _check_crc(data[:end], tlvs.get(_CRC32C))
    authority = tlvs.get(_AUTHORITY)
    source = destination = None
    if family != 0x3:
        from_, to, from_port, to_port = layout.unpack_from(data, V2_HEAD)
        source = (_textual(ipaddress.ip_address(from_)), from_port)
        destination = (_textual(ipaddress.ip_address(to)), to_port)
    return ProxyHeader(source, destination, _name(authority), _tls(tlvs.get(_SSL))), end


def _tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + _TLV_HEAD.size > len(data):
            raise ProxyHeaderError("version 2 header ends inside a TLV")
        kind, length = _TLV_HEAD.unpack_from(data, at)
        at += _TLV_HEAD.size
        if at + length > len(data):
            raise ProxyHeaderError("version 2 header has a TLV that is longer than the header")
        yield kind, data[at : at + length]
        at += length


def _tls(value: bytes | None) -> ProxiedTls | None:
    if value is None:
        return None
    if len(value) < _SSL_HEAD.size:
        raise ProxyHeaderError("version 2 header has a TLV of TLS that is too short")
    client, _ = _SSL_HEAD.unpack_from(value)
    if not client & _CLIENT_SSL:
        return None
    parts = dict(_tlvs(value[_SSL_HEAD.size :]))
    return ProxiedTls(
        _name(parts.get(_SSL_VERSION)), _name(parts.get(_SSL_CIPHER)), _name(parts.get(_SSL_CN), ascii_only=False)
    )


def _name(value: bytes | None, *, ascii_only: bool = True) -> str | None:
    """Printable text, None for anything else: it goes to headers and logs."""
    if value is None:
        return None
    try:
        text = value.decode("ascii" if ascii_only else "utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() and text else None


def _check_crc(header: bytes, sent: bytes | None) -> None:
    """A checksum that is there has to be right (section 2.2.3)."""
    if sent is None:
        return
    if len(sent) != 4:
        raise ProxyHeaderError("version 2 header has a checksum of another size than 4 octets")
    at = header.rfind(_TLV_HEAD.pack(_CRC32C, 4) + sent) + _TLV_HEAD.size
    if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != int.from_bytes(sent, "big"):
        raise ProxyHeaderError("version 2 header has a wrong checksum")


def _crc_table() -> tuple[int, ...]:
    table = []
    for octet in range(256):
        crc = octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720 appendix B.4). zlib's is another polynomial."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _textual(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """A v4-mapped address is the IPv4 client that it stands for."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
