"""What a cell of the fault matrix is, and when it is passed.

Rows and phases are those of reference/security.md section 3. A cell is data: what is injected, in which phase of a
client's transaction, in which running world, and what is expected of the client's replies, of its session, of the
backend and of the log. Owns the comparison. Refuses to know how anything is injected (rows_*) and shown (tools).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol


class Phase(Enum):
    """Where a client's transaction is when the fault comes."""

    BEFORE = "before MAIL"
    AFTER = "after RCPT"
    TEXT = "mid-DATA"
    DOT = "after dot"


class World(Protocol):
    """Running programs that serve the cells of one kind, one after the other."""

    def close(self) -> None:
        """Nothing that it started is left. May be called twice."""

    def show(self) -> str:
        """What its programs printed, for a cell that failed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one client. told: the replies from the fault on, as code and enhanced code ("250" alone where
    all is well); "closed" is an end without a word, "silence" no reply in time. session: "stays" if the same
    connection delivers the next message once the fault is over, else "ends". committed: copies of the message that
    backends have accepted. outcome: the transaction's in the log. events: the session's lines there. note: what else
    the row asks for, in words.
    """

    told: tuple[str, ...]
    session: str
    committed: int
    outcome: str = ""
    events: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """told: a pattern of all replies, joined with ", ". event: a line of the log that tells of the fault. outcome and
    note are patterns as well.
    """

    told: str
    session: str = "stays"
    committed: int = 0
    outcome: str = ".*"
    event: str = ""
    note: str = ".*"

    def differences(self, seen: Seen) -> list[str]:
        """What is not as expected; empty if the cell is passed."""
        patterns = [
            ("told", self.told, ", ".join(seen.told)),
            ("session", self.session, seen.session),
            ("committed", str(self.committed), str(seen.committed)),
            ("outcome", self.outcome, seen.outcome),
            ("note", self.note, seen.note),
        ]
        found = [
            f"{name}: {value!r}, expected {pattern}"
            for name, pattern, value in patterns
            if re.fullmatch(pattern, value) is None
        ]
        if self.event and self.event not in seen.events:
            found.append(f"no {self.event} in the log of the session, which has {sorted(seen.events)}")
        return found


@dataclass(frozen=True, slots=True)
class Cell:
    """row: as the matrix names it. injected: the fault, in words. world: which one plays it. differs: the key of
    `matrix.DIFFERENCES` where the matrix's own text asks for something else than `expected`. long: takes seconds, and
    says little that its neighbours do not: left out of the ordinary run of the tests.
    """

    row: str
    phase: Phase
    injected: str
    world: str
    run: Callable[[Any], Seen]
    expected: Expected
    differs: str = ""
    long: bool = False

    @property
    def id(self) -> str:
        words = f"{self.row} {self.injected} {self.phase.value}".lower()
        return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


@dataclass(frozen=True, slots=True)
class Result:
    """One cell, played. faults: why it failed; empty if it passed. skipped: why it could not be played here."""

    cell: Cell
    seen: Seen | None
    faults: tuple[str, ...]
    seconds: float
    skipped: str = ""

    @property
    def passed(self) -> bool:
        return not self.faults and not self.skipped


OpenWorld = Callable[[Path], World]
"""Starts a world in an empty folder."""
