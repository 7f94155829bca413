"""Login around its edges: a client that goes away while somebody else is waited for, and who is logged in."""

import base64
from contextlib import contextmanager
from dataclasses import replace

import fakes
import pytest
from fakes import FakeAuthenticator, FakeBackends, FakePolicy, FakeStream, ListJournal, ManualClock

from smtpgate.policy.model import Decision, Denial, Event, ReplyText
from smtpgate.session import flow
from smtpgate.session.ports import AuthGranted, AuthRefused, AuthUnavailable, AuthWait
from smtpgate.session.streams import StreamLost
from smtpgate.smtp.server import ServerSettings

OPEN = ServerSettings("mx.test", mechanisms=(), auth_required=False)
AUTH = ServerSettings("mx.test", mechanisms=("PLAIN", "OAUTHBEARER"))
GREETING = b"220 mx.test ESMTP ready\r\n"


def encoded(octets: bytes) -> bytes:
    return base64.b64encode(octets)


PLAIN = b"AUTH PLAIN " + encoded(b"\0ann\0secret") + b"\r\n"
NAMELESS = b"AUTH OAUTHBEARER " + encoded(b"n,,\x01auth=Bearer abc.def\x01\x01") + b"\r\n"
NAMED = b"AUTH OAUTHBEARER " + encoded(b"n,a=ann,\x01auth=Bearer abc.def\x01\x01") + b"\r\n"


class Leaving:
    """A client that is gone when somebody waits for the n-th time, or never; counts the waits."""

    def __init__(self, stream: FakeStream, nth: int | None) -> None:
        self.waits = 0
        self._nth = nth
        stream.attended = self._wait

    @contextmanager
    def _wait(self):
        self.waits += 1
        yield
        # As thrown into the wait: what was waited for has not come.
        if self.waits == self._nth:
            raise StreamLost("client closed the connection")


def play(pieces, authenticator, settings=AUTH, *, leaves=None, policy=None):
    clock = ManualClock()
    stream, journal, backends = FakeStream(pieces), ListJournal(), FakeBackends(clock)
    leaving = Leaving(stream, leaves)
    world = fakes.ports(clock, backends, authenticator=authenticator, journal=journal, policy=policy)
    flow.run(stream, flow.SessionSettings("demo", settings), world)
    return bytes(stream.received), journal, backends, leaving


def test_a_client_that_leaves_while_the_service_is_asked_is_told_nothing_and_logged_once():
    authenticator = FakeAuthenticator(AuthGranted(pool="core"))
    said, journal, backends, _ = play([PLAIN], authenticator, leaves=1)
    assert said == GREETING
    assert journal.of("auth") == []
    assert [line["end"] for line in journal.of("session")] == ["connection lost: client closed the connection"]
    assert backends.asked == []


def test_a_client_that_leaves_in_an_auth_wait_is_not_waited_for():
    said, journal, _, leaving = play([PLAIN], FakeAuthenticator(AuthRefused("535 5.7.8", "no", 200.0)), leaves=2)
    assert said == GREETING
    assert leaving.waits == 2
    assert journal.of("session")[0]["end"] == "connection lost: client closed the connection"


def test_the_wait_of_a_limit_is_watched_too():
    denial = Denial(
        limit="c",
        subject="s",
        reply=ReplyText(450, "4.7.1", "slow"),
        retry=1.0,
        delay=5.0,
        close=False,
        balance=0.0,
        source="p:1",
    )
    policy = FakePolicy(lambda event, facts: Decision(denial if event is Event.MAIL else None))
    said, *_ = play([b"MAIL FROM:<a@a.test>\r\n"], None, OPEN, leaves=1, policy=policy)
    assert said == GREETING


def test_nothing_is_opened_for_a_client_that_leaves_while_its_recipient_is_asked_about():
    pieces = [b"MAIL FROM:<a@a.test>\r\n", b"RCPT TO:<b@b.test>\r\n"]
    said, journal, backends, _ = play(pieces, FakeAuthenticator(AuthGranted(pool="core")), OPEN, leaves=1)
    assert said == GREETING + b"250 2.0.0 OK\r\n"
    assert backends.asked == []
    [transaction] = journal.of("transaction")
    assert transaction["outcome"] == "connection lost: client closed the connection"


def test_a_client_that_has_pipelined_commands_is_served_to_their_end():
    """`printf 'AUTH …\\r\\nQUIT\\r\\n' | nc -N` is not a client that went away."""
    said, _, _, leaving = play([PLAIN + b"QUIT\r\n"], FakeAuthenticator(AuthGranted(pool="core")), leaves=1)
    assert said == GREETING + b"235 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
    assert leaving.waits == 0


def test_the_wait_between_two_questions_is_watched():
    authenticator = FakeAuthenticator(AuthWait(100.0), AuthGranted(pool="core"))
    said, _, _, leaving = play([PLAIN, b"QUIT\r\n"], authenticator)
    assert said == GREETING + b"235 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
    assert leaving.waits == 3  # both questions, and the pause between them


# --- tokens ---


@pytest.mark.parametrize(
    ("command", "granted", "user"),
    [
        (NAMELESS, AuthGranted(user="ann@a.test", pool="core"), "ann@a.test"),
        (NAMED, AuthGranted(user="ann@a.test", pool="core"), "ann@a.test"),
        (NAMED, AuthGranted(pool="core"), "ann"),
    ],
)
def test_who_a_token_stands_for(command, granted, user):
    policy, authenticator = FakePolicy(), FakeAuthenticator(granted)
    play([command, b"MAIL FROM:<a@a.test>\r\n", b"QUIT\r\n"], authenticator, policy=policy)
    [query] = authenticator.queries
    assert (query.method, query.password, query.salt) == ("oauthbearer", b"abc.def", None)
    [facts] = [facts for event, facts in policy.events if event is Event.MAIL]
    assert (facts.user, facts.method) == (user, "oauthbearer")


def test_a_token_that_names_nobody_logs_nobody_in():
    said, journal, *_ = play([NAMELESS], FakeAuthenticator(AuthGranted(pool="core")))
    assert said == GREETING + b"454 4.7.0 Temporary authentication failure\r\n"
    assert [line["reason"] for line in journal.of("auth_unavailable")] == [
        "auth server granted a login without a name, and named nobody"
    ]
    assert [line["result"] for line in journal.of("auth")] == [454]


@pytest.mark.parametrize(("seconds", "told"), [(30.0, 1), (0.0, 0)])
def test_whoever_is_to_be_kept_out_is_named_with_the_words_for_it(seconds, told):
    """It has a session, and hears the answer as ever."""
    kept_out = []
    stream, clock = FakeStream([PLAIN]), ManualClock()
    authenticator = FakeAuthenticator(AuthRefused("454 4.7.0", "later", 1.0, seconds))
    world = fakes.ports(clock, FakeBackends(clock), authenticator=authenticator)
    world = replace(world, banned=lambda *what: kept_out.append(what))
    flow.run(stream, flow.SessionSettings("demo", AUTH), world)
    assert bytes(stream.received) == GREETING + b"454 4.7.0 later\r\n"
    assert [(host, rest) for host, rest, _ in kept_out] == [(stream.peer.host, seconds)] * told
    assert [words.wire() for *_, words in kept_out] == [
        b"421 4.7.0 Too many failed logins, try again later\r\n"
    ] * told


@pytest.mark.parametrize("answer", [AuthUnavailable("down"), AuthRefused("454 4.7.0", "later", 1.0)])
def test_a_fault_that_is_not_the_tokens_is_told_at_once(answer):
    said, *_ = play([NAMED], FakeAuthenticator(answer))
    assert b"334" not in said


def test_a_client_that_leaves_instead_of_answering_the_error_challenge():
    said, journal, *_ = play([NAMED], FakeAuthenticator(AuthRefused("535 5.7.8", "no", 1.0)))
    assert said == GREETING + b"334 " + encoded(b'{"status":"invalid_token"}') + b"\r\n"
    assert journal.of("session")[0]["end"] == "client closed the connection"


def test_the_answer_to_the_error_challenge_has_the_whole_timeout_again():
    """Auth-Wait is longer than the session's time to log in, 60 s: the client's answer is still read."""
    said, *_ = play([NAMED, b"AQ==\r\n"], FakeAuthenticator(AuthRefused("535 5.7.8", "no", 200.0)))
    assert said.endswith(b"535 5.7.8 no\r\n")


def test_no_token_in_the_log():
    _, journal, *_ = play([NAMED, b"AQ==\r\n"], FakeAuthenticator(AuthRefused("535 5.7.8", "no", 1.0)))
    assert "abc.def" not in repr(journal.lines)


@pytest.mark.parametrize(
    ("granted", "said"),
    [
        pytest.param(AuthGranted(pool="gone"), b"454 4.7.0 Temporary authentication failure\r\n", id="a pool"),
        pytest.param(AuthGranted(server=("192.0.2.1", 25)), b"454 4.7.0 ", id="an address"),
        pytest.param(AuthGranted(own_routes=True), b"235 ", id="the routes decide, when they know the recipient"),
    ],
)
def test_a_yes_that_sends_the_client_where_nobody_may_go_is_no_yes(granted, said):
    """It would be let in, to be told at its first recipient."""
    clock, stream, journal = ManualClock(), FakeStream([PLAIN]), ListJournal()
    backends = FakeBackends(clock)
    backends.gone = True
    world = fakes.ports(clock, backends, authenticator=FakeAuthenticator(granted), journal=journal)
    flow.run(stream, flow.SessionSettings("demo", AUTH), world)
    assert bytes(stream.received).removeprefix(GREETING).startswith(said)
    refused = said.startswith(b"454")
    assert [line["reason"] for line in journal.of("auth_unavailable")] == ["unknown pool"] * refused
