"""What lifts the bars, and what brings them back."""

from __future__ import annotations

from smtpgate.smtp.events import Hello
from smtpgate.smtp.settings import ServerSettings
from smtpgate.smtp.standing import Standing
from smtpgate.smtp.states import Bar

SETTINGS = ServerSettings("mx.test", mechanisms=("PLAIN", "OAUTHBEARER"), tls="starttls", helo_required=True)


def test_a_greeting_and_a_login_lift_theirs() -> None:
    standing = Standing(SETTINGS, tls=False, trusted=False)
    assert standing.bars == {Bar.NO_HELLO, Bar.NO_AUTH, Bar.NO_CHUNKING, Bar.NO_TOKENS, Bar.UNTRUSTED}
    standing.greeted()
    standing.logged_in()
    assert standing.authenticated
    assert standing.bars == {Bar.NO_CHUNKING, Bar.NO_TOKENS, Bar.UNTRUSTED, Bar.AUTHENTICATED}


def test_tls_forgets_what_was_shown_in_clear() -> None:
    standing = Standing(SETTINGS, tls=False, trusted=True)
    standing.greeted()
    standing.logged_in()
    standing.secured()
    assert standing.bars == {Bar.NO_HELLO, Bar.NO_AUTH, Bar.NO_CHUNKING, Bar.NO_STARTTLS}


def test_another_client_has_its_own_login_or_none() -> None:
    standing = Standing(SETTINGS, tls=True, trusted=True)
    standing.logged_in()
    standing.becomes(None)
    assert not standing.authenticated
    assert Bar.NO_AUTH in standing.bars
    standing.becomes("ann")
    assert standing.authenticated
    assert Bar.NO_AUTH not in standing.bars


def test_the_lines_of_ehlo_follow() -> None:
    standing = Standing(SETTINGS, tls=False, trusted=False)
    assert standing.hello_reply(Hello(True, "c")).lines == ("mx.test", "AUTH PLAIN", "STARTTLS")
    standing.secured()
    assert standing.hello_reply(Hello(True, "c")).lines == ("mx.test", "AUTH PLAIN OAUTHBEARER")
    assert standing.hello_reply(Hello(False, "c")).lines == ("mx.test",)
