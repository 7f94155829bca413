"""A server that takes everything, in memory: a client's octets in, what it said and the messages that it took out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from smtpgate.smtp import replies, sasl
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
)
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.server import TEXT_AFTER_REFUSAL, ServerProtocol, ServerSettings

GO_AHEAD = Reply(354, ("go ahead",))
WRONG = Reply(535, ("5.7.8 wrong",))


@dataclass(frozen=True, slots=True)
class Message:
    """What a backend would have got. chunked: it came by BDAT, so no dot of its text is stuffed."""

    sender: str
    recipients: tuple[str, ...]
    text: bytes
    chunked: bool


@dataclass(slots=True)
class Heard:
    """out: all that the server said. messages: those that it answered 250. ended: how it closed, "" if it did not."""

    out: bytes = b""
    messages: list[Message] = field(default_factory=list)
    ended: str = ""

    @property
    def codes(self) -> list[int]:
        """The code of each reply."""
        return [int(line[:3]) for line in self.out.split(b"\r\n") if line[3:4] == b" "]


def converse(settings: ServerSettings, pieces: Sequence[bytes], *, eof: bool = False) -> Heard:
    """Say the pieces one after the other, waiting for no answer; eof: and no more. The only account is u / p."""
    server = _Taker(ServerProtocol(settings))
    for n, piece in enumerate(pieces, 1):
        server.protocol.receive_data(piece)
        server.run()
        if server.protocol.text_may_follow and any(pieces[n:]):
            server.protocol.leave(TEXT_AFTER_REFUSAL)  # as a flow does, which looks whether there is more
            server.run()
    if eof:
        server.protocol.receive_eof()
        server.run()
    return server.heard


class _Taker:
    """Answers each event in favour of the client."""

    def __init__(self, protocol: ServerProtocol) -> None:
        self.protocol = protocol
        self.heard = Heard()
        self._exchange: sasl.Exchange | None = None
        self._forget()

    def run(self) -> None:
        """Everything that can be had from what was received."""
        while not self.heard.ended and (event := self.protocol.next_event()) is not None:
            self._take(event)
        self.heard.out += self.protocol.data_to_send()

    def _forget(self) -> None:
        self._sender = ""
        self._recipients: list[str] = []
        self._text = b""
        self._chunked = False

    def _take(self, event: Event) -> None:
        match event:
            case Auth():
                self._exchange = sasl.MECHANISMS[event.mechanism](event.initial, "<1.2@mx.test>")
                self._step(None)
            case AuthLine():
                self._step(event.data)
            case AuthFault():
                self.protocol.send(replies.INVALID_COMMAND)
            case Body():
                self._text += event.data
            case Bdat():
                self._chunked = True
            case BodyEnd():
                self._end(event)
            case BodyFaulted():
                pass
            case Closed():
                self.heard.ended = event.reason
            case _:
                self.protocol.send(self._reply(event))

    def _reply(self, event: Event) -> Reply:
        match event:
            case Hello():
                self._forget()
                return self.protocol.hello_reply(event)
            case Mail():
                self._sender = str(event.sender)
            case Rcpt():
                self._recipients.append(str(event.recipient))
            case Data():
                return GO_AHEAD
            case Reset():
                self._forget()
            case Quit():
                return replies.BYE
        return replies.OK

    def _step(self, answer: bytes | None) -> None:
        assert self._exchange is not None
        try:
            self.protocol.challenge(next(self._exchange) if answer is None else self._exchange.send(answer))
        except StopIteration as done:
            good = (done.value.user, done.value.password) == (b"u", b"p")
            self.protocol.send(replies.AUTH_OK if good else WRONG)
        except sasl.SaslError:
            self.protocol.send(replies.INVALID_COMMAND)

    def _end(self, event: BodyEnd) -> None:
        reply = replies.OK if event.fault is None else replies.BODY_FAULTS[event.fault]
        if event.last and event.fault is None:
            message = Message(self._sender, tuple(self._recipients), self._text, self._chunked)
            self.heard.messages.append(message)
        if event.last or event.fault is not None:
            self._forget()
        self.protocol.send(reply)
