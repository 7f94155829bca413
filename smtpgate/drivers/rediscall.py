"""One script, called again and again over connections that are kept between the calls.

Owns which connection a call goes over, how long it may take, and that a connection with an unknown rest on it is
never used again. redis-py makes the connections; what is left out is what it does around each command: pool, retries,
callbacks, metrics (29 of 63 us), then the layers of its connection, of its parser and of gevent's sendall() and
recv() (some 20 us more). Refuses to know what is asked, and what to do when there is no answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import gevent
import gevent.socket
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import InvalidResponse, NoScriptError
from redis.exceptions import TimeoutError as NoAnswer

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers.alarm import Alarm

# Seconds. A connection that has not been used for longer is looked at before it is used: a server closes those that
# rest (`timeout`), and ends with the machine that it runs on.
UNLOOKED: Final = 0.5
READ_SIZE: Final = 65536  # redis-py's; an answer to 64 decisions has a tenth of it
# Octets of one answer; whoever says more is not asked by us. Redis' own bound is 512 MiB, of a value.
MAX_REPLY: Final = 1 << 20
CRLF: Final = b"\r\n"


class _Overdue(BaseException):
    """Thrown into a call that takes too long. No Exception: redis-py would take it for a fault of the connection."""


class ScriptCaller(Protocol):
    """Raises whatever redis-py raises for a server that is away or refuses; a call is never repeated."""

    def __call__(self, keys: Sequence[str], args: Sequence[str], patience: float) -> bytes:
        """patience: seconds for all of it, connecting included; then redis-py's TimeoutError."""

    def close(self) -> None:
        """Close the connections that rest. The next call makes another."""


def script_caller(client: Any, script: bytes, clock: Clock) -> ScriptCaller:
    """client: redis-py's. A cluster's has a pool for each node, and finds the node itself."""
    pool = getattr(client, "connection_pool", None)
    return _ThroughClient(client, script) if pool is None else _Kept(pool, script, clock)


class _ThroughClient:
    """What redis-py itself does with a script."""

    def __init__(self, client: Any, script: bytes) -> None:
        self._script = client.register_script(script)

    def __call__(self, keys: Sequence[str], args: Sequence[str], patience: float) -> bytes:
        return within(patience, lambda: self._script(keys, args))

    def close(self) -> None:
        """Its connections are the nodes' matter."""


class _Kept:
    """Over connections that were taken from a pool once, the last that was used first."""

    def __init__(self, pool: Any, script: bytes, clock: Clock) -> None:
        self._pool = pool
        self._load = pack(b"SCRIPT", b"LOAD", script)
        self._digest = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()  # Redis' name for it
        self._clock = clock
        self._resting: list[_Line] = []

    def __call__(self, keys: Sequence[str], args: Sequence[str], patience: float) -> bytes:
        words = [word.encode() for word in (*keys, *args)]
        packed = pack(b"EVALSHA", self._digest, b"%d" % len(keys), *words)
        line = self._rested()
        if line is not None and line.prompt:  # which sees to its end by itself, for less
            return self._over(line, packed)
        return within(patience, lambda: self._over(line or self._taken(), packed))

    def close(self) -> None:
        while self._resting:
            self._drop(self._resting.pop())
        self._pool.disconnect(inuse_connections=False)

    def _rested(self) -> _Line | None:
        if not self._resting:
            return None
        line = self._resting.pop()
        if self._clock.monotonic() - line.used < UNLOOKED:
            return line
        line.close()
        self._pool.release(line.connection)
        return None

    def _taken(self) -> _Line:
        # Connected, and looked at: one that was closed while it rested is made anew.
        return _Line(self._pool.get_connection(), self._clock)

    def _over(self, line: _Line, packed: bytes) -> bytes:
        try:
            try:
                reply = line.ask(packed)
            except NoScriptError:  # nothing ran: a server that was restarted, or another one
                line.ask(self._load)
                reply = line.ask(packed)
        except BaseException:  # a killed greenlet, too: nobody knows what is still to come on it
            self._drop(line)
            raise
        line.used = self._clock.monotonic()
        self._resting.append(line)
        return reply

    def _drop(self, line: _Line) -> None:
        line.close()
        line.connection.disconnect()
        self._pool.release(line.connection)


class _Line:
    """A connection of redis-py. used: when it was last, monotonic seconds."""

    def __init__(self, connection: Any, clock: Clock) -> None:
        self.connection = connection
        self.used = 0.0
        self._clock = clock
        self._alarm = Alarm()

    @property
    def prompt(self) -> bool:
        """Whether it may be spoken to past redis-py. Not under TLS, without gevent or without a timeout; nor where
        redis-py has cut it, as Sentinel's pool does when it learns of a master: it connects anew when it is to send.
        """
        sock = getattr(self.connection, "_sock", None)
        return type(sock) is gevent.socket.socket and self.connection.socket_timeout is not None

    def ask(self, packed: bytes) -> bytes:
        """The reply to one command, a bulk string. Raises what redis-py raises."""
        if self.prompt:
            return self._exchange(self.connection._sock, packed)
        self.connection.send_packed_command([packed], check_health=False)
        reply: bytes = self.connection.read_response(disable_decoding=True)
        return reply

    def close(self) -> None:
        """Nobody waits on it any more; the connection is its owner's."""
        self._alarm.close()

    def _exchange(self, sock: Any, packed: bytes) -> bytes:
        seconds: float = self.connection.socket_timeout
        deadline = Deadline(self._clock, seconds)
        try:
            self._say(sock, packed, deadline)
            return self._hear(sock, deadline)
        except TimeoutError:
            raise NoAnswer(f"no answer within {seconds:g} s") from None

    def _say(self, sock: Any, packed: bytes, deadline: Deadline) -> None:
        rest = memoryview(packed)
        while True:
            try:
                sent: int = sock._sock.send(rest)
            except BlockingIOError:
                sent = 0
            if sent == len(rest):
                return
            rest = rest[sent:]
            self._alarm.wait(sock._write_event, deadline)

    def _hear(self, sock: Any, deadline: Deadline) -> bytes:
        heard = b""
        while len(heard) < MAX_REPLY:
            self._alarm.wait(sock._read_event, deadline)
            try:
                piece: bytes = sock._sock.recv(READ_SIZE)
            except BlockingIOError:
                continue
            if not piece:
                raise RedisGone("the server has closed the connection")
            heard += piece
            reply = bulk_string(heard)
            if reply is not None:
                return reply
        raise InvalidResponse(f"expected an answer of {MAX_REPLY} octets at most")


def within(seconds: float, call: Callable[[], bytes]) -> bytes:
    """What a call returns that may take so long, whatever it does. Raises redis-py's TimeoutError."""
    # A class, and no Timeout: one that is raised while a variable here has it would hold this frame.
    limit = gevent.Timeout.start_new(seconds, _Overdue)
    try:
        return call()
    except _Overdue:
        raise NoAnswer(f"no answer within {seconds:.3f} s") from None
    finally:
        limit.close()


# --- the protocol: RESP2 (redis.io/docs/latest/develop/reference/protocol-spec), as far as a script needs it ---


def bulk_string(heard: bytes) -> bytes | None:
    """What a reply says that is a bulk string; None while it is not whole. Raises what redis-py raises for an error,
    and InvalidResponse for anything else.
    """
    head, found, rest = heard.partition(CRLF)
    if not found:
        return None
    if head.startswith(b"-"):
        raise DefaultParser.parse_error(head[1:].decode(errors="replace"))  # type: ignore[no-untyped-call] # redis-py's
    size = int(head[1:]) if head.startswith(b"$") and head[1:].isdigit() else -1
    if size < 0 or len(rest) > size + len(CRLF):
        raise InvalidResponse(f"{head[:40]!r}, expected one bulk string")
    return rest[:size] if len(rest) == size + len(CRLF) else None


def pack(*words: bytes) -> bytes:
    """A command: an array of bulk strings."""
    lines = [b"*%d" % len(words)]
    for word in words:
        lines += (b"$%d" % len(word), word)
    return CRLF.join([*lines, b""])
