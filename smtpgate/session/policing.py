"""One session under the limits: the one place where it asks policy, waits as policy says, and settles what it paid.

Owns what is logged of a refusal, the waiting for tokens (`hold`), the wait before a refusal (`delay`), and the
accounts: what was paid and which places are held, and when they are given back. Refuses to know what a limit is and
how sessions stand in line; when to ask, and with which facts, is for `flow`, `auth` and `mailing` to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smtpgate.clock import Deadline
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts, Paid, Slot
from smtpgate.session.client import Client
from smtpgate.session.ports import Attending, Lane, Place, Ports
from smtpgate.session.records import DenialRecord
from smtpgate.smtp.replies import Reply

# Seconds. A store that says "now" and then "no", again and again, is not asked in a loop.
SHORTEST_REST: Final = 0.01
# Whoever is held at one of these finishes when the process drains; what has not begun may begin elsewhere.
_IN_TRANSACTION: Final = frozenset({Event.RCPT, Event.EOD})


@dataclass(slots=True)
class Account:
    """What one connection, login, transaction or recipient has paid, and the places that it holds."""

    paid: tuple[Paid, ...] = ()
    slots: tuple[Slot, ...] = ()

    def take_over(self, other: Account) -> None:
        """The other's part becomes this one's."""
        self.paid += other.paid
        self.slots += other.slots


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the client is told, and by which limit. banned: seconds for which it will be told so, whatever it does."""

    denial: DenialRecord
    reply: Reply
    banned: float = 0.0


class Policing:
    """waited: seconds that went by for the limits, with waits in line and before refusals."""

    def __init__(self, ports: Ports, client: Client, attending: Attending) -> None:
        self._ports = ports
        self._policy = ports.policy
        self._client = client
        self._attending = attending
        self.waited = 0.0

    def ask(self, event: Event, facts: Facts, account: Account) -> Refusal | None:
        """May this happen? None is yes, and what it cost is in the account. A refusal has had its waits already."""
        began = self._ports.clock.monotonic()
        decision = self._policy.decide(event, facts)
        if decision is ALLOWED:
            return None
        try:
            return self._obey(event, facts, account, decision)
        finally:
            self.waited += self._ports.clock.monotonic() - began

    def _obey(self, event: Event, facts: Facts, account: Account, decision: Decision) -> Refusal | None:
        held = 0.0
        if decision.denial is not None and decision.denial.hold > 0.0:
            decision, held = self._hold(event, facts, decision, decision.denial)
        for denial in decision.shadow:
            self._ports.records.denial(self._record(event, facts, denial, shadow=True))
        if decision.denial is not None:
            return self._refuse(event, facts, decision.denial, held)
        account.paid += decision.paid
        account.slots += decision.slots
        return None

    def lane(self, facts: Facts, owed: int) -> Lane | None:
        """A text begins: the lane in which it is to be read, where a limit shapes it. owed: octets of it that were
        read already.
        """
        if not self._policy.asks(Event.DATA):
            return None
        shapes = self._policy.decide(Event.DATA, facts).shapes
        return self._ports.shaper.open(shapes, owed) if shapes else None

    def settle(self, account: Account, *, ours: bool | None = None) -> None:
        """Close an account. Places become free; what was paid is kept (None), or given back because of an outage of
        ours (True) or, where its limit says so, because the mail server refused it (False).
        """
        paid, slots = account.paid, account.slots
        account.paid = account.slots = ()
        if ours is not None and any(ours or one.rejected for one in paid):
            self._policy.refund(paid, ours=ours)
        if slots:
            self._policy.release(slots)

    def _hold(self, event: Event, facts: Facts, decision: Decision, denial: Denial) -> tuple[Decision, float]:
        """Wait for tokens, as long as the limit lets its clients wait: the last decision, and the seconds it took.

        Whoever waits has paid nothing and holds nothing. It stands in its bucket's line, and the first of a line asks
        again when the bucket should be able to pay; one that then finds another bucket short stands in that one's
        line. Who cannot be served in time is not held at all: the engine says so.
        """
        clock, first_by = self._ports.clock, denial.limit
        began, deadline = clock.monotonic(), Deadline(clock, denial.hold)
        place: Place | None = None
        try:
            while denial.hold > 0.0 and not deadline.expired:
                place = self._stand(place, event, denial)
                if place is None or not self._rest(place, denial, deadline):
                    break
                decision = self._policy.decide(event, facts, turn=True, hold=deadline.remaining())
                if decision.denial is None:
                    break
                denial = decision.denial
            if decision.denial is not None and denial.hold > 0.0:
                # The last word: only now does it count as a refusal.
                turn = place is not None and place.first
                decision = self._policy.decide(event, facts, turn=turn, hold=0.0)
        finally:
            if place is not None:
                place.leave()
        held = clock.monotonic() - began
        self._policy.held_for(first_by, held)
        return decision, held

    def _stand(self, place: Place | None, event: Event, denial: Denial) -> Place | None:
        """A place in the line of the bucket that is short; None where too many stand there already."""
        key = f"{denial.limit}:{denial.subject}"
        if place is not None:
            if place.key == key:
                return place
            place.leave()
        return self._ports.holds.join(key, patient=event in _IN_TRANSACTION)

    def _rest(self, place: Place, denial: Denial, deadline: Deadline) -> bool:
        """Until there is something to ask: those in front are served, and the bucket can pay. False: ask no more."""
        seconds = max(SHORTEST_REST, denial.wait) if place.first else deadline.remaining()
        with self._attending():
            return place.rest(seconds) and place.first

    def _refuse(self, event: Event, facts: Facts, denial: Denial, held: float) -> Refusal:
        record = self._record(event, facts, denial, held=held)
        self._ports.records.denial(record)
        if denial.delay > 0.0:
            with self._attending():
                self._ports.clock.sleep(denial.delay)
        text = denial.reply
        reply = Reply(text.code, (f"{text.enhanced} {text.text}",), close=denial.close)
        return Refusal(record, reply, denial.banned)

    def _record(
        self, event: Event, facts: Facts, denial: Denial, *, held: float = 0.0, shadow: bool = False
    ) -> DenialRecord:
        return DenialRecord(
            who=self._client.who(),
            transaction=facts.transaction,
            at=event.value,
            limit=denial.limit,
            subject=denial.subject,
            retry=denial.retry,
            balance=denial.balance,
            rule=denial.source,
            held=held,
            shadow=shadow,
        )
