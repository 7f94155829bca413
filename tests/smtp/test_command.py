from __future__ import annotations

import pytest

from smtpgate.smtp import replies
from smtpgate.smtp.command import Command, Offer, decode_response, parse, parse_bdat, split
from smtpgate.smtp.events import (
    NULL_SENDER,
    Address,
    Auth,
    Bdat,
    Data,
    Event,
    Hello,
    Mail,
    MailParams,
    Quit,
    Rcpt,
    RcptParams,
    Reset,
    StartTls,
)
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.states import Verb

OFFER = Offer(frozenset({"PLAIN", "LOGIN"}), max_size=1000, smtputf8=True)
A = Address("a", "a.test")


def read(line: bytes, offer: Offer = OFFER, *, smtputf8: bool = False) -> Event | Reply:
    command = split(line)
    assert isinstance(command, Command), command
    return parse(command, offer, smtputf8=smtputf8)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"NOOP", Command(Verb.NOOP, b"", b"NOOP")),
        (b"noop", Command(Verb.NOOP, b"", b"noop")),
        (b"QuIt  ", Command(Verb.QUIT, b"", b"QuIt")),
        (b"EHLO  a.test ", Command(Verb.EHLO, b"a.test", b"EHLO  a.test")),
        (b"STARTTLS", Command(Verb.STARTTLS, b"", b"STARTTLS")),
        (b"NOOP " + b" ".join([b"x"] * 10), Command(Verb.NOOP, b" ".join([b"x"] * 10), b"NOOP" + b" x" * 10)),
        (b"NOOP x" + b" " * 20 + b"y", Command(Verb.NOOP, b"x" + b" " * 20 + b"y", b"NOOP x" + b" " * 20 + b"y")),
    ],
)
def test_a_line_is_taken_apart(line: bytes, command: Command) -> None:
    assert split(line) == command


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b" NOOP",
        b"\t\t",
        b"FOOBAR",
        b"NOO",
        b"NOOPS",
        b"EHLOa.test",
        b"EHLO\ta.test",
        b"\xc5HLO a.test",
        "QUıT".encode(),
        "RſET".encode(),
        b"\0",
        b"\x80.\x01",
        b"NOOP\r",
        b"NOOP a\rQUIT",
        b"EHLO a\0b.test",
        b"MAIL FROM:<a@a.test\r>",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2",
        b"TURN",
        b"ETRN x",
        b"NOOP " + b" ".join([b"x"] * 12),
        b"MAIL FROM:<a@a.test>" + b" A=1" * 11,
    ],
)
def test_what_is_no_command(line: bytes) -> None:
    assert split(line) is replies.INVALID_COMMAND


@pytest.mark.parametrize(
    "verb", [b"GET", b"post", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PATCH", b"PRI"]
)
def test_http_is_shown_the_door(verb: bytes) -> None:
    assert split(verb + b" / HTTP/1.1") is replies.NOT_HTTP


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"HELO a.test", Hello(False, "a.test")),
        (b"ehlo [IPv6:::1]", Hello(True, "[IPv6:::1]")),
        (b"EHLO my_pc", Hello(True, "my_pc")),
        (b"EHLO " + b"a" * 255, Hello(True, "a" * 255)),
        (b"STARTTLS now", StartTls()),
        (b"RSET now", Reset()),
        (b"QUIT now", Quit()),
        (b"DATA", Data()),
        (b"AUTH LOGIN", Auth("LOGIN", None)),
        (b"auth plain =", Auth("PLAIN", b"")),
        (b"AUTH PLAIN AGJhZABiYWQ=", Auth("PLAIN", b"\0bad\0bad")),
        (b"AUTH  PLAIN  AGJhZABiYWQ=", Auth("PLAIN", b"\0bad\0bad")),
    ],
)
def test_commands_without_parameters(line: bytes, event: Event) -> None:
    assert read(line) == event


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"HELO", replies.INVALID_ARGUMENT),
        (b"EHLO a b", replies.INVALID_ARGUMENT),
        (b"EHLO b\xfccher.test", replies.INVALID_ARGUMENT),
        (b"EHLO a\x1b[31m", replies.INVALID_ARGUMENT),
        (b"EHLO " + b"a" * 256, replies.INVALID_ARGUMENT),
        (b"DATA now", replies.INVALID_ARGUMENT),
        (b"AUTH", replies.INVALID_ARGUMENT),
        (b"AUTH XFOO", replies.INVALID_COMMAND),
        (b"AUTH EXTERNAL AAAA", replies.INVALID_COMMAND),  # nginx lets it through (section 4.4)
        (b"AUTH CRAM-MD5", replies.INVALID_COMMAND),
        (b"AUTH " + b"A" * 21, replies.INVALID_COMMAND),
        ("AUTH PLAıN".encode(), replies.INVALID_COMMAND),
        (b"AUTH PLAIN !!!!", replies.INVALID_COMMAND),
        (b"AUTH PLAIN *", replies.INVALID_COMMAND),
        (b"AUTH PLAIN AGJhZABiYWQ", replies.INVALID_COMMAND),
        (b"AUTH PLAIN AGJhZABiYWQ= extra", replies.INVALID_COMMAND),
    ],
)
def test_faulty_arguments(line: bytes, reply: Reply) -> None:
    assert read(line) is reply


def test_a_password_shows_in_no_repr() -> None:
    assert "bad" not in repr(read(b"AUTH PLAIN AGJhZABiYWQ="))


@pytest.mark.parametrize(
    ("word", "response"), [(b"", b""), (b"=", b""), (b"YQ==", b"a"), (b"*", None), (b"YQ", None), (b"==", None)]
)
def test_a_sasl_response(word: bytes, response: bytes | None) -> None:
    assert decode_response(word) == response


@pytest.mark.parametrize(
    ("arguments", "sender", "params"),
    [
        (b"FROM:<a@a.test>", A, MailParams()),
        (b"from: <>", NULL_SENDER, MailParams()),
        (b"FROM:<a@a.test> SIZE=1000", A, MailParams(size=1000)),
        (b"FROM:<a@a.test>  size=0  BODY=8bitmime", A, MailParams(size=0, body="8BITMIME")),
        (b"FROM:<a@a.test> BODY=7BIT RET=hdrs", A, MailParams(body="7BIT", ret="HDRS")),
        (b"FROM:<a@a.test> RET=FULL ENVID=QQ+2B314159", A, MailParams(ret="FULL", envid="QQ+2B314159")),
        (b"FROM:<a@a.test> ENVID=" + b"a" * 100, A, MailParams(envid="a" * 100)),
        (b"FROM:<a@a.test> ENVID=" + b"+2B" * 100, A, MailParams(envid="+2B" * 100)),
        (b"FROM:<a@a.test> AUTH=<>", A, MailParams(auth="<>")),
        (b"FROM:<a@a.test> AUTH=e+3Dmc2@example.com", A, MailParams(auth="e=mc2@example.com")),
        (b"FROM:<a@a.test> SMTPUTF8", A, MailParams(smtputf8=True)),
        ("FROM:<é@a.test> SMTPUTF8".encode(), Address("é", "a.test"), MailParams(smtputf8=True)),
    ],
)
def test_mail(arguments: bytes, sender: Address, params: MailParams) -> None:
    assert read(b"MAIL " + arguments) == Mail(sender, params, b"MAIL " + arguments)


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (b"", replies.INVALID_ARGUMENT),
        (b"FROM", replies.INVALID_ARGUMENT),
        (b"FROM <a@a.test>", replies.INVALID_ARGUMENT),
        (b"FROM :<a@a.test>", replies.INVALID_ARGUMENT),
        (b"TO:<a@a.test>", replies.INVALID_ARGUMENT),
        (b"FROM:", replies.BAD_SENDER),
        (b"FROM:a@a.test", replies.BAD_SENDER),
        (b"FROM:<justlocal>", replies.BAD_SENDER),
        (b"FROM:<postmaster>", replies.BAD_SENDER),
        (b"FROM:<a@a..test>", replies.BAD_SENDER),
        (b"FROM:<a@[300.1.1.1]>", replies.BAD_SENDER),
        (b"FROM:<a@a.test>SIZE=1", replies.BAD_SENDER),
        (b"FROM:<a@a.test> <b@b.test>", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> FOO", replies.UNKNOWN_PARAMETER),
        (b"FROM:<a@a.test> XFORWARD=1 ADDR=127.0.0.1", replies.UNKNOWN_PARAMETER),
        (b"FROM:<a@a.test> NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
        (b"FROM:<a@a.test> =1", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SIZE", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SIZE=", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SIZE=-1", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SIZE=+1", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SIZE=0x10", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SIZE=1_000", replies.INVALID_ARGUMENT),
        ("FROM:<a@a.test> SIZE=٣".encode(), replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SIZE=" + b"1" * 21, replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SIZE=" + b"9" * 20, replies.TOO_BIG),
        (b"FROM:<a@a.test> SIZE=1001", replies.TOO_BIG),
        (b"FROM:<a@a.test> SIZE=1 size=999", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> BODY", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> BODY=9BIT", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> BODY=BINARYMIME", replies.UNKNOWN_PARAMETER),
        (b"FROM:<a@a.test> RET=ALL", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> ENVID=a+00b", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> ENVID=a+0D+0Ab", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> ENVID=a+2", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> ENVID=" + b"a" * 101, replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> AUTH=admin", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> AUTH=a+0Ab@a.test", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> AUTH=a@[300.1.1.1]", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> AUTH=+FF@a.test", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test> SMTPUTF8=1", replies.INVALID_ARGUMENT),
        ("FROM:<é@a.test>".encode(), replies.NOT_ASCII),
        (b"FROM:<\xff\xfe@a.test> SMTPUTF8", replies.NOT_ASCII),
        (b"FROM:<a\xc0\x8d\xc0\x8ab@a.test> SMTPUTF8", replies.NOT_ASCII),
        (b'FROM:<"a> SIZE=1 X=<"@a.test> FOO', replies.UNKNOWN_PARAMETER),
    ],
)
def test_faulty_mail(arguments: bytes, reply: Reply) -> None:
    assert read(b"MAIL " + arguments) is reply


def test_a_quoted_bracket_ends_no_path() -> None:
    event = read(b'MAIL FROM:<"a> SIZE=1 X=<"@a.test>')
    assert isinstance(event, Mail)
    assert (event.sender, event.params) == (Address('"a> SIZE=1 X=<"', "a.test"), MailParams())


def test_what_depends_on_the_offer() -> None:
    bare = Offer()
    assert read(b"MAIL FROM:<a@a.test> SMTPUTF8", bare) is replies.UNKNOWN_PARAMETER
    assert read(b"MAIL FROM:<a@a.test> SIZE=9223372036854775808", bare) is replies.TOO_BIG
    mail = read(b"MAIL FROM:<a@a.test> SIZE=9223372036854775807", bare)
    assert isinstance(mail, Mail)
    assert mail.params.size == 2**63 - 1


@pytest.mark.parametrize(
    ("arguments", "recipient", "params"),
    [
        (b"TO:<a@a.test>", A, RcptParams()),
        (b"to: <@r.test:a@a.test>", A, RcptParams()),
        (b"TO:<Postmaster>", Address("Postmaster", ""), RcptParams()),
        (b"TO:<postmaster@a.test>", Address("postmaster", "a.test"), RcptParams()),
        (b"TO:<a@a.test> NOTIFY=never", A, RcptParams(notify="NEVER")),
        (b"TO:<a@a.test> NOTIFY=SUCCESS,failure,DELAY", A, RcptParams(notify="SUCCESS,FAILURE,DELAY")),
        (b"TO:<a@a.test> ORCPT=rfc822;b+2Bc@b.test", A, RcptParams(orcpt="rfc822;b+2Bc@b.test")),
        (b"TO:<Postmaster> NOTIFY=NEVER", Address("Postmaster", ""), RcptParams(notify="NEVER")),
    ],
)
def test_rcpt(arguments: bytes, recipient: Address, params: RcptParams) -> None:
    assert read(b"RCPT " + arguments) == Rcpt(recipient, params, b"RCPT " + arguments)


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (b"", replies.INVALID_ARGUMENT),
        (b"FROM:<a@a.test>", replies.INVALID_ARGUMENT),
        (b"TO:<>", replies.BAD_RECIPIENT),
        (b"TO:<r1@x.test,r2@x.test>", replies.BAD_RECIPIENT),
        (b"TO:<a@" + b"b" * 64 + b".test>", replies.BAD_RECIPIENT),
        (b"TO:<a@a.test> SIZE=1", replies.UNKNOWN_PARAMETER),
        (b"TO:<a@a.test> NOTIFY=NEVER,SUCCESS", replies.INVALID_ARGUMENT),
        (b"TO:<a@a.test> NOTIFY=SUCCESS,SUCCESS,DELAY,DELAY", replies.INVALID_ARGUMENT),
        (b"TO:<a@a.test> NOTIFY", replies.INVALID_ARGUMENT),
        (b"TO:<a@a.test> ORCPT=foo", replies.INVALID_ARGUMENT),
        (b"TO:<a@a.test> ORCPT=;foo", replies.INVALID_ARGUMENT),
        (b"TO:<a@a.test> ORCPT=rfc822;", replies.INVALID_ARGUMENT),
        (b"TO:<a@a.test> ORCPT=rfc822;a+0Db", replies.INVALID_ARGUMENT),
        (b"TO:<a@a.test> ORCPT=rfc822;" + b"a" * 494, replies.INVALID_ARGUMENT),
        ("TO:<é@a.test>".encode(), replies.NOT_ASCII),
    ],
)
def test_faulty_rcpt(arguments: bytes, reply: Reply) -> None:
    assert read(b"RCPT " + arguments) is reply


def test_a_utf8_recipient_where_mail_asked_for_it() -> None:
    line = "RCPT TO:<é@a.test>".encode()
    assert read(line, smtputf8=True) == Rcpt(Address("é", "a.test"), RcptParams(), line)


@pytest.mark.parametrize(
    ("arguments", "chunk"),
    [(b"0", Bdat(0, False)), (b"17 LAST", Bdat(17, True)), (b"17  last", Bdat(17, True)), (b"007", Bdat(7, False))],
)
def test_bdat(arguments: bytes, chunk: Bdat) -> None:
    assert parse_bdat(Command(Verb.BDAT, arguments, b"")) == chunk


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (b"", 501),
        (b"x", 501),
        (b"LAST", 501),
        (b"0x10 LAST", 501),
        (b"1.5 LAST", 501),
        (b"1_0 LAST", 501),
        (b"+5 LAST", 501),
        (b"-1", 501),
        ("٣".encode(), 501),
        (b"5  LAST LAST", 501),
        (b"5 FIRST", 501),
        (b"9" * 21, 501),
        (b"99999999999999999999 LAST", 552),
        (b"18446744073709551621 LAST", 552),
        (b"9223372036854775808", 552),
    ],
)
def test_a_bdat_whose_end_is_not_known_closes(arguments: bytes, code: int) -> None:
    reply = parse_bdat(Command(Verb.BDAT, arguments, b""))
    assert isinstance(reply, Reply)
    assert (reply.code, reply.close) == (code, True)
