"""What a transaction tells of itself: where its time went, who has it now, and what ended it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeAuthenticator, FakePolicy, FakeStream, ManualClock
from sessions import AUTH, CHUNKS, DATA, ENVELOPE, LOGIN, MAIL, MESSAGE, RCPT, TAKEN, TEXT, Session, backend, greeted

from smtpgate.clock import Deadline
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts, ReplyText
from smtpgate.session.ports import AuthAnswer, AuthGranted, AuthQuery, AuthUnavailable, Ports
from smtpgate.session.records import Timings
from smtpgate.session.streams import READ_SIZE, StreamTimeout
from smtpgate.smtp.server import ServerSettings


def denial(limit: str = "few", *, close: bool = False, delay: float = 0.0) -> Decision:
    text = ReplyText(450, "4.7.1", "slow down")
    return Decision(Denial(limit, "s", text, retry=1.0, delay=delay, close=close, balance=0.0, source="p:1"))


def denying(at: Event, when: Callable[[Facts], bool] = lambda facts: True, **kwargs: Any) -> FakePolicy:
    """kwargs: of denial()."""
    return FakePolicy(lambda event, facts: denial(**kwargs) if event is at and when(facts) else ALLOWED)


# --- where the time went ----------------------------------------------------------------------------------------


class SlowAuthenticator(FakeAuthenticator):
    def __init__(self, clock: ManualClock, seconds: float, *answers: AuthAnswer) -> None:
        super().__init__(*answers)
        self._clock = clock
        self._seconds = seconds

    def ask(self, query: AuthQuery) -> AuthAnswer:
        self._clock.time += self._seconds
        return super().ask(query)


def test_seconds_that_went_by_for_others() -> None:
    session = Session([MESSAGE], backend(DATA, TAKEN))
    clock = session.clock

    def slow(event: Event, facts: Facts) -> Decision:
        clock.time += {Event.CONNECT: 100.0, Event.MAIL: 0.25, Event.RCPT: 0.5, Event.EOD: 1.0}.get(event, 0.0)
        return Decision() if event is not Event.DATA else ALLOWED

    session.ports = _with(session, policy=FakePolicy(slow), authenticator=SlowAuthenticator(clock, 2.0))
    lease = session.backends.lease

    def slow_lease(*args: object) -> object:
        clock.time += 4.0
        return lease(*args)  # type: ignore[arg-type]

    session.backends.lease = slow_lease  # type: ignore[method-assign,assignment]
    session.run()
    [record] = session.told.transactions
    assert record.timings == Timings(auth=2.0, policy=1.75, connect=4.0, data=1.0)
    assert record.seconds == 2.0 + 0.5 + 4.0 + 1.0  # MAIL was answered before it began


def _with(session: Session, **ports: Any) -> Ports:
    return replace(session.ports, **ports)


def test_each_transaction_has_its_own_seconds() -> None:
    told = backend(DATA, TAKEN, (ENVELOPE, b"250 ok\r\n250 ok rcpt\r\n"), DATA, TAKEN)
    session = Session([MESSAGE * 2], told)
    clock = session.clock

    def slow(event: Event, facts: Facts) -> Decision:
        if event is Event.RCPT:
            clock.time += 1.0 + facts.messages
        return Decision() if event is Event.RCPT else ALLOWED

    session.ports = _with(session, policy=FakePolicy(slow))
    session.run()
    assert [record.timings.policy for record in session.told.transactions] == [1.0, 2.0]


def test_a_search_that_fails_has_taken_its_time_too() -> None:
    session = Session([ENVELOPE + b"QUIT\r\n"])
    session.backends.queued = 3.0
    session.run()
    assert session.told.transactions[0].timings.connect == 3.0


def test_the_time_of_a_text_is_that_from_its_354_to_the_last_reply() -> None:
    session = Session([], backend(DATA, TAKEN))

    class Slow(FakeStream):
        def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
            session.clock.time += 10.0
            return super().read(deadline, limit)

    session.stream = Slow([ENVELOPE, b"DATA\r\n", TEXT[:5], TEXT[5:]])
    session.run()
    [record] = session.told.transactions
    assert (record.timings.data, record.seconds) == (20.0, 30.0)


def test_a_delay_before_a_refusal_is_the_limits() -> None:
    session = Session([ENVELOPE + b"RSET\r\n"], policy=denying(Event.RCPT, delay=3.0))
    session.run()
    assert session.told.transactions[0].timings.policy == 3.0


# --- who has it now ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (b"250 2.0.0 Ok: queued as 4F2\r\n", "4F2"),
        (b"250 OK id=1rABCd-0000xy-1Z\r\n", "1rABCd-0000xy-1Z"),
        (b"250 2.0.0 thanks\r\n", None),
        (b"451 4.3.0 not queued as 4F2\r\n", None),
        (None, None),
    ],
)
def test_the_name_under_which_the_backend_has_it(said: bytes | None, found: str | None) -> None:
    session = Session([MESSAGE], backend(DATA, (TEXT, said)))
    session.run()
    [record] = session.told.transactions
    assert record.queue_id == found
    assert (record.outcome, record.backend) == (
        "unknown" if said is None else "delivered" if said.startswith(b"250") else "refused",
        "mta1",
    )


# --- which limit ended it ---------------------------------------------------------------------------------------


def test_the_limit_that_refused_the_message() -> None:
    session = Session([MESSAGE], backend(DATA, (TEXT[:-3], b"")), policy=denying(Event.EOD))
    session.run()
    [record] = session.told.transactions
    assert record.denial is session.told.denials[0]
    assert (record.denial and record.denial.limit, record.outcome) == ("few", "refused")


@pytest.mark.parametrize(
    ("refused", "close", "ended"),
    [
        ("b@b.test", False, "few"),  # nobody is left
        ("c@b.test", False, None),  # somebody else was accepted already
        ("c@b.test", True, "few"),  # that ended the session
    ],
)
def test_the_limit_that_refused_the_recipients(refused: str, close: bool, ended: str | None) -> None:
    policy = denying(Event.RCPT, lambda facts: facts.rcpt == refused, close=close)
    session = Session([ENVELOPE + b"RCPT TO:<c@b.test>\r\nQUIT\r\n"], backend(), policy=policy)
    if refused == "b@b.test":
        session = Session([ENVELOPE + b"QUIT\r\n"], policy=policy)
    session.run()
    [record] = session.told.transactions
    assert (record.denial and record.denial.limit) == ended


def test_a_recipient_that_was_accepted_afterwards_makes_good_for_the_one_that_was_not() -> None:
    policy = denying(Event.RCPT, lambda facts: facts.rcpt == "x@b.test")
    session = Session([MAIL + b"RCPT TO:<x@b.test>\r\n" + RCPT + b"QUIT\r\n"], backend(), policy=policy)
    session.run()
    assert session.told.transactions[0].denial is None


def test_a_message_that_nothing_refused_has_no_denial() -> None:
    session = Session([MESSAGE], backend(DATA, TAKEN))
    session.run()
    assert session.told.transactions[0].denial is None


# --- what an operator sees meanwhile ----------------------------------------------------------------------------


def test_the_phase_of_a_session() -> None:
    seen: list[str] = []
    told = greeted((ENVELOPE, b"250 ok\r\n250 ok rcpt\r\n"), DATA, TAKEN)
    session = Session([], told, protocol=AUTH, listener={"greeting_delay": 1.0})

    class Watched(FakeStream):
        def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
            seen.append(session.told.view.phase)
            if seen == ["greeting"]:
                session.clock.time += deadline.remaining()
                raise StreamTimeout
            return super().read(deadline, limit)

    class Asked(FakeAuthenticator):
        def ask(self, query: AuthQuery) -> AuthAnswer:
            seen.append(f"asked in {session.told.view.phase}")
            return super().ask(query)

    session.ports = _with(session, authenticator=Asked(AuthGranted(user="ann", pool="core")))
    word = b"AUTH PLAIN\r\n"
    session.stream = Watched([word, LOGIN[11:], MAIL, RCPT, b"DATA\r\n", TEXT[:5], TEXT[5:], b"QUIT\r\n"])
    session.run()
    assert seen == ["greeting", "idle", "auth", "asked in auth", "idle", "mail", "mail", "data", "data", "idle"]


def test_the_phase_between_chunks_is_data() -> None:
    seen: list[str] = []
    session = Session([], backend(DATA), protocol=CHUNKS)

    class Watched(FakeStream):
        def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
            seen.append(session.told.view.phase)
            return super().read(deadline, limit)

    session.stream = Watched([ENVELOPE, b"BDAT 1\r\nx", b"BDAT 1\r\ny", b"RSET\r\n"])
    session.run()
    assert seen == ["idle", "mail", "data", "data", "idle"]


def test_an_exchange_that_fails_is_over() -> None:
    settings = ServerSettings("mx.test", mechanisms=("PLAIN",))
    session = Session([], protocol=settings, authenticator=FakeAuthenticator(AuthUnavailable("x")))
    seen: list[str] = []

    class Watched(FakeStream):
        def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
            seen.append(session.told.view.phase)
            return super().read(deadline, limit)

    session.stream = Watched([LOGIN, b"QUIT\r\n"])
    session.run()
    assert seen == ["idle", "idle"]
    assert [record.reply.code for record in session.told.logins] == [454]
