"""A session under the limits: how long it is held, what it is told, and what becomes of what it paid."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import fakes
import pytest
from fakes import (
    CLIENT,
    FakeAuthenticator,
    FakeBackends,
    FakeHolds,
    FakePolicy,
    FakeShaper,
    FakeStream,
    ListJournal,
    ManualClock,
    ScriptedBackend,
)
from gevent import GreenletExit

from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts, Paid, ReplyText, Shape, Slot
from smtpgate.session import flow
from smtpgate.session.client import Client
from smtpgate.session.policing import SHORTEST_REST, Account, Policing
from smtpgate.session.ports import AuthGranted, AuthRefused, PoolTarget
from smtpgate.session.streams import StreamLost
from smtpgate.smtp.server import ServerSettings

OPEN = ServerSettings("mx.test", mechanisms=(), auth_required=False)
AUTH = ServerSettings("mx.test", mechanisms=("PLAIN", "OAUTHBEARER"))
TLS = ServerSettings("mx.test", mechanisms=("PLAIN",), tls="starttls")
GREETING = b"220 mx.test ESMTP ready\r\n"
ENVELOPE = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"
MESSAGE = ENVELOPE + b"DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n"
PLAIN = b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"
SLOW = Denial("few", "s", ReplyText(450, "4.7.1", "slow down"), 3.2, 0.0, False, 0.25, "limits.yaml:7", wait=2.0)
HELD = Decision(replace(SLOW, hold=5.0))
REFUSED = Decision(SLOW)
FACTS = Facts("192.0.2.7", transaction="s1.4")


def paid(limit: str, *, rejected: bool = False) -> Paid:
    return Paid(limit, f"{limit}:s", 1.0, 10.0, 1.0, rejected)


def slot(limit: str) -> Slot:
    return Slot(limit, f"{limit}:s", f"{limit}-1")


class Room:
    """Policing with fakes around it. The engine gives `answers` in turn, and then says yes."""

    def __init__(self, *answers: Decision, full: bool = False, ahead: float = 0.0) -> None:
        self.answers = list(answers)
        self.clock = ManualClock()
        self.journal = ListJournal()
        self.policy = FakePolicy(lambda event, facts: self.answers.pop(0) if self.answers else ALLOWED)
        self.holds = FakeHolds(self.clock, full=full, ahead=ahead)
        self.attended: list[float] = []
        self.account = Account()
        ports = fakes.ports(
            self.clock, FakeBackends(self.clock), policy=self.policy, holds=self.holds, journal=self.journal
        )
        self.policing = Policing(ports, Client("s1", CLIENT, "demo", None, 0.0), self.attending)

    @contextmanager
    def attending(self) -> Iterator[None]:
        began = self.clock.time
        yield
        self.attended.append(self.clock.time - began)

    def ask(self, event: Event = Event.MAIL) -> int:
        """The code of the refusal; 250 for none."""
        refusal = self.policing.ask(event, FACTS, self.account)
        return 250 if refusal is None else refusal.reply.code


# --- hold ---------------------------------------------------------------------------------------------------------


def test_a_session_is_held_until_its_bucket_can_pay() -> None:
    room = Room(HELD, Decision(paid=(paid("few"),)))
    assert room.ask() == 250
    assert room.holds.rests == [2.0]
    assert room.policy.asked == [(False, None), (True, 3.0)]
    assert room.policy.held == [("few", 2.0)]
    assert room.account.paid == (paid("few"),)
    assert [(place.key, place.left) for place in room.holds.places] == [("few:s", 1)]
    assert room.journal.lines == []


def test_the_client_is_watched_while_it_is_held_and_not_while_the_store_is_asked() -> None:
    room = Room(HELD, HELD)
    assert room.ask() == 250
    assert room.attended == [2.0, 2.0]


def test_one_that_stands_behind_others_asks_when_its_turn_comes() -> None:
    room = Room(HELD, Decision(replace(SLOW, hold=1.5, wait=1.0)), ahead=3.5)
    assert room.ask() == 250
    assert room.holds.rests == [3.5, 1.0]
    assert room.policy.asked == [(False, None), (True, 1.5), (True, 0.5)]


def test_one_whose_turn_does_not_come_is_told_so_when_its_time_is_over() -> None:
    room = Room(HELD, REFUSED, ahead=60.0)
    assert room.ask() == 450
    assert room.holds.rests == [5.0]
    # The last word, and not as the first of the line: the others are still in front.
    assert room.policy.asked == [(False, None), (False, 0.0)]
    [line] = room.journal.of("denied")
    assert (line["held"], line["limit"], line["transaction"], line["at"]) == (5.0, "few", "s1.4", "mail")


def test_one_that_finds_another_bucket_short_stands_in_that_ones_line() -> None:
    other = Decision(replace(SLOW, limit="other", hold=3.0, wait=0.5))
    room = Room(HELD, other)
    assert room.ask() == 250
    assert [place.key for place in room.holds.places] == ["few:s", "other:s"]
    assert [place.left for place in room.holds.places] == [1, 1]
    assert room.policy.held == [("few", 2.5)]


def test_a_refusal_that_need_not_be_waited_after_ends_it() -> None:
    room = Room(HELD, REFUSED)
    assert room.ask() == 450
    assert room.policy.asked == [(False, None), (True, 3.0)]
    assert len(room.journal.of("denied")) == 1


def test_where_too_many_are_held_the_last_word_comes_at_once() -> None:
    room = Room(HELD, REFUSED, full=True)
    assert room.ask() == 450
    assert room.clock.time == 1_000_000.0
    assert room.policy.asked == [(False, None), (False, 0.0)]


@pytest.mark.parametrize(
    ("event", "patient"),
    [
        (Event.CONNECT, False),
        (Event.AUTH, False),
        (Event.MAIL, False),
        (Event.RCPT, True),
        (Event.EOD, True),
    ],
)
def test_a_drain_ends_the_holding_of_what_has_not_begun(event: Event, patient: bool) -> None:
    room = Room(HELD, REFUSED)
    room.holds.drain()
    assert room.ask(event) == 450
    assert room.holds.patient == [patient]
    assert room.policy.asked == [(False, None), (True, 0.0)]


def test_a_store_that_says_now_and_then_no_is_not_asked_in_a_loop() -> None:
    room = Room(*[Decision(replace(SLOW, hold=1.0, wait=0.0))] * 500)
    room.ask()
    assert set(room.holds.rests) == {SHORTEST_REST}
    assert len(room.policy.asked) <= 1.0 / SHORTEST_REST + 2


def test_whoever_leaves_while_it_is_held_leaves_its_place() -> None:
    room = Room(HELD)

    @contextmanager
    def gone() -> Iterator[None]:
        yield
        raise StreamLost("client closed the connection")

    room.policing._attending = gone
    with pytest.raises(StreamLost):
        room.ask()
    assert [place.left for place in room.holds.places] == [1]
    assert len(room.policy.asked) == 1


# --- refusals -----------------------------------------------------------------------------------------------------


def test_what_is_logged_of_a_refusal() -> None:
    room = Room(Decision(replace(SLOW, delay=1.5)))
    assert room.ask(Event.RCPT) == 450
    assert room.clock.slept == [1.5]
    assert room.attended == [1.5]
    assert room.journal.lines == [
        (
            "warning",
            "denied",
            {
                "session": "s1",
                "client": "192.0.2.7",
                "listener": "demo",
                "user": None,
                "transaction": "s1.4",
                "at": "rcpt",
                "limit": "few",
                "subject": "s",
                "retry": 3.2,
                "balance": 0.25,
                "rule": "limits.yaml:7",
                "held": 0.0,
            },
        )
    ]


def test_what_a_limit_that_only_watches_would_have_said_is_logged_and_no_more() -> None:
    room = Room(Decision(None, (replace(SLOW, delay=9.0, hold=9.0, close=True),), (paid("few"),)))
    assert room.ask() == 250
    [(level, event, line)] = room.journal.lines
    assert (level, event, line["limit"], line["rule"]) == ("info", "would_deny", "few", "limits.yaml:7")
    assert "held" not in line
    assert room.clock.time == 1_000_000.0


# --- accounts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "refunds"),
    [
        (None, []),
        (True, [((paid("a"), paid("b", rejected=True)), True)]),
        (False, [((paid("a"), paid("b", rejected=True)), False)]),
    ],
)
def test_closing_an_account(ours: bool | None, refunds: list[object]) -> None:
    room = Room(Decision(paid=(paid("a"), paid("b", rejected=True)), slots=(slot("c"),)))
    room.ask()
    room.policing.settle(room.account, ours=ours)
    assert (room.policy.refunds, room.policy.released) == (refunds, [slot("c")])
    room.policing.settle(room.account, ours=ours)  # once is enough
    assert (len(room.policy.refunds), len(room.policy.released)) == (len(refunds), 1)


def test_nothing_is_asked_of_the_store_where_nothing_comes_back() -> None:
    room = Room(Decision(paid=(paid("a"),)))
    room.ask()
    room.policing.settle(room.account, ours=False)
    assert (room.policy.refunds, room.policy.released) == ([], [])


# --- whole sessions ------------------------------------------------------------------------------------------------


CHARGES = {
    Event.CONNECT: Decision(paid=(paid("connect"),), slots=(slot("connect"),)),
    Event.AUTH: Decision(slots=(slot("auth"),)),
    Event.MAIL: Decision(paid=(paid("mail"),), slots=(slot("mail"),)),
    Event.RCPT: Decision(paid=(paid("rcpt", rejected=True),)),
    Event.EOD: Decision(paid=(paid("eod", rejected=True),)),
}


def charge(event: Event, facts: Facts) -> Decision:
    return CHARGES.get(event, ALLOWED)


def play(
    pieces: list[bytes | BaseException],
    policy: FakePolicy,
    *backends: tuple[str, ScriptedBackend | str],
    settings: ServerSettings = OPEN,
    **kwargs: object,
) -> tuple[bytes, ListJournal]:
    clock, stream = ManualClock(), FakeStream(pieces)
    journal = ListJournal()
    world = fakes.ports(clock, FakeBackends(clock, backends), policy=policy, journal=journal, **kwargs)
    try:
        flow.run(stream, flow.SessionSettings("demo", settings), world)
    except GreenletExit:
        pass
    return bytes(stream.received), journal


def backend(*more: tuple[bytes, bytes | None], rcpt: bytes = b"250 ok rcpt") -> ScriptedBackend:
    return ScriptedBackend(
        [
            (b"", b"220 mta1\r\n"),
            (b"EHLO mx.test\r\n", b"250-mta1\r\n250 PIPELINING\r\n"),
            (ENVELOPE, b"250 ok\r\n" + rcpt + b"\r\n"),
            *more,
        ]
    )


DATA = (b"DATA\r\n", b"354 go\r\n")
TEXT = b"Subject: x\r\n\r\nhello\r\n.\r\n"
ALL = ("mail", "rcpt", "eod")
LOST = backend(DATA)


@pytest.mark.parametrize(
    ("pieces", "told", "refunds"),
    [
        ([MESSAGE], backend(DATA, (TEXT, b"250 queued\r\n")), []),
        # The mail server's no, at each step.
        ([ENVELOPE], backend(rcpt=b"550 5.1.1 no such user"), [(("rcpt",), False)]),
        ([MESSAGE], backend((b"DATA\r\n", b"451 later\r\n")), [(("mail", "rcpt"), False)]),
        ([MESSAGE], backend(DATA, (TEXT, b"554 5.7.1 spam\r\n")), [(ALL, False)]),
        ([MESSAGE], backend(DATA, (TEXT, b"421 4.3.2 going down\r\n")), [(ALL, True)]),
        # Ours: nobody there, lost before the end. Lost after it: nobody knows, nothing is given back.
        ([ENVELOPE], "refused", [(("rcpt",), True), (("mail",), True)]),
        ([MESSAGE[:-5], MESSAGE[-5:]], backend(DATA, (TEXT[:-5], None)), [(ALL, True)]),
        ([MESSAGE], backend(DATA, (TEXT, None)), []),
        # The client's: it gave up, it left, it sent what cannot be relayed.
        ([ENVELOPE + b"RSET\r\n"], backend(), []),
        ([ENVELOPE + b"DATA\r\nhalf", StreamLost("ECONNRESET")], backend(DATA), []),
        ([ENVELOPE + b"DATA\r\nbare\n\r\n.\r\n"], backend(DATA), []),
        # Whatever becomes of a session, also when it is cut off in the middle.
        ([ENVELOPE + b"DATA\r\nhalf", GreenletExit()], backend(DATA), []),
    ],
)
def test_what_is_given_back_of_a_message(
    pieces: list[bytes | BaseException], told: ScriptedBackend | str, refunds: list[object]
) -> None:
    policy = FakePolicy(charge)
    play(pieces, policy, ("mta1", told))
    assert [(tuple(one.limit for one in group), ours) for group, ours in policy.refunds] == refunds
    # Places are free again in any case: the message's, then the connection's.
    assert policy.released == [slot("mail"), slot("connect")]


def test_a_recipient_that_is_refused_costs_the_others_nothing() -> None:
    told = backend((b"RCPT TO:<x@b.test>\r\n", b"550 no\r\n"), DATA, (TEXT, b"250 queued\r\n"))
    policy = FakePolicy(charge)
    play([ENVELOPE + b"RCPT TO:<x@b.test>\r\n" + MESSAGE[len(ENVELOPE) :]], policy, ("mta1", told))
    assert [(len(group), ours) for group, ours in policy.refunds] == [(1, False)]


def test_a_refused_data_that_is_accepted_afterwards_is_paid_for() -> None:
    told = backend((b"DATA\r\n", b"451 later\r\n"), DATA, (TEXT, b"250 queued\r\n"))
    policy = FakePolicy(charge)
    said, _ = play([ENVELOPE + b"DATA\r\n", None, MESSAGE[len(ENVELOPE) :]], policy, ("mta1", told))
    assert b"451 later\r\n354 go\r\n250 queued\r\n" in said
    assert policy.refunds == []


def test_the_places_of_a_login_are_free_after_starttls() -> None:
    policy = FakePolicy(charge)
    pieces: list[bytes | BaseException] = [
        b"EHLO c.test\r\n" + PLAIN + b"STARTTLS\r\n",
        b"EHLO c.test\r\n",
        b"QUIT\r\n",
    ]
    released: list[list[Slot]] = []

    class Stream(FakeStream):
        def read(self, deadline, limit):  # type: ignore[no-untyped-def]
            released.append(list(policy.released))
            return super().read(deadline, limit)

    clock = ManualClock()
    world = fakes.ports(
        clock, FakeBackends(clock), policy=policy, authenticator=FakeAuthenticator(AuthGranted(user="ann"))
    )
    flow.run(Stream(pieces), flow.SessionSettings("demo", TLS), world)
    assert released[1] == [slot("auth")]
    assert policy.released == [slot("auth"), slot("connect")]


def test_a_login_that_a_limit_refuses_is_none() -> None:
    def decide(event: Event, facts: Facts) -> Decision:
        if event is Event.AUTH and facts.login == "ann":
            return Decision(replace(SLOW, limit="user.conns", reply=ReplyText(554, "5.7.0", "not you")))
        return ALLOWED

    policy = FakePolicy(decide)
    other = b"AUTH PLAIN AGJvYgBzZWNyZXQ=\r\n"
    said, journal = play(
        [PLAIN + b"MAIL FROM:<a@a.test>\r\n" + other + b"MAIL FROM:<a@a.test>\r\nQUIT\r\n"],
        policy,
        settings=AUTH,
        authenticator=FakeAuthenticator(AuthGranted(pool="core")),
    )
    assert said == (
        GREETING + b"554 5.7.0 not you\r\n530 5.7.1 Authentication required\r\n235 2.0.0 OK\r\n"
        b"250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
    )
    assert [facts.user for event, facts in policy.events if event is Event.MAIL] == ["bob"]
    assert [(line["user"], line["login"], line["result"]) for line in journal.of("auth")] == [
        (None, "ann", 554),
        ("bob", "bob", 235),
    ]
    [denied] = journal.of("denied")
    assert (denied["user"], denied["at"]) == ("ann", "auth")


def test_a_limit_says_nothing_against_a_token() -> None:
    """The error challenge has clients throw their token away (RFC 7628 section 3.2.2): it is the auth service's."""
    token = b"AUTH OAUTHBEARER " + base64.b64encode(b"n,,\x01auth=Bearer abc.def\x01\x01") + b"\r\n"
    policy = FakePolicy(lambda event, facts: REFUSED if event is Event.AUTH else ALLOWED)
    granted = FakeAuthenticator(AuthGranted(user="ann"), AuthRefused("535 5.7.8", "no", 1.0))
    said, _ = play([token + token], policy, settings=AUTH, authenticator=granted)
    assert said.startswith(GREETING + b"450 4.7.1 slow down\r\n334 ")


@pytest.mark.parametrize("mode", ["defer", "first"])
def test_recipients_of_several_routes(mode: str) -> None:
    policy = FakePolicy(route=lambda facts: PoolTarget(f"pool-{facts.rcpt_domain}", facts.rcpt_domain))
    policy.mixed_recipients = mode
    told = backend((b"RCPT TO:<c@c.test>\r\n", b"250 ok too\r\n"))
    said, _ = play([ENVELOPE + b"RCPT TO:<c@c.test>\r\n"], policy, ("mta1", told))
    assert (b"452 4.5.3" in said, b"250 ok too" in said) == (mode == "defer", mode == "first")


def test_what_auth_http_chose_is_nobodys_to_change() -> None:
    policy = FakePolicy()
    policy.mixed_recipients = "first"
    answers = FakeAuthenticator(AuthGranted(pool="one"), AuthGranted(pool="two"))
    clock, stream = ManualClock(), FakeStream([ENVELOPE + b"RCPT TO:<c@c.test>\r\n"])
    world = fakes.ports(clock, FakeBackends(clock, [("mta1", backend())]), policy=policy, authenticator=answers)
    flow.run(stream, flow.SessionSettings("demo", OPEN, envelope="every"), world)
    assert b"250 ok rcpt\r\n452 4.5.3 " in stream.received


# --- shaped texts ---------------------------------------------------------------------------------------------------

SHAPE = Shape("up", "up:s", 100.0, 100.0)
CHUNKED = ServerSettings("mx.test", capabilities=("CHUNKING",), mechanisms=(), auth_required=False)


def shape(event: Event, facts: Facts) -> Decision:
    return Decision(shapes=(SHAPE,)) if event is Event.DATA else ALLOWED


def shaped(
    pieces: list[bytes | BaseException], told: ScriptedBackend, settings: ServerSettings = OPEN, seconds: float = 1.0
) -> tuple[bytes, FakeShaper, FakeStream]:
    clock, stream = ManualClock(), FakeStream(pieces)
    shaper = FakeShaper(clock, piece=10, seconds=seconds)
    world = fakes.ports(clock, FakeBackends(clock, [("mta1", told)]), policy=FakePolicy(shape), shaper=shaper)
    flow.run(stream, flow.SessionSettings("demo", settings, timeout=60.0, idle_timeout=300.0), world)
    return bytes(stream.received), shaper, stream


def test_a_text_is_read_in_pieces_and_each_is_paid_for() -> None:
    told = backend(DATA, (TEXT, b"250 queued\r\n"), (b"QUIT\r\n", b""))
    said, shaper, stream = shaped([ENVELOPE + b"DATA\r\n", TEXT, b"QUIT\r\n"], told)
    assert said.endswith(b"354 go\r\n250 queued\r\n221 2.0.0 Bye\r\n")
    assert shaper.opened == [(SHAPE,)]
    # Also the last one, before the message is committed.
    assert shaper.lanes[0].paid == [10, 10, 4]
    assert shaper.lanes[0].closed == 1
    assert stream.limits == [65536, 10, 10, 10, 65536]


def test_what_was_sent_before_it_was_asked_for_is_paid_too() -> None:
    told = backend(DATA, (TEXT, b"250 queued\r\n"))
    said, shaper, _ = shaped([MESSAGE], told)
    assert said.endswith(b"250 queued\r\n")
    assert shaper.lanes[0].paid == [len(TEXT)]


def test_chunks_are_paid_with_all_that_stands_between_them() -> None:
    told = backend(DATA, (b"abcdefghijklmno", b""), (b"pqr\r\n.\r\n", b"250 queued\r\n"))
    pieces: list[bytes | BaseException] = [ENVELOPE + b"BDAT 15\r\nabc", b"defghijklmnoBDAT 5 LAST\r\npqr\r\n"]
    said, shaper, _ = shaped(pieces, told, CHUNKED)
    assert said.endswith(b"250 2.0.0 OK\r\n250 queued\r\n")
    assert sum(shaper.lanes[0].paid) == len(b"abc" + b"defghijklmnoBDAT 5 LAST\r\npqr\r\n")
    assert (len(shaper.lanes), shaper.lanes[0].closed) == (1, 1)


def test_a_text_that_is_refused_already_is_not_read_any_faster() -> None:
    text = b"bare\n" + b"x" * 40 + b"\r\n.\r\n"
    said, shaper, _ = shaped([ENVELOPE + b"DATA\r\n", text], backend(DATA))
    assert said.endswith(b"550 5.5.2 Message has a bare <CR> or <LF>\r\n")
    assert sum(shaper.lanes[0].paid) == len(text)
    assert max(shaper.lanes[0].paid) == 10


def test_our_slowness_is_not_the_clients_fault() -> None:
    """200 s for each piece, of a client that has 300 s for each command."""
    text = b"x" * 98 + b"\r\n.\r\n"
    told = backend(DATA, (text, b"250 queued\r\n"))
    said, shaper, _ = shaped([ENVELOPE + b"DATA\r\n", text], told, seconds=200.0)
    assert said.endswith(b"250 queued\r\n")
    assert len(shaper.lanes[0].paid) == 11


def test_the_client_hears_354_before_it_has_to_wait() -> None:
    heard: list[bytes] = []
    clock, stream = ManualClock(), FakeStream([MESSAGE])

    class Waiting(FakeShaper):
        def open(self, shapes, owed):  # type: ignore[no-untyped-def]
            lane = super().open(shapes, owed)
            settle = lane.settle
            lane.settle = lambda: (heard.append(bytes(stream.received)), settle())[1]
            return lane

    told = backend(DATA, (TEXT, b"250 queued\r\n"))
    world = fakes.ports(clock, FakeBackends(clock, [("mta1", told)]), policy=FakePolicy(shape), shaper=Waiting(clock))
    flow.run(stream, flow.SessionSettings("demo", OPEN), world)
    assert heard[0].endswith(b"354 go\r\n")


@pytest.mark.parametrize("end", [StreamLost("ECONNRESET"), GreenletExit()])
def test_a_lane_is_left_however_the_text_ends(end: BaseException) -> None:
    clock, stream = ManualClock(), FakeStream([ENVELOPE + b"DATA\r\n", b"half", end])
    shaper = FakeShaper(clock)
    world = fakes.ports(
        clock, FakeBackends(clock, [("mta1", backend(DATA))]), policy=FakePolicy(shape), shaper=shaper
    )
    try:
        flow.run(stream, flow.SessionSettings("demo", OPEN), world)
    except GreenletExit:
        pass
    assert shaper.lanes[0].closed == 1
