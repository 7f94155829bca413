"""Token buckets, slots and bans in Redis, over any Redis storage of the `limits` library.

One script (take.lua, spoken by `redisscript`) decides for many callers at once; what the keys look like is in
`rediskeys`.

Owns batching, the bound on every wait, and the breaker. Decisions that queue while calls are in flight leave
together in the next one; a lone caller makes its call itself. Nothing is ever sent twice: a call that timed
out may have been charged (reference/peers.md section 5). How a call gets there is `rediscall`'s. Refuses to know
what a limit is, and what to do while Redis is away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar, cast

import gevent
from gevent.hub import Waiter
from limits.errors import ConfigurationError
from limits.storage import RedisStorage
from redis.exceptions import RedisClusterException, RedisError

from smtpgate.clock import Clock
from smtpgate.drivers import redisscript
from smtpgate.drivers.metricsports import StoreCounts
from smtpgate.drivers.rediscall import ScriptCaller, script_caller, within
from smtpgate.drivers.redisscript import SCRIPT, Question
from smtpgate.drivers.servants import Servants
from smtpgate.drivers.tracebacks import let_go
from smtpgate.journal import Journal
from smtpgate.policy.model import Slot
from smtpgate.policy.rules import Limiter
from smtpgate.policy.store import LEASE, NOTHING, BanCheck, Charge, Claim, StoreUnavailable, Taken

Answer = TypeVar("Answer")

# Seconds for each step, connect and reply; shared policy.md, `limiter.timeout`.
DEFAULT_TIMEOUT: Final = 0.05
# Connect and reply: no caller waits for more than both, whether queueing, connecting or being answered.
STEPS: Final = 2
# Decisions in one call: some 2 ms of Redis' only thread (reference/peers.md section 5).
MAX_BATCH: Final = 64
# Two calls hide each other's round trip; a third adds nothing (reference/peers.md section 5, micro-batching).
MAX_IN_FLIGHT: Final = 2
# More than two flights carry off while a caller is willing to wait (about 19,000 decisions a second, 100 ms).
MAX_QUEUED: Final = 4096
_LATE: Final = object()


class Breaker:
    """Whether a call is worth trying.

    Closed; open for `open_for` seconds after `errors` failures within `within` seconds; then one call in every
    `open_for` seconds is let through as a probe, until one succeeds. The numbers are shared policy.md's.
    """

    def __init__(self, clock: Clock, *, errors: int = 5, within: float = 2.0, open_for: float = 5.0) -> None:
        self._clock = clock
        self._until: float | None = None
        self.configure(errors=errors, within=within, open_for=open_for)

    def configure(self, *, errors: int, within: float, open_for: float) -> None:
        """New numbers from now on; failures before them are forgotten, an open breaker stays open for its time."""
        self._within = within
        self._open_for = open_for
        self._failures: deque[float] = deque(maxlen=errors)

    @property
    def is_open(self) -> bool:
        return self._until is not None

    def admit(self) -> bool:
        """May a call be made now? While open, the one that is told yes is the probe."""
        if self._until is None:
            return True
        now = self._clock.monotonic()
        if now < self._until:
            return False
        # Nobody else until the probe has had its time. One that never reports is simply followed by the next.
        self._until = now + self._open_for
        return True

    def failed(self) -> bool:
        """A call failed. True when that has opened the breaker."""
        now = self._clock.monotonic()
        if self._until is not None:
            self._until = now + self._open_for
            return False
        self._failures.append(now)
        if len(self._failures) < (self._failures.maxlen or 0) or now - self._failures[0] > self._within:
            return False
        self._failures.clear()
        self._until = now + self._open_for
        return True

    def succeeded(self) -> bool:
        """A call succeeded. True when that has closed the breaker."""
        was_open = self._until is not None
        self._until = None
        return was_open


class _Ask(Generic[Answer]):
    """One question on its way. A lone caller's is answered by itself; another's waits."""

    __slots__ = ("_waiter", "abandoned", "question")

    def __init__(self, question: Question[Answer]) -> None:
        self.question = question
        # An AsyncResult and its timeout take twice the time, and nobody else listens.
        self._waiter: Waiter[object] | None = None
        self.abandoned = False

    def queue(self) -> None:
        """Somebody else makes the call."""
        self._waiter = Waiter()

    def tell(self, outcome: Answer | StoreUnavailable) -> None:
        """To whoever waits, once it is its turn to run."""
        if self._waiter is not None:
            gevent.get_hub().loop.run_callback(self._waiter.switch, outcome)

    def wait(self, seconds: float) -> Answer:
        """What tell() brings. Raises StoreUnavailable, also when it is not told in time; what is thrown in passes."""
        assert self._waiter is not None
        timer = gevent.get_hub().loop.timer(seconds)
        timer.start(self._waiter.switch, _LATE)
        try:
            outcome = self._waiter.get()
        finally:
            # Timed out or killed: if it is still queued, nobody wants it charged.
            self.abandoned = True
            timer.close()
        if outcome is _LATE:
            raise StoreUnavailable(f"no answer within {seconds:.3f} s")
        if isinstance(outcome, StoreUnavailable):
            raise StoreUnavailable(str(outcome))
        return cast(Answer, outcome)


class RedisBuckets:
    """A `policy.store.BucketStore` in Redis.

    open_storage is called with a timeout when the first decision is made, again until it returns (a cluster that is
    down at start raises there), and when the timeout is edited. timeout: seconds for each of connect and reply; the
    storage must be opened with those socket timeouts and without retries (`store.open_store` does). counts: of
    decisions; the rest waits for nobody.
    """

    def __init__(
        self,
        open_storage: Callable[[float], RedisStorage],
        clock: Clock,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        breaker: Breaker | None = None,
        journal: Journal | None = None,
        counts: StoreCounts | None = None,
    ) -> None:
        self._open_storage = open_storage
        self._timeout = timeout
        self._breaker = breaker or Breaker(clock)
        self._journal = journal
        self._counts = counts
        self._queue: deque[_Ask[Any]] = deque()
        self._flights = 0
        self._carriers = Servants(self._fly, MAX_IN_FLIGHT)
        self._collecting = False
        self._limiter: Limiter | None = None
        self._caller: ScriptCaller | None = None
        self._clock = clock
        self._prefix = ""

    def __repr__(self) -> str:
        state = "open" if self._breaker.is_open else "closed"
        return f"<RedisBuckets breaker {state}, {self._flights} in flight, {len(self._queue)} queued>"

    def take(
        self,
        charges: Sequence[Charge],
        *,
        debit: bool = True,
        count: bool = False,
        claims: Sequence[Claim] = (),
        bans: Sequence[BanCheck] = (),
    ) -> Taken:
        """See BucketStore.take. Waits at most 2 x timeout, whatever Redis does; then StoreUnavailable."""
        if not (charges or claims or bans):
            return NOTHING
        question = redisscript.take(charges, debit=debit, count=count, claims=claims, bans=bans)
        counts = self._counts
        if counts is None:
            return self._ask(question)
        began = self._clock.monotonic()
        try:
            return self._ask(question)
        except StoreUnavailable:
            counts.failures.add()
            raise
        finally:
            counts.seconds.observe(self._clock.monotonic() - began)

    def give(self, charges: Sequence[Charge]) -> None:
        self._ask(redisscript.give(charges))

    def release(self, slots: Sequence[Slot]) -> None:
        self._ask(redisscript.release(slots))

    def renew(self, slots: Sequence[Slot], lease: float = LEASE) -> None:
        self._ask(redisscript.renew(slots, lease))

    def note(self, key: str, member: str, ttl: float, keep: int) -> None:
        self._ask(redisscript.note(key, member, ttl, keep))

    def seen(self, key: str, member: str) -> bool:
        return self._ask(redisscript.seen(key, member))

    def configure(self, limiter: Limiter) -> None:
        """What is the same as before changes nothing: an edit elsewhere in the folder must not close a breaker."""
        before, self._limiter = self._limiter, limiter
        breaker = limiter.breaker
        if before is None or before.breaker != breaker:
            self._breaker.configure(errors=breaker.errors, within=breaker.within, open_for=breaker.open_for)
        if limiter.timeout != self._timeout:
            self._timeout = limiter.timeout
            self.close()
            self._caller = None

    @property
    def _patience(self) -> float:
        return self._timeout * STEPS

    def _ask(self, question: Question[Answer]) -> Answer:
        if not self._breaker.admit():
            raise StoreUnavailable("the breaker is open: too many errors of late")
        ask = _Ask(question)
        if self._flights == MAX_IN_FLIGHT or self._queue or self._collecting:
            self._join(ask)
            return ask.wait(self._patience)
        self._flights += 1
        try:
            self._collect()
            if not self._queue:
                answer: Answer = self._call([ask])[0]
                return answer
            ask.queue()
            self._queue.appendleft(ask)
        finally:
            self._land()
        return ask.wait(self._patience)

    # --- queueing ---

    def _collect(self) -> None:
        """Let every greenlet that is ready run once: under load, most have a decision that can share the call.

        Without it a Redis on the same machine answers before its caller first yields, and nothing is shared.
        """
        self._collecting = True
        try:
            gevent.sleep(0)
        finally:
            self._collecting = False

    def _join(self, ask: _Ask[Any]) -> None:
        if len(self._queue) >= MAX_QUEUED:
            raise StoreUnavailable(f"{MAX_QUEUED} decisions are queued already")
        ask.queue()
        self._queue.append(ask)
        self._launch()

    def _launch(self) -> None:
        """Give the queue a flight if one is free. The slot is taken here, before the greenlet first runs."""
        if self._queue and self._flights < MAX_IN_FLIGHT and not self._collecting:
            self._flights += 1
            self._carriers.call()

    def _land(self) -> None:
        self._flights -= 1
        self._launch()

    def _fly(self) -> None:
        """Carry batch after batch until the queue is empty."""
        try:
            while batch := self._next_batch():
                outcomes: Sequence[object]
                try:
                    outcomes = self._call(batch)
                except StoreUnavailable as error:
                    # Another one: what was raised here holds this frame, and with it whoever is told.
                    outcomes = [StoreUnavailable(str(error))] * len(batch)
                for ask, outcome in zip(batch, outcomes, strict=True):
                    ask.tell(outcome)
        finally:
            self._land()

    def _next_batch(self) -> list[_Ask[Any]]:
        """The longest-waiting callers that are still waiting, at most MAX_BATCH."""
        batch: list[_Ask[Any]] = []
        while self._queue and len(batch) < MAX_BATCH:
            ask = self._queue.popleft()
            if not ask.abandoned:
                batch.append(ask)
        return batch

    # --- the call ---

    def _call(self, asks: Sequence[_Ask[Any]]) -> list[Any]:
        """One script call for all. Raises StoreUnavailable, and tells the breaker what happened."""
        questions = [ask.question for ask in asks]
        try:
            reply = self._run(questions)
        except ConfigurationError:
            # `limits` finds it out when a cluster is first asked. Its text quotes the URI, with the password.
            raise self._fault("ConfigurationError: limits could not open the store") from None
        except _FAULTS as error:
            let_go(error)
            raise self._fault(f"{type(error).__name__}: {error}") from error
        if self._breaker.succeeded() and self._journal is not None:
            self._journal.info("store_up")
        return redisscript.decode(questions, reply)

    def _run(self, questions: Sequence[Question[Any]]) -> bytes:
        if self._caller is None:
            return within(self._patience, lambda: self._run_first(questions))
        keys, args = redisscript.encode(questions, self._prefix)
        return self._caller(keys, args, self._patience)

    def _run_first(self, questions: Sequence[Question[Any]]) -> bytes:
        storage = self._open_storage(self._timeout)  # of a cluster asks its nodes
        self._prefix = storage.prefixed_key("")
        self._caller = script_caller(storage.get_connection(), SCRIPT, self._clock)
        return self._run(questions)

    def _fault(self, reason: str) -> StoreUnavailable:
        if self._breaker.failed():
            if self._journal is not None:
                self._journal.error("store_down", reason=reason)
            # Idle connections may lead to a master that is none any more: the probe makes a new one.
            self.close()
            # Whoever queues has no better prospects than whoever comes now.
            while self._queue:
                self._queue.popleft().tell(StoreUnavailable(reason))
        return StoreUnavailable(reason)

    def close(self) -> None:
        """Close idle connections. The store stays usable."""
        if self._caller is not None:
            self._caller.close()


# Whatever redis-py raises for a server that is away, busy, full, read-only or not what it should be.
# RedisClusterException is no RedisError. The valkey library's errors cannot come: store.py opens Valkey with
# redis-py.
_FAULTS: Final = (RedisError, RedisClusterException, OSError)
