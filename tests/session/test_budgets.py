"""What a client may use up: recipients, commands that do nothing, errors, time in a text, and our patience."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from fakes import FakeStream
from sessions import (
    CHUNKS,
    DATA,
    ENVELOPE,
    GREETING,
    MAIL,
    MESSAGE,
    OPEN,
    RCPT,
    SAID,
    TAKEN,
    TEXT,
    Session,
    backend,
    greeted,
)

from smtpgate.clock import Deadline
from smtpgate.session import intake
from smtpgate.session.intake import DATA_GRACE, DRAIN_TIMEOUT
from smtpgate.session.streams import READ_SIZE, StreamInterrupted, StreamLost, StreamTimeout

BAD = b"500 5.5.1 Invalid command\r\n"
OK = b"250 2.0.0 OK\r\n"
BYE = b"221 2.0.0 Bye\r\n"


# --- recipients -------------------------------------------------------------------------------------------------


def test_a_message_goes_to_the_recipients_before_the_limit() -> None:
    told = greeted(
        (ENVELOPE, b"250 ok\r\n250 ok rcpt\r\n"), (RCPT, b"250 ok rcpt\r\n"), DATA, TAKEN, (b"QUIT\r\n", b"")
    )
    session = Session([ENVELOPE + RCPT * 3 + b"DATA\r\n" + TEXT], told, protocol=replace(OPEN, max_recipients=2))
    many = b"452 4.5.3 Too many recipients\r\n"
    assert session.run() == OK + b"250 ok rcpt\r\n" * 2 + many * 2 + b"354 go\r\n250 2.0.0 Ok: queued as 4F2\r\n"
    assert session.told.transactions[0].accepted == 2


# --- junk and errors --------------------------------------------------------------------------------------------


def test_a_client_that_does_nothing_is_let_go() -> None:
    session = Session(
        [b"NOOP\r\n" * 1000], protocol=replace(OPEN, max_junk=10, max_errors=2), listener={"error_delay": 0.0}
    )
    assert session.run() == OK * 11 + b"421 4.7.0 Too many errors\r\n"
    assert session.end == "client sent too many commands that do nothing"


class Waiting(FakeStream):
    """A client that says nothing while it waits for a reply: reads then take their time."""

    def __init__(self, session: Session, pieces: list[bytes | BaseException | None]) -> None:
        super().__init__(pieces)
        self._session = session
        self.waits: list[float] = []

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        try:
            return super().read(deadline, limit)
        except StreamTimeout:
            self.waits.append(deadline.remaining())
            self._session.clock.time += deadline.remaining()
            raise


def erring(*pieces: bytes | BaseException | None, **listener: Any) -> tuple[Session, Waiting]:
    session = Session([], listener=listener)
    stream = session.stream = Waiting(session, list(pieces))
    return session, stream


def test_from_the_soft_limit_on_each_error_is_answered_later() -> None:
    lines: list[bytes | None] = [b"FOO\r\n", None] * 4
    session, stream = erring(*lines, b"FOO\r\n", soft_errors=3, error_delay=2.0)
    assert session.run() == BAD * 5
    assert stream.waits[:2] == [2.0, 2.0]  # the third and the fourth; at the fifth there is nobody any more
    assert session.end == "client sent too many invalid commands"


def test_errors_in_one_group_wait_one_by_one() -> None:
    session, stream = erring(b"FOO\r\n" * 4, None, b"QUIT\r\n", soft_errors=2, error_delay=1.0)
    assert session.run() == BAD * 4 + BYE
    assert stream.waits == [3.0]


@pytest.mark.parametrize("listener", [{"soft_errors": 5, "error_delay": 1.0}, {"soft_errors": 1, "error_delay": 0.0}])
def test_nobody_waits_below_the_limit_or_without_a_delay(listener: dict[str, Any]) -> None:
    session, stream = erring(b"FOO\r\n" * 4, None, b"QUIT\r\n", **listener)
    assert session.run() == BAD * 4 + BYE
    assert (stream.waits, session.clock.slept) == ([], [])


def test_what_is_said_during_the_wait_is_carried_out_after_it() -> None:
    session, stream = erring(b"FOO\r\n", b"NOOP\r\n", None, b"QUIT\r\n", soft_errors=1, error_delay=3.0)
    assert session.run() == BAD + OK + BYE
    assert (stream.waits, session.clock.slept) == ([], [3.0])


def test_a_drain_ends_the_wait() -> None:
    session, stream = erring(b"FOO\r\n", StreamInterrupted(), soft_errors=1, error_delay=9.0)
    session.ports = replace(session.ports, draining=lambda: len(stream.limits) > 1)
    assert session.run() == BAD + b"421 4.3.2 Service shutting down, try again later\r\n"
    assert (stream.waits, session.clock.slept) == ([], [])


def test_stress_does_not_end_the_wait() -> None:
    session, stream = erring(b"FOO\r\n", StreamInterrupted(), None, b"QUIT\r\n", soft_errors=1, error_delay=9.0)
    assert session.run() == BAD + BYE
    assert stream.waits == [9.0]


def test_a_client_that_leaves_ends_the_wait() -> None:
    session, _ = erring(b"FOO\r\n", StreamLost("ECONNRESET"), soft_errors=1, error_delay=9.0)
    assert session.run() == b""
    assert session.end == "connection lost: ECONNRESET"
    assert session.clock.slept == []


def test_one_that_only_ends_its_side_is_answered() -> None:
    session, _ = erring(b"FOO\r\n", soft_errors=1, error_delay=9.0)
    assert session.run() == BAD
    assert session.clock.slept == []


def test_whoever_goes_on_talking_is_watched_for_the_rest_of_the_wait() -> None:
    session, stream = erring(b"FOO\r\n", b"NOOP\r\n", soft_errors=1, error_delay=3.0)

    @contextmanager
    def leaving() -> Iterator[None]:
        yield
        raise StreamLost("client closed the connection")

    stream.attended = leaving
    assert session.run() == b""
    assert session.end == "connection lost: client closed the connection"


# --- time in a text ---------------------------------------------------------------------------------------------


class Dripping(FakeStream):
    """Takes `seconds` for each read, or all of its deadline."""

    def __init__(self, session: Session, pieces: list[bytes | BaseException | None], seconds: float) -> None:
        super().__init__(pieces)
        self._session = session
        self._seconds = seconds

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        patience = deadline.remaining()
        self._session.clock.time += min(self._seconds, patience)
        if patience < self._seconds:
            raise StreamTimeout
        return super().read(deadline, limit)


def dripping(drop: bytes, drops: int, seconds: float, *, rate: float = 500.0, listener: Any = OPEN) -> Session:
    told = backend(DATA, (drop, b""))
    begin = b"DATA\r\n" if listener is OPEN else b"BDAT 1000000 LAST\r\n"
    if listener is CHUNKS:
        told = backend(DATA)
    session = Session([], told, protocol=listener, listener={"min_data_rate": rate})
    session.stream = Dripping(session, [ENVELOPE + begin, *([drop] * drops)], seconds)
    return session


TOO_SLOW = b"421 4.4.2 Timeout, closing connection\r\n"


@pytest.mark.parametrize("listener", [OPEN, CHUNKS])
def test_a_text_that_drips_is_ended(listener: Any) -> None:
    session = dripping(b"x", 100_000, 10.0, listener=listener)
    began = session.clock.time
    assert session.run().endswith(TOO_SLOW)
    assert session.end == "client sent its text too slowly"
    assert session.clock.time - began == pytest.approx(DATA_GRACE + 10.0, abs=11.0)
    assert session.backends.leases[0].released
    assert session.told.transactions[0].outcome == "client sent its text too slowly"


def test_a_text_without_a_rate_may_drip() -> None:
    session = dripping(b"x", 100, 10.0, rate=0.0)
    session.run()
    assert session.clock.time - 1_000_000.0 > 5 * DATA_GRACE
    assert session.end == "client closed the connection"


def test_a_text_at_the_rate_may_take_long() -> None:
    session = dripping(b"x" * 500, 1000, 1.0)
    session.run()
    assert session.clock.time - 1_000_000.0 > 5 * DATA_GRACE
    assert session.end == "client closed the connection"


def test_silence_in_a_text_is_a_timeout_as_ever() -> None:
    session = dripping(b"x", 10, 200.0)
    session.settings = replace(session.settings, idle_timeout=100.0)
    session.stream = Dripping(session, [b"", ENVELOPE + b"DATA\r\n", b"x"], 0.0)
    session.stream.pieces = [ENVELOPE + b"DATA\r\n", b"x", StreamTimeout()]
    assert session.run().endswith(TOO_SLOW)


# --- a text that nobody will have -------------------------------------------------------------------------------

LOST = b"451 4.4.2 Mail server lost, try again later\r\n"


def test_the_rest_of_a_lost_text_is_read_to_its_end() -> None:
    session = Session(
        [ENVELOPE + b"DATA\r\n", b"half\r\n", b"rest\r\n.\r\n", b"QUIT\r\n"], backend(DATA, (b"half", None))
    )
    assert session.run() == SAID + LOST + BYE


def test_the_rest_of_a_lost_text_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_DISCARDED", 1000)
    session = Session([ENVELOPE + b"DATA\r\n", b"half\r\n", *([b"x" * 400] * 10)], backend(DATA, (b"half", None)))
    assert session.run() == SAID + LOST
    assert len(session.stream.pieces) == 6  # it is noticed with the second piece
    [record] = session.told.transactions
    assert (record.outcome, record.reply and record.reply.code, record.backend) == ("refused", 451, "mta1")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [(b"half\r\n", LOST), (b"a bare\nnewline", b"550 5.5.2 Message has a bare <CR> or <LF>\r\n")],
)
def test_a_refused_text_has_its_time_to_end(text: bytes, verdict: bytes) -> None:
    told = backend(DATA, (b"half", None)) if text == b"half\r\n" else backend(DATA)
    session = Session([], told, listener={"min_data_rate": 0.0})
    session.stream = Dripping(session, [ENVELOPE + b"DATA\r\n", text, *([b"x"] * 1000)], 10.0)
    began = session.clock.time
    assert session.run() == SAID + verdict
    assert session.clock.time - began == pytest.approx(DRAIN_TIMEOUT, abs=31.0)


def test_chunks_that_nobody_will_have_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_DISCARDED", 1000)
    pieces = [ENVELOPE + b"BDAT 1000000 LAST\r\n", *([b"x" * 400] * 10)]
    session = Session(pieces, backend((b"DATA\r\n", b"451 4.3.0 not now\r\n")), protocol=CHUNKS)
    assert session.run() == OK + b"250 ok rcpt\r\n451 4.3.0 not now\r\n"
    assert session.told.transactions[0].outcome == "refused"


# --- a client that does not read --------------------------------------------------------------------------------


class Deaf(FakeStream):
    """Takes what we say until `deaf`; afterwards each write has its whole time."""

    def __init__(self, session: Session, pieces: list[bytes | BaseException | None], hears: int) -> None:
        super().__init__(pieces)
        self._session = session
        self._hears = hears

    def write(self, data: bytes, deadline: Deadline) -> None:
        if self.writes == self._hears:
            self._session.clock.time += deadline.remaining()
            raise StreamTimeout
        super().write(data, deadline)


@pytest.mark.parametrize("said", [b"NOOP\r\n", MESSAGE[:-3], MAIL])
def test_a_client_that_does_not_read_is_left_after_its_timeout(said: bytes) -> None:
    told = backend(DATA, (TEXT[:-3], b""))
    session = Session([], told, listener={"timeout": 20.0})
    session.stream = Deaf(session, [said], hears=1)
    began = session.clock.time
    assert session.run() == b""
    assert session.end == "client timed out"
    assert session.clock.time - began == 20.0 + 1.0  # and the last words
    assert all(lease.released for lease in session.backends.leases)


def test_a_greeting_that_nobody_reads() -> None:
    session = Session([], listener={"timeout": 20.0})
    session.stream = Deaf(session, [b"NOOP\r\n"], hears=0)
    with pytest.raises(AssertionError):
        session.run()
    assert (session.end, bytes(session.stream.received)) == ("client timed out", b"")


# --- input behind a refused DATA --------------------------------------------------------------------------------


def test_what_lies_in_the_socket_behind_a_refused_data_ends_the_session() -> None:
    told = backend((b"DATA\r\n", b"451 4.3.0 not now\r\n"), (b"QUIT\r\n", b""))
    session = Session([ENVELOPE + b"DATA\r\n", b"RCPT TO:<smug@x>\r\n"], told)
    assert session.run() == OK + b"250 ok rcpt\r\n451 4.3.0 not now\r\n"
    assert session.end == "client sent text after a refused DATA"
    assert session.stream.pieces == [b"RCPT TO:<smug@x>\r\n"]  # nobody has read it


def test_a_client_that_waits_goes_on_at_its_own_pace() -> None:
    told = backend((b"DATA\r\n", b"451 4.3.0 not now\r\n"))
    session = Session([ENVELOPE + b"DATA\r\n", None, b"RS", b"ET\r\n", b"QUIT\r\n"], told)
    assert session.run() == OK + b"250 ok rcpt\r\n451 4.3.0 not now\r\n" + OK + BYE


def test_the_greeting_stands_before_everything() -> None:
    assert Session([b"QUIT\r\n"]).run() == BYE
    assert GREETING.endswith(b"ready\r\n")


# --- stress -----------------------------------------------------------------------------------------------------


class Talking(FakeStream):
    """A client that takes `each` seconds for every piece. given: what it had for each, in seconds."""

    def __init__(self, session: Session, each: float, pieces: list[bytes | BaseException | None]) -> None:
        super().__init__(pieces)
        self.given: list[float] = []
        self._session, self._each = session, each

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        self.given.append(round(deadline.remaining(), 3))
        self._session.clock.time += min(self._each, deadline.remaining())
        return super().read(deadline, limit)


def talking(each: float, *pieces: bytes | BaseException | None, stress_from: int = 0, **listener: Any) -> Talking:
    """One session to its end. stress_from: the read with which stress begins."""
    session = Session([], listener={"timeout": 60.0, **listener})
    stream = session.stream = Talking(session, each, list(pieces))
    session.ports = replace(session.ports, stressed=lambda: len(stream.given) >= stress_from)
    session.run()
    return stream


def test_under_stress_a_client_that_is_nowhere_yet_has_ten_seconds_in_all() -> None:
    stream = talking(4.0, b"NOOP\r\n", b"NO", b"OP\r\n", b"QUIT\r\n")
    assert stream.given == [10.0, 6.0, 2.0]
    assert stream.received.endswith(OK + b"421 4.4.2 Timeout, closing connection\r\n")


def test_whoever_waits_when_stress_begins_reckons_anew() -> None:
    stream = talking(4.0, b"NOOP\r\n", StreamInterrupted(), b"NOOP\r\n", b"QUIT\r\n", stress_from=2)
    assert stream.given == [60.0, 56.0, 2.0]


def test_whoever_has_had_ten_seconds_already_has_no_more() -> None:
    assert talking(30.0, StreamInterrupted(), b"QUIT\r\n", stress_from=1).given == [60.0, 0.001]


def test_stress_gives_nobody_more_than_the_timeout() -> None:
    assert talking(1.0, b"QUIT\r\n", timeout=5.0).given == [5.0]


def test_whoever_is_at_a_backend_has_the_idle_timeout_under_stress() -> None:
    told = greeted((ENVELOPE, b"250 ok\r\n250 ok rcpt\r\n"), (b"QUIT\r\n", b""))
    session = Session([], told, listener={"idle_timeout": 300.0})
    stream = session.stream = Talking(session, 1.0, [ENVELOPE, StreamInterrupted(), b"QUIT\r\n"])
    session.ports = replace(session.ports, stressed=lambda: True)
    session.run()
    assert stream.given == [10.0, 300.0, 299.0]
