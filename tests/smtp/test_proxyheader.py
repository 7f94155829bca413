"""smtp.proxyheader: both versions at every split, what is refused, and that nothing else is read."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.smtp.proxyheader import (
    MAX_V1,
    MAX_V2,
    V2_SIGNATURE,
    ProxiedTls,
    ProxyHeader,
    ProxyHeaderError,
    crc32c,
    parse,
)


def v2(command: int = 0x21, transport: int = 0x11, body: bytes = b"") -> bytes:
    return V2_SIGNATURE + bytes([command, transport]) + struct.pack("!H", len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


V4 = (
    ipaddress.ip_address("192.0.2.1").packed
    + ipaddress.ip_address("198.51.100.2").packed
    + struct.pack("!HH", 4242, 25)
)
V6 = (
    ipaddress.ip_address("2001:db8::1").packed
    + ipaddress.ip_address("2001:db8::2").packed
    + struct.pack("!HH", 1, 587)
)
MAPPED = (
    ipaddress.ip_address("::ffff:192.0.2.1").packed
    + ipaddress.ip_address("::ffff:192.0.2.9").packed
    + bytes([0, 1, 0, 25])
)
TLS = tlv(
    0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_256_GCM_SHA384") + tlv(0x22, "Änn".encode())
)
FOUR = ProxyHeader(("192.0.2.1", 4242), ("198.51.100.2", 25))

GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 4242 25\r\n", FOUR),
    (b"PROXY TCP6 2001:db8::1 2001:DB8::2 1 587\r\n", ProxyHeader(("2001:db8::1", 1), ("2001:db8::2", 587))),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 65535\r\n", ProxyHeader(("192.0.2.1", 0), ("::1", 65535))),
    (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ProxyHeader()),
    (v2(body=V4), FOUR),
    (v2(transport=0x21, body=V6), ProxyHeader(("2001:db8::1", 1), ("2001:db8::2", 587))),
    (v2(transport=0x21, body=MAPPED), ProxyHeader(("192.0.2.1", 1), ("192.0.2.9", 25))),
    (v2(transport=0x31, body=bytes(216)), ProxyHeader()),
    (v2(command=0x20, transport=0x00), ProxyHeader()),
    (v2(command=0x20, transport=0x11, body=V4), ProxyHeader()),
    (v2(transport=0x00, body=b"whatever"), ProxyHeader()),
    (v2(body=V4 + tlv(0x04, bytes(7)) + tlv(0xEE, b"x")), FOUR),
    (
        v2(body=V4 + tlv(0x02, b"mx.example.com") + TLS),
        ProxyHeader(
            FOUR.source, FOUR.destination, "mx.example.com", ProxiedTls("TLSv1.3", "TLS_AES_256_GCM_SHA384", "Änn")
        ),
    ),
    (v2(body=V4 + tlv(0x20, bytes(5))), FOUR),
    (v2(body=V4 + tlv(0x02, b"a\r\nb")), FOUR),
]


@pytest.mark.parametrize(("octets", "header"), GOOD)
def test_a_header_is_found_at_every_split_and_what_follows_is_left(octets: bytes, header: ProxyHeader) -> None:
    assert parse(octets) == (header, len(octets))
    assert parse(octets + b"EHLO x\r\nPROXY UNKNOWN\r\n") == (header, len(octets))
    for have in range(len(octets)):
        needed = parse(octets[:have])
        assert isinstance(needed, int), octets[:have]
        assert have < needed <= len(octets)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"EHLO x\r\n", "does not begin"),
        (b"proxy TCP4 192.0.2.1 198.51.100.2 4242 25\r\n", "does not begin"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4242 25\n", "malformed"),
        (b"PROXY TCP4  192.0.2.1 198.51.100.2 4242 25\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4242 25 \r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4242\r\n", "malformed"),
        (b"PROXY TCP5 192.0.2.1 198.51.100.2 4242 25\r\n", "malformed"),
        (b"PROXY UNKNOWNS\r\n", "malformed"),
        (b"PROXY \r\n", "malformed"),
        (b"PROXY TCP4 999.0.2.1 198.51.100.2 4242 25\r\n", "is none"),
        (b"PROXY TCP4 192.0.2.01 198.51.100.2 4242 25\r\n", "is none"),
        (b"PROXY TCP4 ::1 ::2 4242 25\r\n", "another family"),
        (b"PROXY TCP6 192.0.2.1 198.51.100.2 4242 25\r\n", "another family"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n", "port that is none"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 042 25\r\n", "port that is none"),
        (b"PROXY TCP4 " + b"1" * MAX_V1, "no end"),
        (v2(command=0x11, body=V4), "command 0x11"),
        (v2(command=0x22, body=V4), "command 0x22"),
        (v2(transport=0x12, body=V4), "transport 0x12"),
        (v2(transport=0x41, body=V4), "transport 0x41"),
        (v2(body=V4[:-1]), "too short for its addresses"),
        (v2(body=V4 + b"\x04"), "inside a TLV"),
        (v2(body=V4 + b"\x04\0\x05abc"), "longer than the header"),
        (v2(body=V4 + tlv(0x20, b"\x01\0\0")), "too short"),
        (v2(body=V4 + tlv(0x03, bytes(4))), "wrong checksum"),
        (v2(body=V4 + tlv(0x03, bytes(3))), "another size"),
        (V2_SIGNATURE + b"\x21\x11\xff\xff", f"at most {MAX_V2}"),
    ],
)
def test_what_is_refused(octets: bytes, why: str) -> None:
    with pytest.raises(ProxyHeaderError, match=why):
        parse(octets)


def test_a_right_checksum_passes() -> None:
    without = v2(body=V4 + tlv(0x03, bytes(4)))
    assert crc32c(b"123456789") == 0xE3069283
    octets = without[:-4] + struct.pack("!I", crc32c(without))
    assert parse(octets) == (FOUR, len(octets))


@given(st.binary(max_size=300))
def test_any_octets_end_in_one_of_three_ways(octets: bytes) -> None:
    for data in (octets, V2_SIGNATURE + octets, b"PROXY " + octets):
        try:
            found = parse(data)
        except ProxyHeaderError:
            continue
        assert found > len(data) if isinstance(found, int) else 0 < found[1] <= len(data)
