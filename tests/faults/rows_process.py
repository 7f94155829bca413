"""Rows about our own processes: asked to end, reloaded, upgraded, killed. A client's transaction comes to its end, or
nothing of it is committed; whoever knocks meanwhile is served.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from crowd import worker_of
from faults.cells import Cell, Expected, Phase, Seen
from faults.player import PATIENCE, Node, Scene, play, short
from faults.rows_backend import sender
from operations import Knocking, end, end_upgrade, reload, start_upgrade
from peers.process import answers, wait_until
from rawclient import RawClient
from stack import RELAY, Stack

WORKERS: Final = 2
GRACE: Final = 3.0  # seconds of graceful_timeout where it is waited for
LIMITLESS: Final = "version: 1\n"
POOL: Final = "{health: {probe: off}, breaker: {max_open: 0%}, reuse: {idle: 0s}, "


class Processes:
    """Two workers and one backend. arbiter: the pid to signal, which an upgrade changes."""

    def __init__(self, folder: Path) -> None:
        self.node = Node()
        pool = {"health": {"probe": "off"}, "breaker": {"max_open": "0%"}, "reuse": {"idle": "0s"}}
        self.stack = Stack(
            folder,
            [self.node.address],
            workers=WORKERS,
            pool=pool,
            auth_url=None,
            listeners=[RELAY],
            proxy={"graceful_timeout": "30s"},
        )
        self.arbiter = self.stack.process.pid

    def workers(self) -> list[int]:
        return [pid for pid in self.stack.process.members() if pid != self.arbiter]

    def heal(self) -> None:
        self.node.up()

    def close(self) -> None:
        end(self.arbiter)
        self.stack.stop()
        self.node.down()

    def show(self) -> str:
        return self.stack.show()


def _knocked(knocking: Knocking) -> str:
    assert knocking.knocks > 0, "nobody knocked"
    return f"refused {len(knocking.refused)} others" + "".join(f", {one}" for one in knocking.refused[:1])


def _reloaded(phase: Phase) -> Callable[[Processes], Seen]:
    def run(world: Processes) -> Seen:
        scene = Scene(phase, world.stack, world.node, sender())
        with Knocking(world.stack.proxy) as knocking:
            inject = lambda: reload(world.stack, world.arbiter, retired=False)  # noqa: E731
            seen = play(scene, inject, world.heal, [world.node])
        wait_until(lambda: len(world.workers()) == WORKERS, "the old workers are gone", 2 * PATIENCE)
        return replace(seen, note=_knocked(knocking))

    return run


def _upgraded(phase: Phase) -> Callable[[Processes], Seen]:
    def run(world: Processes) -> Seen:
        old = world.arbiter
        scene = Scene(phase, world.stack, world.node, sender())

        def inject() -> None:
            world.arbiter = start_upgrade(world.stack, old)

        with Knocking(world.stack.proxy) as knocking:
            seen = play(scene, inject, world.heal, [world.node])
        end_upgrade(world.stack, old, world.arbiter)
        return replace(seen, note=_knocked(knocking))

    return run


def _killed(phase: Phase) -> Callable[[Processes], Seen]:
    """The worker that has our client. Another client is with the other one, and a new one comes a second later."""

    def run(world: Processes) -> Seen:
        before = set(world.workers())
        scene = Scene(phase, world.stack, world.node, sender())
        killed = 0

        def inject() -> None:
            nonlocal killed
            killed = worker_of(scene.client, sorted(before))
            os.kill(killed, signal.SIGKILL)

        began = time.monotonic()
        seen = play(scene, inject, world.heal, [world.node])
        wait_until(lambda: len(set(world.workers()) - {killed}) == WORKERS, "a new worker", PATIENCE)
        seconds = time.monotonic() - began
        with RawClient(world.stack.proxy) as client:
            reply = short(client.greeted().deliver())
        when = "at once" if seconds < 1.5 else f"after {seconds:.1f} s"
        return replace(seen, note=f"replaced {when}; the next client: {reply}")

    return run


# --- TERM: one proxy, all phases at once ---------------------------------------------------------------------------


class Draining:
    """A proxy that is sent TERM while four clients stand in the four phases, and a fifth that will never end.

    Each phase has a backend of its own, so that each can be held in its step.
    """

    def __init__(self, folder: Path) -> None:
        self.nodes = {phase: Node() for phase in Phase}
        self.stuck_node = Node()
        nodes = [*self.nodes.values(), self.stuck_node]
        routes = "".join(
            f"  - {{name: r{n}, match: {{rcpt_domain: {_domain(n)}}}, pool: p{n}}}\n" for n in range(len(nodes))
        )
        pools = "".join(
            f'  p{n}: {POOL}backends: [{{name: b{n}, addr: "{node.address[0]}:{node.port}"}}]}}\n'
            for n, node in enumerate(nodes)
        )
        self.stack = Stack(
            folder,
            [],
            auth_url=None,
            listeners=[RELAY],
            workers=WORKERS,
            policy={
                "routes.yaml": f"version: 1\nroutes:\n{routes}  - {{name: default, match: {{}}, pool: p0}}\n"
                f"pools:\n{pools}"
            },
            proxy={"graceful_timeout": f"{GRACE:g}s"},
        )

    @cached_property
    def seen(self) -> dict[str, Seen]:
        """What became of each, by the phase's word; "stuck" is the fifth."""
        scenes = {
            phase.value: Scene(phase, self.stack, node, sender(), f"b@{_domain(n)}")
            for n, (phase, node) in enumerate(self.nodes.items())
        }
        stuck = Scene(Phase.TEXT, self.stack, self.stuck_node, sender(), f"b@{_domain(len(Phase))}")
        for scene in (*scenes.values(), stuck):
            scene.approach()
        began = time.monotonic()
        self.stack.signal(signal.SIGTERM)
        wait_until(lambda: not answers(self.stack.proxy[1]), "the listeners are closed", PATIENCE)
        found = {}
        for word, scene in scenes.items():
            if scene.phase is Phase.BEFORE:
                scene.hear()
            else:
                scene.finish()
            found[word] = self._result(scene, "nobody is accepted")
        stuck.hear()
        seconds = time.monotonic() - began
        note = "at its time" if GRACE <= seconds < GRACE + 2 else f"after {seconds:.1f} s"
        self.stuck_node.let_go()
        wait_until(lambda: self.stuck_node.recorder.open == 0, "the backend's connection is over", PATIENCE)
        found["stuck"] = self._result(stuck, note)
        for scene in (*scenes.values(), stuck):
            scene.close()
        return found

    def _result(self, scene: Scene, note: str) -> Seen:
        session = scene.session()
        nodes = [*self.nodes.values(), self.stuck_node]
        if scene.phase is not Phase.BEFORE:
            scene.wait_logged()
        outcome, events = scene.logged()
        return Seen(tuple(scene.told), session, scene.committed(nodes), outcome, events, note)

    def close(self) -> None:
        self.stack.stop()
        for node in (*self.nodes.values(), self.stuck_node):
            node.down()

    def show(self) -> str:
        return self.stack.show()


def _domain(number: int) -> str:
    return f"d{number}.example"


def _drained(word: str) -> Callable[[Draining], Seen]:
    return lambda world: world.seen[word]


def cells() -> Iterator[Cell]:
    # Sessions of an old worker go on, and are let go at the end of what they are at.
    told = {Phase.AFTER: "250, 354, 250", Phase.TEXT: "250", Phase.DOT: "250"}
    going_on = {
        Phase.BEFORE: Expected("250, 250, 354, 250", committed=1, outcome="delivered", note="refused 0 others"),
        **{
            phase: Expected(words, committed=1, outcome="delivered", note="refused 0 others")
            for phase, words in told.items()
        },
    }
    row = "SIGHUP / SIGUSR2"
    for phase, expected in going_on.items():
        long = phase in (Phase.AFTER, Phase.DOT)
        yield Cell(row, phase, "HUP", "processes", _reloaded(phase), expected, long=long)
    for phase, expected in going_on.items():
        yield Cell(row, phase, "USR2, WINCH, QUIT", "processes", _upgraded(phase), expected, long=True)
    row = "worker crash (kill -9)"
    replaced = "replaced at once; the next client: 250"
    for phase in Phase:
        # The backend has the message after the dot: the client comes again, and it is there twice.
        committed = 1 if phase is Phase.DOT else 0
        expected = Expected("closed(, closed)?", "ends", committed=committed, note=replaced)
        yield Cell(row, phase, "SIGKILL", "processes", _killed(phase), expected)
    row = "SIGTERM"
    alone = "nobody is accepted"
    yield Cell(
        row, Phase.BEFORE, "TERM", "draining", _drained(Phase.BEFORE.value), Expected("421 4.3.2", "ends", note=alone)
    )
    for phase, words in told.items():
        expected = Expected(f"{words}, 421 4.3.2", "ends", committed=1, outcome="delivered", note=alone)
        yield Cell(row, phase, "TERM", "draining", _drained(phase.value), expected)
    cut = Expected("421 4.3.2", "ends", outcome="cut off", note="at its time")
    yield Cell(row, Phase.TEXT, "TERM; its text never ends", "draining", _drained("stuck"), cut)
