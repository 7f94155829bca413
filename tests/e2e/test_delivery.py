"""Mail through the running proxy and the running auth service into a real Postfix: whatever a client does that
is right, and the first things that are wrong.
"""

from __future__ import annotations

import itertools
import smtplib
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peers.postfix import Postfix
from peers.process import HOST, require, wait_until
from rawclient import RawClient, plain
from stack import CAPABILITIES, Stack

WAIT = 1.0
"""failed_login_wait of conf/authsvc.yaml; the stack leaves the default."""

BUSY = 15.0
"""Seconds that a busy machine may add: hashing a password takes it a tenth of one."""

# Lines of dots, a long line, octets of two encodings, and enough of it for several reads.
TEXT = (
    b"Subject: everything\nX-Folded: one\n\ttwo\n\n.\n..\n.dot in front\nmid . dot\n"
    + b"x" * 5000
    + "\nGrüße, 漢字\n".encode()
    + "Grüße\n".encode("latin-1")
    + b"".join(b"%d of many lines\n" % n for n in range(3000))
    + b"\n.last line\n"
)
WIRE = TEXT.replace(b"\n", b"\r\n")
STUFFED = WIRE.replace(b"\r\n.", b"\r\n..") + b".\r\n"


@pytest.fixture(scope="module")
def mta() -> Iterator[Postfix]:
    server = Postfix("delivery")
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Self-made, for HOST."""
    folder = tmp_path_factory.mktemp("certificate")
    files = {"cert": f"{folder}/cert.pem", "key": f"{folder}/key.pem"}
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request += ["-days", "2", "-subj", "/CN=proxy.example.net", "-addext", f"subjectAltName=IP:{HOST}"]
    subprocess.run([*request, "-keyout", files["key"], "-out", files["cert"]], check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def stack(mta: Postfix, certificate: dict[str, str], start_module_stack: Callable[..., Stack]) -> Stack:
    pair = [certificate]
    listeners = [
        {"name": "submission"},
        {"name": "wide", "capabilities": [*CAPABILITIES, "CHUNKING", "SMTPUTF8"]},
        {"name": "starttls", "tls": "starttls", "certificate": pair},
        {"name": "required", "tls": "required", "certificate": pair},
        {"name": "smtps", "tls": "implicit", "certificate": pair},
        {"name": "relay", "auth": ["none"]},
    ]
    return start_module_stack([(HOST, mta.port)], listeners=listeners)


@pytest.fixture
def recipient(request: pytest.FixtureRequest, counter: Iterator[int]) -> str:
    """An address that only this test uses."""
    return f"rcpt{next(counter)}@example.com"


@pytest.fixture(scope="module")
def counter() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def trust(certificate: dict[str, str]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate["cert"])


def arrived(mta: Postfix, recipient: str) -> list[bytes]:
    """What the recipient has, once nothing is left in the queue: a 250 means that it was there."""
    wait_until(lambda: mta.queued() == 0, "an empty queue")
    return [one.content for one in mta.messages() if one.trace["x-original-to"] == recipient]


# --- the usual clients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mechanism", "method"), [("PLAIN", "plain"), ("LOGIN", "plain"), ("CRAM-MD5", "cram-md5")])
@pytest.mark.peer("swaks")
def test_swaks(stack: Stack, mta: Postfix, recipient: str, tmp_path: Path, mechanism: str, method: str) -> None:
    (tmp_path / "message").write_bytes(TEXT)
    before = len(stack.log_events("auth"))
    done = subprocess.run(
        f"{require('swaks')} --server {stack.proxy[0]} --port {stack.proxy[1]} --auth {mechanism} --auth-user test"
        f" --auth-password 1234 --from a@example.com --to {recipient} --data @{tmp_path}/message".split(),
        capture_output=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"<-  235 2.0.0 OK" in done.stdout
    # swaks puts empty lines before its dot.
    assert [text.rstrip(b"\n") for text in arrived(mta, recipient)] == [TEXT.rstrip(b"\n")]
    [auth] = stack.log_events("auth")[before:]
    assert (auth["user"], auth["method"], auth["result"]) == ("test", method, 235)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_smtplib(stack: Stack, mta: Postfix, recipient: str, mechanism: str) -> None:
    with smtplib.SMTP(*stack.proxy) as client:
        client.ehlo("client.example")
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "CRAM-MD5"]
        assert client.esmtp_features["size"] == "10485760"
        client.user, client.password = "test2", "password"
        exchange = getattr(client, f"auth_{mechanism.lower().replace('-', '_')}")
        assert client.auth(mechanism, exchange) == (235, b"2.0.0 OK")
        assert client.sendmail("a@example.com", [recipient], WIRE) == {}
    assert arrived(mta, recipient) == [TEXT]
    [line] = stack.wait_for_event("transaction", recipients=[recipient])
    expected = {"user": "test2", "sender": "a@example.com", "rcpts": 1, "rcpts_refused": 0, "size": len(WIRE)}
    expected |= {"pool": "core", "backend": "b1", "outcome": "delivered", "listener": "submission"}
    assert {key: line[key] for key in expected} == expected
    assert line["reply"].startswith("250 2.0.0 Ok: queued as ")


def test_a_listener_without_authentication(stack: Stack, mta: Postfix, recipient: str) -> None:
    with smtplib.SMTP(*stack.listeners["relay"]) as client:
        client.ehlo("client.example")
        assert "auth" not in client.esmtp_features
        assert client.sendmail("a@example.com", [recipient], WIRE) == {}
    assert arrived(mta, recipient) == [TEXT]


def test_nothing_without_a_login(stack: Stack) -> None:
    with RawClient(stack.proxy) as client:
        assert client.greeted().ask(b"MAIL FROM:<a@example.com>") == b"530 5.7.1 Authentication required\r\n"


# --- wrong logins --------------------------------------------------------------------------------------------


def refused(client: RawClient, command: bytes, *answers: bytes) -> tuple[bytes, float]:
    """The reply to a login and the seconds that it took from the last line sent."""
    reply = client.ask(command)
    began = time.monotonic()
    for answer in answers:
        assert reply.startswith(b"334 ")
        began = time.monotonic()
        reply = client.ask(answer)
    return reply, time.monotonic() - began


def test_a_wrong_password_waits_and_an_unknown_user_looks_the_same(
    stack: Stack, mta: Postfix, recipient: str
) -> None:
    attempts = {
        "wrong password": (b"AUTH PLAIN", plain("test", "wrong")),
        "nobody": (b"AUTH PLAIN", plain("nobody", "1234")),
        "wrong digest": (b"AUTH CRAM-MD5", b"dGVzdCAwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZg=="),
        "nobody's digest": (b"AUTH CRAM-MD5", b"bm9ib2R5IDAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm"),
    }
    waits = {}
    with RawClient(stack.proxy) as client:
        client.greeted()
        # Nobody is asked about this one.
        assert refused(client, b"AUTH PLAIN", plain("", "1234"))[0] == b"500 5.5.1 Invalid command\r\n"
        for name, lines in attempts.items():
            reply, waits[name] = refused(client, *lines)
            assert reply == b"535 5.7.8 Authentication credentials invalid\r\n", name
        # A refusal is not the end: the owner of the account may have mistyped it.
        client.login().envelope(recipient=recipient.encode()).opened().send(STUFFED)
        assert client.reply().startswith(b"250 2.0.0 ")
    assert all(WAIT <= wait < WAIT + BUSY for wait in waits.values()), waits
    assert arrived(mta, recipient) == [TEXT]


# --- more than one message a session -------------------------------------------------------------------------


def test_several_transactions_of_a_session(stack: Stack, mta: Postfix, recipient: str) -> None:
    with RawClient(stack.proxy) as client:
        client.greeted().login()
        client.envelope(recipient=recipient.encode())
        assert client.ask(b"RSET") == b"250 2.0.0 OK\r\n"
        for n in range(3):
            client.envelope(b"a%d@example.com" % n, recipient.encode()).opened().send(b"Subject: %d\r\n\r\n.\r\n" % n)
            assert client.reply().startswith(b"250 2.0.0 ")
        # RFC 5321 section 4.1.4: EHLO again is RSET. It does not undo the login.
        client.envelope(recipient=recipient.encode())
        assert b"\r\n250-SIZE 10485760\r\n" in client.ask(b"EHLO again.example")
        assert client.ask(b"DATA") == b"503 5.5.1 Bad sequence of commands\r\n"
        client.envelope(b"a3@example.com", recipient.encode()).opened().send(b"Subject: 3\r\n\r\n.\r\n")
        assert client.reply().startswith(b"250 2.0.0 ")
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        assert client.at_end()
    assert sorted(arrived(mta, recipient)) == [b"Subject: %d\n\n" % n for n in range(4)]
    lines = stack.wait_for_event("transaction", 6, recipients=[recipient])
    assert [line["outcome"] for line in lines] == ["reset", *["delivered"] * 3, "HELO/EHLO", "delivered"]
    assert [line["transaction"].partition(".")[2] for line in lines] == list("123456")
    [session] = stack.wait_for_event("session", session=lines[0]["session"])
    assert (session["transactions"], session["helo"], session["end"]) == (6, "again.example", "client quit")


def test_one_message_to_many(stack: Stack, mta: Postfix, counter: Iterator[int]) -> None:
    several = [f"rcpt{next(counter)}@example.com" for _ in range(5)]
    with smtplib.SMTP(*stack.proxy) as client:
        client.login("test", "1234")
        assert client.sendmail("a@example.com", several, WIRE) == {}
    assert [arrived(mta, one) for one in several] == [[TEXT]] * 5


def test_a_whole_session_in_three_segments(stack: Stack, mta: Postfix, recipient: str) -> None:
    """RFC 2920, and further than it goes: all up to DATA in one write; the text, its end and another transaction
    in the next; that one's text and QUIT in the last.
    """
    to = recipient.encode()
    with RawClient(stack.proxy) as client:
        login = b"EHLO client.example\r\nAUTH PLAIN %b\r\n" % plain("test", "1234")
        client.send(login + b"MAIL FROM:<a@example.com>\r\nRCPT TO:<bad>\r\nRCPT TO:<%b>\r\nDATA\r\n" % to)
        assert [client.reply()[:4] for _ in range(3)] == [b"220 ", b"250-", b"235 "]
        replies = [client.reply() for _ in range(4)]
        assert replies[0].startswith(b"250 ")
        assert replies[1] == b"501 5.1.3 Bad recipient address syntax\r\n"
        assert replies[2].startswith(b"250 ")
        assert replies[3].startswith(b"354 ")
        second = b"RSET\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<%b>\r\nNOOP\r\nDATA\r\n" % to
        client.send(STUFFED + second)
        replies = [client.reply() for _ in range(6)]
        assert replies[0].startswith(b"250 2.0.0 Ok: queued as ")
        assert [reply[:4] for reply in replies[1:]] == [b"250 "] * 4 + [b"354 "]
        client.send(STUFFED + b"QUIT\r\n")
        assert client.reply().startswith(b"250 2.0.0 Ok: queued as ")
        assert client.reply() == b"221 2.0.0 Bye\r\n"
        assert client.at_end()
    assert arrived(mta, recipient) == [TEXT, TEXT]


# --- extensions ----------------------------------------------------------------------------------------------


def test_chunks_where_chunking_is_offered(stack: Stack, mta: Postfix, recipient: str) -> None:
    """RFC 3030: no dots are stuffed, and the end is counted. Postfix gets chunks too."""
    with RawClient(stack.listeners["wide"]) as client:
        assert b"250-CHUNKING\r\n" in client.greeted().ask(b"EHLO client.example")
        client.login().envelope(recipient=recipient.encode())
        # The cuts are in the midst of a line, of a CRLF, and before a dot.
        cuts = [0, 10, WIRE.index(b"\r\n.\r\n") + 1, WIRE.index(b"\r\n..\r\n") + 2, 7000, len(WIRE)]
        for start, end in itertools.pairwise(cuts):
            last = b" LAST" if end == len(WIRE) else b""
            client.send(b"BDAT %d%b\r\n" % (end - start, last) + WIRE[start:end])
        replies = [client.reply() for _ in cuts[1:]]
        assert [reply[:4] for reply in replies] == [b"250 "] * 5
        assert b" bytes queued as " in replies[-1]  # its words for BDAT
        client.envelope(recipient=recipient.encode()).send(b"BDAT 8\r\nA: b\r\n\r\nBDAT 0 LAST\r\nQUIT\r\n")
        assert [client.reply()[:4] for _ in range(3)] == [b"250 ", b"250 ", b"221 "]
    assert sorted(arrived(mta, recipient)) == sorted([TEXT, b"A: b\n\n"])


def test_no_chunks_where_it_is_not(stack: Stack, mta: Postfix, recipient: str) -> None:
    with RawClient(stack.proxy) as client:
        assert b"CHUNKING" not in client.greeted().ask(b"EHLO client.example")
        client.login().envelope(recipient=recipient.encode())
        # What follows a BDAT that is not served may be a message: nothing of it is read as a command.
        client.send(b"BDAT 37 LAST\r\nQUIT\r\n")
        assert client.reply() == b"502 5.5.1 BDAT is not offered here\r\n"
        assert client.at_end()
    assert arrived(mta, recipient) == []


def test_smtputf8_only_where_it_is_offered(stack: Stack, mta: Postfix, counter: Iterator[int]) -> None:
    recipient = f"grüße{next(counter)}@example.com"
    with RawClient(stack.proxy) as client:
        assert b"SMTPUTF8" not in client.greeted().ask(b"EHLO client.example")
        client.login()
        assert client.ask(b"MAIL FROM:<a@example.com> SMTPUTF8") == b"555 5.5.4 Unsupported parameter\r\n"
        reply = client.ask("MAIL FROM:<grüße@example.com>".encode())
        assert reply == b"553 5.6.7 Non-ASCII address needs SMTPUTF8 and valid UTF-8\r\n"
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
        assert client.ask(f"RCPT TO:<{recipient}>".encode())[:9] == b"553 5.6.7"
    with RawClient(stack.listeners["wide"]) as client:
        assert b"SMTPUTF8\r\n" in client.greeted().ask(b"EHLO client.example")
        client.login()
        assert client.ask("MAIL FROM:<grüße@example.com> SMTPUTF8".encode()).startswith(b"250 ")
        assert client.ask(f"RCPT TO:<{recipient}>".encode()).startswith(b"250 ")
        client.opened().send(STUFFED)
        assert client.reply().startswith(b"250 ")
    wait_until(lambda: mta.queued() == 0, "an empty queue")
    assert arrived(mta, recipient) == [TEXT]


def test_parameters_that_are_offered_and_those_that_are_not(stack: Stack, mta: Postfix, recipient: str) -> None:
    with RawClient(stack.proxy) as client:
        client.greeted().login()
        assert (
            client.ask(b"MAIL FROM:<a@example.com> SIZE=10485761")
            == b"552 5.3.4 Message size exceeds fixed limit\r\n"
        )
        assert client.ask(b"MAIL FROM:<a@example.com> FANCY=1") == b"555 5.5.4 Unsupported parameter\r\n"
        line = b"MAIL FROM:<a@example.com> SIZE=%d BODY=8BITMIME RET=HDRS ENVID=abc+2Bdef" % len(WIRE)
        assert client.ask(line).startswith(b"250 ")
        line = b"RCPT TO:<%b> NOTIFY=NEVER ORCPT=rfc822;first@example.com" % recipient.encode()
        assert client.ask(line).startswith(b"250 ")
        client.opened().send(STUFFED)
        assert client.reply().startswith(b"250 ")
    assert arrived(mta, recipient) == [TEXT]


# --- TLS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["starttls", "required"])
def test_starttls(stack: Stack, mta: Postfix, recipient: str, trust: ssl.SSLContext, listener: str) -> None:
    with smtplib.SMTP(*stack.listeners[listener]) as client:
        client.ehlo("client.example")
        assert "starttls" in client.esmtp_features
        assert ("auth" in client.esmtp_features) == (listener == "starttls")
        if listener == "required":
            assert client.docmd("AUTH PLAIN " + plain("test", "1234").decode())[0] == 530
            assert client.mail("a@example.com")[0] == 530
        assert client.starttls(context=trust) == (220, b"2.0.0 Start TLS")
        client.ehlo("secret.example")
        assert "starttls" not in client.esmtp_features
        client.login("test", "1234")
        assert client.sendmail("a@example.com", [recipient], WIRE) == {}
    assert arrived(mta, recipient) == [TEXT]
    [line] = stack.wait_for_event("transaction", recipients=[recipient])
    [session] = stack.wait_for_event("session", session=line["session"])
    assert (session["tls"], session["helo"], session["listener"]) == ("TLSv1.3", "secret.example", listener)


def test_implicit_tls(stack: Stack, mta: Postfix, recipient: str, trust: ssl.SSLContext) -> None:
    with smtplib.SMTP_SSL(*stack.listeners["smtps"], context=trust) as client:
        client.ehlo("client.example")
        assert "starttls" not in client.esmtp_features
        client.login("test", "1234")
        assert client.sendmail("a@example.com", [recipient], WIRE) == {}
    assert arrived(mta, recipient) == [TEXT]


def test_what_is_said_in_clear_behind_starttls_is_nobodys_command(
    stack: Stack, mta: Postfix, recipient: str, trust: ssl.SSLContext
) -> None:
    """CVE-2011-0411: an attacker in the middle puts commands in front of the client's TLS session."""
    with RawClient(stack.listeners["starttls"]) as client:
        client.greeted(b"before.example")
        injected = b"EHLO evil.example\r\nAUTH PLAIN %b\r\nMAIL FROM:<evil@example.com>\r\n" % plain("test", "1234")
        client.send(b"STARTTLS\r\n" + injected + b"RCPT TO:<%b>\r\n" % recipient.encode())
        assert client.reply() == b"220 2.0.0 Start TLS\r\n"
        client.sock = trust.wrap_socket(client.sock, server_hostname=HOST)
        # Had one of them been carried out, its reply would come before this one.
        assert client.ask(b"RCPT TO:<%b>" % recipient.encode())[:3] == b"503"
        assert client.ask(b"MAIL FROM:<a@example.com>") == b"530 5.7.1 Authentication required\r\n"
        assert client.ask(b"EHLO after.example").startswith(b"250-")
        client.login().envelope(recipient=recipient.encode()).opened().send(STUFFED)
        assert client.reply().startswith(b"250 ")
        assert client.ask(b"STARTTLS")[:3] in (b"500", b"502", b"503")
    assert arrived(mta, recipient) == [TEXT]
    [line] = stack.wait_for_event("transaction", recipients=[recipient])
    assert line["sender"] == "a@example.com"


def test_a_login_in_clear_is_forgotten_by_starttls(stack: Stack, trust: ssl.SSLContext) -> None:
    """RFC 3207 section 4.2: whatever was learnt before the handshake is of no worth."""
    with RawClient(stack.listeners["starttls"]) as client:
        client.greeted().login().envelope()
        assert client.ask(b"STARTTLS") == b"220 2.0.0 Start TLS\r\n"
        client.sock = trust.wrap_socket(client.sock, server_hostname=HOST)
        assert client.ask(b"EHLO client.example").startswith(b"250-")
        assert client.ask(b"MAIL FROM:<a@example.com>") == b"530 5.7.1 Authentication required\r\n"
