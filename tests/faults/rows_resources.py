"""Rows about what a machine runs out of: descriptors, sessions, room for logs, and the right time.

The limits are set on the running processes with prlimit(2). The wall clock is bent inside the proxy, since the
machine's is everybody's; a full disk is a log file that may not grow (EFBIG, where a disk says ENOSPC).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from faults.cells import Cell, Expected, Phase, Seen
from faults.player import PATIENCE, Node, Scene, play, short
from faults.rows_backend import bent, sender
from faults.rows_policy import limits
from peers.process import wait_until
from rawclient import RawClient
from stack import RELAY, UNSHARED, Stack

ROOM: Final = 24  # descriptors that are left to a worker, some of which it keeps for itself
CROWD: Final = 40  # clients that want them
MAX_SESSIONS: Final = 4


class Proxy:
    """A proxy of one worker with one backend."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.node = Node()
        self.stack = Stack(
            folder,
            [self.node.address],
            pool=UNSHARED,
            auth_url=None,
            listeners=[RELAY],
            **settings,  # type: ignore[arg-type]
        )

    @property
    def worker(self) -> int:
        [pid] = self.stack.worker_pids()
        return pid

    def heal(self) -> None:
        self.node.up()

    def close(self) -> None:
        self.stack.stop()
        self.node.down()

    def show(self) -> str:
        return self.stack.show()


class Crowded(Proxy):
    """One whose clients are more than it can take."""

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__(folder, **settings)
        self._crowd = ExitStack()
        self._limits = resource.prlimit(self.worker, resource.RLIMIT_NOFILE)

    def starve(self) -> str:
        """No descriptor is left; what the last of the crowd hears."""
        used = max(int(fd) for fd in os.listdir(f"/proc/{self.worker}/fd")) + 1
        resource.prlimit(self.worker, resource.RLIMIT_NOFILE, (used + ROOM, self._limits[1]))
        return self.fill(used + ROOM + CROWD)

    def fill(self, most: int) -> str:
        """Clients come until one of them is not greeted, `most` at the most; what that one hears."""
        heard = "220"
        while heard == "220" and most > 0:
            client = self._crowd.enter_context(RawClient(self.stack.proxy))
            reply = client.reply(PATIENCE)
            heard = short(reply) if reply else "closed" if client.ended else "silence"
            most -= 1
        return heard

    def heal(self) -> None:
        """All have left, and there is room."""
        super().heal()
        resource.prlimit(self.worker, resource.RLIMIT_NOFILE, self._limits)
        self._crowd.close()
        wait_until(self._greets, "new clients are greeted again", 2.0)

    def _greets(self) -> bool:
        with RawClient(self.stack.proxy) as client:
            return client.reply().startswith(b"220 ")


def _starved(phase: Phase) -> Callable[[Crowded], Seen]:
    return _crowded(phase, Crowded.starve)


def _full(phase: Phase) -> Callable[[Crowded], Seen]:
    return _crowded(phase, lambda world: world.fill(MAX_SESSIONS + 1))


def _crowded(phase: Phase, crowd: Callable[[Crowded], str]) -> Callable[[Crowded], Seen]:
    def run(world: Crowded) -> Seen:
        scene = Scene(phase, world.stack, world.node, sender())
        heard = ""

        def inject() -> None:
            nonlocal heard
            heard = crowd(world)

        seen = play(scene, inject, world.heal, [world.node])
        return replace(seen, note=f"a new client: {heard}")

    return run


# --- the clock -----------------------------------------------------------------------------------------------------


class Clocked(Proxy):
    """One whose wall clock can be set. Its limit: one message an hour for each sender's domain."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "clock"
        self._offset.write_text("0")
        policy = {"limits.yaml": limits("good")}
        super().__init__(folder, policy=policy, **bent(folder, SMTPGATE_TEST_CLOCK=str(self._offset)))

    def jump(self, seconds: int) -> None:
        draft = self._offset.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self._offset)

    def heal(self) -> None:
        super().heal()
        self.jump(0)

    def word(self, domain: str) -> str:
        """What somebody is told who comes second."""
        with RawClient(self.stack.proxy) as client:
            return short(client.greeted().ask(f"MAIL FROM:<other@{domain}>".encode()))


def _jumped(phase: Phase, seconds: int) -> Callable[[Clocked], Seen]:
    def run(world: Clocked) -> Seen:
        scene = Scene(phase, world.stack, world.node, sender("once.example"))
        domain = scene.sender.partition("@")[2]
        note = lambda: f"the next: {world.word(domain)}"  # noqa: E731
        return play(scene, lambda: world.jump(seconds), world.heal, [world.node], note)

    return run


# --- the log -------------------------------------------------------------------------------------------------------


class Logging(Proxy):
    """One whose log may stop growing."""

    def full(self) -> None:
        size = len(self.stack.output().encode())
        for pid in self.stack.process.members():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def heal(self) -> None:
        super().heal()
        for pid in self.stack.process.members():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _unlogged(phase: Phase) -> Callable[[Logging], Seen]:
    def run(world: Logging) -> Seen:
        scene = Scene(phase, world.stack, world.node, sender())
        logged = len(world.stack.log_events("transaction", outcome="delivered"))
        seen = play(scene, world.full, world.heal, [world.node])
        # The next message of the same session, delivered with room again, has its line.
        world.stack.wait_for_event("transaction", logged + 1, outcome="delivered")
        return replace(seen, outcome="", note="the log goes on")

    return run


TOLD: Final = {
    Phase.BEFORE: "250, 250, 354, 250",
    Phase.AFTER: "250, 354, 250",
    Phase.TEXT: "250",
    Phase.DOT: "250",
}


def cells() -> Iterator[Cell]:
    turned_away = "a new client: 421 4.3.2"
    for phase, told in TOLD.items():
        expected = Expected(told, committed=1, outcome="delivered", note=turned_away)
        if phase is Phase.BEFORE:
            expected = Expected("250, 451 4.3.1", outcome="reset", note=turned_away)
        yield Cell("fd exhaustion", phase, "prlimit --nofile", "crowded", _starved(phase), expected)
    for phase, told in TOLD.items():
        expected = Expected(told, committed=1, outcome="delivered", note=turned_away)
        yield Cell("max sessions", phase, f"{MAX_SESSIONS} sessions", "full", _full(phase), expected)
    for words, seconds in (("an hour ahead", 3600), ("an hour back", -3600)):
        for phase, told in TOLD.items():
            expected = Expected(told, committed=1, outcome="delivered", note="the next: 450 4.7.1")
            yield Cell("clock jump", phase, words, "clock", _jumped(phase, seconds), expected)
    for phase, told in TOLD.items():
        expected = Expected(told, committed=1, note="the log goes on")
        yield Cell("disk full (logs)", phase, "no room for the log", "logs", _unlogged(phase), expected)
