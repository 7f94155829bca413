"""What a backend is told before MAIL, step by step, and what a kept connection is told of its next client."""

import pytest
from fakes import ManualClock, ScriptedBackend

from smtpgate.clock import Deadline
from smtpgate.routing.model import BackendAuth, BackendSettings, BackendTls
from smtpgate.session import handshake
from smtpgate.session.handshake import HandshakeRefused, IdentityUntellable, TlsMissing
from smtpgate.session.link import BackendLink, LinkLost
from smtpgate.session.ports import Identity
from smtpgate.session.streams import Peer, StreamLost, StreamTimeout

PEER = Peer("192.0.2.7", 40000, "198.51.100.1", 587)
NOBODY = Identity("192.0.2.7", "[UNAVAILABLE]", "c.test", True, None)
ANN = Identity("2001:db8::7", "host.c.test", "c.test", True, "ann@a.test", "plain", b"secret")
BOB = Identity("192.0.2.8", "[UNAVAILABLE]", "d.test", True, "bob", "plain", b"word", Peer("192.0.2.8", 5, "::1", 25))
REPLAY = BackendAuth(replay=True)
ALL = "XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT"


def offering(*keywords, name="mx.test"):
    lines = ["mta1", *keywords]
    wire = "".join(f"250{'-' if one is not lines[-1] else ' '}{one}\r\n" for one in lines)
    return (f"EHLO {name}\r\n".encode(), wire.encode())


class Greeted:
    """A connection that has been greeted for a client."""

    def __init__(self, *script, identity=NOBODY, **settings):
        self.clock = ManualClock()
        self.stream = ScriptedBackend([(b"", b"220 mta1\r\n"), *script])
        self.link = BackendLink(self.stream, self.clock)
        self.settings = BackendSettings(**settings)
        self.identity = identity

    def greet(self):
        deadline = Deadline(self.clock, 20.0)
        handshake.greet(self.link, "mx.test", "mta1.test", self.identity, self.settings, deadline)
        return self

    def renew(self, identity, *script):
        self.stream.script += script
        handshake.renew(self.link, identity, self.settings, Deadline(self.clock, 20.0))
        self.checked()

    def checked(self):
        assert self.stream.script == []
        assert self.stream.unexpected == b""
        return self


def shake(*script, identity=NOBODY, **settings):
    return Greeted(*script, identity=identity, **settings).greet().checked()


# --- XCLIENT -----------------------------------------------------------------------------------------------------


def test_no_xclient_unless_it_is_offered():
    assert shake(offering("SIZE 100")).link.extensions.size == 100


def test_xclient_auto_sends_only_what_is_advertised():
    shake(
        offering("XCLIENT LOGIN ADDR"),
        (b"XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=ann@a.test\r\n", b"220 ok\r\n"),
        (b"EHLO c.test\r\n", b"250 mta1\r\n"),
        identity=ANN,
    )


def test_xclient_auto_sends_all_that_postfix_knows():
    shake(
        offering(ALL),
        (
            b"XCLIENT ADDR=192.0.2.8 LOGIN=bob NAME=[UNAVAILABLE] PORT=5 PROTO=ESMTP HELO=d.test"
            b" DESTADDR=IPV6:::1 DESTPORT=25\r\n",
            b"220 ok\r\n",
        ),
        (b"EHLO d.test\r\n", b"250 mta1\r\n"),
        identity=BOB,
    )


def test_xclient_on_sends_nginxs_set_without_an_offer_as_nginx_does():
    shake(
        offering("SIZE"),
        (b"XCLIENT ADDR=192.0.2.8 LOGIN=bob NAME=[UNAVAILABLE]\r\n", b"250 ok\r\n"),
        (b"EHLO d.test\r\n", b"250 mta1\r\n"),
        identity=BOB,
        xclient="on",
    )


def test_xclient_off_sends_none():
    shake(offering("XCLIENT NAME ADDR LOGIN"), identity=ANN, xclient="off")


@pytest.mark.parametrize(("xclient", "addr"), [("on", b"unix:"), ("auto", b"[UNAVAILABLE]")])
def test_a_client_on_a_unix_socket(xclient, addr):
    """nginx says "unix:", and Postfix answers that with 501."""
    shake(
        offering("XCLIENT ADDR PORT DESTADDR"),
        (b"XCLIENT ADDR=" + addr + (b" NAME=[UNAVAILABLE]\r\n" if xclient == "on" else b"\r\n"), b"220 ok\r\n"),
        identity=Identity("unix:", "[UNAVAILABLE]", None, False, None, peer=Peer("unix:", 0, "unix:", 0)),
        xclient=xclient,
    )


def test_a_client_without_hello_is_not_introduced_by_one():
    shake(
        offering("XCLIENT ADDR HELO PROTO"),
        (b"XCLIENT ADDR=192.0.2.7\r\n", b"220 ok\r\n"),
        identity=Identity("192.0.2.7", "[UNAVAILABLE]", None, False, None),
    )


def test_a_client_that_said_helo_is_replayed_so():
    one = shake(
        offering("XCLIENT ADDR PROTO", "PIPELINING"),
        (b"XCLIENT ADDR=192.0.2.7 PROTO=SMTP\r\n", b"220 ok\r\n"),
        (b"HELO c.test\r\n", b"250 mta1\r\n"),
        identity=Identity("192.0.2.7", "[UNAVAILABLE]", "c.test", False, None),
    )
    assert not one.link.extensions.pipelining


def test_an_identity_that_fits_no_xclient_is_never_shortened():
    identity = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "\u00fc" * 255)
    one = Greeted(offering("XCLIENT LOGIN"), identity=identity)
    with pytest.raises(IdentityUntellable, match="XCLIENT ADDR and LOGIN"):
        one.greet()
    one.checked()


# --- AUTH --------------------------------------------------------------------------------------------------------


def test_smtp_auth_replays_the_credentials_and_keeps_the_login_out_of_xclient():
    shake(
        offering("XCLIENT LOGIN ADDR NAME"),
        (b"XCLIENT ADDR=IPV6:2001:db8::7 NAME=host.c.test\r\n", b"220 ok\r\n"),
        (b"EHLO c.test\r\n", b"250 mta1\r\n"),
        (b"AUTH PLAIN AGFubkBhLnRlc3QAc2VjcmV0\r\n", b"235 ok\r\n"),
        identity=ANN,
        auth=REPLAY,
    )


def test_smtp_auth_replays_no_login_that_was_not_proven():
    """nginx replays AUTH for methods other than none (reference/nginx_mail.md section 6)."""
    shake(offering(), identity=Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "ann"), auth=REPLAY)


def test_a_client_without_a_password_cannot_be_replayed_anywhere():
    identity = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "ann", "cram-md5", None)
    with pytest.raises(IdentityUntellable, match="no password available"):
        Greeted(offering(), identity=identity, auth=REPLAY).greet()


@pytest.mark.parametrize("identity", [NOBODY, ANN])
def test_a_pools_own_credentials_are_said_for_every_client(identity):
    shake(
        offering("AUTH PLAIN"),
        (b"AUTH PLAIN AHByb3h5AHBhc3M=\r\n", b"235 ok\r\n"),
        identity=identity,
        auth=BackendAuth(user="proxy", password="pass"),
    )


# --- STARTTLS ----------------------------------------------------------------------------------------------------

TLS_GO = (b"STARTTLS\r\n", b"220 go\r\n")


@pytest.mark.parametrize("mode", ["starttls", "required"])
@pytest.mark.parametrize(("named", "name"), [(None, "mta1.test"), ("mail.example", "mail.example")])
def test_starttls_comes_before_anything_is_told_and_what_was_offered_in_clear_is_forgotten(mode, named, name):
    tls = BackendTls(mode, server_name=named)
    one = shake(offering("STARTTLS", "PIPELINING", "XCLIENT ADDR"), TLS_GO, offering("SIZE 7"), identity=ANN, tls=tls)
    assert one.stream.handshakes == [(tls, name)]
    assert one.link.extensions.keywords.keys() == {"SIZE"}


@pytest.mark.parametrize(("mode", "offer"), [("off", ["STARTTLS"]), ("implicit", ["STARTTLS"]), ("starttls", [])])
def test_no_starttls(mode, offer):
    assert shake(offering(*offer), tls=BackendTls(mode)).stream.handshakes == []


def test_required_tls_that_is_not_offered():
    one = Greeted(offering("XCLIENT ADDR"), tls=BackendTls("required"))
    with pytest.raises(TlsMissing, match="offers no STARTTLS"):
        one.greet()
    one.checked()


@pytest.mark.parametrize("mode", ["starttls", "required"])
@pytest.mark.parametrize(
    ("says", "fault", "why"),
    [
        (b"454 4.7.0 not now\r\n", None, "STARTTLS answered 454"),
        (b"220 go\r\n250-mta1\r\n250 XCLIENT ADDR\r\n", None, "octets in clear behind the 220"),
        (b"220 go\r\n25", None, "octets in clear behind the 220"),
        (b"220 go\r\n", StreamLost("TLS handshake: certificate verify failed"), "certificate verify failed"),
        (b"220 go\r\n", StreamTimeout(), "in time"),
        (None, None, "closed the connection"),
    ],
    ids=["refused", "replies injected", "half a reply injected", "not verified", "silent", "gone"],
)
def test_after_an_offer_there_is_no_way_back_to_clear_text(mode, says, fault, why):
    one = Greeted(offering("STARTTLS", "XCLIENT ADDR"), (b"STARTTLS\r\n", says), identity=ANN, tls=BackendTls(mode))
    one.stream.no_tls = fault
    with pytest.raises((HandshakeRefused, LinkLost), match=why):
        one.greet()
    one.checked()
    assert len(one.stream.handshakes) == (fault is not None)


def test_octets_injected_in_a_packet_of_their_own_are_seen_too():
    one = Greeted(offering("STARTTLS"), TLS_GO, (b"", b"250 injected\r\n"), tls=BackendTls("required"))
    one.stream.piece = len("220 go\r\n")
    with pytest.raises(LinkLost, match="in clear behind its 220"):
        one.greet()
    assert one.stream.handshakes == []


# --- refusals ----------------------------------------------------------------------------------------------------

XCLIENT_OK = (b"XCLIENT ADDR=192.0.2.7\r\n", b"220 ok\r\n")


@pytest.mark.parametrize(
    ("script", "step", "personal"),
    [
        ([(b"", b"554 go away\r\n")], "greeting answered 554", False),
        ([(b"", b"220 a\r\n"), (b"EHLO mx.test\r\n", b"450 busy\r\n")], "EHLO answered 450", False),
        (
            [(b"", b"220 a\r\n"), (b"EHLO mx.test\r\n", b"500 what\r\n"), (b"HELO mx.test\r\n", b"550 no\r\n")],
            "EHLO answered 550",
            False,
        ),
        (
            [(b"", b"220 a\r\n"), offering("XCLIENT ADDR"), (b"XCLIENT ADDR=192.0.2.7\r\n", b"550 not you\r\n")],
            "XCLIENT answered 550",
            False,
        ),
        (
            [(b"", b"220 a\r\n"), offering("XCLIENT ADDR"), (b"XCLIENT ADDR=192.0.2.7\r\n", b"501 bad ADDR\r\n")],
            "XCLIENT answered 501",
            True,
        ),
        (
            [(b"", b"220 a\r\n"), offering("XCLIENT ADDR"), XCLIENT_OK, (b"EHLO c.test\r\n", b"501 bad name\r\n")],
            "client HELO/EHLO answered 501",
            True,
        ),
    ],
)
def test_a_refused_step(script, step, personal):
    one = Greeted()
    one.stream = ScriptedBackend(script)
    one.link = BackendLink(one.stream, one.clock)
    with pytest.raises(HandshakeRefused, match=step) as refused:
        one.greet()
    assert refused.value.personal is personal
    assert one.link.introduction.begun is ("XCLIENT" in step or "client" in step)


@pytest.mark.parametrize(("auth", "personal"), [(REPLAY, True), (BackendAuth(user="u", password="p"), False)])
def test_a_refused_login_is_the_clients_matter_only_if_it_is_the_clients(auth, personal):
    one = Greeted(offering(), (b"AUTH PLAIN", b"535 5.7.8 no\r\n"), identity=ANN, auth=auth)
    with pytest.raises(HandshakeRefused, match="AUTH answered 535") as refused:
        one.greet()
    assert refused.value.personal is personal


def test_one_deadline_covers_the_whole_handshake():
    clock = ManualClock()

    class Slow(ScriptedBackend):
        def read(self, deadline):
            clock.time += 8.0
            return super().read(deadline) if not deadline.expired else pytest.fail("read after the deadline")

    stream = Slow([(b"", b"220 mta1\r\n"), offering("XCLIENT ADDR"), (b"XCLIENT ADDR=192.0.2.7\r\n", b"")])
    with pytest.raises(LinkLost, match="in time") as lost:
        handshake.greet(BackendLink(stream, clock), "mx.test", "", NOBODY, BackendSettings(), Deadline(clock, 25.0))
    assert lost.value.silent


# --- the next client of a kept connection ------------------------------------------------------------------------


def told(identity, line, offers=ALL, hello=None):
    return [
        (line, b"220 ok\r\n"),
        offering(offers, name=hello or identity.helo),
    ]


ANN_TOLD = told(ANN, b"XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=ann@a.test NAME=host.c.test PROTO=ESMTP HELO=c.test\r\n")


def test_the_next_client_is_introduced_in_place_of_the_first():
    one = shake(offering(ALL), *ANN_TOLD, identity=ANN)
    assert one.link.resting
    one.renew(
        BOB,
        *told(
            BOB,
            b"XCLIENT ADDR=192.0.2.8 LOGIN=bob NAME=[UNAVAILABLE] PORT=5 PROTO=ESMTP HELO=d.test"
            b" DESTADDR=IPV6:::1 DESTPORT=25\r\n",
        ),
    )
    assert one.link.resting


def test_what_was_told_of_the_first_client_and_does_not_hold_for_the_next_is_taken_back():
    one = shake(
        offering(ALL),
        *told(
            BOB,
            b"XCLIENT ADDR=192.0.2.8 LOGIN=bob NAME=[UNAVAILABLE] PORT=5 PROTO=ESMTP HELO=d.test"
            b" DESTADDR=IPV6:::1 DESTPORT=25\r\n",
        ),
        identity=BOB,
    )
    one.renew(
        Identity("192.0.2.9", "[UNAVAILABLE]", None, False, None),
        (
            b"XCLIENT ADDR=192.0.2.9 LOGIN=[UNAVAILABLE] NAME=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=SMTP"
            b" HELO=[UNAVAILABLE] DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]\r\n",
            b"220 ok\r\n",
        ),
    )
    # Its own extensions are not known, and so neither whether anybody could be introduced after it.
    assert not one.link.resting


def test_a_connection_whose_server_would_not_believe_another_introduction_does_not_rest():
    """Postfix, for every client from outside smtpd_authorized_xclient_hosts."""
    one = shake(offering(ALL), *told(ANN, ANN_TOLD[0][0], offers="SIZE 100"), identity=ANN)
    assert not one.link.resting


@pytest.mark.parametrize("xclient", ["off", "auto"])
def test_where_nothing_was_told_there_is_nothing_to_take_back(xclient):
    offer = offering("SIZE") if xclient == "auto" else offering(ALL)
    one = shake(offer, identity=ANN, xclient=xclient)
    assert one.link.resting
    one.renew(BOB)


def test_a_client_of_whom_nothing_can_be_told_does_not_leave_its_name_to_the_next():
    """The backend wants to hear of logins only, and the first client has none."""
    one = shake(offering("XCLIENT LOGIN"), identity=NOBODY)
    assert one.link.resting
    one.renew(BOB, *told(BOB, b"XCLIENT LOGIN=bob\r\n", offers="XCLIENT LOGIN"))
    assert one.link.resting
    one.renew(NOBODY, *told(NOBODY, b"XCLIENT LOGIN=[UNAVAILABLE]\r\n", offers="XCLIENT LOGIN"))


def test_a_login_by_auth_and_xclient_do_not_mix():
    auth = BackendAuth(user="proxy", password="pass")
    said = (b"AUTH PLAIN AHByb3h5AHBhc3M=\r\n", b"235 ok\r\n")
    assert shake(offering(), said, identity=ANN, auth=auth).link.resting
    xclient = b"XCLIENT ADDR=IPV6:2001:db8::7 NAME=host.c.test PROTO=ESMTP HELO=c.test\r\n"
    assert not shake(offering(ALL), *told(ANN, xclient), said, identity=ANN, auth=auth).link.resting


@pytest.mark.parametrize("said", [b"421 4.4.2 timeout\r\n", b"250 more\r\n", b""], ids=["421", "250", "gone"])
def test_a_kept_connection_that_spoke_or_left_is_lost(said):
    one = shake(offering(ALL), *ANN_TOLD, identity=ANN)
    one.stream.outgoing += said
    one.stream.hung_up = not said
    with pytest.raises(LinkLost, match="spoke or left") as lost:
        one.renew(BOB)
    assert not lost.value.silent
