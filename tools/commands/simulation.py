"""What another policy would have answered to the questions of a log.

Owns the replay: the engine of the product, over balances in memory, under a clock that moves with the records. Each
process of the log has an engine of its own, as it had then. Where the log shows how a session that was held went on,
that is followed; where only the simulated policy holds it, it waits and asks again as a session would.

What a log cannot tell: clients that come back because they were refused. Whoever is refused here and was not then
still asks for what the log says, and for nothing else.

Refuses to know files and terminals.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.model import Decision, Denial, Event, Paid, Slot
from smtpgate.policy.record import Asked, Refunded, Released
from smtpgate.policy.select import Policy
from smtpgate.policy.store import LEASE

from .simulated import Difference, LimitCounts, Result, SubjectCounts
from .simulatedproxy import Process, Question, VirtualClock

# Subjects with a balance. The product's own bound is for machines that have other things to keep.
MAX_KEYS: Final = 1_000_000
# Payments that may still be refunded: buckets and costs, and payments of one.
MAX_OPEN: Final = 100_000
MAX_OPEN_OF_ONE: Final = 1000
# Places are renewed as by the product: often enough for none to end.
RENEW_INTERVAL: Final = LEASE / 3
# Seconds. As of session.policing: no loop of questions within an instant.
SHORTEST_REST: Final = 0.01
# Questions with another answer that are told one by one.
MAX_EXAMPLES: Final = 10


@dataclass(slots=True, eq=False)
class _Payment:
    """A decision that was paid in the log: what of it is not refunded yet, and what it has paid here."""

    left: Counter[tuple[str, float]]
    paid: tuple[Paid, ...]


class Simulation:
    """apart: each process counts for itself, as with memory://."""

    def __init__(self, policy: Policy, *, apart: bool = False) -> None:
        self._policy = policy
        self._apart = apart
        self._clock = VirtualClock()
        self._store = MemoryBuckets(self._clock, MAX_KEYS)
        self._processes: dict[int, Process] = {}
        # (when, a number that keeps the order, who): sessions that only the simulated policy holds.
        self._due: list[tuple[float, int, Process, Question]] = []
        self._numbers = itertools.count()
        self._renewed = 0.0
        self._payments: OrderedDict[tuple[int, str, float], deque[_Payment]] = OrderedDict()
        # A holder of the log -> the places here.
        self._slots: dict[str, tuple[Process, tuple[Slot, ...]]] = {}
        self._logged: dict[str, LimitCounts] = {}
        self._held: Counter[str] = Counter()
        self._denied_subjects: Counter[tuple[str, str]] = Counter()
        self._held_subjects: Counter[tuple[str, str]] = Counter()
        self._result = Result()

    # --- the log ---

    def decision(self, asked: Asked, process: int = 0) -> None:
        """A question of the log, with the answer that it got there."""
        self._advance(asked.at)
        running = self._process(process)
        session = asked.facts.session or f"#{next(self._numbers)}"
        question = running.questions.get(session)
        if question is not None and (question.logged is not None or question.asked.event is not asked.event):
            self._drop(running, session)
            question = None
        if question is None:
            question = running.questions[session] = Question(asked, self._clock.time)
            self._ask(running, question)
        else:
            question.asked = asked
            if question.simulated is None and not self._holds_longer(question):
                self._ask(running, question)
        self._log_answer(question)
        if question.logged is not None:
            if question.simulated is None:
                self._go_on_alone(running, question)
            self._settle(running, question)
            if question.simulated is not None:
                running.questions.pop(session, None)

    def refund(self, refunded: Refunded, process: int = 0) -> None:
        """What the simulated decisions paid comes back for the same reasons."""
        self._advance(refunded.at)
        payments: list[_Payment] = []
        for item in refunded.paid:
            one = next((known for known in payments if known.left[item] > 0), None)
            if one is None:
                one = self._last_payment(process, item)
                if one is None:
                    continue
                payments.append(one)
            one.left[item] -= 1
        for one in payments:
            self._process(process).engine.refund(one.paid, ours=refunded.ours)

    def release(self, released: Released) -> None:
        self._advance(released.at)
        for holder in released.slots:
            found = self._slots.pop(holder, None)
            if found is not None:
                found[0].engine.release(found[1])

    def end(self, what: str, session: str, process: int = 0) -> None:
        """A "transaction" or a "session" of the log is over: the places that only the simulated policy counts have
        been left.
        """
        running = self._process(process)
        running.engine.release(running.of_transaction.pop(session, ()))
        if what == "session":
            running.engine.release(running.places.pop(session, ()))
            self._drop(running, session)

    def result(self, top: int) -> Result:
        """To be called once, at the end. top: subjects that are told."""
        result = self._result
        last = result.last
        while self._due:
            self._advance(self._due[0][0] + LEASE)  # who is held gets an answer
        result.last = last
        result.unreleased = sum(process.engine.held for process in self._processes.values())
        result.limits = self._counts()
        ranked = self._denied_subjects + self._held_subjects
        result.subjects = [
            SubjectCounts(limit, subject, self._denied_subjects[limit, subject], self._held_subjects[limit, subject])
            for (limit, subject), _ in sorted(ranked.items(), key=lambda item: (-item[1], item[0]))[:top]
        ]
        return result

    # --- one question ---

    def _ask(self, process: Process, question: Question) -> None:
        """As it was asked in the log."""
        asked = question.asked
        decision = process.engine.decide(
            asked.event,
            asked.facts,
            debit=asked.debit,
            count=asked.count,
            turn=asked.turn,
            hold=asked.patience,
            slots=asked.places,
        )
        self._answered(process, question, decision)

    def _ask_again(self, process: Process, question: Question, hold: float) -> None:
        """As a session asks that only the simulated policy has held."""
        asked = question.asked
        decision = process.engine.decide(
            asked.event,
            asked.facts,
            debit=asked.debit,
            count=asked.count,
            turn=process.is_first(question),
            hold=hold,
            slots=asked.places,
        )
        self._answered(process, question, decision)

    def _answered(self, process: Process, question: Question, decision: Decision) -> None:
        denial = decision.denial
        if denial is not None and denial.hold > 0.0:
            self._hold(process, question, denial)
            return
        process.leave(question)
        if question.held_by:
            process.engine.held_for(question.held_by, self._clock.time - question.since)
        question.decision = decision
        question.simulated = "" if denial is None else denial.limit
        if denial is not None:
            self._denied_subjects[denial.limit, denial.subject] += 1
        asked = question.asked
        if decision.slots and asked.facts.session is not None:
            own = process.of_transaction if asked.event is Event.MAIL else process.places
            own.setdefault(asked.facts.session, []).extend(decision.slots)

    def _hold(self, process: Process, question: Question, denial: Denial) -> None:
        if not question.held_by:
            question.held_by = denial.limit
            question.deadline = self._clock.time + denial.hold
            self._held[denial.limit] += 1
            self._held_subjects[denial.limit, denial.subject] += 1
        process.stand(question, f"{denial.limit}:{denial.subject}")
        question.next_try = self._clock.time + max(SHORTEST_REST, denial.wait)

    def _holds_longer(self, question: Question) -> bool:
        """The log's session has been told its last word; here it would still be waiting."""
        last_word = question.asked.patience == 0.0
        return last_word and question.deadline - question.since > question.logged_hold

    def _go_on_alone(self, process: Process, question: Question) -> None:
        """The log does not say what this session would have done: it waits for its tokens, or is told at once that
        they will not come in time.
        """
        if question.next_try > question.deadline:
            self._ask_again(process, question, 0.0)
        else:
            heapq.heappush(self._due, (question.next_try, next(self._numbers), process, question))

    def _drop(self, process: Process, session: str) -> None:
        """The session has gone on, or away. A hold that the log has seen the end of ends here, too."""
        question = process.questions.pop(session, None)
        if question is None or question.simulated is not None:
            return
        if question.logged is None:
            process.leave(question)  # the client left while it was held: nobody was refused
            question.simulated = ""
        else:
            self._ask_again(process, question, 0.0)
            self._settle(process, question)

    def _log_answer(self, question: Question) -> None:
        asked = question.asked
        if not asked.debit and not (asked.count and asked.limit is not None):
            question.logged = asked.limit or ""
            return
        for name in asked.shadow:
            self._of_log(name).logged_shadow += 1
        if asked.limit is not None and asked.hold > 0.0:
            if not question.logged_hold:
                question.logged_hold = asked.hold
                self._of_log(asked.limit).logged_held += 1
            return
        if asked.limit is not None:
            self._of_log(asked.limit).logged_denied += 1
        question.logged = asked.limit or ""

    def _settle(self, process: Process, question: Question) -> None:
        """Both answers are known: are they the same, and what of the log belongs to what was paid here."""
        logged, simulated, asked = question.logged, question.simulated, question.asked
        if logged is None or simulated is None or question.decision is None:
            return
        result = self._result
        result.questions += 1
        result.newly_denied += bool(simulated and not logged)
        result.newly_allowed += bool(logged and not simulated)
        if logged != simulated and len(result.examples) < MAX_EXAMPLES:
            facts = asked.facts
            names = (facts.session, facts.client, facts.user, logged or None, simulated or None)
            result.examples.append(Difference(asked.at, asked.event.value, *names))
        for holder in asked.slots:
            self._slots[holder] = (process, question.decision.slots)
        if asked.paid and question.decision.paid:
            self._remember(process, _Payment(Counter(asked.paid), question.decision.paid))

    # --- time ---

    def _advance(self, at: float) -> None:
        """Let everything happen that is due before `at`, in its order."""
        if not self._result.first:
            self._result.first = self._renewed = self._clock.time = at
        while True:
            renewal = self._renewed + RENEW_INTERVAL
            due = self._due[0][0] if self._due else at
            if min(renewal, due) >= at:
                break
            self._clock.time = max(self._clock.time, min(renewal, due))
            if renewal <= due:
                self._renew(at)
                continue
            _, _, process, question = heapq.heappop(self._due)
            if question.simulated is None:
                self._ask_again(process, question, max(0.0, question.deadline - self._clock.time))
                if question.simulated is None:
                    self._go_on_alone(process, question)
                self._settle(process, question)
        self._clock.time = self._result.last = max(self._clock.time, at)

    def _renew(self, at: float) -> None:
        holding = [process for process in self._processes.values() if process.engine.held]
        for process in holding:
            process.engine.renew()
        # A night without places has nothing to renew.
        self._renewed = self._clock.time if holding else max(at, self._clock.time)

    # --- accounts ---

    def _process(self, number: int) -> Process:
        found = self._processes.get(number)
        if found is None:
            store = MemoryBuckets(self._clock, MAX_KEYS) if self._apart else self._store
            found = self._processes[number] = Process(number, self._policy, store, self._clock)
        return found

    def _remember(self, process: Process, payment: _Payment) -> None:
        for key, cost in payment.left:
            place = (process.number, key, cost)
            known = self._payments.get(place)
            if known is None:
                known = self._payments[place] = deque(maxlen=MAX_OPEN_OF_ONE)
                if len(self._payments) > MAX_OPEN:
                    self._payments.popitem(last=False)
            known.append(payment)
            self._payments.move_to_end(place)

    def _last_payment(self, process: int, item: tuple[str, float]) -> _Payment | None:
        """The last one of this bucket and cost that is not refunded; two of the same are as good as each other."""
        known = self._payments.get((process, *item), ())
        while known:
            payment = known.pop()
            if payment.left[item] > 0:
                return payment
        return None

    def _of_log(self, limit: str) -> LimitCounts:
        return self._logged.setdefault(limit, LimitCounts(limit))

    def _counts(self) -> list[LimitCounts]:
        """Of the policy's limits in its order, then of those that only the log knows."""
        rows: dict[str, LimitCounts] = {}
        for event, limits in self._policy.limits.items():
            for limit in limits:
                row = rows[limit.name] = self._of_log(limit.name)
                row.event = event.value
                row.held = self._held[limit.name]
        for process in self._processes.values():
            for name, counts in process.engine.counters.items():
                row = rows[name]
                row.checked += counts.checked
                row.denied += counts.denied
                row.held_seconds += counts.held_seconds
                row.shadow += counts.shadow_denied
                row.refunded += counts.refunded
        return [*rows.values(), *(row for name, row in sorted(self._logged.items()) if name not in rows)]
