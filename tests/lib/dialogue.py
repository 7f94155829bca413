"""A client and a permissive flow around a ServerProtocol, in memory.

`play` feeds octets in pieces, answers every event as a flow would that has nothing against anybody, and tells what
went out and what came in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from smtpgate.smtp import replies, sasl
from smtpgate.smtp.events import (
    Address,
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
)
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.server import TEXT_AFTER_REFUSAL, ServerProtocol, ServerSettings

GO_AHEAD = Reply(354, ("go ahead",))
WRONG = Reply(535, ("5.7.8 wrong",))


@dataclass(frozen=True, slots=True)
class Message:
    """What a backend would have got. chunked: it came by BDAT, so no dot of its text is stuffed."""

    sender: Address
    recipients: tuple[Address, ...]
    text: bytes
    chunked: bool


@dataclass(slots=True)
class Play:
    """What a dialogue came to. out: all that the server said; messages: those that it answered 250."""

    out: bytes = b""
    events: list[Event] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    closing: bool = False

    @property
    def codes(self) -> list[int]:
        """The code of each reply."""
        return [int(line[:3]) for line in self.out.split(b"\r\n") if line[3:4] == b" "]

    @property
    def ended(self) -> Closed | None:
        """How the server closed, None if it did not."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, Closed) else None


class PermissiveFlow:
    """Answers events. The only account is u / p; `verdicts` are replies to give instead, by type of event."""

    def __init__(self, protocol: ServerProtocol, verdicts: dict[type, list[Reply]]) -> None:
        self.protocol = protocol
        self.verdicts = verdicts
        self.play = Play()
        self.exchange: sasl.Exchange | None = None
        self._forget()

    def _forget(self) -> None:
        self.sender: Address | None = None
        self.recipients: list[Address] = []
        self.text = b""
        self.chunked = False

    def run(self) -> None:
        """Everything that can be had from what was received."""
        while not isinstance(self.play.ended, Closed):
            event = self.protocol.next_event()
            if event is None:
                break
            self._record(event)
            self._answer(event)
        self.play.out += self.protocol.data_to_send()
        self.play.closing = self.protocol.closing

    def _record(self, event: Event) -> None:
        """Bodies are joined, and forgotten where they were in vain: how they were cut is not the dialogue."""
        events = self.play.events
        if isinstance(event, Body) and events and isinstance(events[-1], Body):
            events[-1] = Body(events[-1].data + event.data)
            return
        if isinstance(event, BodyFaulted | Closed) and events and isinstance(events[-1], Body):
            events.pop()
        events.append(event)

    def _answer(self, event: Event) -> None:
        waiting = self.verdicts.get(type(event))
        if waiting and not isinstance(event, BodyEnd):
            self.protocol.send(waiting.pop(0))
            return
        match event:
            case Auth():
                self.exchange = sasl.MECHANISMS[event.mechanism](event.initial, "<1.2@mx.test>")
                self._step(None)
            case AuthLine():
                self._step(event.data)
            case AuthFault():
                self.protocol.send(replies.INVALID_COMMAND)
            case BodyEnd():
                self._end_of_body(event)
            case Body():
                self.text += event.data
            case Bdat():
                self.chunked = True
            case BodyFaulted() | Closed():
                pass
            case _:
                self.protocol.send(self._reply(event))

    def _reply(self, event: Event) -> Reply:
        match event:
            case Hello():
                self._forget()
                return self.protocol.hello_reply(event)
            case Mail():
                self.sender = event.sender
            case Rcpt():
                self.recipients.append(event.recipient)
            case Data():
                return GO_AHEAD
            case Reset():
                self._forget()
            case Quit():
                return replies.BYE
            case StartTls():
                return replies.START_TLS
        return replies.OK

    def _step(self, answer: bytes | None) -> None:
        assert self.exchange is not None
        try:
            self.protocol.challenge(next(self.exchange) if answer is None else self.exchange.send(answer))
        except StopIteration as done:
            good = (done.value.user, done.value.password) == (b"u", b"p")
            self.protocol.send(replies.AUTH_OK if good else WRONG)
        except sasl.SaslError:
            self.protocol.send(replies.INVALID_COMMAND)

    def _end_of_body(self, event: BodyEnd) -> None:
        waiting = self.verdicts.get(BodyEnd)
        if event.fault is not None:
            reply = replies.BODY_FAULTS[event.fault]
        else:
            reply = waiting.pop(0) if waiting else replies.OK
        if event.last and reply.positive:
            assert self.sender is not None
            self.play.messages.append(Message(self.sender, tuple(self.recipients), self.text, self.chunked))
        if event.last or not reply.positive:
            self._forget()
        self.protocol.send(reply)


def play(
    settings: ServerSettings,
    pieces: Sequence[bytes],
    *,
    verdicts: Mapping[type, Sequence[Reply]] | None = None,
    eof: bool = False,
    tls: bool = False,
    greet: bool = False,
    looks: bool = False,
) -> Play:
    """Say the pieces one after the other, waiting for no answer. verdicts: replies to give instead, by type of event;
    eof: the client says no more; greet: the server greets; looks: behind a refused DATA the flow looks whether there
    is more, as the real one does.
    """
    protocol = ServerProtocol(settings, tls=tls)
    flow = PermissiveFlow(protocol, {event: list(waiting) for event, waiting in (verdicts or {}).items()})
    if greet:
        protocol.greet()
    for n, piece in enumerate(pieces, 1):
        protocol.receive_data(piece)
        flow.run()
        if looks and protocol.text_may_follow and any(pieces[n:]):
            protocol.leave(TEXT_AFTER_REFUSAL)
            flow.run()
    if eof:
        protocol.receive_eof()
        flow.run()
    return flow.play
