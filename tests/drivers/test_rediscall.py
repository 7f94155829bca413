"""Kept connections: which call goes over which, and which are never used again."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from fakes import ManualClock
from redis.exceptions import NoScriptError

from smtpgate.drivers.rediscall import UNLOOKED, script_caller

SCRIPT = b"return 1"
DIGEST = hashlib.sha1(SCRIPT).hexdigest()


class Connection:
    """redis-py's, as far as it is used. replies: what is read next, an exception is raised."""

    def __init__(self, replies: list[Any]) -> None:
        self.replies = replies
        self.said: list[list[str]] = []
        self.connected = True

    def pack_command(self, *words: Any) -> list[bytes]:
        return [word if isinstance(word, bytes) else str(word).encode() for word in words]

    def send_packed_command(self, packed: list[bytes], check_health: bool = True) -> None:
        assert not check_health
        self.said.append([word.decode() for word in packed])

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
    assert (call(["k1", "k2"], ["x"]), call([], ["y"])) == (b"a", b"b")
    assert connection.said == [["EVALSHA", DIGEST, "2", "k1", "k2", "x"], ["EVALSHA", DIGEST, "0", "y"]]
    assert pool.taken == 1


def test_one_that_has_rested_is_looked_at_by_the_pool() -> None:
    clock = ManualClock()
    pool = Pool(Connection([b"a", b"b", b"c"]))
    call = script_caller(Client(pool), SCRIPT, clock)
    call([], [])
    clock.sleep(UNLOOKED / 2)
    call([], [])
    assert pool.taken == 1
    clock.sleep(UNLOOKED)
    call([], [])
    assert pool.taken == 2


@pytest.mark.parametrize("fault", [ConnectionError("gone"), KeyboardInterrupt()])
def test_one_on_which_something_went_wrong_is_cut(fault: BaseException) -> None:
    broken, other = Connection([fault]), Connection([b"b"])
    pool = Pool(broken, other)
    call = script_caller(Client(pool), SCRIPT, ManualClock())
    with pytest.raises(type(fault)):
        call([], [])
    assert (broken.connected, len(broken.said)) == (False, 1)  # nothing is said twice
    pool.connections.reverse()
    assert call([], []) == b"b"


def test_a_script_that_is_not_there_is_loaded_on_the_same_connection() -> None:
    connection = Connection([NoScriptError("NOSCRIPT"), DIGEST.encode(), b"a"])
    assert script_caller(Client(Pool(connection)), SCRIPT, ManualClock())([], ["x"]) == b"a"
    asked = ["EVALSHA", DIGEST, "0", "x"]
    assert connection.said == [asked, ["SCRIPT LOAD", "return 1"], asked]


def test_closing_cuts_what_rests_and_the_next_call_takes_another() -> None:
    first, second = Connection([b"a"]), Connection([b"b"])
    pool = Pool(first, second)
    call = script_caller(Client(pool), SCRIPT, ManualClock())
    call([], [])
    call.close()
    assert not first.connected
    pool.connections.reverse()
    assert call([], []) == b"b"


def test_a_client_without_a_pool_of_its_own_is_left_to_itself() -> None:
    class Cluster:
        def register_script(self, script: bytes) -> Any:
            return lambda keys, args: b"|".join([script, *keys, *args])

    call = script_caller(Cluster(), SCRIPT, ManualClock())
    assert call([b"k"], [b"x"]) == b"return 1|k|x"  # type: ignore[list-item]
    call.close()
