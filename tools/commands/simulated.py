"""What a simulation tells, as values: per limit, per subject, and which questions were answered otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class LimitCounts:
    """Of one limit. What begins with logged_ is what the log says. held: sessions that had to wait, held_seconds:
    together. shadow: would have been refused.
    """

    limit: str
    event: str = ""
    checked: int = 0
    held: int = 0
    held_seconds: float = 0.0
    denied: int = 0
    shadow: int = 0
    refunded: int = 0
    logged_held: int = 0
    logged_denied: int = 0
    logged_shadow: int = 0


@dataclass(frozen=True, slots=True)
class SubjectCounts:
    """One subject of a limit."""

    limit: str
    subject: str
    denied: int
    held: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One question that was answered otherwise. at: Unix seconds. logged, simulated: the limit that refused, then and
    now; None for allowed.
    """

    at: float
    event: str
    session: str | None
    client: str
    user: str | None
    logged: str | None
    simulated: str | None


@dataclass(slots=True)
class Result:
    """first, last: Unix seconds of the records. questions: those that have an answer in the log and here;
    newly_denied, newly_allowed: of them. unreleased: places that are held at the end.
    """

    first: float = 0.0
    last: float = 0.0
    questions: int = 0
    newly_denied: int = 0
    newly_allowed: int = 0
    unreleased: int = 0
    limits: list[LimitCounts] = field(default_factory=list)
    subjects: list[SubjectCounts] = field(default_factory=list)
    examples: list[Difference] = field(default_factory=list)
