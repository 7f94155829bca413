"""The client's side of SMTP towards one backend, without IO.

Owns which reply belongs to which command (a FIFO, RFC 2920), what the backend offers, and when the
conversation is beyond repair; what may be sent when is the table in `clientstates`. Refuses to know sockets,
time, and what a reply means for the mail: the driver (session.link) reads, writes and judges.

    client = ClientProtocol()                     # the greeting is awaited
    greeting = wait_reply()
    write(client.send(encode.ehlo(name)))
    hello = wait_reply()                          # client.extensions is now known
    write(client.send(mail, rcpt, rcpt))          # one group, if client.extensions.pipelining
    replies = [wait_reply() for _ in range(3)]

    def wait_reply():                             # only while client.awaiting is above 0
        while (reply := client.next_reply()) is None:
            data = read()
            client.receive_data(data) if data else client.receive_eof()
        return reply

While replies are awaited, `next_reply` gives one, gives None (read more), or raises. BackendProtocolError,
from `next_reply` or from `send`, means that the backend is lost: close the connection. The state is then
CLOSED and stays so; whether a message whose end was sent is committed, nobody knows. A negative reply is not
an error. LocalProtocolError means that the caller broke the protocol: a fault in this program.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from smtpgate.smtp.clientstates import RULES, ClientState, Verb
from smtpgate.smtp.encode import FINAL_DOT
from smtpgate.smtp.extensions import EMPTY, Extensions
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.replyparser import SAMPLE_OCTETS, BackendProtocolError, ReplyError, ReplyParser

__all__ = [
    "BackendProtocolError",
    "ClientProtocol",
    "ClientState",
    "ConnectionEnded",
    "LocalProtocolError",
    "ProtocolViolation",
    "ReplyError",
]

SERVICE_CLOSING: Final = 421
"""The one code that may come at any time and ends the session (RFC 5321 section 3.8)."""


class ProtocolViolation(BackendProtocolError):
    """The backend replied to what nobody asked, or with a code that the command cannot have."""


class ConnectionEnded(BackendProtocolError):
    """The backend closed the connection, or said 421, with something still to be done."""


class LocalProtocolError(Exception):
    """We tried what the protocol does not allow here."""


_COMMANDS: Final = {
    verb.value.encode(): verb for verb in Verb if verb not in (Verb.GREETING, Verb.END_OF_DATA, Verb.BDAT_LAST)
}


_WHOLE: Final = {
    b"%b\r\n" % word: verb for word, verb in _COMMANDS.items() if verb in (Verb.DATA, Verb.RSET, Verb.QUIT)
}
"""Command lines that are always the same: there is nothing to look for in them."""


class ClientProtocol:
    """One backend connection. See the module's docstring for the loop around it."""

    __slots__ = (
        "_ahead",
        "_awaited",
        "_eof",
        "_extensions",
        "_failure",
        "_farewell",
        "_parser",
        "_state",
    )

    def __init__(self) -> None:
        self._parser = ReplyParser()
        self._state = ClientState.GREETING
        self._ahead = ClientState.HELLO  # the state once all that is awaited has gone well
        self._awaited: deque[Verb] = deque([Verb.GREETING])
        self._extensions = EMPTY
        self._farewell: Reply | None = None
        # The exception itself would hold all who have seen it, and so ourselves.
        self._failure: tuple[type[BackendProtocolError], str] | None = None
        self._eof = False

    # --- what is known --------------------------------------------------------------------------------------

    @property
    def state(self) -> ClientState:
        """What the backend has confirmed so far."""
        return self._state

    @property
    def awaiting(self) -> int:
        """How many replies are still due. After a failure: how many commands were never answered."""
        return len(self._awaited)

    @property
    def extensions(self) -> Extensions:
        """From the last accepted EHLO; EMPTY before it, after HELO and after `tls_started`."""
        return self._extensions

    @property
    def farewell(self) -> Reply | None:
        """The backend's last words: its 421, asked for or not, or its refusal of a text still being sent."""
        return self._farewell

    @property
    def has_buffered(self) -> bool:
        """The backend has said more than was handed out."""
        return self._parser.buffered > 0

    @property
    def can_reuse(self) -> bool:
        """Another transaction may start: READY, in step, nothing pending in either direction."""
        return self._state is ClientState.READY and not (self._awaited or self._parser.buffered or self._eof)

    def __repr__(self) -> str:
        due = ", ".join(verb.value for verb in self._awaited)
        return f"<ClientProtocol {self._state.value}, awaiting [{due}]>"

    # --- sending --------------------------------------------------------------------------------------------

    def send(self, *commands: bytes) -> bytes:
        """Register commands, each a whole line from `encode`; returns the octets that the driver must write.

        Several form a pipelined group, for which the backend must offer PIPELINING; so must it for a command
        behind one that is still unanswered. All or nothing: on LocalProtocolError none is registered.
        After a BDAT the driver writes exactly the chunk's octets, then may send again.
        Raises BackendProtocolError if the backend has already left or talked out of turn.
        """
        self._settle()
        self._register([_verb(command) for command in commands])
        return commands[0] if len(commands) == 1 else b"".join(commands)

    def end_data(self, terminator: bytes = FINAL_DOT) -> bytes:
        """End the text begun by 354; returns the octets to write and awaits the final reply.

        `terminator` is ".CRLF" behind a text that is empty or ends in CRLF, else "CRLF.CRLF". Never call it
        for a message that is not whole: close the connection instead, and nothing is delivered.
        Raises as `send`. A backend that refused the text while it was being written has left `farewell`.
        """
        if terminator not in (FINAL_DOT, b"\r\n" + FINAL_DOT):
            raise LocalProtocolError("the terminator of a text is .CRLF or CRLF.CRLF")
        self._settle()
        self._register([Verb.END_OF_DATA])
        return terminator

    def tls_started(self) -> None:
        """The TLS handshake behind the 220 to STARTTLS is done: forget all, EHLO comes next (RFC 3207).

        Call it before any octet from inside TLS is fed. Raises ProtocolViolation if the backend, or somebody
        on the way, sent octets behind its 220 in clear: they would be read as replies from inside TLS.
        """
        if self._failure is not None:
            raise self._failed_before()
        if self._state is not ClientState.TLS:
            raise LocalProtocolError(f"TLS started in state {self._state.value}, expected a 220 to STARTTLS")
        if self._parser.buffered:
            raise self._fail(ProtocolViolation("octets in clear behind the 220 to STARTTLS (response injection)"))
        self._state = self._ahead = ClientState.HELLO
        self._extensions = EMPTY

    def abort(self, reason: str) -> None:
        """The driver gave the connection up (timeout, reset, half a message): CLOSED, for that reason.

        Does nothing after the first failure, whose reason is the better one.
        """
        if self._failure is None:
            self._fail(ConnectionEnded(reason))

    # --- receiving ------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Store octets from the backend; never raises. Take the replies before reading again."""
        if self._state is not ClientState.CLOSED:
            self._parser.receive_data(data)

    def receive_eof(self) -> None:
        """The backend's end of stream. Replies received before it are still handed out."""
        self._eof = True

    def next_reply(self) -> Reply | None:
        """The reply to the oldest unanswered command, or None: read more.

        With nothing awaited it may be called to learn whether the backend has left: it gives None, and
        `state` is then CLOSED and `farewell` set if it said why. Raises ProtocolViolation, ReplyError, and
        ConnectionEnded if the stream ended while replies are awaited.
        """
        if self._state is ClientState.CLOSED:
            if self._failure is not None and (self._awaited or self._failure[0] is not ConnectionEnded):
                raise self._failed_before()
            return None
        try:
            reply = self._parser.next_reply()
        except ReplyError as error:
            raise self._fail(error) from None
        if reply is None:
            if self._eof:
                self._end()
            return None
        if not self._awaited:
            self._unsolicited(reply)
            return None
        self._answer(self._awaited.popleft(), reply)
        return reply

    # --- inside ---------------------------------------------------------------------------------------------

    def _register(self, verbs: list[Verb]) -> None:
        ahead = self._ahead
        before = self._awaited[-1] if self._awaited else None
        for verb in verbs:
            rule = RULES[verb]
            if ahead not in rule.legal:
                raise LocalProtocolError(f"{verb.value} is not legal in state {ahead.value}")
            if before is not None and (RULES[before].last or not self._extensions.pipelining):
                raise LocalProtocolError(f"{verb.value} must wait for the reply to {before.value}")
            ahead = rule.success or ahead
            before = verb
        self._ahead = ahead
        self._awaited += verbs

    def _answer(self, verb: Verb, reply: Reply) -> None:
        """Move the state by the reply to `verb`, already taken from the FIFO."""
        rule = RULES[verb]
        kind = reply.code // 100
        if reply.code == SERVICE_CLOSING:
            # What was pipelined behind it stays unanswered.
            self._leave(reply, f"the backend closes the session: {_quote(reply)}")
            return
        if kind == rule.positive:
            if self._state not in rule.legal and self._state not in rule.also_from:
                state = self._state.value
                raise self._fail(ProtocolViolation(f"{_quote(reply)} to {verb.value} in state {state}"))
            self._state = rule.success or self._state
            if verb is Verb.EHLO:
                self._extensions = Extensions.from_ehlo(reply)
            elif verb is Verb.HELO:
                self._extensions = EMPTY
        elif kind in (4, 5) and rule.refusable:
            self._state = rule.refused or self._state
        else:
            raise self._fail(ProtocolViolation(f"{_quote(reply)} cannot answer {verb.value}"))
        if not self._awaited:
            self._ahead = self._state

    def _unsolicited(self, reply: Reply) -> None:
        """A reply with nothing awaited. 421 may come at any time; a text may be refused before its end."""
        if reply.code == SERVICE_CLOSING:
            self._leave(reply, f"the backend closed the session: {_quote(reply)}")
        elif self._state is ClientState.DATA and not reply.positive:
            self._leave(reply, f"the backend refused the text before its end: {_quote(reply)}")
        else:
            raise self._fail(ProtocolViolation(f"unsolicited reply {_quote(reply)}"))

    def _settle(self) -> None:
        """Before a write: is the backend still there, and did it keep silent unless asked?"""
        if not self._awaited and (self._eof or self._parser.buffered):
            self.next_reply()
            if self._failure is None and self._parser.buffered:
                raise self._fail(ProtocolViolation("part of a reply that nobody asked for"))
        if self._failure is not None:
            raise self._failed_before()

    def _end(self) -> None:
        """The stream ended and all replies are taken. An idle backend may leave; a busy one has failed us."""
        part = " inside a reply" if self._parser.buffered else ""
        due = f" before the reply to {self._awaited[0].value}" if self._awaited else ""
        reason = f"the backend closed the connection{part}{due}"
        if self._awaited:
            raise self._fail(ConnectionEnded(reason))
        self._fail(ConnectionEnded(reason))

    def _leave(self, reply: Reply, reason: str) -> None:
        self._farewell = reply
        self._fail(ConnectionEnded(reason))

    def _fail(self, error: BackendProtocolError) -> BackendProtocolError:
        self._state = self._ahead = ClientState.CLOSED
        self._failure = type(error), str(error)
        return error

    def _failed_before(self) -> BackendProtocolError:
        assert self._failure is not None
        kind, reason = self._failure
        return kind(reason)


def _verb(command: bytes) -> Verb:
    """Which verb a command line is. Raises LocalProtocolError for what is not one line of ours."""
    if command in _WHOLE:
        return _WHOLE[command]
    line = command[:-2]
    if command[-2:] != b"\r\n" or b"\r" in line or b"\n" in line or b"\0" in line:
        raise LocalProtocolError("a command is one line that ends in CRLF, without NUL")
    verb = _COMMANDS.get(line.partition(b" ")[0])
    if verb is None:
        raise LocalProtocolError(f"unknown command, expected one of {', '.join(v.value for v in _COMMANDS.values())}")
    if verb is Verb.BDAT and line.endswith(b" LAST"):
        return Verb.BDAT_LAST
    return verb


def _quote(reply: Reply) -> str:
    """Code and the start of the text, escaped to printable ASCII, for a reason."""
    return f"{reply.code} {reply.text[:SAMPLE_OCTETS]!a}"
