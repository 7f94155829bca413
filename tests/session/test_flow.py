"""What a golden dialogue cannot show: time, facts, logs, drains, TLS, and that credentials stay out of the log."""

import base64

import fakes
import pytest
from fakes import (
    FakeAuthenticator,
    FakeBackends,
    FakePolicy,
    FakeStream,
    ListJournal,
    ManualClock,
    ScriptedBackend,
)

from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, ReplyText
from smtpgate.session import flow
from smtpgate.session.ports import AuthGranted, AuthRefused, AuthWait, PoolTarget
from smtpgate.session.streams import StreamInterrupted, StreamLost, StreamTimeout
from smtpgate.smtp.server import ServerSettings

OPEN = ServerSettings("mx.test", mechanisms=(), auth_required=False)
AUTH = ServerSettings("mx.test", mechanisms=("PLAIN", "LOGIN", "CRAM-MD5"))

GREETING = b"220 mx.test ESMTP ready\r\n"
ENVELOPE = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"
MESSAGE = ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n"


def plain(user: bytes, password: bytes) -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(b"\0" + user + b"\0" + password) + b"\r\n"


def backend(*more: tuple[bytes, bytes | None]) -> ScriptedBackend:
    return ScriptedBackend(
        [
            (b"", b"220 mta1\r\n"),
            (b"EHLO mx.test\r\n", b"250-mta1\r\n250 PIPELINING\r\n"),
            (ENVELOPE, b"250 ok\r\n250 ok rcpt\r\n"),
            *more,
        ]
    )


def whole_backend() -> ScriptedBackend:
    return backend(
        (b"DATA\r\n", b"354 go\r\n"),
        (b"Subject: x\r\n\r\nhello\r\n.\r\n", b"250 2.0.0 Ok: queued as 4F2\r\n"),
        (b"QUIT\r\n", b"221 bye\r\n"),
    )


def denial(**kwargs) -> Decision:
    given = {
        "limit": "user.msgs",
        "subject": "ann",
        "reply": ReplyText(450, "4.7.1", "slow down"),
        "retry": 3.2,
        "delay": 0.0,
        "close": False,
        "balance": 0.5,
        "source": "limits.yaml:7",
    }
    return Decision(Denial(**{**given, **kwargs}))


class World:
    """A session with fakes around it; run() plays it to its end."""

    def __init__(self, pieces, settings=OPEN, *, backends=(), **kwargs):
        self.clock = ManualClock()
        self.stream = FakeStream(pieces)
        self.journal = ListJournal()
        self.backends = FakeBackends(self.clock, backends)
        self.ports = fakes.ports(self.clock, self.backends, journal=self.journal, **kwargs)
        self.settings = flow.SessionSettings("demo", settings, timeout=60.0, idle_timeout=300.0)

    def run(self) -> bytes:
        flow.run(self.stream, self.settings, self.ports)
        return bytes(self.stream.received)


def test_policy_sees_every_event_with_the_facts_known_by_then():
    policy = FakePolicy()
    authenticator = FakeAuthenticator(AuthGranted(user="ann@a.test", pool="core", plan="gold"))
    world = World(
        [b"EHLO c.test\r\n" + plain(b"Ann", b"secret") + MESSAGE + b"QUIT\r\n"],
        AUTH,
        backends=[("mta1", whole_backend())],
        policy=policy,
        authenticator=authenticator,
    )
    world.run()
    assert [event.value for event, _ in policy.events] == ["connect", "auth", "mail", "rcpt", "data", "eod"]
    connect, auth, mail, rcpt, data, eod = [facts for _, facts in policy.events]
    assert (connect.client, connect.listener, connect.tls, connect.user) == ("192.0.2.7", "demo", False, None)
    assert {(facts.session, facts.protocol, facts.time) for _, facts in policy.events} == {
        ("0123456789abcdef", "smtp", 1_000_000.0)
    }
    assert (auth.login, auth.user, auth.plan, auth.method, auth.sender) == (
        "Ann",
        "ann@a.test",
        "gold",
        "plain",
        None,
    )
    assert (mail.helo, mail.login, mail.user, mail.plan, mail.method) == (
        "c.test",
        "Ann",
        "ann@a.test",
        "gold",
        "plain",
    )
    assert (mail.sender, mail.sender_domain, mail.rcpt) == ("a@a.test", "a.test", None)
    assert (rcpt.rcpt, rcpt.rcpt_domain, rcpt.transaction) == ("b@b.test", "b.test", mail.transaction)
    assert (rcpt.recipients, rcpt.octets) == (0, None)
    assert (data.user, data.transaction, data.octets) == ("ann@a.test", mail.transaction, None)
    assert (eod.recipients, eod.octets, eod.transaction, eod.rcpt) == (1, 21, mail.transaction, None)


def test_messages_and_recipients_are_counted():
    policy = FakePolicy()
    envelope = ENVELOPE + b"RCPT TO:<c@b.test>\r\n"
    told = backend((b"RCPT TO:<c@b.test>\r\n", b"250 ok\r\n"), (b"RSET\r\n" + ENVELOPE, b"250 ok\r\n" * 3))
    told.script += [(b"RCPT TO:<c@b.test>\r\n", b"250 ok\r\n")]
    World([envelope + b"RSET\r\n" + envelope + b"QUIT\r\n"], policy=policy, backends=[("mta1", told)]).run()
    assert [(event.value, facts.messages, facts.recipients) for event, facts in policy.events] == [
        ("connect", 0, 0),
        ("mail", 0, 0),
        ("rcpt", 0, 0),
        ("rcpt", 0, 1),
        ("mail", 1, 0),
        ("rcpt", 1, 0),
        ("rcpt", 1, 1),
    ]


def test_mail_without_a_login_has_method_none():
    policy = FakePolicy()
    World([ENVELOPE + b"QUIT\r\n"], policy=policy).run()
    assert [facts.method for _, facts in policy.events] == [None, "none", "none"]


def test_the_auth_query_carries_what_auth_http_wants():
    authenticator = FakeAuthenticator(AuthRefused("535 5.7.8", "no", 1.0), AuthGranted(pool="core"))
    world = World(
        [b"EHLO c.test\r\n" + plain(b"ann", b"one") + plain(b"ann", b"two") + b"QUIT\r\n"],
        AUTH,
        authenticator=authenticator,
    )
    world.run()
    first, second = authenticator.queries
    assert (first.method, first.user, first.password, first.attempt, first.helo) == (
        "plain",
        b"ann",
        b"one",
        1,
        "c.test",
    )
    assert (second.password, second.attempt) == (b"two", 2)
    assert first.client_host == "[UNAVAILABLE]"
    assert world.clock.slept == [1.0]


def test_cram_md5_has_one_salt_a_connection():
    authenticator = FakeAuthenticator(AuthRefused("535 5.7.8", "no", 1.0), AuthGranted(pool="core"))
    answer = base64.b64encode(b"ann " + b"0" * 32) + b"\r\n"
    world = World(
        [b"AUTH CRAM-MD5\r\n" + answer + b"AUTH CRAM-MD5\r\n" + answer + b"QUIT\r\n"],
        AUTH,
        authenticator=authenticator,
    )
    replies = world.run().split(b"\r\n")
    challenges = [base64.b64decode(line[4:]) for line in replies if line.startswith(b"334 ")]
    assert len(challenges) == 2
    assert challenges[0] == challenges[1]
    assert {query.salt.encode() for query in authenticator.queries} == {challenges[0]}
    assert challenges[0].endswith(b".1000000@mx.test>")


def test_wait_answers_are_asked_again_with_the_same_attempt():
    authenticator = FakeAuthenticator(AuthWait(2.0, user=b"renamed"), AuthGranted(pool="core"))
    world = World([plain(b"ann", b"secret") + b"QUIT\r\n"], AUTH, authenticator=authenticator)
    assert b"235 2.0.0 OK\r\n" in world.run()
    assert [query.attempt for query in authenticator.queries] == [1, 1]
    assert authenticator.queries[1].user == b"renamed"
    assert world.clock.slept == [2.0]


def test_endless_wait_ends_as_no_answer():
    authenticator = FakeAuthenticator(AuthWait(1.0))
    world = World([plain(b"ann", b"secret")], AUTH, authenticator=authenticator)
    assert world.run() == GREETING + b"454 4.7.0 Temporary authentication failure\r\n"
    assert len(authenticator.queries) == 10


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_no_credential_reaches_the_log(mechanism):
    secret = b"s3cr3t-p4ssw0rd"
    exchange = {
        "PLAIN": plain(b"ann", secret),
        "LOGIN": b"AUTH LOGIN\r\n" + base64.b64encode(b"ann") + b"\r\n" + base64.b64encode(secret) + b"\r\n",
        "CRAM-MD5": b"AUTH CRAM-MD5\r\n" + base64.b64encode(b"ann " + b"deadbeef" * 4) + b"\r\n",
    }[mechanism]
    authenticator = FakeAuthenticator(AuthRefused("535 5.7.8", "no", 1.0), AuthGranted(pool="core"))
    world = World(
        [exchange * 2 + MESSAGE + b"QUIT\r\n"],
        AUTH,
        backends=[("mta1", whole_backend())],
        authenticator=authenticator,
    )
    world.run()
    logged = repr(world.journal.lines)
    for hidden in (
        secret.decode(),
        base64.b64encode(secret).decode(),
        "deadbeef",
        base64.b64encode(b"ann").decode(),
    ):
        assert hidden not in logged
    assert len(world.journal.of("auth")) == 2
    assert secret.decode() not in repr(authenticator.queries)


def test_a_denial_waits_answers_in_its_words_and_is_logged_with_its_rule():
    policy = FakePolicy(lambda event, facts: denial(delay=2.0) if event is Event.MAIL else ALLOWED)
    world = World([MESSAGE.replace(b"DATA", b"NOOP") + b"QUIT\r\n"], policy=policy)
    assert b"450 4.7.1 slow down\r\n503 5.5.1 Bad sequence of commands\r\n" in world.run()
    assert world.clock.slept == [2.0]
    (line,) = world.journal.of("denied")
    assert (line["limit"], line["subject"], line["rule"], line["balance"]) == (
        "user.msgs",
        "ann",
        "limits.yaml:7",
        0.5,
    )


def test_a_denial_that_closes_is_the_last_word():
    policy = FakePolicy(lambda event, facts: denial(close=True) if event is Event.RCPT else ALLOWED)
    world = World([ENVELOPE + b"NOOP\r\n"], policy=policy)
    assert world.run() == GREETING + b"250 2.0.0 OK\r\n450 4.7.1 slow down\r\n"
    assert world.backends.asked == []


def test_a_denied_recipient_leaves_the_transaction_to_the_others():
    def decide(event, facts):
        return denial() if facts.rcpt == "x@b.test" else ALLOWED

    world = World(
        [
            b"MAIL FROM:<a@a.test>\r\nRCPT TO:<x@b.test>\r\nRCPT TO:<b@b.test>\r\n"
            + MESSAGE[len(ENVELOPE) :]
            + b"QUIT\r\n"
        ],
        backends=[("mta1", whole_backend())],
        policy=FakePolicy(decide),
    )
    out = world.run()
    assert b"450 4.7.1 slow down\r\n250 ok rcpt\r\n354 go\r\n250 2.0.0 Ok: queued as 4F2\r\n" in out


def test_recipients_of_another_route_are_deferred():
    world = World(
        [b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@partner.test>\r\nQUIT\r\n"],
        backends=[("mta1", backend((b"QUIT\r\n", b"221 bye\r\n")))],
        policy=FakePolicy(
            route=lambda facts: PoolTarget("partner" if facts.rcpt_domain == "partner.test" else "core")
        ),
    )
    assert b"250 ok rcpt\r\n452 4.5.3 Recipient takes another route" in world.run()
    assert [target for target, _ in world.backends.asked] == [PoolTarget("core")]


def test_own_routes_decide_when_the_answer_says_so():
    authenticator = FakeAuthenticator(AuthGranted(own_routes=True, server=("127.0.0.1", 25)))
    world = World(
        [plain(b"ann", b"x") + ENVELOPE + b"QUIT\r\n"],
        AUTH,
        backends=[("mta1", backend((b"QUIT\r\n", b"221 bye\r\n")))],
        authenticator=authenticator,
    )
    world.run()
    assert [target for target, _ in world.backends.asked] == [PoolTarget("core", "default")]


def test_pipelined_replies_leave_in_one_write():
    world = World([b"EHLO c.test\r\n" + MESSAGE + b"QUIT\r\n"], backends=[("mta1", whole_backend())])
    world.run()
    # The greeting goes before the first read; all that was answered since goes before the next one.
    assert world.stream.writes == 2


def test_the_log_line_of_a_delivered_message():
    world = World([MESSAGE + b"QUIT\r\n"], backends=[("mta1", whole_backend())])
    world.run()
    (line,) = world.journal.of("transaction")
    assert line["outcome"] == "delivered"
    assert line["reply"] == "250 2.0.0 Ok: queued as 4F2"
    assert (line["sender"], line["recipients"], line["rcpts"], line["size"]) == (
        "a@a.test",
        ["b@b.test"],
        1,
        21,
    )
    assert (line["backend"], line["route"], line["pool"], line["replays"]) == ("mta1", "default", "core", 0)
    (session,) = world.journal.of("session")
    assert (session["transactions"], session["end"]) == (1, "client quit")


def test_how_often_a_message_was_said_again_is_logged():
    world = World(
        [MESSAGE + b"QUIT\r\n"], backends=[("mta1", backend((b"DATA\r\n", None))), ("mta2", whole_backend())]
    )
    world.run()
    (line,) = world.journal.of("transaction")
    assert (line["outcome"], line["backend"], line["replays"]) == ("delivered", "mta2", 1)


@pytest.mark.parametrize("given_up", [b"RSET\r\n", b"EHLO c.test\r\n"])
def test_a_transaction_that_the_client_gave_up_is_logged_with_its_backend(given_up):
    lost = backend((b"RCPT TO:<c@b.test>\r\n", None))
    third = backend((b"RCPT TO:<c@b.test>\r\n", b"250 ok\r\n"))
    world = World(
        [ENVELOPE + b"RCPT TO:<c@b.test>\r\n" + given_up + b"QUIT\r\n"], backends=[("mta1", lost), ("mta2", third)]
    )
    world.run()
    (line,) = world.journal.of("transaction")
    assert (line["backend"], line["replays"], line["rcpts"]) == ("mta2", 1, 2)


def test_an_unknown_outcome_is_logged_as_such():
    lost = backend((b"DATA\r\n", b"354 go\r\n"), (b"Subject: x\r\n\r\nhello\r\n.\r\n", None))
    world = World([MESSAGE + b"QUIT\r\n"], backends=[("mta1", lost)])
    assert b"354 go\r\n451 4.4.2 " in world.run()
    assert world.journal.of("transaction")[0]["outcome"] == "unknown"
    assert world.journal.of("backend_lost")[0]["outcome"] == "unknown"


def test_a_backend_lost_mid_body_is_told_after_the_clients_real_end():
    text = b"x" * 70 + b"\r\n"
    lost = backend((b"DATA\r\n", b"354 go\r\n"), (text, None))
    world = World([ENVELOPE + b"DATA\r\n", text, text * 100, b".\r\nNOOP\r\nQUIT\r\n"], backends=[("mta1", lost)])
    assert world.run().endswith(
        b"354 go\r\n451 4.4.2 Mail server lost, try again later\r\n250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
    )
    assert world.journal.of("backend_lost")[0]["outcome"] == "not delivered"


def test_a_refusal_before_the_end_of_the_text_reaches_the_client():
    text = b"x" * 70 + b"\r\n"
    refusing = backend((b"DATA\r\n", b"354 go\r\n"), (text, b"552 5.3.4 too big\r\n"), (b"", None))
    world = World([ENVELOPE + b"DATA\r\n", text, text, b".\r\nQUIT\r\n"], backends=[("mta1", refusing)])
    assert world.run().endswith(b"354 go\r\n552 5.3.4 too big\r\n221 2.0.0 Bye\r\n")


def test_timeout_before_the_backend_is_one_budget():
    """A client that keeps talking does not stretch nginx's `timeout`."""
    world = World([])
    world.stream.pieces = [b"NOOP\r\n"] * 30

    class Slow(FakeStream):
        def read(self, deadline, limit):
            world.clock.time += 5.0
            return super().read(deadline, limit)

    world.stream = Slow([b"NOOP\r\n"] * 30)
    out = world.run()
    assert out.endswith(b"421 4.4.2 Timeout, closing connection\r\n")
    assert out.count(b"250 2.0.0 OK\r\n") == 11  # 11 reads within 60 s, the 12th finds the budget used up
    assert world.journal.of("session")[0]["end"] == "client timed out"


def test_timeout_mid_body_aborts_the_backend():
    cut = backend((b"DATA\r\n", b"354 go\r\n"), (b"half", b""))
    world = World([ENVELOPE + b"DATA\r\n", b"half", StreamTimeout()], backends=[("mta1", cut)])
    assert world.run().endswith(b"354 go\r\n421 4.4.2 Timeout, closing connection\r\n")
    assert bytes(cut.received).endswith(b"half")
    assert cut.closed


def test_a_lost_client_mid_body_leaves_no_dot_and_no_quit():
    cut = backend((b"DATA\r\n", b"354 go\r\n"), (b"half", b""))
    world = World([ENVELOPE + b"DATA\r\n", b"half", StreamLost("ECONNRESET")], backends=[("mta1", cut)])
    world.run()
    assert bytes(cut.received).endswith(b"half")
    assert world.journal.of("session")[0]["end"] == "connection lost: ECONNRESET"


def test_drain_at_rest_says_421_at_once():
    draining = []
    world = World([b"NOOP\r\n", StreamInterrupted()], draining=lambda: bool(draining))
    world.stream.pieces.insert(1, StreamInterrupted())
    draining.append(True)
    assert world.run() == GREETING + b"421 4.3.2 Service shutting down, try again later\r\n"


def test_drain_lets_the_transaction_finish():
    draining = []

    class Telling(FakePolicy):
        def decide(self, event, facts):
            if event is Event.RCPT:
                draining.append(True)
            return super().decide(event, facts)

    world = World(
        [ENVELOPE, StreamInterrupted(), MESSAGE[len(ENVELOPE) :], b"MAIL FROM:<more@a.test>\r\n"],
        backends=[("mta1", whole_backend())],
        policy=Telling(),
        draining=lambda: bool(draining),
    )
    out = world.run()
    assert out.endswith(b"250 2.0.0 Ok: queued as 4F2\r\n421 4.3.2 Service shutting down, try again later\r\n")


def test_starttls_forgets_all_that_was_said_in_clear():
    settings = ServerSettings("mx.test", mechanisms=("PLAIN",), tls="required")
    policy = FakePolicy()
    authenticator = FakeAuthenticator(AuthGranted(user="ann", pool="core"))
    world = World(
        [
            b"EHLO clear.test\r\nSTARTTLS\r\nMAIL FROM:<injected@a.test>\r\n",
            b"EHLO tls.test\r\n" + plain(b"ann", b"x") + b"MAIL FROM:<a@a.test>\r\nQUIT\r\n",
        ],
        settings,
        policy=policy,
        authenticator=authenticator,
    )
    out = world.run()
    assert b"220 2.0.0 Start TLS\r\n250-mx.test\r\n250 AUTH PLAIN\r\n235 2.0.0 OK\r\n250 2.0.0 OK\r\n221" in out
    mails = [facts for event, facts in policy.events if event is Event.MAIL]
    assert [(facts.sender, facts.helo, facts.tls) for facts in mails] == [("a@a.test", "tls.test", True)]


def test_a_session_that_never_spoke_is_logged():
    world = World([])
    assert world.run() == GREETING
    assert world.journal.of("session")[0]["end"] == "client closed the connection"


def test_rset_between_chunks_starts_anew():
    settings = ServerSettings("mx.test", capabilities=("CHUNKING",), mechanisms=(), auth_required=False)
    first = backend((b"DATA\r\n", b"354 go\r\n"), (b"abc", b""))
    world = World(
        [ENVELOPE + b"BDAT 3\r\nabcRSET\r\n" + MESSAGE + b"QUIT\r\n"],
        settings,
        backends=[("mta1", first), ("mta1", whole_backend())],
    )
    assert world.run().endswith(
        b"250 2.0.0 OK\r\n" * 3 + b"250 ok rcpt\r\n354 go\r\n250 2.0.0 Ok: queued as 4F2\r\n221 2.0.0 Bye\r\n"
    )
    assert bytes(first.received).endswith(b"DATA\r\nabc")
    assert first.closed


def test_a_chunk_that_is_too_big_by_its_size_asks_no_backend_for_data():
    settings = ServerSettings("mx.test", capabilities=("CHUNKING", "SIZE 5"), mechanisms=(), auth_required=False)
    told = backend()
    world = World([ENVELOPE + b"BDAT 9 LAST\r\n123456789QUIT\r\n"], settings, backends=[("mta1", told)])
    assert b"250 ok rcpt\r\n552 5.3.4 " in world.run()
    assert b"DATA" not in told.received


def test_with_envelope_every_another_login_is_another_message():
    """Recipients that were accepted as one user's are never relayed as another's."""
    authenticator = FakeAuthenticator(AuthGranted(user="alice", pool="core"), AuthGranted(user="bob", pool="core"))
    told = backend((b"QUIT\r\n", b"221 bye\r\n"))
    world = World(
        [ENVELOPE + b"RCPT TO:<c@b.test>\r\nQUIT\r\n"], backends=[("mta1", told)], authenticator=authenticator
    )
    world.settings = flow.SessionSettings("demo", OPEN, envelope="every")
    assert b"250 ok rcpt\r\n452 4.5.3 " in world.run()
    assert len(world.backends.leases) == 1
    assert [query.rcpt_line for query in authenticator.queries] == [b"RCPT TO:<b@b.test>", b"RCPT TO:<c@b.test>"]


@pytest.mark.parametrize(
    ("line", "reply"),
    [(b"x" * 13000, b"500 5.5.1 Invalid command\r\n"), (b"abc\ndef", b"521 5.5.2 bare <LF> received\r\n")],
)
def test_the_last_reply_inside_an_auth_exchange_arrives(line, reply):
    world = World([b"AUTH LOGIN\r\n" + line + b"\r\n"], AUTH, authenticator=FakeAuthenticator())
    assert world.run() == GREETING + b"334 VXNlcm5hbWU6\r\n" + reply


def test_credentials_that_came_with_wait_are_the_ones_that_were_granted():
    policy = FakePolicy()
    authenticator = FakeAuthenticator(AuthWait(1.0, user=b"canon@a.test"), AuthGranted(pool="core"))
    world = World([plain(b"typed", b"x") + ENVELOPE + b"QUIT\r\n"], AUTH, policy=policy, authenticator=authenticator)
    world.run()
    assert {facts.user for event, facts in policy.events if event is Event.MAIL} == {"canon@a.test"}


def test_nothing_stays_unsent_while_we_wait():
    sent_before = []

    class Watching(FakeAuthenticator):
        def ask(self, query):
            sent_before.append(bytes(world.stream.received))
            return super().ask(query)

    authenticator = Watching(AuthWait(200.0), AuthGranted(pool="core"))
    world = World([b"EHLO c.test\r\n" + plain(b"ann", b"x") + b"QUIT\r\n"], AUTH, authenticator=authenticator)
    world.run()
    assert sent_before[1].endswith(b"250 AUTH PLAIN LOGIN CRAM-MD5\r\n")


def test_our_own_waits_do_not_use_up_the_clients_time():
    """nginx's `timeout` bounds the client, not a limit's delay, an Auth-Wait or a search for a backend."""
    policy = FakePolicy(lambda event, facts: denial(delay=90.0) if event is Event.MAIL else ALLOWED)
    world = World([b"MAIL FROM:<a@a.test>\r\n", b"MAIL FROM:<a@a.test>\r\n", b"QUIT\r\n"], policy=policy)
    assert world.run() == GREETING + b"450 4.7.1 slow down\r\n" * 2 + b"221 2.0.0 Bye\r\n"
    assert world.clock.slept == [90.0, 90.0]


class Slow(FakeStream):
    """Each read takes a while."""

    def __init__(self, pieces, clock, seconds):
        super().__init__(pieces)
        self.clock = clock
        self.seconds = seconds

    def read(self, deadline, limit):
        self.clock.time += self.seconds
        return super().read(deadline, limit)


def test_a_command_that_drips_in_does_not_stretch_the_idle_timeout():
    world = World([], AUTH, authenticator=FakeAuthenticator())
    octets = [bytes([octet]) for octet in b"MAIL FROM:<a@a.test>\r\n"]
    world.stream = Slow([plain(b"ann", b"x"), *octets], world.clock, 59.0)
    assert world.run().endswith(b"235 2.0.0 OK\r\n421 4.4.2 Timeout, closing connection\r\n")


def test_a_noop_keeps_an_idle_session_alive():
    world = World([], AUTH, authenticator=FakeAuthenticator())
    world.stream = Slow([plain(b"ann", b"x"), *[b"NOOP\r\n"] * 20, b"QUIT\r\n"], world.clock, 59.0)
    assert world.run().endswith(b"250 2.0.0 OK\r\n" * 20 + b"221 2.0.0 Bye\r\n")


def test_recipients_that_any_part_refused_are_counted():
    def decide(event, facts):
        return denial() if facts.rcpt == "x@b.test" else ALLOWED

    world = World(
        [b"MAIL FROM:<a@a.test>\r\nRCPT TO:<x@b.test>\r\nRCPT TO:<b@b.test>\r\nQUIT\r\n"],
        backends=[("mta1", backend((b"QUIT\r\n", b"")))],
        policy=FakePolicy(decide),
    )
    world.run()
    (line,) = world.journal.of("transaction")
    assert (line["rcpts"], line["rcpts_refused"]) == (1, 1)


def test_a_recipient_without_a_route_is_logged():
    world = World([ENVELOPE], policy=FakePolicy(route=lambda facts: None))
    assert world.run().endswith(b"451 4.3.2 Internal server error\r\n")
    assert len(world.journal.of("no_route")) == 1


def test_a_bug_names_its_session():
    def decide(event, facts):
        raise ZeroDivisionError

    world = World([b""], policy=FakePolicy(decide))
    with pytest.raises(ZeroDivisionError) as bug:
        world.run()
    assert bug.value.__notes__ == ["in session 0123456789abcdef"]
    assert world.journal.of("session")[0]["end"] == "cut off"
