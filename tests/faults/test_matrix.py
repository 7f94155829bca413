"""The fault matrix of reference/security.md section 3, a test a cell. `tools/faultmatrix` prints the same as a table.

The cells of a world come together, so that one running proxy serves them all. SMTPGATE_LONG=1 plays the long ones
too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

import pytest
from faults.cells import Cell, Phase
from faults.matrix import CELLS, DIFFERENCES, WORLDS, Worlds, run

LONG = os.environ.get("SMTPGATE_LONG") == "1"

ROWS = {
    "backend refuses / RST / EOF": set(Phase),
    "backend stalls": set(Phase),
    "backend says 421": set(Phase),
    "backend 5xx greeting": {Phase.BEFORE, Phase.DOT},
    "backend answers early": {Phase.TEXT},
    "backend garbage / extra replies": set(Phase),
    "auth service down": set(Phase),
    "auth service slow": set(Phase),
    "auth service answers nonsense": {Phase.BEFORE},
    "redis down / refused": set(Phase),
    "redis slow": set(Phase),
    "redis OOM / READONLY / MOVED / LOADING / failover": set(Phase),
    "YAML broken / partial on reload": set(Phase),
    "file replaced / deleted / unreadable": set(Phase),
    "fd exhaustion": set(Phase),
    "max sessions": set(Phase),
    "SIGTERM": set(Phase),
    "SIGHUP / SIGUSR2": set(Phase),
    "worker crash (kill -9)": set(Phase),
    "client vanishes": set(Phase),
    "clock jump": set(Phase),
    "disk full (logs)": set(Phase),
    "disk full (spool)": {Phase.TEXT},
    "disk full (state_dir)": {Phase.BEFORE},
}
"""Every row of the matrix, and the phases in which it asks for something."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    worlds = Worlds(tmp_path_factory.mktemp("worlds"))
    yield worlds
    worlds.close()


@pytest.mark.parametrize("cell", [cell for cell in CELLS if LONG or not cell.long], ids=lambda cell: cell.id)
def test_cell(cell: Cell, worlds: Worlds) -> None:
    result = run(cell, worlds)
    if result.skipped:
        pytest.skip(result.skipped)
    assert result.faults == (), f"{result.seen}\n{worlds.show()}"


def test_every_row_is_played_in_each_of_its_phases() -> None:
    played = {row: {cell.phase for cell in CELLS if cell.row == row} for row in ROWS}
    assert played == ROWS


def test_cells_have_names_of_their_own_and_known_worlds() -> None:
    names = [cell.id for cell in CELLS]
    assert len(set(names)) == len(names)
    assert {cell.world for cell in CELLS} == set(WORLDS)
    assert {cell.differs for cell in CELLS} - {""} == set(DIFFERENCES)


def test_the_worlds_do_not_alternate() -> None:
    order = [cell.world for cell in CELLS]
    assert len([one for one, two in pairwise(order) if one != two]) == len(WORLDS) - 1
