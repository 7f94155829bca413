"""One client session from the greeting to the last word, as a straight line of blocking code.

Owns the order of things: an event is answered before the next is taken, what is queued is written only before a
read (so that pipelined replies leave in one packet), time runs out, a drain is noticed at rest. Refuses to know
sockets, Redis, HTTP and YAML: those are ports.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal

from smtpgate.clock import Deadline
from smtpgate.live import SessionView
from smtpgate.session.arrival import Arrival
from smtpgate.session.auth import Login
from smtpgate.session.client import Client
from smtpgate.session.intake import Intake
from smtpgate.session.mailing import Mailing
from smtpgate.session.policing import Policing
from smtpgate.session.ports import Ports
from smtpgate.session.records import SessionRecord
from smtpgate.session.relay import Relay
from smtpgate.session.slowing import Slowing
from smtpgate.session.streams import READ_SIZE, Proxied, Stream, StreamInterrupted, StreamLost, StreamTimeout
from smtpgate.smtp import replies
from smtpgate.smtp.events import (
    Auth,
    AuthFault,
    AuthLine,
    Bdat,
    Body,
    BodyEnd,
    BodyFaulted,
    Closed,
    Data,
    Event,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    Xclient,
    Xforward,
)
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.server import TEXT_AFTER_REFUSAL, ServerProtocol, ServerSettings
from smtpgate.units import PeerNetwork, is_among

# Last words to a client that may not be reading: it has had its time.
FAREWELL_TIMEOUT: Final = 1.0
NO_TIME: Final = 0.001  # a budget that is used up still reads what is here already
TLS_HANDSHAKE_TIMEOUT: Final = 30.0  # reference/security.md F2
# Seconds in all, instead of `timeout`, while the process has hardly a place left: Postfix's stress-dependent
# smtpd_timeout (STRESS_README).
STRESS_TIMEOUT: Final = 10.0
SESSION_ID_OCTETS: Final = 8


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a listener prescribes. timeout: seconds from the greeting to a backend; idle_timeout: from then on.

    envelope: with method none, ask auth_http for each RCPT until the first accepted, for every one, or never.
    greeting_delay: seconds in which a client may not speak yet. certificate_required: of clients, under TLS. xclient:
    who may speak for others. soft_errors: from that error on the reply to each waits for error_delay seconds
    (Postfix, smtpd_error_sleep_time). min_data_rate: octets a second that a client must send of a text, as Intake has
    it.
    """

    listener: str
    protocol: ServerSettings
    timeout: float = 60.0
    idle_timeout: float = 300.0
    envelope: Literal["first", "every", "never"] = "first"
    greeting_delay: float = 0.0
    certificate_required: bool = False
    xclient: tuple[PeerNetwork, ...] = ()
    soft_errors: int = 3
    error_delay: float = 1.0
    min_data_rate: float = 500.0


def run(stream: Stream, settings: SessionSettings, ports: Ports, proxied: Proxied | None = None) -> None:
    """Serve one accepted connection to its end. proxied: what a PROXY header said, where there was one that named a
    client; the stream's peer is that client. Closing the stream is the caller's.
    """
    Session(stream, settings, ports, proxied).run()


class Session:
    """The state of one session. `run()` is the only entry, and comes once."""

    # These know us too. run() lets go of them, or only the garbage collector would; mypyc wants to be told.
    __deletable__ = ("_policing", "_arrival", "_relay", "_login", "_mailing")

    def __init__(
        self, stream: Stream, settings: SessionSettings, ports: Ports, proxied: Proxied | None = None
    ) -> None:
        self._stream = stream
        self._settings = settings
        self._ports = ports
        self._started = ports.clock.monotonic()
        self._began = ports.clock.now()
        self._greeted = False
        self._ended = "cut off"  # unless it comes to another end: the drain's time is over, or a bug
        # Seconds that the client may keep us waiting, in all, from the greeting to a backend (nginx's `timeout`);
        # None once it is there. Our own waits, for policy, auth_http and backends, do not count.
        self._budget: float | None = settings.timeout
        server_name = settings.protocol.server_name
        session = ports.token(SESSION_ID_OCTETS)
        trusted = bool(settings.xclient) and is_among(stream.peer.host, settings.xclient)
        self._protocol = ServerProtocol(settings.protocol, tls=stream.tls is not None, trusted=trusted)
        self._slowing = Slowing(ports, stream, self._protocol, settings.soft_errors, settings.error_delay)
        self._client = Client(session, stream.peer, settings.listener, stream.tls, self._began, proxied)
        self._policing = Policing(ports, self._client, self._attending)
        self._arrival = Arrival(
            ports,
            stream,
            self._client,
            self._policing,
            self._attending,
            certificate_required=settings.certificate_required,
            greeting_delay=settings.greeting_delay,
        )
        self._relay = Relay(ports, server_name, session, self._attending, self._abort_on_close)
        self._login = Login(
            ports,
            self._client,
            self._policing,
            self._protocol,
            server_name,
            self._next_event,
            self._pause,
            self._abort_on_close,
            self._restart_timeout,
        )
        self._mailing = Mailing(
            ports, self._client, self._policing, self._relay, self._login, settings.envelope, settings.min_data_rate
        )

    def run(self) -> None:
        self._ports.records.opened(self)
        try:
            self._serve()
        except StreamTimeout as timeout:
            self._ended = str(timeout) or "client timed out"
            self._say_last(replies.TIMED_OUT)
        except StreamLost as lost:
            self._ended = f"connection lost: {lost}"
        except Exception as bug:
            bug.add_note(f"in session {self._client.session}")
            raise
        finally:
            self._relay.close()
            self._mailing.lost(self._ended)
            self._login.forget()
            self._arrival.leave()
            self._log()
            del self._policing, self._arrival, self._relay, self._login, self._mailing

    @property
    def id(self) -> str:
        return self._client.session

    def view(self) -> SessionView:
        """What it is doing now, for the operator."""
        who = self._client.who()
        return SessionView(
            session=who.session,
            listener=who.listener,
            client=who.client,
            name=who.name,
            user=who.user,
            tls=who.tls,
            since=self._began,
            phase=self._phase,
            transactions=self._mailing.count,
            transaction=self._mailing.transaction,
            backend=self._relay.backend,
        )

    @property
    def _phase(self) -> str:
        """In the words of live.SessionView."""
        if not self._greeted:
            return "greeting"
        return "auth" if self._login.busy else self._mailing.phase

    def _serve(self) -> None:
        rejected = self._arrival.before_greeting()
        self._protocol.greet(None if rejected is None else rejected.reply)
        if rejected is not None:
            self._ended = rejected.reason
        else:
            self._greeted = True
            event = self._next_event()
            while not isinstance(event, Closed):
                self._answer(event)
                event = self._next_event()
            self._ended = event.reason
            if event.mid_body:
                self._relay.abort()
        self._flush()

    def _next_event(self) -> Event:
        patience: Deadline | None = None
        while True:
            event = self._protocol.next_event()
            if event is not None:
                self._spend(patience)
                return event
            if self._ports.draining() and not self._mailing.under_way:
                self._protocol.abort(replies.SHUTTING_DOWN)
                continue
            if self._flush():
                # A whole command was answered. Its patience ends here, and not with each octet that drips in
                # (reference/security.md F2).
                self._spend(patience)
                patience = None
                if self._protocol.closing or self._ports.draining():
                    continue  # these were the last words, or the drain has begun while they waited
            intake = self._mailing.intake
            if intake is not None:
                if intake.in_vain:
                    self._protocol.abort(self._mailing.give_up())
                    continue
                if intake.settle():
                    patience = None  # it was we who were waited for
            patience = patience or Deadline(self._ports.clock, self._patience)
            try:
                data = self._listen(patience) if intake is None else self._take_in(intake, patience)
            except StreamInterrupted:
                continue
            if data is None:
                continue
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()

    def _listen(self, patience: Deadline) -> bytes | None:
        """A piece of a command. Under stress a client that is nowhere yet has STRESS_TIMEOUT of the same budget."""
        if self._budget is not None and self._ports.stressed():
            less = max(0.0, self._settings.timeout - STRESS_TIMEOUT)
            patience = Deadline(self._ports.clock, max(patience.remaining() - less, NO_TIME))
        return self._stream.read(patience, READ_SIZE)

    def _take_in(self, intake: Intake, patience: Deadline) -> bytes | None:
        """A piece of a text; None where what was read in vain has had its time."""
        try:
            data = self._stream.read(intake.wait(patience), intake.piece)
        except StreamTimeout:
            if intake.in_vain:
                return None
            raise StreamTimeout("" if patience.expired else "client sent its text too slowly") from None
        intake.came(len(data))
        return data

    def _spend(self, patience: Deadline | None) -> None:
        if patience is not None and self._budget is not None:
            self._budget = patience.remaining()

    def _answer(self, event: Event) -> None:
        protocol, mailing = self._protocol, self._mailing
        match event:
            case Body(data, last):
                mailing.body(data, last=last)
            case Rcpt():
                protocol.send(self._reached(mailing.rcpt(event)))
            case Mail():
                protocol.send(mailing.begin(event))
            case Data():
                protocol.send(mailing.data(protocol.buffered))
            case BodyEnd():
                if mailing.intake is not None and mailing.intake.shaped:
                    self._flush()
                    mailing.intake.settle()
                protocol.send(mailing.end_of_body(event))
            case BodyFaulted(fault):
                mailing.faulted(fault)
            case Bdat():
                mailing.chunk(protocol.buffered)
            case Hello():
                mailing.reset("HELO/EHLO")
                self._client.greeted(event)
                protocol.send(protocol.hello_reply(event))
            case Auth():
                self._authenticate(event)
            case StartTls():
                self._start_tls()
            case Reset():
                mailing.reset("reset")
                protocol.send(replies.OK)
            case Xclient():
                protocol.send(self._introduce(event))
            case Xforward():
                self._client.forwards(event)
                protocol.send(replies.OK)
            case Quit():
                protocol.send(replies.BYE)
            case AuthLine() | AuthFault() | Closed():
                raise AssertionError(f"{event} outside its exchange")

    def _authenticate(self, event: Auth) -> None:
        outcome = self._login.authenticate(event)
        if isinstance(outcome, Closed):
            return  # the protocol hands it out again
        self._protocol.send(self._reached(outcome) if outcome.code == replies.AUTH_OK.code else outcome)

    def _start_tls(self) -> None:
        self._protocol.send(replies.START_TLS)
        self._flush()
        self._mailing.reset("STARTTLS")
        self._login.forget()
        self._relay.close()
        try:
            tls = self._stream.start_tls(Deadline(self._ports.clock, TLS_HANDSHAKE_TIMEOUT))
        except StreamTimeout:  # a 421 in clear would stand in the middle of a handshake (RFC 3207 section 4)
            raise StreamLost("TLS handshake did not end in time") from None
        self._protocol.tls_started()
        served = self._client.peer.host
        self._client.forget(tls, self._ports.clock.now())
        rejected = self._arrival.secured(served)
        if rejected is not None:
            self._protocol.abort(rejected.reply)

    def _introduce(self, told: Xclient) -> Reply:
        """XCLIENT from somebody who may say it: another client, under the limits as one that has just connected."""
        served = self._client.peer.host
        self._login.forget()
        self._relay.close()
        self._client.becomes(told, self._ports.clock.now())
        self._restart_timeout()
        rejected = self._arrival.replaced(served)
        return rejected.reply if rejected is not None else replies.greeting(self._settings.protocol.server_name)

    def _reached(self, reply: Reply) -> Reply:
        """Authenticated, or at a backend: from now on each command has the idle timeout of its own."""
        if reply.positive:
            self._budget = None
        return reply

    def _restart_timeout(self) -> None:
        self._budget = self._settings.timeout

    @property
    def _patience(self) -> float:
        """Seconds that the client's next command may take."""
        return self._settings.idle_timeout if self._budget is None else max(self._budget, NO_TIME)

    def _flush(self) -> bool:
        """Write what is queued; whether there was anything."""
        protocol = self._protocol
        if protocol.errors.count > self._slowing.answered:
            self._slowing.wait()
        data = protocol.data_to_send()
        if data:
            if protocol.text_may_follow and (protocol.buffered or self._stream.readable()):
                protocol.leave(TEXT_AFTER_REFUSAL)
            # nginx: `timeout` is also what a client has to take what we say.
            self._stream.write(data, Deadline(self._ports.clock, self._settings.timeout))
        return bool(data)

    def _pause(self, seconds: float) -> None:
        with self._attending():
            self._ports.clock.sleep(seconds)

    @contextmanager
    def _attending(self) -> Iterator[None]:
        """For waits on somebody else: nothing stays unsent, and a client that leaves ends them."""
        self._flush()
        with self._abort_on_close():
            yield

    def _abort_on_close(self) -> AbstractContextManager[None]:
        """See Stream.abort_on_close. A client that has pipelined commands is served to their end, as ever."""
        return nullcontext() if self._protocol.buffered else self._stream.abort_on_close()

    def _say_last(self, reply: Reply) -> None:
        self._relay.abort()
        self._protocol.abort(reply)
        try:
            self._stream.write(self._protocol.data_to_send(), Deadline(self._ports.clock, FAREWELL_TIMEOUT))
        except (StreamLost, StreamTimeout):
            pass

    def _log(self) -> None:
        record = SessionRecord(
            who=self._client.who(),
            transactions=self._mailing.count,
            impostures=self._protocol.impostures,
            seconds=self._ports.clock.monotonic() - self._started,
            end=self._ended,
        )
        self._ports.records.session(record)
