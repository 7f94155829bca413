"""drivers/garbage.py: what the collector looks at, and when it looks at all."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpgate.drivers import garbage
from smtpgate.drivers.garbage import EVERY, GROWTH, OF_SESSION, Keeper


class Circle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def seen(thing: object) -> bool:
    """Whether the collector looks at it."""
    return any(one is thing for one in gc.get_objects())


def test_what_was_loaded_is_not_looked_at_again() -> None:
    before = gc.get_threshold()
    loaded = [Circle()]
    garbage.settle()
    assert not seen(loaded)
    assert gc.get_threshold() == (garbage.THRESHOLD, *before[1:])


def test_a_crowd_is_out_of_sight_and_leaves_as_ever() -> None:
    keeper = Keeper(lambda: 0)
    crowd = [Circle() for _ in range(100)]
    for _ in range(EVERY - 1):
        keeper.session_begins()
    assert seen(crowd)
    keeper.session_begins()
    assert not seen(crowd)
    gone = weakref.ref(crowd[0])
    crowd[0].itself = None  # type: ignore[assignment] # no circle any more
    del crowd[0]
    assert gone() is None


@pytest.mark.parametrize(
    ("sessions", "grown", "passes"),
    [(0, GROWTH, False), (0, GROWTH + 1, True), (1000, GROWTH + 1000 * OF_SESSION, False), (1000, 1 << 40, True)],
)
def test_memory_that_sessions_do_not_explain_is_looked_through(sessions: int, grown: int, passes: bool) -> None:
    memory = [1 << 20]
    keeper = Keeper(lambda: memory[0])
    circle = Circle()
    gone = weakref.ref(circle)
    gc.freeze()
    del circle
    gc.collect()
    assert gone() is not None  # out of sight
    memory[0] += grown
    assert keeper.look(sessions) is passes
    assert (gone() is None) is passes
    assert keeper.look(sessions) is False  # what is left is needed


def test_the_memory_that_a_process_has() -> None:
    before = garbage.resident()
    assert before > 1 << 20
    held = bytearray(os.urandom(16 << 20))
    assert garbage.resident() - before > 8 << 20
    del held


def test_no_memory_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", nothing)
    assert garbage.resident() == 0
    assert Keeper().look(0) is False
