"""One process of a log as a simulation sees it: its engine, its sessions, and who stands in its lines.

Owns the order in which held sessions come. What is asked, and when, is `simulation`'s to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Decision, Slot
from smtpgate.policy.record import Asked
from smtpgate.policy.select import Policy


class VirtualClock:
    """Time as the records have it; it never goes back."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits in a simulation")


@dataclass(slots=True, eq=False)
class Question:
    """One thing that a session wants, until it has an answer in the log and here.

    asked: its last record. since: when it was first asked. logged, simulated: the limit that refused, "" for allowed,
    None while it is open. held_by: the limit that held the simulated session first; deadline: until when; key: the
    bucket in whose line it stands; next_try: when that can pay. logged_hold: what the log's policy offered.
    """

    asked: Asked
    since: float
    logged: str | None = None
    simulated: str | None = None
    decision: Decision | None = None
    held_by: str = ""
    deadline: float = 0.0
    key: str = ""
    next_try: float = 0.0
    logged_hold: float = 0.0


class Process:
    """One process of the log: its engine, its sessions, and who stands in its lines."""

    def __init__(self, number: int, policy: Policy, store: MemoryBuckets, clock: VirtualClock) -> None:
        self.number = number
        self.questions: dict[str, Question] = {}
        # session -> places; those of its transaction end before it.
        self.places: dict[str, list[Slot]] = {}
        self.of_transaction: dict[str, list[Slot]] = {}
        self._lines: dict[str, list[Question]] = {}
        self.engine = Engine(
            store,
            clock,
            lambda: 0.0,
            policy=policy,
            token=lambda octets: str(number),
            waiting=lambda key: key in self._lines,
        )

    def stand(self, question: Question, key: str) -> None:
        """In the line of a bucket; who stands there already keeps the place."""
        if question.key != key:
            self.leave(question)
            question.key = key
            self._lines.setdefault(key, []).append(question)

    def leave(self, question: Question) -> None:
        if question.key:
            line = self._lines[question.key]
            line.remove(question)
            if not line:
                del self._lines[question.key]
            question.key = ""

    def is_first(self, question: Question) -> bool:
        return bool(question.key) and self._lines[question.key][0] is question
