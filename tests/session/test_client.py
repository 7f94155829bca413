"""What is known of a client: what grows it, what forgets it, what others may learn."""

import pytest
from fakes import CLIENT

from smtpgate.session.client import Client, text_of
from smtpgate.session.ports import AuthGranted
from smtpgate.session.records import Who
from smtpgate.session.streams import TlsInfo
from smtpgate.smtp.events import Address, Hello, Mail, MailParams, Rcpt, RcptParams
from smtpgate.smtp.sasl import Credentials

TLS = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
MAIL = Mail(Address("a", "a.test"), MailParams(), b"mail from:<a@a.test>")
RCPT = Rcpt(Address("b", "b.test"), RcptParams(), b"RCPT TO:<b@b.test>")


@pytest.fixture
def client():
    return Client("s1", CLIENT, "submission", None, 1000.0)


def test_a_client_that_has_said_nothing(client):
    assert (client.facts.client, client.facts.listener, client.facts.tls) == ("192.0.2.7", "submission", False)
    assert (client.facts.session, client.facts.time, client.facts.protocol) == ("s1", 1000.0, "smtp")
    identity = client.identity()
    assert (identity.addr, identity.name, identity.helo, identity.login) == ("192.0.2.7", "[UNAVAILABLE]", None, None)
    assert (identity.extended, identity.method) == (False, "none")
    assert (identity.peer, identity.tls) == (CLIENT, None)
    assert client.who() == Who("s1", "submission", "192.0.2.7", "[UNAVAILABLE]", None, None, None)
    assert client.who().fields() == {
        "session": "s1",
        "client": "192.0.2.7",
        "listener": "submission",
        "user": None,
    }


def test_who_ever_said_ehlo_is_introduced_by_ehlo(client):
    client.greeted(Hello(True, "first.test"))
    client.greeted(Hello(False, "second.test"))
    assert (client.identity().helo, client.identity().extended) == ("second.test", True)


def test_a_claim_is_no_fact(client):
    query = client.claims(Credentials("plain", b"ann", b"secret"))
    assert (query.method, query.user, query.password, query.attempt) == ("plain", b"ann", b"secret", 1)
    assert (client.facts.login, client.facts.user) == (None, None)
    assert client.claims(Credentials("plain", b"ann", b"other")).attempt == 2


def test_the_auth_services_words_replace_the_clients(client):
    credentials = Credentials("plain", b"Ann", b"typed")
    client.accepted(
        credentials, AuthGranted(user="ann@a.test", password=b"backend's", pool="core", plan="gold"), 1500.0
    )
    assert (client.facts.login, client.facts.user, client.facts.plan) == ("Ann", "ann@a.test", "gold")
    identity = client.identity()
    assert (identity.login, identity.password, identity.method) == ("ann@a.test", b"backend's", "plain")


def test_a_login_that_is_withdrawn_leaves_what_was_known_before(client):
    client.greeted(Hello(True, "c.test"))
    before = client.facts
    client.accepted(Credentials("plain", b"ann", b"x"), AuthGranted(pool="core", plan="gold"), 1000.0)
    client.withdrawn()
    assert (client.facts, client.granted, client.identity().login, client.identity().password) == (
        before,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(("method", "password"), [("plain", b"typed"), ("cram-md5", None)])
def test_without_them_a_password_is_only_what_was_typed_in_clear(client, method, password):
    client.accepted(Credentials(method, b"ann", b"typed"), AuthGranted(pool="core"), 1500.0)
    assert (client.identity().login, client.identity().password) == ("ann", password)


def test_the_envelope_is_asked_with_the_commands_as_typed(client):
    client.greeted(Hello(True, "c.test"))
    query = client.envelope(MAIL, RCPT)
    assert (query.method, query.helo, query.user) == ("none", "c.test", b"")
    assert (query.mail_line, query.rcpt_line) == (b"mail from:<a@a.test>", b"RCPT TO:<b@b.test>")


@pytest.mark.parametrize("keep", [True, False])
def test_a_none_answer_may_make_a_login_and_is_kept_where_asked(client, keep):
    answer = AuthGranted(user="relay", pool="core")
    client.admitted(answer, keep=keep)
    assert client.granted is (answer if keep else None)
    assert (client.identity().login, client.identity().method) == ("relay", "none")


def test_where_each_recipient_is_asked_about_a_login_is_that_recipients_alone(client):
    client.admitted(AuthGranted(user="relay", pool="core"), keep=False)
    client.admitted(AuthGranted(pool="core"), keep=False)
    assert client.identity().login is None


def test_starttls_forgets_all_but_the_count_of_attempts(client):
    client.greeted(Hello(True, "clear.test"))
    client.accepted(Credentials("plain", b"ann", b"x"), AuthGranted(pool="core"), 1500.0)
    client.claims(Credentials("plain", b"ann", b"x"))
    client.forget(TLS, 2000.0)
    fresh = Client("s1", CLIENT, "submission", TLS, 2000.0)
    assert (client.facts, client.granted, client.identity()) == (fresh.facts, None, fresh.identity())
    assert client.identity().tls is TLS
    assert client.claims(Credentials("plain", b"ann", b"x")).attempt == 2


def test_octets_that_are_no_utf8_survive():
    assert text_of(b"j\xfcrgen").encode("utf-8", "surrogateescape") == b"j\xfcrgen"


def test_nothing_secret_is_in_a_repr(client):
    client.accepted(Credentials("plain", b"ann", b"s3cret"), AuthGranted(password=b"s3cret", pool="core"), 1500.0)
    shown = (
        repr(client.identity()) + repr(client.granted) + repr(client.claims(Credentials("plain", b"a", b"s3cret")))
    )
    assert "s3cret" not in shown
