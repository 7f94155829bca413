"""The handshake with a backend, step by step, and what every kind of backend fault becomes."""

import pytest
from fakes import ManualClock, ScriptedBackend

from smtpgate.clock import Deadline
from smtpgate.routing.model import BackendSettings
from smtpgate.session.link import BackendLink, HandshakeRefused, IdentityUntellable, LinkLost
from smtpgate.session.ports import Identity
from smtpgate.smtp.encode import RSET

NOBODY = Identity("192.0.2.7", "[UNAVAILABLE]", "c.test", True, None)
ANN = Identity("2001:db8::7", "host.c.test", "c.test", True, "ann@a.test", "plain", b"secret")


def link(*script):
    clock = ManualClock()
    stream = ScriptedBackend(script)
    return BackendLink(stream, clock), stream, Deadline(clock, 20.0)


def offering(*keywords):
    lines = ["mta1", *keywords]
    wire = "".join(f"250{'-' if one is not lines[-1] else ' '}{one}\r\n" for one in lines)
    return (b"EHLO mx.test\r\n", wire.encode())


def shake(*script, identity=NOBODY, **settings):
    one, stream, deadline = link((b"", b"220 mta1\r\n"), *script)
    one.handshake("mx.test", identity, BackendSettings(**settings), deadline)
    assert stream.script == []
    assert stream.unexpected == b""
    return one


def test_no_xclient_unless_it_is_offered():
    assert shake(offering("SIZE 100")).extensions.size == 100


def test_xclient_auto_sends_only_what_is_advertised():
    shake(
        offering("XCLIENT LOGIN ADDR"),
        (b"XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=ann@a.test\r\n", b"220 ok\r\n"),
        (b"EHLO c.test\r\n", b"250 mta1\r\n"),
        identity=ANN,
    )


def test_xclient_on_sends_all_without_an_offer_as_nginx_does():
    shake(
        offering("SIZE"),
        (b"XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=ann@a.test NAME=host.c.test\r\n", b"250 ok\r\n"),
        (b"EHLO c.test\r\n", b"250 mta1\r\n"),
        identity=ANN,
        xclient="on",
    )


def test_xclient_off_sends_none():
    shake(offering("XCLIENT NAME ADDR LOGIN"), identity=ANN, xclient="off")


def test_a_client_without_hello_is_not_introduced_by_one():
    shake(
        offering("XCLIENT ADDR"),
        (b"XCLIENT ADDR=192.0.2.7\r\n", b"220 ok\r\n"),
        identity=Identity("192.0.2.7", "[UNAVAILABLE]", None, False, None),
    )


def test_a_client_that_said_helo_is_replayed_so():
    one = shake(
        offering("XCLIENT ADDR", "PIPELINING"),
        (b"XCLIENT ADDR=192.0.2.7\r\n", b"220 ok\r\n"),
        (b"HELO c.test\r\n", b"250 mta1\r\n"),
        identity=Identity("192.0.2.7", "[UNAVAILABLE]", "c.test", False, None),
    )
    assert not one.extensions.pipelining


def test_smtp_auth_replays_the_credentials_and_keeps_the_login_out_of_xclient():
    shake(
        offering("XCLIENT LOGIN ADDR NAME"),
        (b"XCLIENT ADDR=IPV6:2001:db8::7 NAME=host.c.test\r\n", b"220 ok\r\n"),
        (b"EHLO c.test\r\n", b"250 mta1\r\n"),
        (b"AUTH PLAIN AGFubkBhLnRlc3QAc2VjcmV0\r\n", b"235 ok\r\n"),
        identity=ANN,
        smtp_auth=True,
    )


def test_smtp_auth_replays_no_login_that_was_not_proven():
    """nginx replays AUTH for methods other than none (reference/nginx_mail.md section 6)."""
    shake(offering(), identity=Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "ann"), smtp_auth=True)


def test_smtp_auth_without_a_password_is_a_lost_link():
    one, _, deadline = link((b"", b"220 mta1\r\n"), offering())
    identity = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "ann", "cram-md5", None)
    with pytest.raises(LinkLost, match="no password available"):
        one.handshake("mx.test", identity, BackendSettings(smtp_auth=True), deadline)


def test_an_identity_that_fits_no_xclient_is_never_shortened():
    one, stream, deadline = link((b"", b"220 mta1\r\n"), offering("XCLIENT LOGIN"))
    identity = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "\u00fc" * 255)
    with pytest.raises(IdentityUntellable, match="XCLIENT LOGIN"):
        one.handshake("mx.test", identity, BackendSettings(), deadline)
    assert stream.unexpected == b""


@pytest.mark.parametrize(
    ("script", "step"),
    [
        ([(b"", b"554 go away\r\n")], "greeting answered 554"),
        ([(b"", b"220 a\r\n"), (b"EHLO mx.test\r\n", b"450 busy\r\n")], "EHLO answered 450"),
        (
            [(b"", b"220 a\r\n"), (b"EHLO mx.test\r\n", b"500 what\r\n"), (b"HELO mx.test\r\n", b"550 no\r\n")],
            "EHLO answered 550",
        ),
        (
            [(b"", b"220 a\r\n"), offering("XCLIENT ADDR"), (b"XCLIENT ADDR=192.0.2.7\r\n", b"550 not you\r\n")],
            "XCLIENT answered 550",
        ),
    ],
)
def test_a_refused_step(script, step):
    one, _, deadline = link(*script)
    with pytest.raises(HandshakeRefused, match=step):
        one.handshake("mx.test", NOBODY, BackendSettings(), deadline)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (None, "closed the connection"),
        (b"421 4.3.2 down\r\n", "421"),
        (b"250 ok\n", "line"),
        (b"999 what\r\n", "999"),
        (b"250-a\r\n251 b\r\n", "250"),
        (b"", "did not answer in time"),
    ],
)
def test_every_fault_of_a_backend_is_a_lost_link(says, reason):
    one, _, deadline = link((b"", b"220 mta1\r\n"), offering(), (RSET, says))
    one.handshake("mx.test", NOBODY, BackendSettings(), deadline)
    with pytest.raises(LinkLost, match=reason):
        one.ask(RSET)


def test_the_421_is_kept_as_farewell():
    one, _, deadline = link((b"", b"220 mta1\r\n"), offering(), (RSET, b"421 4.3.2 down\r\n"))
    one.handshake("mx.test", NOBODY, BackendSettings(), deadline)
    with pytest.raises(LinkLost) as lost:
        one.ask(RSET)
    assert lost.value.farewell.wire() == b"421 4.3.2 down\r\n"


def test_one_deadline_covers_the_whole_handshake():
    clock = ManualClock()

    class Slow(ScriptedBackend):
        def read(self, deadline):
            clock.time += 8.0
            return super().read(deadline) if not deadline.expired else pytest.fail("read after the deadline")

    stream = Slow([(b"", b"220 mta1\r\n"), offering("XCLIENT ADDR"), (b"XCLIENT ADDR=192.0.2.7\r\n", b"")])
    with pytest.raises(LinkLost, match="in time"):
        BackendLink(stream, clock).handshake("mx.test", NOBODY, BackendSettings(), Deadline(clock, 25.0))
