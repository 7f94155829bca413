"""Rows about backends once more, with a real Postfix: killed, frozen, and its last answer lost on the way.

A fault proxy stands between, because Postfix has taken a message long before it could be stopped from saying so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from faultproxy import FaultProxy, Faults
from faults.cells import Cell, Expected, Phase, Seen
from faults.player import Node, Scene, play
from faults.rows_backend import SEARCH, WAIT, bent, sender
from peers.postfix import Postfix
from peers.process import HOST, free_port, wait_until
from stack import RELAY, Stack


class PostfixNode(Node):
    """A Postfix behind a fault proxy, in the place of a recorder."""

    def __init__(self) -> None:
        self.mta = Postfix("matrix")
        self.mta.start()
        self.link = FaultProxy((HOST, free_port()), (HOST, self.mta.port))
        self.port = self.link.address[1]
        self._running = True
        self._frozen = False
        self._seen = 0
        self._phase = Phase.TEXT

    def hold(self, phase: Phase) -> None:
        self._phase, self._seen = phase, self.taken()

    def before_dot(self) -> None:
        """Nothing that it says from now on comes through."""
        self.link.switch(to_client=Faults(stall=(0, math.inf)))

    def wait_held(self) -> None:
        """After the dot: until it has taken the message, and says so to nobody."""
        if self._phase is Phase.DOT:
            wait_until(lambda: self.taken() > self._seen, "Postfix has taken the message")

    def let_go(self) -> None:
        """What was held stays so: the fault has come."""

    def taken(self) -> int:
        return len(re.findall(r"cleanup\[\d+\]: [0-9A-F]+: message-id=", self.mta.log()))

    def kill(self) -> None:
        self.mta.kill()
        self._running = False

    def freeze(self) -> None:
        self.mta.master.pause()
        self._frozen = True

    def cut(self) -> None:
        self.link.cut("reset")

    def up(self) -> None:
        if not self._running:
            self.mta.start()
            self._running = True
        elif self._frozen:
            self.mta.master.resume()
            self._frozen = False
        self.link.switch()

    def copies(self, sender: str) -> int:
        """What it has delivered of that sender, whole messages all."""
        wait_until(lambda: self.mta.queued() == 0, "Postfix has delivered all that it has", 30)
        mine = [one for one in self.mta.messages() if one.trace["return-path"] == f"<{sender}>"]
        assert all(one.content.endswith(b"second half\n") for one in mine), "a part of a message was committed"
        return len(mine)


class PostfixScene(Scene):
    """A Scene whose last answer is held on its way."""

    def committed(self, nodes: Iterable[Node]) -> int:
        """Counted when all is well again: a Postfix that is away delivers nothing."""
        return 0

    def before_dot(self) -> None:
        assert isinstance(self.node, PostfixNode)
        self.node.before_dot()


class RealBackend:
    """Postfix as the only backend."""

    def __init__(self, folder: Path) -> None:
        self.node = PostfixNode()
        pool = {"health": {"probe": "off"}, "breaker": {"max_open": "0%"}, "reuse": {"idle": "0s"}}
        failover = {"until": "connect", "deadline": f"{SEARCH:g}s"}
        self.stack = Stack(
            folder,
            [self.node.address],
            listeners=[RELAY],
            auth_url=None,
            pool={**pool, "failover": failover},
            **bent(folder, SMTPGATE_TEST_WAIT=f"{WAIT:g}"),  # type: ignore[arg-type]
        )

    def heal(self) -> None:
        self.node.up()

    def close(self) -> None:
        self.stack.stop()
        self.node.link.stop()
        self.node.mta.remove()

    def show(self) -> str:
        return self.stack.show()


def _cell(phase: Phase, injected: str, fault: Callable[[PostfixNode], None], expected: Expected) -> Cell:
    def run(world: RealBackend) -> Seen:
        scene = PostfixScene(phase, world.stack, world.node, sender())
        seen = play(scene, lambda: fault(world.node), world.heal, ())
        return Seen(seen.told, seen.session, world.node.copies(scene.sender), seen.outcome, seen.events, seen.note)

    return Cell("a real Postfix", phase, injected, "postfix", run, expected)


NOBODY: Final = Expected("250, 451 4.4.1", outcome="reset", event="backend_failed")
LOST: Final = Expected("451 4.4.2, 451 4.4.2", outcome="reset", event="backend_failed")
LOST_IN_TEXT: Final = Expected("451 4.4.2", outcome="refused", event="backend_lost")
# It has the message, and nobody could be told: the client comes again.
UNKNOWN: Final = Expected("451 4.4.2", committed=1, outcome="unknown", event="backend_lost")
PHASES: Final = {Phase.BEFORE: NOBODY, Phase.AFTER: LOST, Phase.TEXT: LOST_IN_TEXT, Phase.DOT: UNKNOWN}


def cells() -> Iterator[Cell]:
    for phase, expected in PHASES.items():
        yield _cell(phase, "SIGKILL", PostfixNode.kill, expected)
    for phase, expected in PHASES.items():
        if phase is Phase.TEXT:  # the kernel takes the rest of the text; it is the answer that does not come
            expected = Expected("451 4.4.2", committed=1, outcome="unknown", event="backend_lost")
        yield _cell(phase, "SIGSTOP", PostfixNode.freeze, expected)
    yield _cell(Phase.DOT, "its 250 is lost with the connection", PostfixNode.cut, UNKNOWN)
