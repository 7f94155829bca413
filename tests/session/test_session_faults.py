"""A session whose backend, client or process fails, phase by phase: reference/security.md section 3.

What a backend does is asked in each phase: before MAIL, at a recipient, in the text, after its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fakes import FakeAuthenticator, FakeStream, ScriptedBackend
from sessions import (
    AUTH,
    DATA,
    ENVELOPE,
    LOGIN,
    MAIL,
    MESSAGE,
    RCPT,
    SAID,
    TAKEN,
    TEXT,
    Session,
    Step,
    backend,
    greeted,
)

from smtpgate.clock import Deadline
from smtpgate.routing.model import Failover
from smtpgate.session.ports import AuthGranted, AuthUnavailable
from smtpgate.session.streams import READ_SIZE, StreamInterrupted, StreamLost

OK = b"250 2.0.0 OK\r\n"
BYE = b"221 2.0.0 Bye\r\n"
LOST = b"451 4.4.2 Mail server lost, try again later\r\n"
CONFUSED = b"451 4.3.0 Mail server broke the protocol, try again later\r\n"
NOBODY = b"451 4.4.1 no mail server available, try again later\r\n"
SECOND = b"RCPT TO:<c@b.test>\r\n"

# --- what a backend does ----------------------------------------------------------------------------------------

GARBAGE = b"\x16\x03\x01\r\n"
FAULTS: dict[str, tuple[bytes | None, bytes]] = {
    "hangs up": (None, LOST),
    "is silent": (b"", LOST),
    "says 421": (b"421 4.3.2 going down\r\n", LOST),
    "half a reply": (b"250-half\r\n25", LOST),
    "garbage": (GARBAGE, CONFUSED),
    "a reply of another kind": (b"334 go on\r\n", CONFUSED),
    "a bare line end": (b"250 ok\n", CONFUSED),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_before_mail(fault: str) -> None:
    """The search has its own words where nobody is left; nothing was said of the message yet."""
    said, _ = FAULTS[fault]
    session = Session([MAIL, None, RCPT, None, b"DATA\r\n", None, b"RSET\r\n", None, b"QUIT\r\n"])
    session.backends.backends = [("mta1", greeted((MAIL, said), (RCPT, b"")))]
    session.backends.failover = Failover(attempts=0)
    assert session.run() == OK + NOBODY + b"503 5.5.1 Bad sequence of commands\r\n" + OK + BYE
    assert session.told.transactions[0].outcome == "reset"


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_recipient(fault: str) -> None:
    """That one and all that follows in the transaction; a new one finds another backend."""
    said, told = FAULTS[fault]
    session = Session([], backend((SECOND, said)))
    session.backends.failover = Failover(attempts=0)
    session.stream.pieces = [MAIL, None, RCPT, None, SECOND, None, b"DATA\r\n", None, b"RSET\r\n", None, MESSAGE]
    session.backends.backends.append(("mta2", backend(DATA, TAKEN)))
    again = SAID + b"250 2.0.0 Ok: queued as 4F2\r\n"
    assert session.run() == OK + b"250 ok rcpt\r\n" + told * 2 + OK + again
    assert [record.outcome for record in session.told.transactions] == ["reset", "delivered"]
    assert session.journal.of("backend_failed")[0]["backend"] == "mta1"


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"is silent"}))  # that is expected of it here
def test_in_the_text(fault: str) -> None:
    """The client is read to its end, and may go on. Nothing is committed."""
    said, told = FAULTS[fault]
    first = backend(DATA, (b"Subj", said))
    session = Session([ENVELOPE + b"DATA\r\n", TEXT[:4], TEXT[4:12], TEXT[12:], b"QUIT\r\n"], first)
    assert session.run() == SAID + told + BYE
    assert b"\r\n.\r\n" not in bytes(first.received)
    [record] = session.told.transactions
    assert (record.outcome, record.backend) == ("refused", "mta1")
    assert session.journal.of("backend_lost")[0]["outcome"] == "not delivered"


@pytest.mark.parametrize("fault", FAULTS)
def test_after_the_end(fault: str) -> None:
    """Nobody knows whether it was committed, unless the backend has said so."""
    said, told = FAULTS[fault]
    session = Session([MESSAGE, b"QUIT\r\n"], backend(DATA, (TEXT, said)), backend(DATA, TAKEN))
    assert session.run() == SAID + told + BYE
    [record] = session.told.transactions
    outcome = "refused" if fault == "says 421" else "unknown"  # 421 is an answer (RFC 5321 section 4.2.1)
    assert (record.outcome, record.backend, record.reply and record.reply.code) == (outcome, "mta1", 451)
    assert len(session.backends.leases) == 1  # nobody else hears of it
    known = "not delivered" if fault == "says 421" else "unknown"
    assert session.journal.of("backend_lost")[0]["outcome"] == known


def test_a_greeting_that_refuses_sends_us_to_the_next() -> None:
    refusing = ScriptedBackend([(b"", b"554 5.7.1 not you\r\n")])
    session = Session([MESSAGE + b"QUIT\r\n"], refusing, backend(DATA, TAKEN))
    assert session.run() == SAID + b"250 2.0.0 Ok: queued as 4F2\r\n" + BYE


@pytest.mark.parametrize("word", [b"552 5.3.4 too big\r\n", b"554 5.6.0 spam\r\n", b"451 4.3.1 disk full\r\n"])
def test_a_refusal_before_the_end_is_told_once_and_after_it(word: bytes) -> None:
    session = Session([ENVELOPE + b"DATA\r\n", TEXT[:4], TEXT[4:], b"QUIT\r\n"], backend(DATA, (b"Subj", word)))
    assert session.run() == SAID + word + BYE
    assert session.backends.leases[0].released


# --- the auth service -------------------------------------------------------------------------------------------


def test_an_auth_service_that_is_away_is_no_failure_of_anybody() -> None:
    authenticator = FakeAuthenticator(*([AuthUnavailable("refused")] * 8), AuthGranted(pool="core"))
    pieces = [one for _ in range(9) for one in (LOGIN, None)]
    session = Session([*pieces, b"QUIT\r\n"], protocol=AUTH, authenticator=authenticator)
    assert session.run() == b"454 4.7.0 Temporary authentication failure\r\n" * 8 + b"235 2.0.0 OK\r\n" + BYE
    assert len(session.journal.of("auth_unavailable")) == 8
    assert session.clock.slept == []


def test_an_auth_service_that_is_away_does_not_concern_who_is_logged_in() -> None:
    authenticator = FakeAuthenticator(AuthGranted(pool="core"), AuthUnavailable("refused"))
    session = Session([LOGIN + MESSAGE], backend(DATA, TAKEN), protocol=AUTH, authenticator=authenticator)
    assert session.run().endswith(b"250 2.0.0 Ok: queued as 4F2\r\n")


# --- the client vanishes ----------------------------------------------------------------------------------------

GONE = StreamLost("ECONNRESET")


@pytest.mark.parametrize(
    ("said", "script", "received", "outcome"),
    [
        ([b"NOOP\r\n"], [], b"", None),
        ([MAIL], [], b"", "connection lost: ECONNRESET"),
        ([ENVELOPE], [], ENVELOPE + b"QUIT\r\n", "connection lost: ECONNRESET"),
        ([ENVELOPE + b"DATA\r\n"], [DATA], ENVELOPE + b"DATA\r\n", "connection lost: ECONNRESET"),
        ([ENVELOPE + b"DATA\r\n" + TEXT[:-1]], [DATA, (TEXT[:-5], b"")], ENVELOPE + b"DATA\r\n" + TEXT[:-5], None),
        ([MESSAGE], [DATA, TAKEN], MESSAGE + b"QUIT\r\n", "delivered"),
    ],
)
@pytest.mark.parametrize("end", [GONE, b""])
def test_a_client_that_vanishes(
    said: list[bytes], script: list[Step], received: bytes, outcome: str | None, end: BaseException | bytes
) -> None:
    """The backend is left politely, or, where it reads a text, without an end of it."""
    first = backend(*script)
    session = Session([*said, *([end] if isinstance(end, BaseException) else [])], first)
    session.run()
    heard = bytes(first.received).removeprefix(b"EHLO mx.test\r\n")
    if received.endswith(b"QUIT\r\n") or not received:
        assert heard == received
    else:
        assert received.startswith(heard)
        assert not heard.endswith(b".\r\n")
    assert all(lease.released for lease in session.backends.leases)
    if outcome is not None:
        expected = outcome if outcome == "delivered" or end is GONE else "client closed the connection"
        assert session.told.transactions[0].outcome == expected


def test_a_client_that_leaves_while_it_waits_for_a_place_is_noticed_at_once() -> None:
    session = Session([ENVELOPE], backend())
    session.backends.queued = 5.0

    @contextmanager
    def left() -> Iterator[None]:
        yield
        raise StreamLost("client closed the connection")

    session.stream.attended = left
    session.stream.pieces = [MAIL, None, RCPT]
    assert session.run() == OK
    assert session.end == "connection lost: client closed the connection"
    assert session.backends.leases == []  # it was never given a place


def test_what_is_queued_for_the_client_is_sent_before_it_waits_for_a_place() -> None:
    session = Session([], backend())
    session.backends.queued = 5.0
    heard: list[bytes] = []

    @contextmanager
    def attended() -> Iterator[None]:
        heard.append(bytes(session.stream.received))
        yield

    session.stream.attended = attended
    session.stream.pieces = [ENVELOPE + b"NOOP\r\n"]
    session.run()
    assert heard == []  # a client that has pipelined commands is served to their end
    again = Session([], backend())
    again.backends.queued = 5.0
    again.stream.attended = attended
    session = again
    again.stream.pieces = [ENVELOPE]
    again.run()
    before_the_search, in_the_queue = heard[:2]
    assert (before_the_search, in_the_queue.endswith(OK)) == (
        b"220 mx.test ESMTP ready\r\n",
        True,
    )  # nothing is sent for the search alone


class Departed(BaseException):
    """Thrown into a wait, as abort_on_close() does it."""


class Waited(ScriptedBackend):
    """The client leaves while this backend is waited for, at the `at`th read."""

    def __init__(self, at: int) -> None:
        envelope = (ENVELOPE, b"250 ok\r\n250 ok rcpt\r\n")
        super().__init__(
            [(b"", b"220 mta1\r\n"), (b"EHLO mx.test\r\n", b"250-mta1\r\n250 PIPELINING\r\n"), envelope, DATA]
        )
        self._reads = at

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        self._reads -= 1
        if not self._reads:
            raise Departed
        return super().read(deadline, limit)


@pytest.mark.parametrize("at", range(1, 5), ids=["greeting", "EHLO", "MAIL and RCPT", "DATA"])
def test_a_client_that_leaves_while_a_backend_is_waited_for_is_noticed_at_once(at: int) -> None:
    """Its place in the pool is free, and nobody says that the backend has failed."""

    @contextmanager
    def attended() -> Iterator[None]:
        try:
            yield
        except Departed:
            raise StreamLost("client closed the connection") from None

    session = Session([MAIL, None, RCPT, None, b"DATA\r\n", None, b"QUIT\r\n"], Waited(at))
    session.stream.attended = attended
    session.run()
    assert session.end == "connection lost: client closed the connection"
    [lease] = session.backends.leases
    assert (lease.released, lease.faults) == (1, [])


# --- the process is told to end ---------------------------------------------------------------------------------

DOWN = b"421 4.3.2 Service shutting down, try again later\r\n"


class Draining(FakeStream):
    """The drain comes while the piece `at` is waited for."""

    def __init__(self, pieces: list[bytes | BaseException | None], at: int) -> None:
        super().__init__(pieces)
        self.draining = False
        self._reads = at

    def read(self, deadline: Deadline, limit: int = READ_SIZE) -> bytes:
        if not self._reads:
            self._reads -= 1
            self.draining = True
            raise StreamInterrupted
        self._reads -= 1
        return super().read(deadline, limit)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (0, DOWN),
        (1, OK + b"250 ok rcpt\r\n354 go\r\n250 2.0.0 Ok: queued as 4F2\r\n" + DOWN),
        (2, SAID + b"250 2.0.0 Ok: queued as 4F2\r\n" + DOWN),
        (3, SAID + b"250 2.0.0 Ok: queued as 4F2\r\n" + DOWN),
        (4, SAID + b"250 2.0.0 Ok: queued as 4F2\r\n" + DOWN),
        (5, SAID + b"250 2.0.0 Ok: queued as 4F2\r\n" + DOWN),
    ],
)
def test_a_drain_lets_what_has_begun_end(at: int, said: bytes) -> None:
    stream = Draining([MAIL, RCPT, b"DATA\r\n", TEXT[:5], TEXT[5:], MAIL], at)
    session = Session([], backend(DATA, TAKEN), draining=lambda: stream.draining)
    session.stream = stream
    assert session.run() == said


def test_a_drain_in_the_middle_of_a_login() -> None:
    stream = Draining([b"AUTH PLAIN\r\n", LOGIN[11:]], 1)
    session = Session([], protocol=AUTH, draining=lambda: stream.draining, authenticator=FakeAuthenticator())
    session.stream = stream
    assert session.run() == b"334 \r\n" + DOWN
