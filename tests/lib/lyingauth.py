"""An auth_http server that keeps its connections, and says more than its answer where a test wants it.

Who is called `good...` may log in, everybody else is refused by name: so an answer that is given to another question
is seen. A thread a connection, plain blocking sockets.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import Final, Self

from liar import GAP, READ_SIZE, TIMEOUT
from peers.process import HOST

USER: Final = re.compile(rb"\r\nAuth-User: (.*?)\r\n")
GOOD: Final = b"good"


def answer(*fields: bytes) -> bytes:
    """A whole response, behind which the connection is kept."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"Content-Length: 0", b"", b""])


def grant(port: int) -> bytes:
    """To a server on HOST."""
    return answer(b"Auth-Status: OK", b"Auth-Server: " + HOST.encode(), b"Auth-Port: %d" % port)


def honest(user: bytes) -> bytes:
    """What it says without a lie."""
    return grant(9) if user.startswith(GOOD) else answer(b"Auth-Status: not you, %b" % user)


class LyingAuth:
    """Listens from construction to stop(). asked: users, in order; connections: how many there were."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}/auth"
        self._talking = threading.Lock()  # held while a lie is only half said
        self._lie: tuple[bytes, int] | None = None
        self.asked: list[bytes] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # close() alone leaves a thread in accept() for good
        self._listener.close()

    def tell(self, octets: bytes, cut: int) -> None:
        """Behind the next answer, all of it in two packets."""
        self._lie = octets, cut

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
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        with sock:
            try:
                while question := _until_blank(sock):
                    found = USER.search(question)
                    assert found is not None
                    self.asked.append(found[1])
                    self._say(sock, honest(found[1]))
            except OSError:
                pass

    def _say(self, sock: socket.socket, said: bytes) -> None:
        lie, self._lie = self._lie, None
        if lie is None:
            sock.sendall(said)
            return
        octets, cut = lie
        with self._talking:
            sock.sendall((said + octets)[:cut])
            time.sleep(GAP)
            sock.sendall((said + octets)[cut:])


def _until_blank(sock: socket.socket) -> bytes:
    """One question; b"" where the other side has had enough."""
    question = b""
    while not question.endswith(b"\r\n\r\n"):
        data = sock.recv(READ_SIZE)
        if not data:
            return b""
        question += data
    return question
