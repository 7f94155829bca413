from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.smtp import grammar
from smtpgate.smtp.events import NULL_SENDER, Address
from smtpgate.smtp.grammar import AddressError, NotUtf8Error

LONG_LABEL = b"a" * 63
LONG_DOMAIN = b".".join([LONG_LABEL] * 4)  # 255


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (b"<>", NULL_SENDER),
        (b"<a@b>", Address("a", "b")),
        (b"<a.b+c=d@x-y.example.com>", Address("a.b+c=d", "x-y.example.com")),
        (b"<A@EXAMPLE.com>", Address("A", "EXAMPLE.com")),
        (b"<!#$%&'*+-/=?^_`{|}~@a.test>", Address("!#$%&'*+-/=?^_`{|}~", "a.test")),
        (b'<"a b"@a.test>', Address('"a b"', "a.test")),
        (b'<"a>b"@a.test>', Address('"a>b"', "a.test")),
        (b'<"a\\"@b\\\\"@a.test>', Address('"a\\"@b\\\\"', "a.test")),
        (b'<""@a.test>', Address('""', "a.test")),
        (b"<@r1.test,@r2.test:a@a.test>", Address("a", "a.test")),
        (b"<a@[192.0.2.1]>", Address("a", "[192.0.2.1]")),
        (b"<a@[IPv6:2001:db8::1]>", Address("a", "[IPv6:2001:db8::1]")),
        (b"<a@[ipv6:::ffff:192.0.2.1]>", Address("a", "[ipv6:::ffff:192.0.2.1]")),
        (b"<a@my_host.test>", Address("a", "my_host.test")),
        (b"<a@1.2.3.4>", Address("a", "1.2.3.4")),
        (b"<" + b"a" * 512 + b"@b>", Address("a" * 512, "b")),
        (b"<a@" + LONG_DOMAIN + b">", Address("a", LONG_DOMAIN.decode())),
    ],
)
def test_a_reverse_path(path: bytes, address: Address) -> None:
    match = grammar.REVERSE_PATH.fullmatch(b"FROM:" + path)
    assert match is not None
    assert grammar.mailbox(match, utf8=False) == address


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"a@b",
        b"<a>",
        b"<a@>",
        b"<@b>",
        b"< >",
        b"<a@b",
        b"a@b>",
        b"<<a@b>>",
        b"<a@b>x",
        b"<a b@c>",
        b"<a@b c>",
        b"<a@b,c@d>",
        b"<a@b..c>",
        b"<a@.b>",
        b"<a@b.>",
        b"<a@-b>",
        b"<a@b->",
        b"<.a@b>",
        b"<a.@b>",
        b"<a..b@c>",
        b"<a@b@c>",
        b'<"a@b>',
        b'<"a"b@c>',
        b'<a"b"@c>',
        b'<"a\tb"@c>',
        b'<"a\x00b"@c>',
        b"<a\\@b@c>",
        b"<a@[192.0.2.1>",
        b"<a@[]>",
        b"<a@[x:y]>",
        b"<a@b\t>",
        b"<a@b>\t",
        b"<r1.test:a@b>",
        b"<@r1.test a@b>",
    ],
)
def test_no_path(path: bytes) -> None:
    assert grammar.REVERSE_PATH.fullmatch(b"FROM:" + path) is None
    assert grammar.FORWARD_PATH.fullmatch(b"TO:" + path) is None


@pytest.mark.parametrize(
    "path",
    [
        b"<a@[300.1.1.1]>",
        b"<a@[1.2.3]>",
        b"<a@[01.2.3.4]>",
        b"<a@[IPv6:1.2.3.4]>",
        b"<a@[IPv6:::1::2]>",
        b"<a@" + LONG_LABEL + b"a>",
        b"<a@" + LONG_DOMAIN + b".b>",
        b"<" + b"a" * 513 + b"@b>",
    ],
)
def test_an_address_that_cannot_be(path: bytes) -> None:
    match = grammar.REVERSE_PATH.fullmatch(b"FROM:" + path)
    assert match is not None
    with pytest.raises(AddressError):
        grammar.mailbox(match, utf8=True)


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("<é@x.test>".encode(), Address("é", "x.test")),
        ("<a@bücher.test>".encode(), Address("a", "bücher.test")),
        ('<"é b"@x.test>'.encode(), Address('"é b"', "x.test")),
        (b"<\xff\xfe@a.test>", None),
        (b"<a\xc0\x8d\xc0\x8ab@a.test>", None),
        (b"<a\xed\xa0\x80@a.test>", None),
    ],
)
def test_octets_beyond_ascii_are_utf8_or_nothing(path: bytes, address: Address | None) -> None:
    match = grammar.REVERSE_PATH.fullmatch(b"FROM:" + path)
    assert match is not None
    with pytest.raises(NotUtf8Error):
        grammar.mailbox(match, utf8=False)
    if address is None:
        with pytest.raises(NotUtf8Error):
            grammar.mailbox(match, utf8=True)
    else:
        assert grammar.mailbox(match, utf8=True) == address


@pytest.mark.parametrize("path", [b"<Postmaster>", b"<postmaster>", b"<POSTMASTER>"])
def test_postmaster_needs_no_domain_as_recipient_only(path: bytes) -> None:
    match = grammar.FORWARD_PATH.fullmatch(b"TO:" + path)
    assert match is not None
    assert match["postmaster"] == path[1:-1]
    assert grammar.REVERSE_PATH.fullmatch(b"FROM:" + path) is None


def test_the_null_path_is_no_recipient() -> None:
    assert grammar.FORWARD_PATH.fullmatch(b"TO:<>") is None


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        (b"FROM:<a@b>", b""),
        (b"from:<a@b> SIZE=1", b" SIZE=1"),
        (b"FROM:  <a@b>  X  Y", b"  X  Y"),
        (b"From: <>", b""),
    ],
)
def test_spaces_after_the_colon_and_parameters(arguments: bytes, parameters: bytes) -> None:
    match = grammar.REVERSE_PATH.fullmatch(arguments)
    assert match is not None
    assert match["parameters"] == parameters


def test_paths_are_matched_in_linear_time() -> None:
    """A line of 12 KiB that nearly matches; anything worse than linear would run for minutes."""
    for unit in (b"a", b"a.", b"a-", b"-a", b"@a,", b'"', b"\\a", b"1."):
        for start in (b"FROM:<", b"FROM:<@", b'FROM:<"', b"FROM:<a@", b"FROM:<a@["):
            assert grammar.REVERSE_PATH.fullmatch(start + unit * 6000 + b"!") is None


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        (b"", b""),
        (b"AGJhZABiYWQ=", b"\0bad\0bad"),
        (b"AA==", b"\0"),
        (b"YQBi", b"a\0b"),
        (b"AGJhZABiYWQ", None),  # no padding
        (b"AGJhZABiYWR=", None),  # bits set behind the end
        (b"AP_--_AA", None),  # the other alphabet
        (b"AGJh!ZABiYWQ=", None),
        (b"AGJh ZABiYWQ=", None),
        (b"AA==AA==", None),
        (b"=", None),
        (b"*", None),
        (b"A", None),
        (b"\xff\xff\xff\xff", None),
    ],
)
def test_base64_has_one_spelling(text: bytes, octets: bytes | None) -> None:
    assert grammar.decode_base64(text) == octets


@given(st.binary(max_size=60))
def test_base64_reads_what_others_write(octets: bytes) -> None:
    assert grammar.decode_base64(base64.b64encode(octets)) == octets
