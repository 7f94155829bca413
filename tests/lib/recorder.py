"""A mail server that keeps every octet it was sent, and misbehaves where it is told to.

What a proxy may never do can only be seen from behind it: this is the eye there. It takes whatever it is sent;
end of data is CRLF.CRLF and nothing else, so that what a lenient server would make of the octets is the test's
question, put to `Conversation.octets`. A thread a connection, plain blocking sockets, standard library only.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

READ_SIZE: Final = 262144
END_OF_DATA: Final = b"\r\n.\r\n"
XCLIENT_ADDR: Final = re.compile(rb"\r\nXCLIENT [^\r\n]*\bADDR=(\S+)")

# What a step answers where nothing else is told. GREETING, TEXT (its first octets have come) and "." (its end has
# come) are steps beside the commands.
ANSWERS: Final[Mapping[str, bytes]] = {
    "GREETING": b"220 recorder ESMTP\r\n",
    "EHLO": b"250-recorder\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250 XCLIENT ADDR NAME LOGIN\r\n",
    "HELO": b"250 recorder\r\n",
    "XCLIENT": b"220 recorder ESMTP\r\n",
    "MAIL": b"250 2.1.0 sender taken\r\n",
    "RCPT": b"250 2.1.5 recipient taken\r\n",
    "DATA": b"354 go ahead\r\n",
    "TEXT": b"",
    ".": b"250 2.0.0 recorded\r\n",
    "RSET": b"250 2.0.0 reset\r\n",
    "NOOP": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}
UNKNOWN: Final = b"500 5.5.1 unknown\r\n"
OUT_OF_SEQUENCE: Final = b"503 5.5.1 out of sequence\r\n"


@dataclass(frozen=True, slots=True)
class Act:
    """What a step does instead: wait `delay` seconds, send `reply`, and then go on, close, reset, or fall silent."""

    reply: bytes = b""
    then: Literal["go on", "close", "reset", "hang"] = "go on"
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Message:
    """A committed message. text: as it came, dots stuffed, without the terminator's dot. answered: monotonic
    seconds just before the reply to its end."""

    sender: bytes
    recipients: tuple[bytes, ...]
    text: bytes
    answered: float


@dataclass(slots=True)
class Conversation:
    """One connection. octets: all that came. commands: lines without their end. ended: how, "" while it lasts."""

    octets: bytearray = field(default_factory=bytearray)
    commands: list[bytes] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    in_text: bool = False
    ended: str = ""

    @property
    def client(self) -> str | None:
        """The client's address, as XCLIENT told it."""
        found = XCLIENT_ADDR.search(self.octets)
        return found[1].decode() if found else None


class Recorder:
    """Listens from construction to stop(). `script` may be replaced at any time; a step looks when it comes.

    peak: the most connections that there were at once.
    """

    def __init__(self, host: str, port: int, script: Mapping[str, Act] | None = None) -> None:
        self.address = (host, port)
        self.script: Mapping[str, Act] = script or {}
        self.conversations: list[Conversation] = []
        self.peak = 0
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._latest: socket.socket | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(self.address, backlog=1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def messages(self) -> list[Message]:
        """All that was committed, on all connections."""
        return [message for conversation in list(self.conversations) for message in conversation.messages]

    @property
    def open(self) -> int:
        """Connections now."""
        return len(self._open)

    def interject(self, octets: bytes, *, close: bool) -> None:
        """Say something unasked on the latest connection; `close` it then."""
        assert self._latest is not None
        if octets:
            self._latest.sendall(octets)
        if close:
            self._latest.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """No port, no connection, no thread is left."""
        self._stopping.set()
        # close() alone leaves a thread in accept() for good.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(sock)
                self._latest = sock
                self.peak = max(self.peak, len(self._open))
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        conversation = Conversation()
        self.conversations.append(conversation)
        try:
            _Dialogue(sock, conversation, self._step).run()
        except _Ended as ended:
            conversation.ended = str(ended)
        except OSError as error:
            conversation.ended = f"lost: {error}"
        finally:
            with self._lock:
                self._open.discard(sock)
                sock.close()

    def _step(self, name: str) -> Act:
        act = self.script.get(name) or Act(ANSWERS.get(name, UNKNOWN))
        if act.delay:
            self._stopping.wait(act.delay)
        return act


class _Ended(Exception):
    """The connection is over; `str()` says how."""


class _Dialogue:
    """One connection's straight line."""

    def __init__(self, sock: socket.socket, conversation: Conversation, step: Callable[[str], Act]) -> None:
        self._sock = sock
        self._told = conversation
        self._step = step
        self._buffer = bytearray()

    def run(self) -> None:
        self._do("GREETING")
        sender, recipients = b"", list[bytes]()
        while True:
            line = self._line()
            verb = line.partition(b" ")[0].upper().decode("latin-1")
            self._told.commands.append(line)
            if (verb == "RCPT" and not sender) or (verb == "DATA" and not recipients):
                self._sock.sendall(OUT_OF_SEQUENCE)
                continue
            positive = self._do(verb)[:1] in (b"2", b"3")
            if verb == "DATA" and positive:
                self._take_message(sender, recipients)
            if verb == "MAIL" and positive:
                sender, recipients = line, []
            elif verb == "RCPT" and positive:
                recipients.append(line)
            elif verb in ("DATA", "RSET", "EHLO", "HELO") and positive:
                sender, recipients = b"", []
            elif verb == "QUIT":
                raise _Ended("quit")

    def _take_message(self, sender: bytes, recipients: list[bytes]) -> None:
        self._told.in_text = True
        if not self._buffer:
            self._receive()
        self._do("TEXT")
        searched = 0
        self._buffer[:0] = b"\r\n"  # a dot may be the first octet
        while (end := self._buffer.find(END_OF_DATA, searched)) < 0:
            searched = max(0, len(self._buffer) - len(END_OF_DATA))
            self._receive()
        text = bytes(self._buffer[2 : end + 2])
        del self._buffer[: end + len(END_OF_DATA)]
        self._told.in_text = False
        self._do(".", lambda: self._told.messages.append(Message(sender, tuple(recipients), text, time.monotonic())))

    def _do(self, name: str, commit: Callable[[], None] | None = None) -> bytes:
        act = self._step(name)
        if commit is not None and act.reply.startswith(b"250"):
            commit()
        if act.reply:
            self._sock.sendall(act.reply)
        if act.then == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if act.then in ("close", "reset"):
            raise _Ended(f"{act.then} at {name}")
        while act.then == "hang":
            self._receive()
        return act.reply

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._receive()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _receive(self) -> None:
        data = self._sock.recv(READ_SIZE)
        if not data:
            raise _Ended("client closed")
        self._told.octets += data
        self._buffer += data
