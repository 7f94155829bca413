"""A mail server that says more than it was asked, once, in two packets cut where a test wants it.

Everything else that it says names what it answers: a recipient's reply has the recipient in it, the end of a text the
text's token. So a reply that is taken for another one's is seen. A thread a connection, plain blocking sockets.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Final, Self

from peers.process import HOST

READ_SIZE: Final = 65536
TIMEOUT: Final = 15.0  # seconds of a silent proxy
GAP: Final = 0.003  # seconds between two packets; where they come together nothing is lost but the cut
END_OF_DATA: Final = b"\r\n.\r\n"
ADDRESS: Final = re.compile(rb"(?:MAIL FROM|RCPT TO):<([^>]*)>")
TOKEN: Final = re.compile(rb"^Subject: (.*?)\r\n", re.MULTILINE)

# A recipient whose name begins so is refused.
NOBODY: Final = b"nobody"

CAPABILITIES: Final = (b"PIPELINING", b"XCLIENT ADDR NAME")


def honest(step: str, about: bytes = b"") -> bytes:
    """What it says without a lie. about: the address of MAIL and RCPT, the token of a text."""
    match step:
        case "GREETING":
            return b"220 liar greets\r\n"
        case "EHLO":
            return b"".join(b"250-%b\r\n" % line for line in (b"liar", *CAPABILITIES)) + b"250 8BITMIME\r\n"
        case "XCLIENT":
            return b"220 liar greets anew\r\n"
        case "MAIL":
            return b"250 2.1.0 from %b\r\n" % about
        case "RCPT" if about.startswith(NOBODY):
            return b"550 5.1.1 no %b here\r\n" % about
        case "RCPT":
            return b"250 2.1.5 to %b\r\n" % about
        case "DATA":
            return b"354 go ahead\r\n"
        case ".":
            return b"250 2.0.0 taken %b\r\n" % about
        case "RSET":
            return b"250 2.0.0 reset\r\n"
        case "QUIT":
            return b"221 2.0.0 bye\r\n"
    return b"500 5.5.1 %b\r\n" % step.encode()


@dataclass(frozen=True, slots=True)
class Lie:
    """At the `nth` time (from 1) that `step` is answered, `octets` follow the answer; cut: where the packets part."""

    step: str
    nth: int
    octets: bytes
    cut: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A message that was answered 250. text: as it came, dots stuffed, without the terminator's dot."""

    sender: bytes
    recipients: tuple[bytes, ...]
    text: bytes


@dataclass(slots=True)
class Heard:
    """One connection. commands: lines without their end, in order; messages: what it committed."""

    commands: list[bytes] = field(default_factory=list)
    messages: list[Committed] = field(default_factory=list)


@dataclass(slots=True)
class _Packets:
    """What waits to be sent, and where it is cut in two."""

    octets: bytearray = field(default_factory=bytearray)
    cut: int | None = None


class Liar:
    """Listens from construction to stop(), on a port of its own. One test talks to it at a time."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._talking = threading.Lock()  # held while a lie is only half said
        self._told: dict[str, int] = {}
        self._lie: Lie | None = None
        self.connections: list[Heard] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # close() alone leaves a thread in accept() for good
        self._listener.close()

    def tell(self, lie: Lie | None) -> None:
        """From now on, once; nothing was heard yet, and whoever was connected is left."""
        left, self._open = self._open, []
        for sock in left:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._told, self._lie, self.connections = {}, lie, []

    @property
    def lied(self) -> bool:
        return self._lie is None

    @property
    def messages(self) -> list[Committed]:
        return [message for heard in self.connections for message in heard.messages]

    def settle(self) -> None:
        """Until all that was begun to be said is said: it is in the other side's buffer then."""
        with self._talking:
            pass

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            heard = Heard()
            self._open.append(sock)
            self.connections.append(heard)
            threading.Thread(target=self._serve, args=(sock, heard), daemon=True).start()

    def _serve(self, sock: socket.socket, heard: Heard) -> None:
        sock.settimeout(TIMEOUT)
        with sock:
            try:
                self._converse(sock, heard)
            except (OSError, EOFError):
                pass

    def _answer(self, waiting: _Packets, step: str, about: bytes = b"") -> bytes:
        said = honest(step, about)
        self._told[step] = self._told.get(step, 0) + 1
        lie = self._lie
        if lie is not None and (lie.step, lie.nth) == (step, self._told[step]):
            self._lie, waiting.cut = None, len(waiting.octets) + lie.cut
            waiting.octets += said + lie.octets
        else:
            waiting.octets += said
        return said

    def _send(self, sock: socket.socket, waiting: _Packets) -> None:
        """In one packet, as servers answer a pipelined group; in two where there is a lie."""
        octets, cut = bytes(waiting.octets), waiting.cut
        waiting.octets.clear()
        waiting.cut = None
        if cut is None:
            sock.sendall(octets)
            return
        with self._talking:
            sock.sendall(octets[:cut])
            time.sleep(GAP)
            sock.sendall(octets[cut:])

    def _converse(self, sock: socket.socket, heard: Heard) -> None:
        buffer, waiting = bytearray(), _Packets()

        def until(end: bytes) -> bytes:
            while (at := buffer.find(end)) < 0:
                self._send(sock, waiting)
                data = sock.recv(READ_SIZE)
                if not data:
                    raise EOFError
                buffer.extend(data)
            said = bytes(buffer[:at])
            del buffer[: at + len(end)]
            return said

        self._answer(waiting, "GREETING")
        sender, recipients = b"", list[bytes]()
        while True:
            line = until(b"\r\n")
            heard.commands.append(line)
            step = line.partition(b" ")[0].decode("latin-1")
            found = ADDRESS.match(line)
            about = found[1] if found else b""
            positive = self._answer(waiting, step, about)[:1] in b"23"
            if step == "MAIL":
                sender, recipients = about, []
            elif step == "RCPT" and positive:
                recipients.append(about)
            elif step == "DATA":
                buffer[:0] = b"\r\n"  # a dot may be the first octet
                text = until(END_OF_DATA)[2:] + b"\r\n"
                token = TOKEN.search(text)
                self._answer(waiting, ".", token[1] if token else b"")
                heard.messages.append(Committed(sender, tuple(recipients), text))
            elif step == "QUIT":
                self._send(sock, waiting)
                return
