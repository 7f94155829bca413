"""One whole session between fakes, with what it told of itself; and the words of a small message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fakes import FakeBackends, FakeStream, ListJournal, ManualClock, ScriptedBackend, ports

from smtpgate.live import SessionView
from smtpgate.session import flow
from smtpgate.session.observing import LiveSession
from smtpgate.session.records import AuthRecord, DenialRecord, SessionRecord, TransactionRecord
from smtpgate.smtp.server import ServerSettings

OPEN = ServerSettings("mx.test", mechanisms=(), auth_required=False)
AUTH = ServerSettings("mx.test", mechanisms=("PLAIN",))
CHUNKS = replace(OPEN, capabilities=("CHUNKING",))

GREETING = b"220 mx.test ESMTP ready\r\n"
MAIL = b"MAIL FROM:<a@a.test>\r\n"
RCPT = b"RCPT TO:<b@b.test>\r\n"
ENVELOPE = MAIL + RCPT
TEXT = b"Subject: x\r\n\r\nhello\r\n.\r\n"
MESSAGE = ENVELOPE + b"DATA\r\n" + TEXT
SAID = b"250 2.0.0 OK\r\n250 ok rcpt\r\n354 go\r\n"
LOGIN = b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"

Step = tuple[bytes, bytes | None]
DATA: Step = (b"DATA\r\n", b"354 go\r\n")
TAKEN: Step = (TEXT, b"250 2.0.0 Ok: queued as 4F2\r\n")


def greeted(*more: Step) -> ScriptedBackend:
    """A backend that has heard EHLO."""
    return ScriptedBackend([(b"", b"220 mta1\r\n"), (b"EHLO mx.test\r\n", b"250-mta1\r\n250 PIPELINING\r\n"), *more])


def backend(*more: Step) -> ScriptedBackend:
    """A backend that has taken the envelope."""
    return greeted((ENVELOPE, b"250 ok\r\n250 ok rcpt\r\n"), *more)


class Told:
    """Records that keeps all it is told."""

    def __init__(self) -> None:
        self.live: LiveSession | None = None
        self.sessions: list[SessionRecord] = []
        self.logins: list[AuthRecord] = []
        self.transactions: list[TransactionRecord] = []
        self.denials: list[DenialRecord] = []

    def opened(self, session: LiveSession) -> None:
        self.live = session

    def session(self, record: SessionRecord) -> None:
        self.sessions.append(record)

    def authentication(self, record: AuthRecord) -> None:
        self.logins.append(record)

    def transaction(self, record: TransactionRecord) -> None:
        self.transactions.append(record)

    def denial(self, record: DenialRecord) -> None:
        self.denials.append(record)

    @property
    def view(self) -> SessionView:
        """What the session says of itself now."""
        assert self.live is not None
        return self.live.view()


class Session:
    """stream: the client; kwargs: as of fakes.ports. listener: as of flow.SessionSettings."""

    def __init__(
        self,
        pieces: Iterable[bytes | BaseException | None],
        *backends: ScriptedBackend | str,
        protocol: ServerSettings = OPEN,
        listener: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.clock = ManualClock()
        self.stream = FakeStream(pieces)
        self.journal = ListJournal()
        self.told = Told()
        self.backends = FakeBackends(self.clock, [(f"mta{n}", one) for n, one in enumerate(backends, 1)])
        self.ports = replace(ports(self.clock, self.backends, journal=self.journal, **kwargs), records=self.told)
        self.settings = flow.SessionSettings("demo", protocol, **(listener or {}))

    def run(self) -> bytes:
        """To its end; what the client got behind the greeting."""
        flow.run(self.stream, self.settings, self.ports)
        received = bytes(self.stream.received)
        assert received.startswith(GREETING)
        return received.removeprefix(GREETING)

    @property
    def end(self) -> str:
        return self.told.sessions[0].end
