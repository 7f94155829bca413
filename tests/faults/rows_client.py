"""Row "client vanishes": it closes, or its connection is reset, in each phase; what counts is the backend's side."""

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
