"""Row "client vanishes": it closes, or its connection is reset, in each phase; what counts is the backend's side.

And while the proxy itself waits, for a backend or for a place on one: then the place is free at once.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from faults.cells import Cell, Expected, Phase, Seen
from faults.player import PATIENCE, Scene
from faults.rows_backend import Backends, sender
from peers.process import wait_until
from rawclient import RawClient


def close(client: RawClient) -> None:
    client.close()


def reset(client: RawClient) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _run(phase: Phase, leave: Callable[[RawClient], None]) -> Callable[[Backends], Seen]:
    def run(world: Backends) -> Seen:
        node, sessions = world.b1, len(world.stack.log_events("session"))
        scene = Scene(phase, world.stack, node, sender(), "b@one.example").approach()
        before = node.recorder.conversations[-1:]
        leave(scene.client)
        node.let_go()
        world.stack.wait_for_event("session", sessions + 1)
        wait_until(lambda: node.recorder.open == 0, "the backend's connection is over", PATIENCE)
        note = "no connection"
        if phase is not Phase.BEFORE:
            [conversation] = before
            note = "closed within the text" if conversation.in_text else conversation.ended
        outcome, events = scene.logged()
        return Seen((), "ends", scene.committed(world.nodes), outcome, events, note)

    return run


def _waited_for(step: str, leave: Callable[[RawClient], None]) -> Callable[[Backends], Seen]:
    """The client leaves while the backend keeps the proxy waiting in this step."""

    def run(world: Backends) -> Seen:
        node, told = world.b1, len(world.b1.recorder.conversations)
        scene = Scene(Phase.BEFORE, world.stack, node, sender(), "b@one.example").approach()
        node.recorder.hold(step)
        scene.client.send(b"".join(line + b"\r\n" for line in scene.envelope_lines))
        node.wait_held()
        note = _left(world, scene, leave)
        [conversation] = node.recorder.conversations[told:]
        node.let_go()
        wait_until(lambda: node.recorder.open == 0, "the backend's connection is over", PATIENCE)
        outcome, events = scene.logged()
        return Seen((), "ends", scene.committed(world.nodes), outcome, events, f"{note}; {conversation.ended}")

    return run


def _queued(leave: Callable[[RawClient], None]) -> Callable[[Backends], Seen]:
    """The client leaves while another has the pool's only place."""

    def run(world: Backends) -> Seen:
        with RawClient(world.stack.proxy) as other:
            other.greeted().envelope(b"other@example.com", b"b@narrow.example")
            told = len(world.b1.recorder.conversations)
            scene = Scene(Phase.BEFORE, world.stack, world.b1, sender(), "b@narrow.example").approach()
            scene.client.send(b"".join(line + b"\r\n" for line in scene.envelope_lines))
            # Sent before the proxy waits for the place, and not before.
            assert scene.client.reply(PATIENCE).startswith(b"250 ")
            note = _left(world, scene, leave)
            assert other.opened().end().startswith(b"250 ")
        outcome, events = scene.logged()
        dialled = len(world.b1.recorder.conversations) - told
        return Seen((), "ends", scene.committed(world.nodes), outcome, events, f"{note}; {dialled} connections")

    return run


def _left(world: Backends, scene: Scene, leave: Callable[[RawClient], None]) -> str:
    """How the proxy has noticed it."""
    sessions = len(world.stack.log_events("session"))
    leave(scene.client)
    [*_, session] = world.stack.wait_for_event("session", sessions + 1)
    return "noticed in the wait" if session["end"].startswith("connection lost: ") else session["end"]


EXPECTED: Final = {
    Phase.BEFORE: Expected("", "ends", note="no connection"),
    Phase.AFTER: Expected("", "ends", note="quit|client closed"),
    Phase.TEXT: Expected("", "ends", note="closed within the text"),
    Phase.DOT: Expected("", "ends", committed=1, outcome="delivered", note="quit"),
}


def cells() -> Iterator[Cell]:
    for words, leave in (("closes", close), ("resets", reset)):
        for phase, expected in EXPECTED.items():
            yield Cell("client vanishes", phase, words, "backends", _run(phase, leave), expected)
        for step, where in (("GREETING", "dialled"), ("RCPT", "asked about the recipient")):
            run, injected = _waited_for(step, leave), f"{words}, while a backend is {where}"
            expected = Expected("", "ends", note="noticed in the wait; (quit|client closed|lost: .*)")
            yield Cell("client vanishes", Phase.BEFORE, injected, "backends", run, expected)
        expected = Expected("", "ends", note="noticed in the wait; 0 connections")
        yield Cell(
            "client vanishes", Phase.BEFORE, f"{words}, in the pool's queue", "backends", _queued(leave), expected
        )
