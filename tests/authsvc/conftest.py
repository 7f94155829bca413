"""What these tests share: a clock that is moved by hand, limits that are told what to say, a journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import argon2
import pytest

from authsvc.bulkhead import Bulkhead
from authsvc.passwords import Passwords
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts, ReplyText

DENIAL = Denial(
    limit="auth.fail.pair",
    subject="192.0.2.7|test",
    reply=ReplyText(454, "4.7.0", "too many failed logins, retry in 120s"),
    retry=120.0,
    delay=2.5,
    close=False,
    balance=0.0,
    source="policies/10-limits.yaml:7",
)


@dataclass
class ManualClock:
    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class ScriptedEngine:
    """Says `looked` when looked at, `charged` when charged, and notes each question."""

    looked: Decision = ALLOWED
    charged: Decision = ALLOWED
    asked: list[tuple[Event, Facts, bool]] = field(default_factory=list)

    def decide(self, event: Event, facts: Facts, *, debit: bool = True) -> Decision:
        self.asked.append((event, facts, debit))
        return self.charged if debit else self.looked

    @property
    def debits(self) -> list[bool]:
        return [debit for _, _, debit in self.asked]


@dataclass
class RecordingJournal:
    """Keeps each line as (level, event, fields)."""

    lines: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def journal() -> RecordingJournal:
    return RecordingJournal()


@pytest.fixture
def denied() -> Callable[..., Decision]:
    """A decision that denies; arguments change fields of its denial."""
    return lambda **fields: Decision(replace(DENIAL, **fields))


@pytest.fixture(scope="session")
def cheap_passwords() -> Passwords:
    """Hashes that cost next to nothing. What the cost is, passes no test here any faster or slower."""
    return Passwords(argon2.profiles.CHEAPEST)


@pytest.fixture
def bulkhead() -> Iterator[Bulkhead]:
    made = Bulkhead()
    yield made
    made.close()
