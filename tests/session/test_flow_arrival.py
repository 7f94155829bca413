"""Who has arrived, and what comes before all else: names, certificates, early talkers, XCLIENT and XFORWARD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import fakes
import pytest
from fakes import CLIENT, FakeAuthenticator, FakeBackends, FakePolicy, FakeStream, ListJournal, ManualClock

from smtpgate.clock import Deadline
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts, ReplyText, Slot
from smtpgate.session import flow
from smtpgate.session.arrival import BAN_MEMORY
from smtpgate.session.ports import AuthRefused
from smtpgate.session.streams import ClientCertificate, Peer, Proxied, StreamInterrupted, StreamTimeout, TlsInfo
from smtpgate.smtp.server import ServerSettings

OPEN = ServerSettings("mx.test", mechanisms=(), auth_required=False)
GREETING = b"220 mx.test ESMTP ready\r\n"
BYE = b"221 2.0.0 Bye\r\n"
RELAYS = (ip_network("192.0.2.0/24"),)
PLAIN = b"AUTH PLAIN AGFubgB4\r\n"
SECURE = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
NONE = replace(SECURE, certificate=ClientCertificate("NONE"))
SHOWN = replace(SECURE, certificate=ClientCertificate("SUCCESS", "CN=ann"))
SLOT = Slot("conns", "x", "t1")


class Names:
    def __init__(self, said: str = "client.example.com") -> None:
        self.said = said
        self.asked: list[str] = []

    def name_of(self, host: str) -> str:
        self.asked.append(host)
        return self.said


class Stream(FakeStream):
    """shown: what a handshake finds."""

    shown = SECURE

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        self.tls = self.shown
        return self.tls


@pytest.mark.parametrize(("seconds", "known"), [(2.0, 2.0), (900.0, BAN_MEMORY)])
def test_a_ban_is_known_at_the_door_for_a_while(seconds: float, known: float) -> None:
    """And no longer: it may be lifted."""
    gone = ReplyText(454, "4.7.0", "go away")
    ban = Denial("net", "x", gone, 900.0, 0.0, False, 0.0, "p:1", wait=900.0, banned=seconds)
    kept_out: list[tuple[str, float, bytes]] = []
    stream, clock = FakeStream([]), ManualClock()
    world = fakes.ports(clock, FakeBackends(clock), policy=FakePolicy(lambda event, facts: Decision(ban)))
    world = replace(world, banned=lambda host, rest, words: kept_out.append((host, rest, words.wire())))
    flow.run(stream, flow.SessionSettings("demo", OPEN), world)
    assert bytes(stream.received) == b"454 4.7.0 go away\r\n"
    assert kept_out == [(CLIENT.host, known, b"454 4.7.0 go away\r\n")]


class World:
    """One session to its end. settings: of the listener."""

    def __init__(
        self,
        pieces: list[bytes | BaseException],
        protocol: ServerSettings = OPEN,
        *,
        names: Names | None = None,
        tls: TlsInfo | None = None,
        handshake: TlsInfo = SECURE,
        proxied: Proxied | None = None,
        policy: FakePolicy | None = None,
        authenticator: FakeAuthenticator | None = None,
        draining: Callable[[], bool] = bool,
        **settings: Any,
    ) -> None:
        clock = ManualClock()
        self.journal = ListJournal()
        self.policy = policy or FakePolicy()
        stream = Stream(pieces)
        stream.tls, stream.shown = tls, handshake
        world = fakes.ports(
            clock,
            FakeBackends(clock),
            journal=self.journal,
            policy=self.policy,
            authenticator=authenticator,
            draining=draining,
        )
        flow.run(stream, flow.SessionSettings("demo", protocol, **settings), replace(world, names=names), proxied)
        self.out = bytes(stream.received)

    @property
    def line(self) -> dict[str, object]:
        """The session's own."""
        (line,) = self.journal.of("session")
        return line

    def facts(self, event: Event) -> list[Facts]:
        return [facts for asked, facts in self.policy.events if asked is event]


# --- the name ------------------------------------------------------------------------------------------------------


def test_the_name_is_told_to_the_auth_service() -> None:
    authenticator = FakeAuthenticator(AuthRefused("535 5.7.0", "no", 1.0))
    names = Names()
    World([PLAIN], ServerSettings("mx.test"), names=names, authenticator=authenticator)
    assert names.asked == ["192.0.2.7"]
    assert [query.client_host for query in authenticator.queries] == ["client.example.com"]


def test_who_is_refused_is_not_looked_up() -> None:
    names = Names()
    world = World([], names=names, policy=FakePolicy(lambda event, facts: denial()))
    assert (world.out, names.asked) == (b"421 4.7.0 too many\r\n", [])


def denial() -> Decision:
    return Decision(
        Denial(
            "conns", "x", ReplyText(421, "4.7.0", "too many"), retry=1, delay=0, close=True, balance=0, source="p:1"
        )
    )


# --- the greeting's delay ------------------------------------------------------------------------------------------


def test_who_waits_is_greeted_and_served() -> None:
    world = World([StreamTimeout(), b"NOOP\r\nQUIT\r\n"], greeting_delay=2.0)
    assert world.out == GREETING + b"250 2.0.0 OK\r\n" + BYE


@pytest.mark.parametrize("said", [b"E", b"EHLO c.test\r\n", b"\r\n"])
def test_who_speaks_before_the_greeting_is_refused_and_logged(said: bytes) -> None:
    world = World([said, b"QUIT\r\n"], greeting_delay=2.0)
    assert world.out == b"503 5.5.0 Improper use of SMTP command pipelining\r\n"
    assert [line["said"] for line in world.journal.of("early_talker")] == [said.decode()]
    assert world.line["end"] == "client was rejected before greeting"


def test_without_a_delay_what_comes_before_the_greeting_is_served() -> None:
    assert World([b"QUIT\r\n"]).out == GREETING + BYE


@pytest.mark.parametrize(
    ("piece", "said", "end"),
    [
        (b"", b"", "connection lost: client closed the connection before the greeting"),
        (StreamInterrupted(), b"421 4.3.2 Service shutting down, try again later\r\n", "closed with 421"),
    ],
)
def test_other_ends_of_the_delay(piece: bytes | BaseException, said: bytes, end: str) -> None:
    world = World([piece], draining=lambda: True, greeting_delay=2.0)
    assert (world.out, world.line["end"]) == (said, end)


def test_stress_does_not_end_the_delay() -> None:
    world = World([StreamInterrupted(), StreamTimeout(), b"QUIT\r\n"], greeting_delay=2.0)
    assert world.out == GREETING + BYE


# --- certificates --------------------------------------------------------------------------------------------------

NO_CERTIFICATE = b"421 4.7.1 No required SSL certificate\r\n"
IMPLICIT = ServerSettings("mx.test", mechanisms=("EXTERNAL",), tls="implicit")
STARTTLS = ServerSettings("mx.test", mechanisms=("PLAIN", "EXTERNAL"), tls="starttls")


@pytest.mark.parametrize(("tls", "out"), [(NONE, NO_CERTIFICATE), (SHOWN, GREETING + BYE)])
def test_a_required_certificate_in_the_place_of_the_greeting(tls: TlsInfo, out: bytes) -> None:
    assert World([b"QUIT\r\n"], IMPLICIT, tls=tls, certificate_required=True).out == out


def test_a_required_certificate_after_starttls() -> None:
    world = World([b"STARTTLS\r\n", b"EHLO c\r\n"], STARTTLS, handshake=NONE, certificate_required=True)
    assert world.out == GREETING + b"220 2.0.0 Start TLS\r\n" + NO_CERTIFICATE
    assert World([b"STARTTLS\r\n", b"QUIT\r\n"], STARTTLS, handshake=SHOWN, certificate_required=True).out.endswith(
        BYE
    )


def test_an_optional_certificate_may_be_missing() -> None:
    assert World([b"QUIT\r\n"], IMPLICIT, tls=NONE).out == GREETING + BYE


@pytest.mark.parametrize("form", [b"AUTH EXTERNAL =\r\n", b"AUTH EXTERNAL YW5u\r\n", b"AUTH EXTERNAL\r\n"])
def test_external_without_a_certificate_asks_nobody(form: bytes) -> None:
    authenticator = FakeAuthenticator()
    world = World([form + b"QUIT\r\n"], IMPLICIT, tls=NONE, authenticator=authenticator)
    assert world.out == GREETING + b"535 5.7.8 No certificate was shown\r\n" + BYE
    assert authenticator.queries == []


@pytest.mark.parametrize("form", [b"AUTH EXTERNAL =\r\n", b"AUTH EXTERNAL YW5u\r\n", b"AUTH EXTERNAL\r\n"])
def test_external_where_it_is_not_offered(form: bytes) -> None:
    authenticator = FakeAuthenticator()
    world = World(
        [form + b"QUIT\r\n"], ServerSettings("mx.test", tls="implicit"), tls=SHOWN, authenticator=authenticator
    )
    assert world.out == GREETING + b"500 5.5.1 Invalid command\r\n" + BYE
    assert authenticator.queries == []


def test_external_with_a_certificate() -> None:
    authenticator = FakeAuthenticator(AuthRefused("535 5.7.0", "no", 1.0))
    World([b"AUTH EXTERNAL YW5u\r\n"], IMPLICIT, tls=SHOWN, authenticator=authenticator)
    (query,) = authenticator.queries
    assert (query.method, query.user, query.password, query.tls) == ("external", b"ann", b"", SHOWN)


def test_external_is_offered_under_tls_only() -> None:
    out = World([b"EHLO c\r\nSTARTTLS\r\n", b"EHLO c\r\n"], STARTTLS, handshake=SHOWN).out
    assert b"250-AUTH PLAIN\r\n250 STARTTLS\r\n" in out
    assert out.endswith(b"250 AUTH PLAIN EXTERNAL\r\n")


# --- a PROXY header ------------------------------------------------------------------------------------------------


def test_what_a_proxy_header_said_goes_to_the_auth_service_and_the_log() -> None:
    ends = Peer("192.0.2.7", 40000, "198.51.100.9", 25)
    in_front = TlsInfo("TLSv1.2", "AES128-SHA", "mx.example.com")
    authenticator = FakeAuthenticator(AuthRefused("535 5.7.0", "no", 1.0))
    world = World(
        [PLAIN], ServerSettings("mx.test"), proxied=Proxied("10.0.0.1", ends, in_front), authenticator=authenticator
    )
    (query,) = authenticator.queries
    assert (query.peer, query.proxied, query.tls) == (CLIENT, ends, in_front)
    assert (world.line["client"], world.line["via"]) == ("192.0.2.7", "10.0.0.1")
    assert [facts.tls for facts in world.facts(Event.CONNECT)] == [True]


# --- XCLIENT -------------------------------------------------------------------------------------------------------

OTHER = b"XCLIENT ADDR=198.51.100.5 PORT=4711 NAME=other.example.com HELO=other PROTO=ESMTP\r\n"


def test_xclient_makes_another_client() -> None:
    authenticator = FakeAuthenticator(AuthRefused("535 5.7.0", "no", 1.0))
    world = World(
        [b"EHLO relay\r\n" + PLAIN + OTHER + PLAIN],
        ServerSettings("mx.test"),
        authenticator=authenticator,
        names=Names("relay.example.com"),
        xclient=RELAYS,
    )
    relay, other = authenticator.queries
    assert (relay.peer, relay.client_host, relay.helo, relay.attempt) == (CLIENT, "relay.example.com", "relay", 1)
    assert other.peer == replace(CLIENT, host="198.51.100.5", port=4711)
    assert (other.client_host, other.helo, other.attempt) == ("other.example.com", "other", 1)
    assert world.out.count(GREETING) == 2
    assert (world.line["client"], world.line["via"]) == ("198.51.100.5", "192.0.2.7")


@pytest.mark.parametrize(
    ("given", "client", "name"),
    [
        (b"ADDR=198.51.100.5", "198.51.100.5", "[UNAVAILABLE]"),
        (b"ADDR=IPV6:2001:db8::5 NAME=[TEMPUNAVAIL]", "2001:db8::5", "[UNAVAILABLE]"),
        (b"ADDR=[UNAVAILABLE] NAME=a.test", "192.0.2.7", "a.test"),
        (b"ADDR=198.51.100.5\r\nXCLIENT ADDR=[UNAVAILABLE]", "192.0.2.7", "[UNAVAILABLE]"),
        (b"PORT=1", "192.0.2.7", "[UNAVAILABLE]"),
        (b"NAME=a.test HELO=a\r\nXCLIENT ADDR=198.51.100.5", "198.51.100.5", "a.test"),
    ],
)
def test_what_is_not_told_by_xclient(given: bytes, client: str, name: str) -> None:
    authenticator = FakeAuthenticator(AuthRefused("535 5.7.0", "no", 1.0))
    names = Names("relay.example.com")
    protocol = ServerSettings("mx.test")
    World([b"XCLIENT " + given + b"\r\n" + PLAIN], protocol, authenticator=authenticator, names=names, xclient=RELAYS)
    (query,) = authenticator.queries
    assert (query.peer.host, query.client_host) == (client, name)
    assert names.asked == ["192.0.2.7"]


def test_the_connection_limits_are_asked_for_the_new_client_and_the_old_one_gives_its_place_back() -> None:
    def decide(event: Event, facts: Facts) -> Decision:
        if event is not Event.CONNECT:
            return ALLOWED
        return denial() if facts.client == "198.51.100.5" else Decision(None, slots=(SLOT,))

    world = World([OTHER + b"QUIT\r\n"], policy=FakePolicy(decide), xclient=RELAYS)
    assert world.out == GREETING + b"421 4.7.0 too many\r\n"
    assert [facts.client for facts in world.facts(Event.CONNECT)] == ["192.0.2.7", "198.51.100.5"]
    assert world.policy.released == [SLOT]
    assert world.line["end"] == "closed with 421"


def test_a_login_that_a_later_xclient_does_not_tell_is_none() -> None:
    said = b"XCLIENT LOGIN=ann\r\nXCLIENT NAME=a.test\r\nMAIL FROM:<a@a.test>\r\n"
    world = World([said], ServerSettings("mx.test"), xclient=RELAYS)
    assert world.out.endswith(b"530 5.7.1 Authentication required\r\n")


def test_a_login_by_xclient_is_one_without_auth() -> None:
    world = World([b"XCLIENT LOGIN=ann\r\nMAIL FROM:<a@a.test>\r\n"], ServerSettings("mx.test"), xclient=RELAYS)
    assert world.out.endswith(b"250 2.0.0 OK\r\n")
    (facts,) = world.facts(Event.MAIL)
    assert (facts.user, facts.login, facts.method) == ("ann", "ann", "none")
    assert world.facts(Event.AUTH) == []


def test_a_relays_certificate_is_not_its_clients() -> None:
    authenticator = FakeAuthenticator()
    world = World([OTHER + b"AUTH EXTERNAL =\r\n"], IMPLICIT, tls=SHOWN, authenticator=authenticator, xclient=RELAYS)
    assert world.out.endswith(b"535 5.7.8 No certificate was shown\r\n")
    assert authenticator.queries == []


def test_who_may_not_speak_for_others_is_logged_with_its_true_address() -> None:
    world = World([OTHER + b"XFORWARD NAME=x\r\nQUIT\r\n"], xclient=(ip_network("10.0.0.0/8"),))
    assert world.out == GREETING + 2 * b"500 5.5.1 Invalid command\r\n" + BYE
    assert (world.line["client"], world.line["impostures"]) == ("192.0.2.7", 2)
    assert "via" not in world.line
    assert "impostures" not in World([b"QUIT\r\n"]).line


def test_behind_a_proxy_the_address_behind_it_has_to_be_trusted() -> None:
    proxied = Proxied("10.0.0.1", CLIENT)
    assert World([OTHER], proxied=proxied, xclient=(ip_network("10.0.0.0/8"),)).line["impostures"] == 1
    world = World([OTHER], proxied=proxied, xclient=RELAYS)
    assert (world.line["client"], world.line["via"]) == ("198.51.100.5", "192.0.2.7, 10.0.0.1")


# --- XFORWARD ------------------------------------------------------------------------------------------------------


def test_xforward_is_for_the_log_of_the_next_transaction() -> None:
    world = World(
        [
            b"XFORWARD ADDR=198.51.100.5 NAME=other.example.com\r\nXFORWARD IDENT=4F2\r\n"
            b"MAIL FROM:<a@a.test>\r\nRSET\r\nMAIL FROM:<b@a.test>\r\nQUIT\r\n"
        ],
        xclient=RELAYS,
    )
    assert world.out.count(b"250 2.0.0 OK\r\n") == 5
    first, second = world.journal.of("transaction")
    assert first["xforward"] == {"addr": "198.51.100.5", "name": "other.example.com", "ident": "4F2"}
    assert "xforward" not in second
    assert {facts.client for _, facts in world.policy.events} == {"192.0.2.7"}


# --- STARTTLS forgets ----------------------------------------------------------------------------------------------

SAID: dict[str, tuple[bytes, Callable[[World], bool]]] = {
    "the client": (OTHER, lambda world: world.line["client"] == "192.0.2.7" and "via" not in world.line),
    "the login": (b"XCLIENT LOGIN=ann\r\n", lambda world: world.facts(Event.MAIL)[-1].user is None),
    "the trace": (b"XFORWARD NAME=x\r\n", lambda world: "xforward" not in world.journal.of("transaction")[-1]),
    "the name": (b"EHLO clear\r\n", lambda world: world.facts(Event.MAIL)[-1].helo is None),
}


@pytest.mark.parametrize("what", SAID)
def test_what_was_said_in_clear_is_forgotten_wherever_it_was_cut(what: str) -> None:
    said, is_forgotten = SAID[what]
    clear = said + b"STARTTLS\r\n" + OTHER + b"MAIL FROM:<injected@a.test>\r\n"
    protocol = ServerSettings("mx.test", mechanisms=(), auth_required=False, tls="starttls")
    for at in range(len(said) + len(b"STARTTLS\r\n") + 1):
        # What stands behind STARTTLS in the same read was read in clear.
        pieces = [piece for piece in (clear[:at], clear[at:]) if piece]
        if at == len(said) + len(b"STARTTLS\r\n"):
            pieces = pieces[:1]
        world = World([*pieces, b"MAIL FROM:<a@a.test>\r\nQUIT\r\n"], protocol, xclient=RELAYS)
        assert world.out.endswith(b"220 2.0.0 Start TLS\r\n250 2.0.0 OK\r\n" + BYE)
        assert [facts.sender for facts in world.facts(Event.MAIL)] == ["a@a.test"]
        assert is_forgotten(world)


def test_after_starttls_the_connection_limits_are_asked_for_the_relay_again() -> None:
    protocol = ServerSettings("mx.test", mechanisms=(), auth_required=False, tls="starttls")
    refused = iter([ALLOWED, ALLOWED, denial()])
    policy = FakePolicy(lambda event, facts: next(refused))
    world = World([OTHER + b"STARTTLS\r\n", b"QUIT\r\n"], protocol, xclient=RELAYS, policy=policy)
    assert world.out.endswith(b"220 2.0.0 Start TLS\r\n421 4.7.0 too many\r\n")
    assert [facts.client for facts in world.facts(Event.CONNECT)] == ["192.0.2.7", "198.51.100.5", "192.0.2.7"]
