"""The conversation with one backend: the client protocol driven over a stream, in blocking steps.

Owns the waits (RFC 5321 section 4.5.3.2) and the translation of every fault into LinkLost. Refuses to know what is
said to make a client known (`handshake`), why a backend was chosen, and what to do when it fails (`relay`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from smtpgate.clock import Clock, Deadline
from smtpgate.routing.model import BackendTls
from smtpgate.session.handshake import Introduction
from smtpgate.session.streams import Stream, StreamInterrupted, StreamLost, StreamTimeout
from smtpgate.smtp import encode
from smtpgate.smtp.client import BackendProtocolError, ClientProtocol, ClientState, ConnectionEnded
from smtpgate.smtp.extensions import Extensions
from smtpgate.smtp.replies import Reply

# RFC 5321 section 4.5.3.2 asks a client to wait 5 minutes for MAIL and RCPT. A proxy has a second client waiting
# behind it, whose own 5 minutes must not run out first: half of them.
COMMAND_TIMEOUT: Final = 150.0
DATA_INIT_TIMEOUT: Final = 120.0  # RFC 5321 section 4.5.3.2.4
DATA_BLOCK_TIMEOUT: Final = 180.0  # RFC 5321 section 4.5.3.2.5
DATA_DONE_TIMEOUT: Final = 600.0  # RFC 5321 section 4.5.3.2.6
FAREWELL_TIMEOUT: Final = 0.05  # last words that have arrived already; nobody waits for more

# RFC 2920 section 3.1: whoever sends must be able to read, or both ends wait. So many replies fit every buffer.
MAX_UNANSWERED: Final = 100


class LinkLost(Exception):
    """The backend can no longer be spoken to: gone, silent, talking nonsense, or it said 421.

    `str()` is for the log. farewell: its last reply, where there was one. silent: it is there, but does not answer.
    garbled: what it said is no SMTP, or answers nothing.
    """

    def __init__(
        self, reason: str, farewell: Reply | None = None, *, silent: bool = False, garbled: bool = False
    ) -> None:
        super().__init__(reason)
        self.farewell = farewell
        self.silent = silent
        self.garbled = garbled


class BackendLink:
    """One backend connection. After LinkLost it is of no use and must be closed.

    introduction: whom it knows us as, and our clients; `handshake` keeps it.
    """

    def __init__(self, stream: Stream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._protocol = ClientProtocol()
        self._silent = False  # it was looked whether the backend has said anything, and nothing has happened since
        self.introduction = Introduction()

    @property
    def extensions(self) -> Extensions:
        return self._protocol.extensions

    @property
    def resting(self) -> bool:
        """Between transactions, in step, and fit to be another client's: whoever holds it may keep it for one."""
        return self._protocol.can_reuse and self.introduction.renewable(self.extensions)

    def greeting(self, deadline: Deadline) -> Reply:
        """The backend's first words. Raises LinkLost."""
        return self._replies(1, deadline)[0]

    def ask(self, *commands: bytes, deadline: Deadline | None = None) -> list[Reply]:
        """Send commands in one write; their replies in order. Raises LinkLost, also for a 421.

        What has been said before they are sent answers none of them: taken for an answer it would shift every reply
        that follows (reference/security.md B1).
        """
        if not self._silent:
            self.check_silent("before it was asked")
        deadline = deadline or Deadline(self._clock, COMMAND_TIMEOUT)
        self._write(self._registered(self._protocol.send, *commands), deadline)
        replies = self._replies(len(commands), deadline)
        if len(commands) > 1 and self._protocol.has_buffered:
            self._check_surplus()
        return replies

    def start_tls(self, settings: BackendTls, server_name: str, deadline: Deadline) -> None:
        """TLS behind a 220 to STARTTLS; EHLO comes next. Raises LinkLost: there is no way back to clear text.

        A TLS server says nothing before the client's hello. What waits here was said in clear, by whomever
        (reference/security.md C2).
        """
        if self._stream.readable():
            raise LinkLost("backend spoke or left in clear behind its 220 to STARTTLS")
        try:
            self._protocol.tls_started()
            self._stream.start_client_tls(settings, server_name, deadline)
        except StreamTimeout:
            raise LinkLost("TLS handshake did not end in time", silent=True) from None
        except (StreamLost, BackendProtocolError) as fault:
            raise LinkLost(str(fault)) from None

    def check_silent(self, when: str) -> None:
        """A backend that is asked nothing has nothing to say: what waits there is its farewell, a refusal of the text
        that it reads, or a reply out of turn. Raises LinkLost, with the refusal where it is one.
        """
        if self._stream.readable():
            raise self._unasked(f"backend spoke or left {when}")
        self._silent = True

    # --- a text as DATA ------------------------------------------------------------------------------------------

    def start_data(self) -> Reply:
        """DATA: 354, or why not. Raises LinkLost."""
        return self.ask(encode.DATA, deadline=Deadline(self._clock, DATA_INIT_TIMEOUT))[0]

    def write_body(self, data: bytes) -> None:
        """A piece of the message after a 354; blocks while the backend is slow. Raises LinkLost."""
        self._write(data, Deadline(self._clock, DATA_BLOCK_TIMEOUT))

    def end_data(self, terminator: bytes, tail: bytes = b"") -> Reply:
        """The end of data and its reply. tail: the last piece of the message, if it was not written yet. Raises
        LinkLost: then nobody knows whether it was committed.
        """
        octets = self._registered(self._protocol.end_data, terminator)
        self._write(tail + octets, Deadline(self._clock, DATA_BLOCK_TIMEOUT))
        return self._replies(1, Deadline(self._clock, DATA_DONE_TIMEOUT))[0]

    # --- a text in BDAT chunks (RFC 3030) ------------------------------------------------------------------------

    def write_chunk(self, data: bytes) -> Reply | None:
        """A chunk of the message, unless an earlier one was refused: then the refusal, and nothing is written.

        Pipelined where that is offered. Raises LinkLost.
        """
        refusal = self._chunks_answered(MAX_UNANSWERED - 1 if self.extensions.pipelining else 0)
        if refusal is None:
            command = self._registered(self._protocol.send, encode.bdat(len(data), last=False))
            self._write(command + data, Deadline(self._clock, DATA_BLOCK_TIMEOUT))
        return refusal

    def settle_chunks(self) -> Reply | None:
        """Until every chunk has its answer; the first refusal among them. Raises LinkLost."""
        return self._chunks_answered(0)

    def end_chunks(self) -> Reply:
        """The end of the message and its reply. Raises LinkLost: then nobody knows whether it was committed."""
        octets = self._registered(self._protocol.send, encode.bdat(0, last=True))
        self._write(octets, Deadline(self._clock, DATA_BLOCK_TIMEOUT))
        return self._replies(1, Deadline(self._clock, DATA_DONE_TIMEOUT))[0]

    def _chunks_answered(self, unanswered: int) -> Reply | None:
        """Take the replies that are here, and wait until at most that many are due."""
        protocol, refusal = self._protocol, None
        while protocol.awaiting > unanswered or (
            protocol.awaiting and (protocol.has_buffered or self._stream.readable())
        ):
            reply = self._replies(1, Deadline(self._clock, DATA_BLOCK_TIMEOUT))[0]
            if refusal is None and not reply.positive:
                refusal = reply
        return refusal

    # --- the end, and the octets ---------------------------------------------------------------------------------

    def quit(self) -> None:
        """Say QUIT without waiting for the answer: nobody needs it, and the client should not wait for it."""
        try:
            self._stream.write(encode.QUIT, Deadline(self._clock, FAREWELL_TIMEOUT))
        except (StreamLost, StreamTimeout):
            pass

    def close(self) -> None:
        self._stream.close()

    def _registered(self, register: Callable[..., bytes], *commands: bytes) -> bytes:
        """What to write for some commands; a backend that has left or talked out of turn gets none."""
        try:
            return register(*commands)
        except BackendProtocolError as fault:
            raise self._lost(fault) from None

    def _write(self, data: bytes, deadline: Deadline) -> None:
        self._silent = False
        try:
            self._stream.write(data, deadline)
        except StreamTimeout:
            raise LinkLost("backend takes no more data", silent=True) from None
        except StreamLost as lost:
            raise self._unasked(str(lost)) from None

    def _check_surplus(self) -> None:
        """More came with the replies to a group than answers it: which of them answers what, nobody can tell. A
        farewell is no answer. Raises LinkLost.
        """
        try:
            self._protocol.next_reply()
        except BackendProtocolError as fault:
            raise self._lost(fault) from None

    def _unasked(self, reason: str) -> LinkLost:
        """With what the backend has said before it was asked, or hung up, as far as it is here already."""
        deadline = Deadline(self._clock, FAREWELL_TIMEOUT)
        reply: Reply | None = None
        garbled = False
        try:
            while reply is None and self._protocol.state is not ClientState.CLOSED:
                self._receive(deadline)
                reply = self._protocol.next_reply()
        except (StreamTimeout, StreamLost):
            pass
        except BackendProtocolError as fault:
            garbled = not isinstance(fault, ConnectionEnded)
            reason = f"{reason}: {fault}" if garbled else reason
        return LinkLost(reason, reply or self._protocol.farewell, garbled=garbled)

    def _lost(self, fault: StreamLost | BackendProtocolError) -> LinkLost:
        garbled = isinstance(fault, BackendProtocolError) and not isinstance(fault, ConnectionEnded)
        return LinkLost(str(fault), self._protocol.farewell, garbled=garbled)

    def _replies(self, count: int, deadline: Deadline) -> list[Reply]:
        replies: list[Reply] = []
        try:
            while len(replies) < count:
                reply = self._protocol.next_reply()
                if reply is None:
                    self._receive(deadline)
                elif reply.code == 421:
                    raise LinkLost("backend said 421", reply)
                else:
                    replies.append(reply)
        except StreamTimeout:
            raise LinkLost("backend did not answer in time", silent=True) from None
        except (StreamLost, BackendProtocolError) as fault:
            raise self._lost(fault) from None
        return replies

    def _receive(self, deadline: Deadline) -> None:
        try:
            data = self._stream.read(deadline)
        except StreamInterrupted:
            return
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
