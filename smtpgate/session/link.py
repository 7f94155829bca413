"""The conversation with one backend: the client protocol driven over a stream, in blocking steps.

Owns the order of the handshake (reference/nginx_mail.md section 6), the waits (RFC 5321 section 4.5.3.2) and the
translation of every fault into LinkLost. Refuses to know why a backend was chosen or what to do when it fails:
that is `relay`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from smtpgate.clock import Clock, Deadline
from smtpgate.routing.model import BackendSettings
from smtpgate.session.ports import Identity, Stream, StreamInterrupted, StreamLost, StreamTimeout
from smtpgate.smtp import encode
from smtpgate.smtp.client import BackendProtocolError, ClientProtocol
from smtpgate.smtp.extensions import Extensions
from smtpgate.smtp.replies import Reply

# RFC 5321 section 4.5.3.2 asks a client to wait 5 minutes for MAIL and RCPT. A proxy has a second client waiting
# behind it, whose own 5 minutes must not run out first: half of them.
COMMAND_TIMEOUT: Final = 150.0
DATA_INIT_TIMEOUT: Final = 120.0  # RFC 5321 section 4.5.3.2.4
DATA_BLOCK_TIMEOUT: Final = 180.0  # RFC 5321 section 4.5.3.2.5
DATA_DONE_TIMEOUT: Final = 600.0  # RFC 5321 section 4.5.3.2.6
FAREWELL_TIMEOUT: Final = 0.05  # last words that have arrived already; nobody waits for more


class LinkLost(Exception):
    """The backend can no longer be spoken to: gone, silent, talking nonsense, or it said 421.

    `str()` is for the log. farewell: its last reply, where there was one.
    """

    def __init__(self, reason: str, farewell: Reply | None = None) -> None:
        super().__init__(reason)
        self.farewell = farewell


class HandshakeRefused(Exception):
    """The backend answered a step of the handshake with a reply that does not let us go on."""

    def __init__(self, step: str, reply: Reply) -> None:
        super().__init__(f"{step} answered {reply.code} {reply.text}")
        self.reply = reply


class IdentityUntellable(Exception):
    """The client's identity fits no command: no backend can be told it, and a shortened one is somebody else's."""


class BackendLink:
    """One backend connection. After LinkLost it is of no use and must be closed."""

    def __init__(self, stream: Stream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._protocol = ClientProtocol()

    @property
    def extensions(self) -> Extensions:
        return self._protocol.extensions

    def handshake(self, server_name: str, identity: Identity, settings: BackendSettings, deadline: Deadline) -> None:
        """From the greeting to a session that may send MAIL, as nginx does it.

        Raises LinkLost, HandshakeRefused, IdentityUntellable. One deadline covers all steps.
        """
        try:
            self._shake_hands(server_name, identity, settings, deadline)
        except ValueError as unsendable:
            raise IdentityUntellable(str(unsendable)) from None

    def _shake_hands(
        self, server_name: str, identity: Identity, settings: BackendSettings, deadline: Deadline
    ) -> None:
        self._require("greeting", self._replies(1, deadline)[0], 220)
        hello = self.ask(encode.ehlo(server_name), deadline=deadline)[0]
        if hello.code >= 500:
            hello = self.ask(encode.helo(server_name), deadline=deadline)[0]
        self._require("EHLO", hello, 250)
        if settings.xclient == "on" or (settings.xclient == "auto" and self.extensions.xclient):
            self._introduce(identity, settings, deadline)
        if settings.smtp_auth and identity.login and identity.method != "none":
            self._authenticate(identity.login, identity.password, deadline)

    def _introduce(self, identity: Identity, settings: BackendSettings, deadline: Deadline) -> None:
        attributes = {"ADDR": identity.addr, "NAME": identity.name}
        if identity.login and not settings.smtp_auth:
            attributes["LOGIN"] = identity.login
        if settings.xclient == "auto":
            offered = self.extensions.xclient
            attributes = {key: value for key, value in attributes.items() if key in offered}
        for command in encode.xclient(attributes):
            self._require("XCLIENT", self.ask(command, deadline=deadline)[0], 220, 250)
        if identity.helo is not None:
            # Always: XCLIENT put the backend back to its greeting, and this is how it learns the client's name.
            hello = encode.ehlo(identity.helo) if identity.extended else encode.helo(identity.helo)
            self._require("client HELO/EHLO", self.ask(hello, deadline=deadline)[0], 250)

    def _authenticate(self, login: str, password: bytes | None, deadline: Deadline) -> None:
        if password is None:
            raise LinkLost("no password available for smtp_auth")
        command = encode.auth_plain(login.encode("utf-8", "surrogateescape"), password)
        self._require("AUTH", self.ask(command, deadline=deadline)[0], 235)

    @staticmethod
    def _require(step: str, reply: Reply, *codes: int) -> None:
        if reply.code not in codes:
            raise HandshakeRefused(step, reply)

    def ask(self, *commands: bytes, deadline: Deadline | None = None) -> list[Reply]:
        """Send commands in one write; their replies in order. Raises LinkLost, also for a 421."""
        deadline = deadline or Deadline(self._clock, COMMAND_TIMEOUT)
        self._write(self._registered(self._protocol.send, *commands), deadline)
        return self._replies(len(commands), deadline)

    def check_rested(self) -> None:
        """A backend has nothing to say between transactions: what waits there is its farewell, or a reply out of
        turn that would answer our next command. Raises LinkLost.
        """
        if self._stream.readable():
            raise LinkLost("backend spoke or left between transactions")

    def start_data(self) -> Reply:
        """DATA: 354, or why not. Raises LinkLost."""
        return self.ask(encode.DATA, deadline=Deadline(self._clock, DATA_INIT_TIMEOUT))[0]

    def write_body(self, data: bytes) -> None:
        """A piece of the message after a 354; blocks while the backend is slow. Raises LinkLost."""
        self._write(data, Deadline(self._clock, DATA_BLOCK_TIMEOUT))

    def check_silent(self) -> None:
        """A backend that reads a text has nothing to say but that it refuses it, and what it said before the end
        must not be taken for the answer to the end. Raises LinkLost, with the refusal where it is one.
        """
        if self._stream.readable():
            raise LinkLost("backend spoke or left before the end of the text", self._last_words())

    def end_data(self, terminator: bytes) -> Reply:
        """The end of data and its reply. Raises LinkLost: then nobody knows whether it was committed."""
        octets = self._registered(self._protocol.end_data, terminator)
        self._write(octets, Deadline(self._clock, DATA_BLOCK_TIMEOUT))
        return self._replies(1, Deadline(self._clock, DATA_DONE_TIMEOUT))[0]

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
            raise LinkLost(str(fault), self._protocol.farewell) from None

    def _write(self, data: bytes, deadline: Deadline) -> None:
        try:
            self._stream.write(data, deadline)
        except StreamTimeout:
            raise LinkLost("backend takes no more data") from None
        except StreamLost as lost:
            raise LinkLost(str(lost), self._last_words()) from None

    def _last_words(self) -> Reply | None:
        """A refusal that the backend sent before it hung up mid-message, if it is here already."""
        deadline = Deadline(self._clock, FAREWELL_TIMEOUT)
        try:
            self._protocol.receive_data(self._stream.read(deadline))
            return self._protocol.next_reply() or self._protocol.farewell
        except (StreamTimeout, StreamLost, StreamInterrupted, BackendProtocolError):
            return self._protocol.farewell

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
            raise LinkLost("backend did not answer in time") from None
        except (StreamLost, BackendProtocolError) as fault:
            raise LinkLost(str(fault), self._protocol.farewell) from None
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
