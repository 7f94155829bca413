"""The server's half of SMTP: a client's octets in, events out; replies in, octets out.

Owns the dialogue with one client: the buffer, the state, what is answered here and what becomes an event. An
event is not followed by another until it is answered, so pipelined commands (RFC 2920) are carried out
strictly in order, and all that is said depends on the client's octets, not on how they were cut; but for one thing:
whether a client has waited for the refusal of its DATA (`text_may_follow`).

What a driver does, in a loop: take `next_event()`; on None write `data_to_send()`, then read and hand over
with `receive_data()` or `receive_eof()`; on an event act, then `send()` a reply (`challenge()` for AUTH's
334). `Body`, `BodyFaulted` and `Bdat` need no answer. After `Closed`: write what is queued, close the
connection.

Refuses to know sockets, clocks, accounts and policies. What is legal when is in `states`, what a line says in
`command`, where a text ends in `datascan`; this module moves between them.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from smtpgate.smtp import command, replies
from smtpgate.smtp.content import MAX_DISCARDED, ChunkReader, SkipReader, TextReader
from smtpgate.smtp.errorlimit import JUNK, ErrorLimit
from smtpgate.smtp.events import (
    Auth,
    AuthFault,
    AuthLine,
    Bdat,
    Body,
    BodyEnd,
    BodyFault,
    BodyFaulted,
    Closed,
    Data,
    Event,
    Hello,
    Mail,
    Rcpt,
    Xclient,
)
from smtpgate.smtp.lines import LineBuffer, LineFault
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.settings import MAX_AUTH_LINE, ServerSettings
from smtpgate.smtp.standing import Standing
from smtpgate.smtp.states import (
    AFTER_CONTENT,
    ANSWERED_ANYWHERE,
    FOR_OTHERS,
    INVALID,
    ON_SUCCESS,
    Refusal,
    State,
    Verb,
    refusal,
)

__all__ = ["ServerProtocol", "ServerSettings"]

TEXT_AFTER_REFUSAL: Final = "client sent text after a refused DATA"
TOO_MUCH_JUNK: Final = "client sent too many commands that do nothing"


class ServerProtocol:
    """One client's dialogue. See the module's docstring for how to drive it.

    trusted: the client may speak for others. impostures: how often one that may not has tried to. errors: its
    invalid commands. closing: the last reply is queued or sent: write what is queued, then close. text_may_follow:
    DATA was refused; a client that did not wait for that sends its text now.
    """

    def __init__(self, settings: ServerSettings, *, tls: bool = False, trusted: bool = False) -> None:
        self._settings = settings
        self._normalize = settings.bare_newline == "normalize"
        self.standing = Standing(settings, tls=tls, trusted=trusted)
        self.impostures = 0
        self.errors = ErrorLimit(settings.max_errors, settings.max_junk)
        self._buffer = LineBuffer()
        self._eof = False
        self._out = b""
        self._ready: deque[Event] = deque()  # read, not yet handed out
        self._unanswered: Event | None = None
        self._state = State.START
        self._closed = _LEFT
        self.closing = False
        self._forget()

    def _forget(self) -> None:
        """No transaction is under way."""
        self._recipients = 0
        self._smtputf8 = False
        self._content: TextReader | ChunkReader | None = None
        # A chunk to skip, what to answer then, and the state to go back to.
        self._skip: tuple[SkipReader, Refusal, State] | None = None
        self.text_may_follow = False

    @property
    def buffered(self) -> int:
        """Octets that the client has said beyond what was handed out."""
        return len(self._buffer)

    def greet(self, reply: Reply | None = None) -> None:
        """Queue nginx's greeting, or another one; one that closes ends the dialogue."""
        self._say(reply or self._settings.greeting)

    def receive_data(self, data: bytes) -> None:
        """Keep what the client sent. Nothing is parsed before next_event()."""
        if self._state is not State.CLOSED:
            self._buffer.append(data)

    def receive_eof(self) -> None:
        """The client sends no more. What it sent before is still served."""
        self._eof = True

    def data_to_send(self) -> bytes:
        """Take what is queued for the client."""
        data, self._out = self._out, b""
        return data

    def next_event(self) -> Event | None:
        """The next thing that the client said; None to read more.

        Commands that need nobody's opinion are answered on the way. After the end it is `Closed` for ever.
        Raises AssertionError if the last event has no answer yet, or TLS was promised and not started.
        """
        if self._unanswered is not None:
            raise AssertionError(f"{type(self._unanswered).__name__} was not answered")
        while not self._ready:
            if not _READERS[self._state](self):
                if not self._eof:
                    return None
                self._end("client closed the connection")
        event = self._ready.popleft()
        if type(event) not in _NEED_NO_ANSWER:
            self._unanswered = event
        return event

    def send(self, reply: Reply) -> None:
        """Answer the last event. A positive reply moves the state as `states` says.

        Raises AssertionError where nothing waits for an answer, or where this answer cannot be meant: 2xx to
        DATA, a positive one to a body with a fault.
        """
        event, self._unanswered = self._unanswered, None
        if event is None:
            raise AssertionError(f"no event waits for {reply.code} {reply.text}")
        verb = command.VERB_OF.get(type(event))
        if verb is not None and reply.positive:
            self._succeed(verb, event, reply)
        elif verb is Verb.DATA:
            self._refuse_data(reply)
            return
        elif isinstance(event, BodyEnd):
            assert event.fault is None or not reply.positive, f"{reply.code} to a message with {event.fault}"
            self._move(AFTER_CONTENT[event.last, reply.positive])
            if event.last and reply.positive:
                self.errors.message()
        elif isinstance(event, Auth | AuthLine | AuthFault):
            self._state = State.START
            if reply.code == 235:
                self.standing.logged_in()
            elif reply.code >= 500 and not reply.close and self.errors.junk():
                reply = replies.TOO_MANY_ERRORS
        self._say(reply, "client quit" if verb is Verb.QUIT else None)

    def challenge(self, data: bytes) -> None:
        """Answer Auth or AuthLine with 334 and `data`. The next event is AuthLine, AuthFault or Closed."""
        assert isinstance(self._unanswered, Auth | AuthLine), f"no challenge can follow {self._unanswered!r}"
        self._unanswered = None
        self._state = State.AUTH
        self._out += b"334 %b\r\n" % b64encode(data)

    def hello_reply(self, event: Hello) -> Reply:
        """What answers HELO or EHLO."""
        return self.standing.hello_reply(event)

    def tls_started(self) -> None:
        """The handshake that a 220 promised is done. Forgets what was said in clear (RFC 3207 section 4.2).

        That includes octets that were sent behind STARTTLS: they are nobody's commands (CVE-2011-0411).
        """
        assert self._state is State.HANDSHAKE, "no STARTTLS was answered"
        self._buffer.clear()
        self.standing.secured()
        self._move(State.START)

    def leave(self, reason: str) -> None:
        """What is queued are the last words; nothing that the client has said behind them is carried out."""
        if self._state is not State.CLOSED:
            self.closing = True
            self._end(reason)

    def abort(self, reply: Reply) -> None:
        """Last words that the client did not ask for, unless it was told already that the connection ends."""
        if self._state is not State.CLOSED:
            self._ready.clear()
            self._say(reply.closing())
            self._unanswered = None

    # --- replies and moves ----------------------------------------------------------------------------------

    def _say(self, reply: Reply, reason: str | None = None) -> None:
        self._out += reply.wire()
        if reply.close:
            self.closing = True
            self._end(reason or f"closed with {reply.code}")

    def _end(self, reason: str) -> None:
        """Nothing more is read; `Closed` follows what was read before."""
        if isinstance(self._unanswered, BodyEnd):
            mid_body = not self._unanswered.last
        else:
            mid_body = self._state in _MESSAGE_OPEN
        self._closed = Closed(mid_body, reason)
        self._buffer.clear()
        self._state = State.CLOSED

    def _move(self, state: State) -> None:
        self._state = state
        if state is State.START or state is State.BDAT_FAILED:
            self._forget()

    def _succeed(self, verb: Verb, event: Event, reply: Reply) -> None:
        """A command was accepted."""
        self._move(ON_SUCCESS[self._state][verb])
        match event:
            case Hello():
                self.standing.greeted()
            case Mail():
                self._smtputf8 = event.params.smtputf8
            case Rcpt():
                self._recipients += 1
            case Data():
                assert reply.code == 354, f"{reply.code} to DATA; expected 354 or a refusal"
                self._content = TextReader(self._settings.max_size, normalize=self._normalize)
            case Xclient(login=login):
                self.standing.becomes(login)

    def _refuse(self, refused: Refusal, reason: str | None = None) -> None:
        """Answer a command that is invalid, or not allowed now."""
        reply = refused.reply
        if refused.counted and self.errors.error():
            reply, reason = reply.closing(), "client sent too many invalid commands"
        elif refused.counted and self.text_may_follow:
            # It waited for us, and says what no command is: a text whose author is not the client.
            reply, reason = reply.closing(), TEXT_AFTER_REFUSAL
        elif not (refused.counted or reply.close) and self.errors.junk():
            reply, reason = replies.TOO_MANY_ERRORS, TOO_MUCH_JUNK
        self._say(reply, reason)

    def _refuse_data(self, reply: Reply) -> None:
        """What is here behind a refused DATA is the text: read as commands it would be carried out in the client's
        name, and somebody else may have written it (reference/security.md A8). RFC 2920 section 3.1 has DATA last in
        its group, so nobody else says anything there.
        """
        self.text_may_follow = True
        if self._buffer:
            self._say(reply.closing(), TEXT_AFTER_REFUSAL)
        else:
            self._refuse(Refusal(reply))

    # --- readers: one step each, False if more octets are needed --------------------------------------------

    def _take_line(self) -> bytes | None:
        """The next line; None if there is none, or none any more."""
        buffer = self._buffer
        line = buffer.take_line(self._settings.max_line, bare_lf=self._normalize)
        if line is LineFault.TOO_LONG and (self._state is State.AUTH or buffer.starts_with(b"AUTH ")):
            line = buffer.take_line(max(self._settings.max_line, MAX_AUTH_LINE), bare_lf=self._normalize)
        if not isinstance(line, LineFault):
            return line
        if line is LineFault.TOO_LONG:
            self._say(replies.INVALID_COMMAND.closing(), "client sent too long command")
        else:
            self._say(replies.BARE_NEWLINE, "client sent bare LF")
        return None

    def _read_command(self) -> bool:
        if not self._buffer:
            return False
        line = self._take_line()
        if line is None:
            return self._state is State.CLOSED
        said = command.split(line)
        if isinstance(said, Reply):
            self._refuse(Refusal(said, counted=not said.close), "client speaks HTTP" if said.close else None)
            return True
        refused = refusal(said.verb, self._state, self.standing.bars)
        if said.verb in JUNK and self.errors.junk():
            self._say(replies.TOO_MANY_ERRORS, TOO_MUCH_JUNK)
        elif said.verb is Verb.BDAT:
            self._bdat(command.parse_bdat(said), refused)
        elif said.verb in ANSWERED_ANYWHERE:
            self._say(ANSWERED_ANYWHERE[said.verb])
        elif said.verb is Verb.DATA and refused is not None and refused is not INVALID:
            self._refuse_data(refused.reply)
        elif refused is not None:
            # Before authentication DATA is one of these, as in nginx: nothing can be sent in anybody's name.
            self.impostures += said.verb in FOR_OTHERS and refused is INVALID
            self._refuse(refused)
        elif said.verb is Verb.RCPT and self._recipients >= self._settings.max_recipients:
            self._say(replies.TOO_MANY_RECIPIENTS)
        else:
            parsed = command.parse(said, self._settings.offer_under(self.standing.bars), smtputf8=self._smtputf8)
            if not isinstance(parsed, Reply):
                self._ready.append(parsed)
            elif said.verb is Verb.DATA:
                self._refuse_data(parsed)
            else:
                self._refuse(Refusal(parsed))
        if said.verb is not Verb.DATA or self._ready:
            self.text_may_follow = False
        return True

    def _read_auth_line(self) -> bool:
        line = self._take_line()
        if line is None:
            return self._state is State.CLOSED
        response = command.decode_response(line)
        if response is not None:
            self._ready.append(AuthLine(response))
        else:
            self._ready.append(AuthFault("cancelled" if line == b"*" else "not base64"))
        return True

    def _read_content(self) -> bool:
        content = self._content
        assert content is not None
        events = content.read(self._buffer)
        self._ready += events
        if not events and content.excess is not None:
            self._give_up_on_message(content.excess)
        return bool(events) or self._state is State.CLOSED

    def _bdat(self, chunk: Bdat | Reply, refused: Refusal | None) -> None:
        """BDAT: its octets are on their way whatever we think of it, and must not be read as commands."""
        if refused is not None and refused.reply.close:
            self._refuse(refused)
        elif isinstance(chunk, Reply):
            self._say(chunk, "client sent a faulty BDAT")
        elif refused is None:
            content = self._content
            if not isinstance(content, ChunkReader):
                content = self._content = ChunkReader(self._settings.max_size, normalize=self._normalize)
            events = content.begin(chunk)
            if content.excess is not None:
                self._give_up_on_message(content.excess)
            else:
                self._state = State.CHUNK
                self._ready += events
        elif chunk.size > MAX_DISCARDED:
            self._say(refused.reply.closing(), "client sent a huge BDAT out of sequence")
        else:
            self._skip = (SkipReader(chunk.size), refused, self._state)
            self._state = State.SKIP

    def _skip_chunk(self) -> bool:
        assert self._skip is not None
        skipper, refused, state = self._skip
        skipper.read(self._buffer)
        if skipper.done:
            self._state = state
            self._refuse(refused)
        return skipper.done

    def _give_up_on_message(self, fault: BodyFault) -> None:
        """A message that is refused is read to its end, but not for ever."""
        self._say(replies.BODY_FAULTS[fault].closing(), "client sent too much of a refused message")

    def _read_nothing(self) -> bool:
        self._ready.append(self._closed)
        return True

    def _await_handshake(self) -> bool:
        raise AssertionError("STARTTLS was answered, but tls_started() not called")


_LEFT: Final = Closed()
_NEED_NO_ANSWER: Final = frozenset((Body, BodyFaulted, Bdat, Closed))
_MESSAGE_OPEN: Final = frozenset((State.TEXT, State.CHUNK, State.BDAT))

_READERS: Final[Mapping[State, Callable[[ServerProtocol], bool]]] = MappingProxyType(
    {
        State.START: ServerProtocol._read_command,
        State.MAIL: ServerProtocol._read_command,
        State.RCPT: ServerProtocol._read_command,
        State.BDAT: ServerProtocol._read_command,
        State.BDAT_FAILED: ServerProtocol._read_command,
        State.AUTH: ServerProtocol._read_auth_line,
        State.TEXT: ServerProtocol._read_content,
        State.CHUNK: ServerProtocol._read_content,
        State.SKIP: ServerProtocol._skip_chunk,
        State.HANDSHAKE: ServerProtocol._await_handshake,
        State.CLOSED: ServerProtocol._read_nothing,
    }
)
