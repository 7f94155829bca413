"""An auth_http service that answers as it is told, and keeps what it was asked, octet for octet.

What nginx asks and what we ask is to be compared, so it knows nothing of either. A thread, plain blocking sockets, a
connection a question.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Final, Self

READ_SIZE: Final = 65536
TIMEOUT: Final = 15.0  # seconds for a question to come in whole, and for a silence
PAUSE: Final = 0.1  # seconds from an answer to the end of the connection

Answer = Mapping[str, str] | bytes | None
"""Headers of a 200, or octets to say as they are before the connection is closed, or None: silence."""


class ScriptedAuth:
    """Listens from construction to stop(). answers: in order, the last one again and again. asked: the questions."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.answers: Sequence[Answer] = ({},)
        self.asked: list[bytes] = []
        self._listener = socket.create_server(self.address, backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def script(self, answers: Sequence[Answer]) -> None:
        """From now on these, and nothing was asked yet."""
        self.answers, self.asked = answers, []

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # close() alone leaves a thread in accept() for good
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        question = b""
        with sock:
            try:
                while b"\r\n\r\n" not in question:
                    data = sock.recv(READ_SIZE)
                    if not data:
                        return  # a look whether somebody listens
                    question += data
                self.asked.append(question)
                answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
                if answer is not None:
                    sock.sendall(answer if isinstance(answer, bytes) else _head(answer))
                    # An end that comes with the last octets is missed by nginx until auth_http_timeout.
                    sock.settimeout(PAUSE)
                sock.recv(READ_SIZE)  # until the other side has had enough
            except OSError:
                pass


def _head(fields: Mapping[str, str]) -> bytes:
    lines = ["HTTP/1.0 200 OK", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
