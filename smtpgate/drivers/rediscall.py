"""One script, called again and again over connections that are kept between the calls.

Owns which connection a call goes over, and that one with an unknown rest on it is never used again. redis-py makes
the connections, packs the commands and reads the replies; what is left out is what its client does around each
command (pool, retries, callbacks, metrics): 29 of 63 us. Refuses to know what is asked, and what to do when there is
no answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

from redis.exceptions import NoScriptError

from smtpgate.clock import Clock

# Seconds. A connection that has not been used for longer is looked at before it is used: a server closes those that
# rest (`timeout`), and ends with the machine that it runs on.
UNLOOKED: Final = 0.5


class ScriptCaller(Protocol):
    """Raises whatever redis-py raises for a server that is away or refuses; a call is never repeated."""

    def __call__(self, keys: Sequence[str], args: Sequence[str]) -> bytes: ...

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

    def __call__(self, keys: Sequence[str], args: Sequence[str]) -> bytes:
        reply: bytes = self._script(keys, args)
        return reply

    def close(self) -> None:
        """Its connections are the nodes' matter."""


class _Kept:
    """Over connections that were taken from a pool once, the last that was used first."""

    def __init__(self, pool: Any, script: bytes, clock: Clock) -> None:
        self._pool = pool
        self._script = script
        self._digest = hashlib.sha1(script, usedforsecurity=False).hexdigest()  # Redis' name for it
        self._clock = clock
        self._resting: list[tuple[Any, float]] = []  # with the time at which it was used last

    def __call__(self, keys: Sequence[str], args: Sequence[str]) -> bytes:
        connection = self._take()
        try:
            packed = connection.pack_command("EVALSHA", self._digest, len(keys), *keys, *args)
            try:
                reply: bytes = _ask(connection, packed)
            except NoScriptError:  # nothing ran: a server that was restarted, or another one
                _ask(connection, connection.pack_command("SCRIPT LOAD", self._script))
                reply = _ask(connection, packed)
        except BaseException:  # a killed greenlet, too: nobody knows what is still to come on it
            self._drop(connection)
            raise
        self._resting.append((connection, self._clock.monotonic()))
        return reply

    def close(self) -> None:
        while self._resting:
            self._drop(self._resting.pop()[0])
        self._pool.disconnect(inuse_connections=False)

    def _take(self) -> Any:
        if self._resting:
            connection, used = self._resting.pop()
            if self._clock.monotonic() - used < UNLOOKED:
                return connection
            self._pool.release(connection)
        # Connected, and looked at: one that was closed while it rested is made anew.
        return self._pool.get_connection()

    def _drop(self, connection: Any) -> None:
        connection.disconnect()
        self._pool.release(connection)


def _ask(connection: Any, packed: Sequence[bytes]) -> Any:
    connection.send_packed_command(packed, check_health=False)
    return connection.read_response(disable_decoding=True)
