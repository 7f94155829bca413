"""Commands octet by octet, and the one promise: no CR, LF or NUL but the final CRLF."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpgate.smtp import encode
from smtpgate.smtp.encode import MAX_XCLIENT_LINE, ExtensionMissing, unxtext, xclient, xtext
from smtpgate.smtp.events import NULL_SENDER, Address, MailParams, RcptParams
from smtpgate.smtp.extensions import EMPTY, Extensions
from smtpgate.smtp.replies import Reply

ALL = Extensions.from_ehlo(Reply(250, ("mx", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN", "AUTH PLAIN", "PIPELINING")))
EVERYTHING = MailParams(
    size=5000, body="8BITMIME", smtputf8=True, ret="HDRS", envid="QQ314159+2B", auth="ann@example.com"
)
ALICE = Address("alice", "example.com")


def offering(*keywords: str) -> Extensions:
    return Extensions.from_ehlo(Reply(250, ("mx", *keywords)))


def test_constants() -> None:
    assert (encode.DATA, encode.RSET, encode.QUIT, encode.STARTTLS, encode.FINAL_DOT) == (
        b"DATA\r\n",
        b"RSET\r\n",
        b"QUIT\r\n",
        b"STARTTLS\r\n",
        b".\r\n",
    )


@pytest.mark.parametrize("name", ["mx.example.com", "[192.0.2.1]", "[IPv6:2001:db8::1]", "under_score", "x" * 255])
def test_hello(name: str) -> None:
    assert encode.helo(name) == b"HELO " + name.encode() + b"\r\n"
    assert encode.ehlo(name) == b"EHLO " + name.encode() + b"\r\n"


@pytest.mark.parametrize("name", ["", "a b", "a\r\nRSET", "a\n", "a\0", "a\t", "m\u00fcx", "a\x7f", "x" * 256])
def test_hello_refuses(name: str) -> None:
    expected = "^EHLO name: expected 1 to 255 printable ASCII characters without spaces$"
    with pytest.raises(ValueError, match=expected):
        encode.ehlo(name)


@pytest.mark.parametrize(
    ("sender", "params", "ext", "command"),
    [
        (ALICE, MailParams(), EMPTY, b"MAIL FROM:<alice@example.com>\r\n"),
        (NULL_SENDER, MailParams(), EMPTY, b"MAIL FROM:<>\r\n"),
        (Address('"a> SIZE=1"', "b.example"), MailParams(), EMPTY, b'MAIL FROM:<"a> SIZE=1"@b.example>\r\n'),
        (Address("a", "[IPv6:::1]"), MailParams(), EMPTY, b"MAIL FROM:<a@[IPv6:::1]>\r\n"),
        (
            ALICE,
            EVERYTHING,
            ALL,
            b"MAIL FROM:<alice@example.com> SIZE=5000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159+2B AUTH=<>\r\n",
        ),
        (ALICE, EVERYTHING, offering("SMTPUTF8"), b"MAIL FROM:<alice@example.com> SMTPUTF8\r\n"),
        (ALICE, MailParams(size=0), offering("SIZE"), b"MAIL FROM:<alice@example.com> SIZE=0\r\n"),
        (ALICE, MailParams(body="7BIT"), ALL, b"MAIL FROM:<alice@example.com> BODY=7BIT\r\n"),
        (ALICE, MailParams(body="8BITMIME", size=1), EMPTY, b"MAIL FROM:<alice@example.com>\r\n"),
        (ALICE, MailParams(ret="FULL"), offering("DSN"), b"MAIL FROM:<alice@example.com> RET=FULL\r\n"),
        (ALICE, MailParams(auth="<>"), offering("AUTH LOGIN"), b"MAIL FROM:<alice@example.com> AUTH=<>\r\n"),
        (ALICE, MailParams(), offering("AUTH LOGIN"), b"MAIL FROM:<alice@example.com>\r\n"),
        (
            Address("zoë", "bücher.example"),
            MailParams(smtputf8=True),
            ALL,
            "MAIL FROM:<zoë@bücher.example> SMTPUTF8\r\n".encode(),
        ),
    ],
)
def test_mail(sender: Address, params: MailParams, ext: Extensions, command: bytes) -> None:
    assert encode.mail(sender, params, ext) == command


@pytest.mark.parametrize(
    ("recipient", "params", "ext", "command"),
    [
        (Address("bob", "example.com"), RcptParams(), EMPTY, b"RCPT TO:<bob@example.com>\r\n"),
        (Address("Postmaster", ""), RcptParams(), EMPTY, b"RCPT TO:<Postmaster>\r\n"),
        (
            Address("bob", "example.com"),
            RcptParams(notify="SUCCESS,DELAY", orcpt="rfc822;bob+2Bx@example.com"),
            ALL,
            b"RCPT TO:<bob@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob+2Bx@example.com\r\n",
        ),
        (
            Address("b", "c.example"),
            RcptParams(notify="NEVER"),
            ALL,
            b"RCPT TO:<b@c.example> NOTIFY=NEVER\r\n",
        ),
        (Address("b", "c.example"), RcptParams("NEVER", "rfc822;b"), EMPTY, b"RCPT TO:<b@c.example>\r\n"),
        (Address("zoë", "c.example"), RcptParams(), ALL, "RCPT TO:<zoë@c.example>\r\n".encode()),
    ],
)
def test_rcpt(recipient: Address, params: RcptParams, ext: Extensions, command: bytes) -> None:
    assert encode.rcpt(recipient, params, ext) == command


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: encode.mail(ALICE, MailParams(smtputf8=True), offering("8BITMIME")),
        lambda: encode.mail(Address("zoë", "c.example"), MailParams(smtputf8=True), EMPTY),
        lambda: encode.rcpt(Address("zoë", "c.example"), RcptParams(), EMPTY),
        lambda: encode.rcpt(Address("zoe", "ç.example"), RcptParams(), offering("8BITMIME")),
    ],
)
def test_smtputf8_is_needed(encoder: Callable[[], bytes]) -> None:
    with pytest.raises(ExtensionMissing, match=r"^the backend does not offer SMTPUTF8$") as missing:
        encoder()
    assert missing.value.name == "SMTPUTF8"


LOCAL = "{}: local part is neither a quoted string nor free of separators"


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (
            lambda: encode.mail(Address("zoë", "c.d"), MailParams(), ALL),
            "MAIL path: not ASCII, and SMTPUTF8 was not given",
        ),
        (lambda: encode.mail(Address("", "c.d"), MailParams(), ALL), LOCAL.format("MAIL path")),
        (lambda: encode.mail(ALICE, MailParams(size=-1), ALL), "SIZE: -1, expected 0 or more"),
        (lambda: encode.mail(ALICE, MailParams(body="BINARYMIME"), ALL), "BODY: expected 7BIT or 8BITMIME"),
        (lambda: encode.mail(ALICE, MailParams(ret="full"), ALL), "RET: expected FULL or HDRS"),
        (
            lambda: encode.mail(ALICE, MailParams(envid="a b"), ALL),
            'ENVID: expected printable ASCII characters without space and "="',
        ),
        (
            lambda: encode.mail(ALICE, MailParams(envid="a=b"), ALL),
            'ENVID: expected printable ASCII characters without space and "="',
        ),
        (lambda: encode.rcpt(NULL_SENDER, RcptParams(), ALL), LOCAL.format("RCPT path")),
        (
            lambda: encode.rcpt(ALICE, RcptParams(notify="NEVER,SUCCESS"), ALL),
            "NOTIFY: expected NEVER, or a list of SUCCESS, FAILURE and DELAY",
        ),
        (
            lambda: encode.rcpt(ALICE, RcptParams(orcpt="rfc822;a\r\nRSET"), ALL),
            'ORCPT: expected printable ASCII characters without space and "="',
        ),
        (lambda: encode.bdat(-1, last=True), "BDAT size: -1, expected 0 or more"),
        (lambda: encode.auth_plain(b"", b"x"), "AUTH user: empty or with a NUL octet"),
        (lambda: encode.auth_plain(b"a\0b", b"x"), "AUTH user: empty or with a NUL octet"),
        (lambda: encode.auth_plain(b"a", b""), "AUTH password: empty or with a NUL octet"),
        (lambda: encode.auth_plain(b"a", b"x\0"), "AUTH password: empty or with a NUL octet"),
    ],
)
def test_refused(encoder: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        encoder()
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    "local",
    [
        "a>",
        "<a",
        "a b",
        "a@b",
        'a"',
        '"a',
        'a"b"',
        '"a"b"',
        '"a\\"',
        "a\\",
        "a\r\nRSET",
        '"a\r\nb"',
        "a\0",
        '"\\\n"',
    ],
)
def test_no_local_part_breaks_out_of_the_path(local: str) -> None:
    for encoder in (
        lambda: encode.mail(Address(local, "example.com"), MailParams(), ALL),
        lambda: encode.rcpt(Address(local, "example.com"), RcptParams(), ALL),
    ):
        with pytest.raises(ValueError, match=r"local part is neither a quoted string nor free of separators$"):
            encoder()


@pytest.mark.parametrize("domain", ["a b", "a> SIZE=1", "a@b", 'a"', "a\r\n", "a\0", "\t"])
def test_no_domain_breaks_out_of_the_path(domain: str) -> None:
    with pytest.raises(ValueError, match=r"^RCPT path: domain is not free of separators$"):
        encode.rcpt(Address("a", domain), RcptParams(), ALL)


def test_auth_plain() -> None:
    assert encode.auth_plain(b"test", b"1234") == b"AUTH PLAIN AHRlc3QAMTIzNA==\r\n"
    long = encode.auth_plain(b"u" * 200, b"p\r\n" * 100)
    assert long.count(b"\n") == 1
    assert base64.b64decode(long[11:-2], validate=True) == b"\0" + b"u" * 200 + b"\0" + b"p\r\n" * 100


@pytest.mark.parametrize(
    ("size", "last", "command"),
    [(0, True, b"BDAT 0 LAST\r\n"), (65536, False, b"BDAT 65536\r\n"), (1, True, b"BDAT 1 LAST\r\n")],
)
def test_bdat(size: int, last: bool, command: bytes) -> None:
    assert encode.bdat(size, last) == command


# --- XCLIENT --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "command"),
    [
        (
            {"NAME": "client.example.com", "LOGIN": "ann@example.com", "ADDR": "192.0.2.7"},
            b"XCLIENT ADDR=192.0.2.7 LOGIN=ann@example.com NAME=client.example.com\r\n",
        ),
        (
            {"ADDR": "::1", "NAME": "[UNAVAILABLE]"},
            b"XCLIENT ADDR=IPV6:::1 NAME=[UNAVAILABLE]\r\n",
        ),
        ({"ADDR": "2001:DB8:0::1"}, b"XCLIENT ADDR=IPV6:2001:db8::1\r\n"),
        ({"ADDR": "fe80::1%eth0"}, b"XCLIENT ADDR=IPV6:fe80::1\r\n"),
        ({"ADDR": "::ffff:192.0.2.7"}, b"XCLIENT ADDR=192.0.2.7\r\n"),
        ({"ADDR": "unix:", "NAME": "[TEMPUNAVAIL]"}, b"XCLIENT ADDR=unix: NAME=[TEMPUNAVAIL]\r\n"),
        # nginx 1.31.5 on the wire for this login, in Latin-1 (reference/nginx_mail.md section 6).
        ({"LOGIN": "x=y+z w%\udce9"}, b"XCLIENT LOGIN=x+3Dy+2Bz+20w%+E9\r\n"),
        ({"LOGIN": "é"}, b"XCLIENT LOGIN=+C3+A9\r\n"),
        ({"LOGIN": "a\r\nRSET\r\n\0\x7f"}, b"XCLIENT LOGIN=a+0D+0ARSET+0D+0A+00+7F\r\n"),
        (
            {
                "DESTPORT": "587",
                "DESTADDR": "2001:db8::2",
                "HELO": "c=t+1",
                "PROTO": "ESMTP",
                "PORT": "40000",
                "ADDR": "192.0.2.7",
                "LOGIN": "ann",
                "NAME": "c.example",
            },
            b"XCLIENT ADDR=192.0.2.7 LOGIN=ann NAME=c.example PORT=40000 PROTO=ESMTP HELO=c+3Dt+2B1"
            b" DESTADDR=IPV6:2001:db8::2 DESTPORT=587\r\n",
        ),
        (
            dict.fromkeys(["ADDR", "LOGIN", "NAME", "PORT", "HELO", "DESTADDR", "DESTPORT"], "[UNAVAILABLE]"),
            b"XCLIENT ADDR=[UNAVAILABLE] LOGIN=[UNAVAILABLE] NAME=[UNAVAILABLE] PORT=[UNAVAILABLE]"
            b" HELO=[UNAVAILABLE] DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]\r\n",
        ),
        ({"HELO": "+" * 200}, b"XCLIENT HELO=[UNAVAILABLE]\r\n"),
    ],
)
def test_xclient(attributes: dict[str, str], command: bytes) -> None:
    assert xclient(attributes) == [command]


NOT_HOST_NAMES = ["", "a b", "a\r\nMAIL", "a_b.example", "-a.example", "a-.example", ".a", "a.", "a..b"]
NOT_HOST_NAMES += ["x" * 64, ".".join(["x" * 63] * 4) + "y", "é.example", "a=b", "[192.0.2.1]"]


@pytest.mark.parametrize("name", NOT_HOST_NAMES)
def test_a_name_that_is_no_host_name(name: str) -> None:
    assert xclient({"NAME": name}) == [b"XCLIENT NAME=[UNAVAILABLE]\r\n"]


@pytest.mark.parametrize("name", ["a", "a-b.1.example", "xn--bcher-kva.example", ".".join(["x" * 63] * 4)])
def test_a_host_name(name: str) -> None:
    assert xclient({"NAME": name}) == [b"XCLIENT NAME=" + name.encode() + b"\r\n"]


def test_a_long_identity_takes_several_commands() -> None:
    name = ".".join(["n" * 60] * 4)
    login = "l" * 240
    helo = "h" * 255
    first, second, last = xclient({"ADDR": "2001:db8::1", "LOGIN": login, "NAME": name, "HELO": helo, "PORT": "9"})
    assert first == b"XCLIENT NAME=" + name.encode() + b" PORT=9\r\n"
    assert second == b"XCLIENT HELO=" + helo.encode() + b"\r\n"
    assert last == b"XCLIENT ADDR=IPV6:2001:db8::1 LOGIN=" + login.encode() + b"\r\n"


def test_a_line_may_be_full() -> None:
    login = "l" * (MAX_XCLIENT_LINE - len("XCLIENT ADDR=192.0.2.7 LOGIN=\r\n"))
    (line,) = xclient({"ADDR": "192.0.2.7", "LOGIN": login})
    assert len(line) == MAX_XCLIENT_LINE
    assert [len(line) for line in xclient({"ADDR": "192.0.2.7", "LOGIN": login, "NAME": "a"})] == [16, 512]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (
            {"addr": "::1"},
            "XCLIENT attributes ['addr']: expected some of ADDR, LOGIN, NAME, PORT, PROTO, HELO, DESTADDR, DESTPORT",
        ),
        ({"PORT": "65536"}, "XCLIENT PORT: expected a number from 0 to 65535"),
        ({"DESTPORT": "+5"}, "XCLIENT PORT: expected a number from 0 to 65535"),
        ({"PROTO": "[UNAVAILABLE]"}, "XCLIENT PROTO: expected SMTP or ESMTP"),
        ({"DESTADDR": "unix:"}, "XCLIENT DESTADDR: expected an IPv4 or IPv6 address"),
        ({"ADDR": ""}, 'XCLIENT ADDR: expected an IPv4 or IPv6 address, or "unix:"'),
        ({"ADDR": "mx.example.com"}, 'XCLIENT ADDR: expected an IPv4 or IPv6 address, or "unix:"'),
        ({"ADDR": "192.0.2.7 LOGIN=root"}, 'XCLIENT ADDR: expected an IPv4 or IPv6 address, or "unix:"'),
        ({"ADDR": "192.0.2.07"}, 'XCLIENT ADDR: expected an IPv4 or IPv6 address, or "unix:"'),
        ({"LOGIN": ""}, "XCLIENT LOGIN: empty; leave it out where nobody logged in"),
        ({"LOGIN": "é" * 83}, "XCLIENT ADDR and LOGIN: 505 octets as xtext, at most 503 fit a line"),
        (
            {"ADDR": "192.0.2.7", "LOGIN": "l" * 482},
            "XCLIENT ADDR and LOGIN: 504 octets as xtext, at most 503 fit a line",
        ),
    ],
)
def test_xclient_refuses(attributes: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        xclient(attributes)
    assert str(refused.value) == reason


def test_no_attributes_no_command() -> None:
    assert xclient({}) == []


# --- xtext ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"ann@example.com", "ann@example.com"),
        (b"+=", "+2B+3D"),
        (bytes(range(0x21)), "".join(f"+{octet:02X}" for octet in range(0x21))),
        (bytes(range(0x7F, 0x100)), "".join(f"+{octet:02X}" for octet in range(0x7F, 0x100))),
        (b'!~%"<>', '!~%"<>'),
    ],
)
def test_xtext(data: bytes, text: str) -> None:
    assert xtext(data) == text
    assert unxtext(text) == data


@pytest.mark.parametrize("text", ["+", "+2", "+2b", "+GG", "a=b", "a b", "a\r\n", "é", "++2B", "a+2B\n"])
def test_not_xtext(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not xtext: expected "):
        unxtext(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_xtext_round_trip(data: bytes) -> None:
    text = xtext(data)
    assert unxtext(text) == data
    assert all("!" <= character <= "~" and character != "=" for character in text)


# --- the promise ----------------------------------------------------------------------------------

# Half of the characters are those that could do harm, so that most examples hold one.
TEXT = st.text(
    st.one_of(
        st.sampled_from('\r\n\0 <>@"\\.:=;+[]ab\x7f\t\x0b\x85\u2028\udce9'),
        st.characters(),
    ),
    max_size=20,
)
ADDRESS = st.builds(Address, TEXT, TEXT)
OFFERS = st.sampled_from([EMPTY, ALL])


def lines(encoder: Callable[..., bytes | list[bytes]], *args: object) -> list[bytes]:
    try:
        result = encoder(*args)
    except (ValueError, ExtensionMissing):
        return []
    return result if isinstance(result, list) else [result]


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.builds(lambda a: lines(encode.helo, a), TEXT),
        st.builds(lambda a: lines(encode.ehlo, a), TEXT),
        st.builds(
            lambda *args: lines(encode.mail, *args),
            st.one_of(ADDRESS, st.just(ALICE)),
            st.builds(
                MailParams,
                size=st.none() | st.integers(),
                body=st.none() | TEXT,
                smtputf8=st.booleans(),
                ret=st.none() | TEXT,
                envid=st.none() | TEXT,
                auth=st.none() | TEXT,
            ),
            OFFERS,
        ),
        st.builds(
            lambda *args: lines(encode.rcpt, *args),
            st.one_of(ADDRESS, st.just(ALICE)),
            st.builds(RcptParams, notify=st.none() | TEXT, orcpt=st.none() | TEXT),
            OFFERS,
        ),
        st.builds(lambda a, b: lines(encode.auth_plain, a, b), st.binary(), st.binary()),
        st.builds(lambda a, b: lines(encode.bdat, a, b), st.integers(), st.booleans()),
        st.builds(
            lambda a: lines(encode.xclient, a),
            st.dictionaries(st.sampled_from(encode.XCLIENT_ATTRIBUTES), st.one_of(TEXT, st.just("::1"))),
        ),
    )
)
def test_no_encoder_lets_a_line_end_or_nul_out(commands: list[bytes]) -> None:
    for command in commands:
        assert command.endswith(b"\r\n")
        assert not set(command[:-2]) & set(b"\r\n\0")
