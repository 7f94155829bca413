"""`tools/fuzz` finds what is to be found, keeps the input, and ends with a status that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from fuzz import engine, targets
from hypothesis import strategies as st

from tools import fuzz


def test_the_smallest_broken_input_is_found() -> None:
    def target(data: bytes) -> None:
        assert len(data) < 3 or data[1] < 7

    assert engine.search(target, st.binary(max_size=50), 1) == b"\0\x07\0"
    assert engine.search(lambda data: None, st.binary(max_size=50), 1) is None


def test_a_broken_input_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def target(data: bytes) -> None:
        if b"." in data:
            raise RecursionError

    monkeypatch.setitem(targets.TARGETS, "sasl", target)
    assert engine.run_by_chance("sasl", 30, tmp_path) == 1
    [crash] = tmp_path.iterdir()
    assert crash.name.startswith("crash-")
    assert b"." in crash.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nothing"], 2, "nothing is no target; expected one of authwire, chunkscan, command,"),
        (["--replay", "{seed}"], 2, "--replay needs one TARGET"),
        (["sasl", "--seconds", "0"], 2, "0 is not in the range x>=1"),
        (["sasl", "--replay", "{seed}"], 0, ""),
    ],
)
def test_the_command(arguments: list[str], status: int, said: str) -> None:
    ran = CliRunner().invoke(fuzz.fuzz, [one.format(seed=targets.CORPUS / "sasl/plain") for one in arguments])
    assert said in ran.output
    assert ran.exit_code == status


def test_a_target_runs_for_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "FOUND", tmp_path)
    ran = CliRunner().invoke(fuzz.fuzz, ["sasl", "--seconds", "1"])
    assert (ran.exit_code, ran.output) == (0, "== sasl, 1 s\n")
    assert [path.name for path in tmp_path.iterdir()] == ["sasl"]
