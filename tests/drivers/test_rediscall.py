"""Kept connections: which call goes over which, and which are never used again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from fakes import ManualClock
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import InvalidResponse, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from smtpgate.clock import SystemClock
from smtpgate.drivers.rediscall import MAX_REPLY, UNLOOKED, bulk_string, pack, script_caller

SCRIPT = b"return 1"
DIGEST = hashlib.sha1(SCRIPT).hexdigest()


class Connection:
    """redis-py's, as far as it is used. replies: what is read next, an exception is raised."""

    def __init__(self, replies: list[Any]) -> None:
        self.replies = replies
        self.said: list[list[str]] = []
        self.connected = True

    def send_packed_command(self, packed: list[bytes], check_health: bool = True) -> None:
        assert not check_health
        (command,) = packed
        self.said.append(command.decode().split("\r\n")[2::2])  # the words, without how long each is

    def read_response(self, disable_decoding: bool = False) -> Any:
        assert disable_decoding
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def disconnect(self) -> None:
        self.connected = False


class Pool:
    """Hands out the connections that it is given, and what comes back first."""

    def __init__(self, *connections: Connection) -> None:
        self.connections = list(connections)
        self.taken = 0

    def get_connection(self) -> Connection:
        self.taken += 1
        return self.connections.pop(0)

    def release(self, connection: Connection) -> None:
        self.connections.insert(0, connection)

    def disconnect(self, inuse_connections: bool) -> None:
        assert not inuse_connections


class Client:
    def __init__(self, pool: Pool) -> None:
        self.connection_pool = pool


def test_calls_one_after_the_other_go_over_one_connection_that_the_pool_is_asked_for_once() -> None:
    connection = Connection([b"a", b"b"])
    pool = Pool(connection)
    call = script_caller(Client(pool), SCRIPT, ManualClock())
    assert (call(["k1", "k2"], ["x"], 5.0), call([], ["y"], 5.0)) == (b"a", b"b")
    assert connection.said == [["EVALSHA", DIGEST, "2", "k1", "k2", "x"], ["EVALSHA", DIGEST, "0", "y"]]
    assert pool.taken == 1


def test_one_that_has_rested_is_looked_at_by_the_pool() -> None:
    clock = ManualClock()
    pool = Pool(Connection([b"a", b"b", b"c"]))
    call = script_caller(Client(pool), SCRIPT, clock)
    call([], [], 5.0)
    clock.sleep(UNLOOKED / 2)
    call([], [], 5.0)
    assert pool.taken == 1
    clock.sleep(UNLOOKED)
    call([], [], 5.0)
    assert pool.taken == 2


@pytest.mark.parametrize("fault", [ConnectionError("gone"), KeyboardInterrupt()])
def test_one_on_which_something_went_wrong_is_cut(fault: BaseException) -> None:
    broken, other = Connection([fault]), Connection([b"b"])
    pool = Pool(broken, other)
    call = script_caller(Client(pool), SCRIPT, ManualClock())
    with pytest.raises(type(fault)):
        call([], [], 5.0)
    assert (broken.connected, len(broken.said)) == (False, 1)  # nothing is said twice
    pool.connections.reverse()
    assert call([], [], 5.0) == b"b"


def test_a_script_that_is_not_there_is_loaded_on_the_same_connection() -> None:
    connection = Connection([NoScriptError("NOSCRIPT"), DIGEST.encode(), b"a"])
    assert script_caller(Client(Pool(connection)), SCRIPT, ManualClock())([], ["x"], 5.0) == b"a"
    asked = ["EVALSHA", DIGEST, "0", "x"]
    assert connection.said == [asked, ["SCRIPT", "LOAD", "return 1"], asked]


def test_closing_cuts_what_rests_and_the_next_call_takes_another() -> None:
    first, second = Connection([b"a"]), Connection([b"b"])
    pool = Pool(first, second)
    call = script_caller(Client(pool), SCRIPT, ManualClock())
    call([], [], 5.0)
    call.close()
    assert not first.connected
    pool.connections.reverse()
    assert call([], [], 5.0) == b"b"


def test_a_client_without_a_pool_of_its_own_is_left_to_itself() -> None:
    class Cluster:
        def register_script(self, script: bytes) -> Any:
            return lambda keys, args: b"|".join([script, *keys, *args])

    call = script_caller(Cluster(), SCRIPT, ManualClock())
    assert call([b"k"], [b"x"], 5.0) == b"return 1|k|x"  # type: ignore[list-item]
    call.close()


class Connected(Connection):
    """One whose socket is gevent's: what goes past it goes to `far`."""

    def __init__(self) -> None:
        super().__init__([])
        self._sock, self.far = gevent.socket.socketpair()
        self.socket_timeout = 5.0

    def answer(self, reply: bytes) -> bytes:
        """Redis, in a greenlet of its own: what it is asked."""
        asked = self.far.recv(65536)
        self.far.sendall(reply)
        return asked

    def end(self) -> None:
        self._sock.close()
        self.far.close()


@pytest.fixture
def connected() -> Iterator[Connected]:
    connection = Connected()
    yield connection
    connection.end()


def test_a_plain_socket_is_spoken_to_directly(connected: Connected) -> None:
    call = script_caller(Client(Pool(connected)), SCRIPT, SystemClock())
    for reply in (b"a", b"b"):
        redis = gevent.spawn(connected.answer, b"$1\r\n%b\r\n" % reply)
        assert call(["k"], ["x"], 5.0) == reply
        assert redis.get() == pack(b"EVALSHA", DIGEST.encode(), b"1", b"k", b"x")
    assert connected.said == []


def test_a_call_that_does_not_fit_the_socket_and_an_answer_in_pieces(connected: Connected) -> None:
    big = "x" * (1 << 23)
    asked = pack(b"EVALSHA", DIGEST.encode(), b"0", big.encode())
    heard = bytearray()

    def redis() -> None:
        while len(heard) < len(asked):
            heard.extend(connected.far.recv(1 << 20))
        for piece in (b"$", b"5\r", b"\nwo", b"rds\r", b"\n"):
            connected.far.sendall(piece)
            gevent.sleep(0.01)

    answering = gevent.spawn(redis)
    assert script_caller(Client(Pool(connected)), SCRIPT, SystemClock())([], [big], 5.0) == b"words"
    answering.get()
    assert heard == asked


@pytest.mark.parametrize(
    ("answer", "fault", "words"),
    [
        (b"", NoAnswer, r"^no answer within 0\.05 s$"),
        (b"$5\r\nwor", NoAnswer, r"^no answer within 0\.05 s$"),
        (b"-OOM command not allowed\r\n", OutOfMemoryError, "^command not allowed$"),
        (b":1\r\n", InvalidResponse, "^b':1', expected one bulk string$"),
    ],
)
def test_without_an_answer_or_with_a_bad_one_it_is_cut(
    connected: Connected, answer: bytes, fault: type[Exception], words: str
) -> None:
    connected.socket_timeout = 0.05
    gevent.spawn(connected.answer, answer)
    with pytest.raises(fault, match=words):
        script_caller(Client(Pool(connected)), SCRIPT, SystemClock())([], [], 5.0)
    assert not connected.connected


def test_a_server_that_hangs_up(connected: Connected) -> None:
    connected.far.close()
    with pytest.raises((BrokenPipeError, RedisGone)):
        script_caller(Client(Pool(connected)), SCRIPT, SystemClock())([], [], 5.0)
    assert not connected.connected


def test_an_answer_without_end(connected: Connected) -> None:
    def redis() -> None:
        connected.far.sendall(b"$%d\r\n" % (2 * MAX_REPLY) + b"x" * 2 * MAX_REPLY)

    endless = gevent.spawn(redis)
    with pytest.raises(InvalidResponse, match="expected an answer of 1048576 octets at most"):
        script_caller(Client(Pool(connected)), SCRIPT, SystemClock())([], [], 5.0)
    endless.kill()


def test_one_that_redis_py_has_cut_meanwhile_is_left_to_it_to_connect(connected: Connected) -> None:
    call = script_caller(Client(Pool(connected)), SCRIPT, SystemClock())
    gevent.spawn(connected.answer, b"$1\r\na\r\n")
    call([], [], 5.0)
    near, connected._sock = connected._sock, None  # type: ignore[assignment]
    connected.replies = [b"from another socket"]
    assert call([], ["x"], 5.0) == b"from another socket"
    assert connected.said == [["EVALSHA", DIGEST, "0", "x"]]
    connected._sock = near


def test_what_redis_py_does_by_itself_has_an_end_too() -> None:
    class Slow(Pool):
        def get_connection(self) -> Connection:
            gevent.sleep(5.0)
            raise AssertionError

    with pytest.raises(NoAnswer, match=r"^no answer within 0\.020 s$"):
        script_caller(Client(Slow()), SCRIPT, SystemClock())([], [], 0.02)
    with gevent.Timeout(0.01) as own, pytest.raises(gevent.Timeout) as raised:
        script_caller(Client(Slow()), SCRIPT, SystemClock())([], [], 1.0)
    assert raised.value is own


# --- the protocol ---


def test_a_command_is_an_array_of_bulk_strings() -> None:
    assert pack(b"GET", b"", b"\xff\r\n") == b"*3\r\n$3\r\nGET\r\n$0\r\n\r\n$3\r\n\xff\r\n\r\n"


@pytest.mark.parametrize("said", [b"", b"a", b"two\r\nlines\r\n", b"$1\r\n"])
def test_a_bulk_string_is_none_until_it_is_whole(said: bytes) -> None:
    reply = b"$%d\r\n%b\r\n" % (len(said), said)
    assert [bulk_string(reply[:end]) for end in range(len(reply))] == [None] * len(reply)
    assert bulk_string(reply) == said


@pytest.mark.parametrize("reply", [b":1\r\n", b"$-1\r\n", b"$x\r\n", b"*0\r\n", b"+OK\r\n", b"\r\n", b"$1\r\na\r\n$"])
def test_anything_else_is_no_answer_to_a_script(reply: bytes) -> None:
    with pytest.raises(InvalidResponse):
        bulk_string(reply)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"NOSCRIPT No matching script.", NoScriptError),
        (b"READONLY You can't write against a read only replica.", ReadOnlyError),
        (b"ERR something", ResponseError),
        (b"\xff", ResponseError),
    ],
)
def test_an_error_is_redis_pys(line: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised:
        bulk_string(b"-%b\r\n" % line)
    assert type(raised.value) is kind
