"""All cells, the worlds that serve them, and the playing of one after the other.

DIFFERENCES tells where an expectation is not the matrix's own text, and why.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from faults import (
    rows_auth,
    rows_backend,
    rows_client,
    rows_disk,
    rows_policy,
    rows_postfix,
    rows_process,
    rows_resources,
    rows_store,
)
from faults.cells import Cell, OpenWorld, Result, World

WORLDS: Final[Mapping[str, OpenWorld]] = {
    "backends": rows_backend.Backends,
    "auth": rows_auth.Service,
    "scripted auth": rows_auth.Scripted,
    "redis": rows_store.Store,
    "sentinel": rows_store.Replicated,
    "moved": lambda folder: rows_store.Moving(folder, knows=False),
    "cluster": lambda folder: rows_store.Moving(folder, knows=True),
    "policies": rows_policy.Policies,
    "postfix": rows_postfix.RealBackend,
    "processes": rows_process.Processes,
    "draining": rows_process.Draining,
    "crowded": rows_resources.Crowded,
    "full": lambda folder: rows_resources.Crowded(folder, proxy={"max_sessions": rows_resources.MAX_SESSIONS}),
    "clock": rows_resources.Clocked,
    "logs": rows_resources.Logging,
    "disk": rows_disk.SmallDisk,
}

CELLS: Final[Sequence[Cell]] = (
    *rows_backend.cells(),
    *rows_client.cells(),
    *rows_postfix.cells(),
    *rows_auth.cells(),
    *rows_store.cells(),
    *rows_policy.cells(),
    *rows_resources.cells(),
    *rows_disk.cells(),
    *rows_process.cells(),
)

DIFFERENCES: Final[Mapping[str, str]] = {
    "unavailable": "A search for a backend that ends in vain is answered with the pool's `unavailable` (451 4.4.1), "
    "whatever each backend has said or done: the client cannot act on it, the log has it.",
    "said again": "Accepted recipients are said again to the next backend as far as the pool's `failover: until` "
    "allows (default data_start); with `until: connect` the matrix's own answer is given, in the cells beside.",
}


class Worlds:
    """Opens a world when its first cell comes, and closes it when another's does: at most one runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = ""
        self._world: World | None = None
        self._opened = 0

    def open(self, name: str) -> World:
        if name != self._name or self._world is None:
            self.close()
            self._opened += 1
            folder = self._folder / f"{name}{self._opened}"
            folder.mkdir(parents=True)
            self._world = WORLDS[name](folder)
            self._name = name
        return self._world

    def show(self) -> str:
        return self._world.show() if self._world is not None else ""

    def close(self) -> None:
        world, self._world = self._world, None
        if world is not None:
            world.close()


def run(cell: Cell, worlds: Worlds) -> Result:
    """Play one cell. Whatever goes wrong with it is its result; its world is thrown away then."""
    began = time.monotonic()
    try:
        seen = cell.run(worlds.open(cell.world))
    except pytest.skip.Exception as skipped:
        return Result(cell, None, (), time.monotonic() - began, str(skipped))
    except (Exception, pytest.fail.Exception) as error:
        worlds.close()
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Result(cell, None, (f"{error!r} at {where.name}:{where.lineno}",), time.monotonic() - began)
    return Result(cell, seen, tuple(cell.expected.differences(seen)), time.monotonic() - began)


def run_all(cells: Sequence[Cell], folder: Path) -> Iterator[Result]:
    """In the order of CELLS, which keeps the cells of a world together."""
    worlds = Worlds(folder)
    try:
        for cell in cells:
            yield run(cell, worlds)
    finally:
        worlds.close()
