"""smtp.forwarded: XCLIENT's and XFORWARD's attributes, and what is none."""

from __future__ import annotations

import pytest

from smtpgate.smtp.forwarded import AttributeFault, Xclient, parse_xclient, parse_xforward


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (b"ADDR=192.0.2.1", Xclient(addr="192.0.2.1")),
        (b"addr=192.0.2.1  Name=mx.example.com", Xclient(addr="192.0.2.1", name="mx.example.com")),
        (b"ADDR=IPV6:2001:DB8::1 PORT=4242", Xclient(addr="2001:db8::1", port=4242)),
        (b"NAME=[UNAVAILABLE] ADDR=[tempunavail] PORT=[UNAVAILABLE]", Xclient(name="", addr="", port=0)),
        (b"PROTO=esmtp HELO=client.example", Xclient(proto="ESMTP", helo="client.example")),
        (b"LOGIN=ann+40example.com", Xclient(login="ann@example.com")),
        (b"LOGIN=x+3Dy+2Bz+20w%+E9", Xclient(login="x=y+z w%\udce9")),
        (b"LOGIN=+C3+A4", Xclient(login="ä")),
        (b"LOGIN=[UNAVAILABLE]", Xclient(login="")),
        (b"DESTADDR=198.51.100.1 DESTPORT=25", Xclient(destaddr="198.51.100.1", destport=25)),
    ],
)
def test_xclient(arguments: bytes, said: Xclient) -> None:
    assert parse_xclient(arguments) == said


@pytest.mark.parametrize(
    "arguments",
    [
        b"",
        b"ADDR",
        b"ADDR=",
        b"=x",
        b"FOO=bar",
        b"IDENT=1",
        b"ADDR=192.0.2.1 ADDR=192.0.2.1",
        b"ADDR=192.0.2.999",
        b"ADDR=192.0.2.01",
        b"ADDR=2001:db8::1",
        b"ADDR=IPV6:192.0.2.1",
        b"ADDR=IPV6:",
        b"ADDR=fe80::1%25eth0",
        b"PORT=0",
        b"PORT=65536",
        b"PORT=+2B5",
        b"PORT=1_0",
        b"PROTO=LMTP",
        b"NAME=a+0D+0AMAIL",
        b"NAME=a+20b",
        b"HELO=a+20b",
        b"HELO=a+00",
        b"LOGIN=a+0Ab",
        b"LOGIN=a+00b",
        b"LOGIN=a=b",
        b"LOGIN=a+4",
        b"LOGIN=a+ff",
        b"LOGIN=" + b"a" * 256,
        b"LOGIN=\xe9",
    ],
)
def test_what_is_no_xclient(arguments: bytes) -> None:
    with pytest.raises(AttributeFault):
        parse_xclient(arguments)


def test_xforward() -> None:
    said = parse_xforward(b"NAME=mx.example.com ADDR=192.0.2.1 PORT=25 PROTO=SMTP HELO=x IDENT=4ABC SOURCE=REMOTE")
    assert dict(said.attributes) == {
        "name": "mx.example.com",
        "addr": "192.0.2.1",
        "port": "25",
        "proto": "SMTP",
        "helo": "x",
        "ident": "4ABC",
        "source": "REMOTE",
    }


@pytest.mark.parametrize("arguments", [b"LOGIN=ann", b"IDENT=a+20b", b"SOURCE=a+0A"])
def test_what_is_no_xforward(arguments: bytes) -> None:
    with pytest.raises(AttributeFault):
        parse_xforward(arguments)
