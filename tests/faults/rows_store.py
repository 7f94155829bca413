"""Rows about Redis: away, slow, full, read-only, loading, emptied of its script, failed over, another node's. Mail
goes on as each limit's `on_error` says, and a message that was taken stays taken.

A real Redis. Two listeners: `relay` has a limit that each worker keeps by itself meanwhile (`local`), `strict` one
that defers (`tempfail`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from faults.cells import Cell, Expected, Phase, Seen
from faults.player import PATIENCE, Node, Scene, play
from faults.rows_backend import sender
from peers.process import HOST, wait_until
from peers.rediskinds import Nodes, Sentinel
from rawclient import RawClient
from returningredis import ReturningRedis
from stack import RELAY, UNSHARED, Stack

LIMITS: Final = """
version: 1
limiter: {timeout: 100ms, breaker: {errors: 3, within: 2s, open: 200ms}}
limits:
  soft.mail: {event: mail, rate: 100/1h, burst: 100, key: "{sender_domain}", match: {listener: relay},
    deny: {reply: "450 4.7.1 slower"}}
  soft.rcpt: {event: rcpt, rate: 100/1h, burst: 100, key: "{sender_domain}", match: {listener: relay},
    deny: {reply: "450 4.7.1 slower"}}
  hard.mail: {event: mail, rate: 100/1h, burst: 100, key: "{sender_domain}", match: {listener: strict},
    deny: {reply: "450 4.7.1 slower"}, on_error: tempfail}
  hard.rcpt: {event: rcpt, rate: 100/1h, burst: 100, key: "{sender_domain}", match: {listener: strict},
    deny: {reply: "450 4.7.1 slower"}, on_error: tempfail}
"""
STRICT: Final = {"name": "strict", "auth": ["none"]}
SLOT: Final = "{rl}"  # in the names of all keys, so that a cluster has them in one place
QUICK: Final = 1.0  # seconds that no reply may take longer than, whatever Redis does


class Store:
    """A proxy with one Redis and one backend."""

    def __init__(self, folder: Path) -> None:
        self.node = Node()
        self.redis = ReturningRedis(folder)
        self.stack = _stack(folder, self.node, self.redis.uri)
        self._loading = False

    def killed(self) -> None:
        self.redis.process.kill()

    def slow(self) -> None:
        self.redis.process.pause()

    def full(self) -> None:
        self.redis.say("CONFIG", "SET", "maxmemory", "1")

    def read_only(self) -> None:
        self.redis.say("REPLICAOF", HOST, "1")

    def loading(self) -> None:
        self.redis.start_loading(2 * PATIENCE)
        self._loading = True

    def scriptless(self) -> None:
        self.redis.say("SCRIPT", "FLUSH")

    def heal(self) -> None:
        """Until limits are counted in Redis again."""
        self.node.up()
        if self._loading:
            self.redis.process.kill()
            self._loading = False
        if self.redis.process.running:
            self.redis.process.resume()
            self.redis.say("CONFIG", "SET", "maxmemory", "0")
            self.redis.say("REPLICAOF", "NO", "ONE")
        else:
            self.redis.start()
        wait_until(lambda: counted(self.stack), "limits are counted in Redis again", PATIENCE)

    def close(self) -> None:
        self.stack.stop()
        self.redis.process.stop()
        self.node.down()

    def show(self) -> str:
        return self.stack.show()


class Replicated:
    """A proxy whose Redis has a replica and a sentinel."""

    def __init__(self, folder: Path) -> None:
        self.node = Node()
        self.sentinel = Sentinel(folder)
        self.stack = _stack(folder, self.node, self.sentinel.uri)

    def kill_master(self) -> None:
        self.sentinel.master.kill()

    def heal(self) -> None:
        self.node.up()
        wait_until(lambda: counted(self.stack), "limits are counted in the replica", 2 * PATIENCE)

    def close(self) -> None:
        self.stack.stop()
        self.sentinel.stop()
        self.node.down()

    def show(self) -> str:
        return self.stack.show()


class Moving:
    """A proxy whose Redis is the first node of a cluster, to which it speaks as to any other (redis://), or as to a
    cluster (redis+cluster://). The slot of all keys can be the second's.
    """

    def __init__(self, folder: Path, *, knows: bool) -> None:
        self.node = Node()
        self.nodes = Nodes(folder)
        port = self.nodes.first.port
        uri = f"redis+cluster://{HOST}:{port}" if knows else f"redis://{HOST}:{port}/0"
        self.stack = _stack(folder, self.node, uri)

    def move(self) -> None:
        self.nodes.move(SLOT, self.nodes.second)

    def heal(self) -> None:
        self.node.up()
        self.nodes.move(SLOT, self.nodes.first)
        wait_until(lambda: counted(self.stack), "limits are counted in Redis again", PATIENCE)

    def close(self) -> None:
        self.stack.stop()
        self.nodes.stop()
        self.node.down()

    def show(self) -> str:
        return self.stack.show()


def _stack(folder: Path, node: Node, uri: str) -> Stack:
    return Stack(
        folder,
        [node.address],
        store=uri,
        pool=UNSHARED,
        auth_url=None,
        listeners=[RELAY, STRICT],
        policy={"limits.yaml": LIMITS},
    )


def counted(stack: Stack) -> bool:
    """Whether a limit that wants the store is answered out of it."""
    with RawClient(stack.listeners["strict"]) as client:
        return client.greeted().ask(b"MAIL FROM:<probe@probe.example>").startswith(b"250")


def _run(phase: Phase, listener: str, fault: Callable[[Any], None]) -> Callable[[Any], Seen]:
    def run(world: Any) -> Seen:
        scene = Scene(phase, world.stack, world.node, sender(), listener=listener)
        began = 0.0

        def inject() -> None:
            nonlocal began
            fault(world)
            began = time.monotonic()

        def note() -> str:
            seconds = time.monotonic() - began
            return "at once" if seconds < QUICK else f"took {seconds:.1f} s"

        return play(scene, inject, world.heal, [world.node], note)

    return run


def _failed_over(world: Replicated) -> Seen:
    """While nobody is the master; the session's next message, with the one that was a replica."""
    scene = Scene(Phase.BEFORE, world.stack, world.node, sender())
    seen = play(scene, world.kill_master, world.heal, [world.node])
    with world.sentinel.replica.client() as client:
        counted_there = bool(client.keys("*hard.mail:probe.example"))
    return replace(seen, note="counted in the replica" if counted_there else "not counted")


def _redirected(world: Moving) -> Seen:
    """To the node that has the keys now."""
    scene = Scene(Phase.BEFORE, world.stack, world.node, sender(), listener="strict")

    def note() -> str:
        with world.nodes.second.client() as client:
            return "counted by the second" if client.keys("*hard.mail:*") else "not counted"

    return play(scene, world.move, world.heal, [world.node], note)


def _passes(note: str = "at once") -> dict[Phase, Expected]:
    return {
        Phase.BEFORE: Expected("250, 250, 354, 250", committed=1, outcome="delivered", note=note),
        Phase.AFTER: Expected("250, 354, 250", committed=1, outcome="delivered", note=note),
        Phase.TEXT: Expected("250", committed=1, outcome="delivered", note=note),
        Phase.DOT: Expected("250", committed=1, outcome="delivered", note=note),
    }


# A recipient that is deferred is one more that the client has to come back with; those before it have their message.
DEFERS: Final = _passes() | {
    Phase.BEFORE: Expected("451 4.3.0", note="at once"),
    Phase.AFTER: Expected("451 4.3.0, 354, 250", committed=1, outcome="delivered", note="at once"),
}
REFUSES: Final = "redis OOM / READONLY / MOVED / LOADING / failover"
FAULTS: Final[dict[str, tuple[str, Callable[[Store], None]]]] = {
    "killed": ("redis down / refused", Store.killed),
    "SIGSTOP": ("redis slow", Store.slow),
    "OOM": (REFUSES, Store.full),
    "READONLY": (REFUSES, Store.read_only),
    "LOADING": (REFUSES, Store.loading),
}


def cells() -> Iterator[Cell]:
    for fault, (row, inject) in FAULTS.items():
        for listener, answers in (("relay", _passes()), ("strict", DEFERS)):
            way = "local" if listener == "relay" else "tempfail"
            for phase, expected in answers.items():
                long = row == REFUSES and phase is not Phase.BEFORE
                run = _run(phase, listener, inject)
                yield Cell(row, phase, f"{fault}; {way}", "redis", run, expected, long=long)
    for phase, expected in _passes().items():  # nobody notices, also where the store is needed
        run = _run(phase, "strict", Store.scriptless)
        yield Cell(REFUSES, phase, "NOSCRIPT; tempfail", "redis", run, expected)
    promoted = _passes("counted in the replica")[Phase.BEFORE]
    yield Cell(REFUSES, Phase.BEFORE, "the master killed (sentinel); local", "sentinel", _failed_over, promoted)
    for listener, answers in (("relay", _passes()), ("strict", DEFERS)):
        way = "local" if listener == "relay" else "tempfail"
        for phase, expected in answers.items():
            run = _run(phase, listener, Moving.move)
            yield Cell(REFUSES, phase, f"MOVED; {way}", "moved", run, expected, long=phase is not Phase.BEFORE)
    followed = _passes("counted by the second")[Phase.BEFORE]
    yield Cell(REFUSES, Phase.BEFORE, "MOVED, and it is a cluster's client", "cluster", _redirected, followed)
