"""Several readers of a session's records: each is told of each, in order."""

from __future__ import annotations

from typing import Any

from smtpgate.drivers.records import AllRecords
from smtpgate.session.observing import Records

KINDS = [name for name in vars(Records) if not name.startswith("_")]


class Reader:
    def __init__(self, name: str, told: list[tuple[str, str, object]]) -> None:
        self._name = name
        self._told = told

    def __getattr__(self, kind: str) -> Any:
        return lambda record: self._told.append((self._name, kind, record))


def test_all_readers_are_told_of_everything() -> None:
    assert KINDS == ["opened", "session", "authentication", "transaction", "denial"]
    told: list[tuple[str, str, object]] = []
    records: Any = AllRecords([Reader("log", told), Reader("live", told)])
    for kind in KINDS:
        getattr(records, kind)(kind)
    assert told == [(reader, kind, kind) for kind in KINDS for reader in ("log", "live")]
