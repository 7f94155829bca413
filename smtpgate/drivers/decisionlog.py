"""An engine that writes down what it is asked and what it answers (conf/proxy.yaml `log.decisions`).

Owns when a record is written: after the answer, so that the lines of a process stand in the order of its answers. The
form of a record is `policy.record`'s, escaping the journal's. Decides nothing, and what it wraps knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from smtpgate.clock import Clock
from smtpgate.journal import Journal
from smtpgate.policy import record
from smtpgate.policy.model import Decision, Event, Facts, Paid, Slot
from smtpgate.policy.select import Policy


class Recorded(Protocol):
    """The part of policy.engine.Engine that sessions ask, and that is recorded here."""

    @property
    def policy(self) -> Policy: ...

    def swap(self, policy: Policy) -> None: ...

    def decide(
        self,
        event: Event,
        facts: Facts,
        *,
        debit: bool = True,
        count: bool = True,
        turn: bool = False,
        hold: float | None = None,
        slots: bool = True,
    ) -> Decision: ...

    def refund(self, paid: Sequence[Paid], *, ours: bool) -> None: ...

    def release(self, slots: Sequence[Slot]) -> None: ...

    def held_for(self, limit: str, seconds: float) -> None: ...


class DecisionLog:
    """What sessions ask an engine for, with a line of the journal for each question.

    clock: its wall clock dates the records. Questions about event data, which shape and never refuse, have none.
    """

    def __init__(self, engine: Recorded, journal: Journal, clock: Clock) -> None:
        self._engine = engine
        self._journal = journal
        self._clock = clock
        self.swap = engine.swap
        self.held_for = engine.held_for

    @property
    def policy(self) -> Policy:
        return self._engine.policy

    def decide(
        self,
        event: Event,
        facts: Facts,
        *,
        debit: bool = True,
        count: bool = True,
        turn: bool = False,
        hold: float | None = None,
        slots: bool = True,
    ) -> Decision:
        """See Engine.decide."""
        decision = self._engine.decide(event, facts, debit=debit, count=count, turn=turn, hold=hold, slots=slots)
        if event is not Event.DATA:
            written = record.decision(
                self._clock.now(),
                event,
                facts,
                decision,
                debit=debit,
                count=count,
                turn=turn,
                patience=hold,
                places=slots,
            )
            self._journal.info(record.DECISION, **written)
        return decision

    def refund(self, paid: Sequence[Paid], *, ours: bool) -> None:
        """See Engine.refund."""
        self._engine.refund(paid, ours=ours)
        self._journal.info(record.REFUND, **record.refund(self._clock.now(), paid, ours=ours))

    def release(self, slots: Sequence[Slot]) -> None:
        """See Engine.release."""
        self._engine.release(slots)
        self._journal.info(record.RELEASE, **record.release(self._clock.now(), slots))
