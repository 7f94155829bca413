"""An SMTP client that says exactly the octets it is given, and hears exactly what comes back.

For what smtplib is too polite to do. Every wait is bounded.
"""

from __future__ import annotations

import socket
import time
from base64 import b64encode
from typing import Final, Self

TIMEOUT: Final = 30.0  # seconds for any one reply, on a busy machine


class RawClient:
    """Connected from construction. source: the loopback address to come from."""

    def __init__(self, address: tuple[str, int], source: str | None = None, rcvbuf: int | None = None) -> None:
        self.sock = socket.socket()
        if rcvbuf is not None:  # before the connection: the window is agreed then
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if source is not None:
            self.sock.bind((source, 0))
        self.sock.settimeout(TIMEOUT)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()  # or its warning would fail whichever test comes next
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended = False
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, octets: bytes) -> None:
        self.sock.settimeout(TIMEOUT)
        self.sock.sendall(octets)

    def reply(self, timeout: float = TIMEOUT) -> bytes:
        """The next whole reply, all its lines; b"" if the connection ended, or nothing came in time."""
        deadline = time.monotonic() + timeout
        at = 0
        while True:
            end = self._buffer.find(b"\n", at)
            if end < 0:
                if not self._receive(deadline):
                    return b""
            elif self._buffer[at + 3 : at + 4] == b"-":
                at = end + 1
            else:
                reply, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
                return reply

    def ask(self, line: bytes, timeout: float = TIMEOUT) -> bytes:
        """Say a command, given without its CRLF; its reply."""
        self.send(line + b"\r\n")
        return self.reply(timeout)

    def replies(self, quiet: float) -> list[bytes]:
        """All replies until nothing comes for `quiet` seconds, or the end."""
        heard = []
        while reply := self.reply(quiet):
            heard.append(reply)
        return heard

    def greeted(self, name: bytes = b"client.example") -> Self:
        """Greeting and EHLO are behind us."""
        assert self.reply().startswith(b"220 ")
        assert self.ask(b"EHLO " + name).startswith(b"250")
        return self

    def login(self, user: str = "test", password: str = "1234") -> Self:  # the demo user
        assert self.ask(b"AUTH PLAIN " + plain(user, password)) == b"235 2.0.0 OK\r\n"
        return self

    def envelope(self, sender: bytes = b"a@example.com", recipient: bytes = b"b@example.com") -> Self:
        """MAIL and RCPT are accepted."""
        assert self.ask(b"MAIL FROM:<%b>" % sender).startswith(b"250 ")
        assert self.ask(b"RCPT TO:<%b>" % recipient).startswith(b"250 ")
        return self

    def opened(self) -> Self:
        """DATA got its 354."""
        assert self.ask(b"DATA").startswith(b"354 ")
        return self

    def deliver(self, text: bytes = b"Subject: x\r\n\r\nx\r\n") -> bytes:
        """A whole transaction; the reply to its end."""
        return self.envelope().opened().end(text)

    def end(self, text: bytes = b"") -> bytes:
        """The last of a text, and its end; the reply to it."""
        self.send(text + b".\r\n")
        return self.reply()

    def at_end(self, timeout: float = TIMEOUT) -> bool:
        """The other side has closed, and said no more before it."""
        return self.reply(timeout) == b"" and self.ended and not self._buffer

    def close(self) -> None:
        self.sock.close()

    def _receive(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0 or self.ended:
            return False
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            return False
        except OSError:  # reset: that is an end too
            data = b""
        self.ended = not data
        self._buffer += data
        return bool(data)


def plain(user: str, password: str) -> bytes:
    """The response of AUTH PLAIN."""
    return b64encode(f"\0{user}\0{password}".encode())
