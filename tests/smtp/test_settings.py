from __future__ import annotations

from dataclasses import replace

import pytest

from smtpgate.smtp.settings import ServerSettings
from smtpgate.smtp.states import Bar


@pytest.mark.parametrize(
    ("capabilities", "max_size"),
    [
        ((), None),
        (("SIZE",), None),
        (("SIZE 0",), None),
        (("SIZE 10485760",), 10485760),
        (("8BITMIME", "size 1000"), 1000),
    ],
)
def test_max_size_is_what_the_size_capability_says(capabilities: tuple[str, ...], max_size: int | None) -> None:
    assert ServerSettings("mx.test", capabilities).max_size == max_size


@pytest.mark.parametrize("size", ["10MB", "-1", "٣", "1 2"])
def test_a_size_that_is_no_number_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match=f'capability "SIZE {size}": expected a number of octets'):
        ServerSettings("mx.test", (f"SIZE {size}",))


def test_extensions_follow_from_the_capabilities() -> None:
    plain = ServerSettings("mx.test", ("PIPELINING",))
    assert (plain.chunking, plain.offer.smtputf8) == (False, False)
    rich = replace(plain, capabilities=("CHUNKING", "SMTPUTF8"), mechanisms=("LOGIN",))
    assert (rich.chunking, rich.offer.smtputf8, rich.offer.mechanisms) == (True, True, frozenset({"LOGIN"}))


TOKENS = ("PLAIN", "OAUTHBEARER")


@pytest.mark.parametrize(
    ("settings", "tls", "bars"),
    [
        (ServerSettings("m"), False, {Bar.NO_STARTTLS, Bar.NO_CHUNKING, Bar.NO_AUTH}),
        (ServerSettings("m", auth_required=False), False, {Bar.NO_STARTTLS, Bar.NO_CHUNKING}),
        (ServerSettings("m", ("CHUNKING",), tls="starttls"), False, {Bar.NO_AUTH}),
        (ServerSettings("m", ("CHUNKING",), tls="starttls"), True, {Bar.NO_STARTTLS, Bar.NO_AUTH}),
        (ServerSettings("m", ("CHUNKING",), tls="required"), False, {Bar.NO_TLS, Bar.NO_AUTH}),
        (ServerSettings("m", ("CHUNKING",), tls="required"), True, {Bar.NO_STARTTLS, Bar.NO_AUTH}),
        (ServerSettings("m", ("CHUNKING",), tls="implicit"), True, {Bar.NO_STARTTLS, Bar.NO_AUTH}),
        (
            ServerSettings("m", helo_required=True),
            False,
            {Bar.NO_STARTTLS, Bar.NO_CHUNKING, Bar.NO_AUTH, Bar.NO_HELLO},
        ),
        (ServerSettings("m", ("CHUNKING",), TOKENS, tls="starttls"), False, {Bar.NO_TOKENS, Bar.NO_AUTH}),
        (ServerSettings("m", ("CHUNKING",), TOKENS, tls="starttls"), True, {Bar.NO_STARTTLS, Bar.NO_AUTH}),
        (ServerSettings("m", ("CHUNKING",), ("EXTERNAL",), tls="starttls"), False, {Bar.NO_TOKENS, Bar.NO_AUTH}),
        (ServerSettings("m", ("CHUNKING",), TOKENS), False, {Bar.NO_STARTTLS, Bar.NO_AUTH}),
    ],
)
def test_bars_at_the_start_of_a_dialogue(settings: ServerSettings, tls: bool, bars: set[Bar]) -> None:
    assert settings.bars(tls=tls) == bars | {Bar.UNTRUSTED}
    assert settings.bars(tls=tls, trusted=True) == bars


MANY = ("OAUTHBEARER", "XOAUTH2", "EXTERNAL", "CRAM-MD5", "LOGIN", "PLAIN")


@pytest.mark.parametrize(
    ("settings", "tls", "lines"),
    [
        (ServerSettings("mx.test"), False, ("mx.test", "AUTH PLAIN LOGIN")),
        (ServerSettings("mx.test", mechanisms=()), False, ("mx.test",)),
        (
            ServerSettings("mx.test", ("SIZE 9", "DSN"), MANY),
            False,
            ("mx.test", "SIZE 9", "DSN", "AUTH PLAIN LOGIN CRAM-MD5 EXTERNAL XOAUTH2 OAUTHBEARER"),
        ),
        (ServerSettings("mx.test", (), TOKENS, tls="starttls"), False, ("mx.test", "AUTH PLAIN", "STARTTLS")),
        (ServerSettings("mx.test", (), TOKENS, tls="starttls"), True, ("mx.test", "AUTH PLAIN OAUTHBEARER")),
        (ServerSettings("mx.test", (), ("XOAUTH2",), tls="starttls"), False, ("mx.test", "STARTTLS")),
        (ServerSettings("mx.test", tls="starttls"), False, ("mx.test", "AUTH PLAIN LOGIN", "STARTTLS")),
        (ServerSettings("mx.test", tls="starttls"), True, ("mx.test", "AUTH PLAIN LOGIN")),
        (ServerSettings("mx.test", tls="required"), False, ("mx.test", "STARTTLS")),
        (ServerSettings("mx.test", tls="required"), True, ("mx.test", "AUTH PLAIN LOGIN")),
        (ServerSettings("mx.test", tls="implicit"), True, ("mx.test", "AUTH PLAIN LOGIN")),
    ],
)
def test_ehlo_is_laid_out_as_nginx_does(settings: ServerSettings, tls: bool, lines: tuple[str, ...]) -> None:
    bars = settings.bars(tls=tls)
    assert settings.hello_lines(extended=True, bars=bars) == lines
    assert settings.hello_lines(extended=False, bars=bars) == ("mx.test",)
