"""drivers.clienthello: what real clients send, at every split, and what is none."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.drivers.clienthello import MAX_RECORDS, ClientHello, NoClientHello, parse


def hello(name: str | None = None, protocols: list[str] | None = None) -> bytes:
    """The first octets of Python's own client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols is not None:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records_of(size: int, octets: bytes) -> bytes:
    """The same handshake message, in records of `size` octets."""
    message = octets[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(octets[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize(
    ("name", "protocols"),
    [(None, None), ("mx.Example.com", None), (None, ["smtp"]), ("mx.example.com", ["h2", "smtp"]), (None, ["h2"])],
)
@pytest.mark.parametrize("size", [1 << 14, 100, 11])
def test_a_hello_is_understood_at_every_split(name: str | None, protocols: list[str] | None, size: int) -> None:
    octets = in_records_of(size, hello(name, protocols))
    expected = ClientHello(
        name.lower() if name else None, None if protocols is None else tuple(p.encode() for p in protocols)
    )
    assert parse(octets) == expected
    assert parse(octets + b"whatever follows") == expected
    for have in range(0, len(octets), 1 if len(octets) < 600 else 7):
        needed = parse(octets[:have])
        assert isinstance(needed, int)
        assert have < needed <= len(octets)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"EHLO x\r\n", "no TLS handshake"),
        (b"\x80\x2e\x01\x03\x01", "no TLS handshake"),
        (b"\x16\x02\x00\x00\x05", "no TLS handshake"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "no TLS handshake"),
        (b"\x16\x03\x01\x00\x00", "record of 0 octets"),
        (b"\x16\x03\x01\x40\x01", "record of 16385 octets"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "message 2"),
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", "ClientHello of 16777219 octets"),
        (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", "ends too early"),
    ],
)
def test_what_is_none(octets: bytes, why: str) -> None:
    with pytest.raises(NoClientHello, match=why):
        parse(octets)


def test_one_in_too_many_pieces_is_none() -> None:
    """Or going through them would cost the square of their number."""
    octets = in_records_of(1, hello("mx.example.com", None))
    assert isinstance(parse(octets[: 6 * (MAX_RECORDS - 1)]), int)
    with pytest.raises(NoClientHello, match=f"more than {MAX_RECORDS} TLS records"):
        parse(octets)


@given(st.binary(max_size=200))
def test_any_octets_end_in_one_of_three_ways(octets: bytes) -> None:
    for data in (octets, b"\x16\x03\x01" + octets, b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c" + octets):
        try:
            found = parse(data)
        except NoClientHello:
            continue
        assert isinstance(found, ClientHello) or found > len(data)
