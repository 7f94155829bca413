"""Greenlets over one RedisBuckets: `python redis_scenarios.py <function> <JSON arguments>` prints what it
returns.

Each function is one scene of test_redisstore.py; what must hold is asserted there.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from smtpgate.clock import SystemClock  # noqa: E402
from smtpgate.drivers.redisstore import Breaker  # noqa: E402
from smtpgate.drivers.store import open_store  # noqa: E402
from smtpgate.policy.store import BucketStore, Charge, Claim, StoreUnavailable  # noqa: E402

NEVER = 1e-9  # tokens a second: no refill within a test


def outcome(store: BucketStore, charges: list[Charge], *, debit: bool = True) -> str:
    try:
        return "passed" if store.take(charges, debit=debit).passed else "denied"
    except StoreUnavailable:
        return "unavailable"


def together(store: BucketStore, asks: list[list[Charge]]) -> list[str]:
    """One greenlet for each, all at once; outcomes in their order."""
    jobs = [gevent.spawn(outcome, store, charges) for charges in asks]
    gevent.joinall(jobs, raise_error=True)
    return [job.value for job in jobs]


def spend(uri: str, burst: float, greenlets: int, each: int, start: float) -> dict[str, int]:
    """`greenlets` charge one bucket `each` times. start: when (Unix seconds), so that processes overlap."""
    store = open_store(uri, clock=SystemClock(), timeout=5.0)
    seen: Counter[str] = Counter()

    def session() -> None:
        for _ in range(each):
            seen[outcome(store, [Charge("shared:x", NEVER, burst)])] += 1

    gevent.sleep(max(0.0, start - time.time()))
    gevent.joinall([gevent.spawn(session) for _ in range(greenlets)], raise_error=True)
    return dict(seen)


def rush(uri: str, greenlets: int, each: int) -> dict[str, Any]:
    """Greenlets charge one bucket of 60 and claim one of 20 places, both `each` times, and keep what they get."""
    store = open_store(uri, clock=SystemClock(), timeout=5.0)
    seen: Counter[str] = Counter(paid=0, held=0, left=0)
    most = 0

    def session(number: int) -> None:
        nonlocal most
        for turn in range(each):
            paid = store.take([Charge("rush:x", NEVER, 60.0)])
            seen["paid" if paid.passed else "left"] += 1
            held = store.take([], claims=[Claim("rush:x", 20, f"{os.getpid()}:{number}:{turn}")])
            seen["held" if held.passed else "left"] += 1
            most = max(most, 20 - held.free[0])

    gevent.joinall([gevent.spawn(session, i) for i in range(greenlets)], raise_error=True)
    return {**seen, "most": most}


def crowd(uri: str, greenlets: int) -> dict[str, Any]:
    """Every second greenlet also charges an empty bucket; each must get the answer to its own question."""
    store = open_store(uri, clock=SystemClock(), timeout=5.0)
    store.take([Charge("empty", NEVER, 1.0)])
    asks = [
        [Charge(f"own:{i}", NEVER, 10.0)] + ([Charge("empty", NEVER, 1.0)] if i % 2 else []) for i in range(greenlets)
    ]
    outcomes = together(store, asks)
    balances = [store.take([Charge(f"own:{i}", NEVER, 10.0)], debit=False).balances[0] for i in range(greenlets)]
    return {"outcomes": outcomes, "balances": balances}


def stalled(uri: str, pid: int, greenlets: int) -> dict[str, Any]:
    """Redis stops: how long does each caller wait, what was charged after all, and does it come back?"""
    store = open_store(uri, clock=SystemClock(), breaker=Breaker(SystemClock(), open_for=0.3))
    together(store, [[Charge(f"warm:{i}", NEVER, 10.0)] for i in range(2)])
    waits = []

    def session(i: int) -> str:
        began = time.monotonic()
        result = outcome(store, [Charge(f"stalled:{i}", NEVER, 10.0)])
        waits.append(time.monotonic() - began)
        return result

    os.kill(pid, signal.SIGSTOP)
    jobs = [gevent.spawn(session, i) for i in range(greenlets)]
    gevent.joinall(jobs, raise_error=True)
    os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while outcome(store, [Charge("after", NEVER, 1000.0)]) != "passed" and time.monotonic() < deadline:
        gevent.sleep(0.05)
    left = [store.take([Charge(f"stalled:{i}", NEVER, 10.0)], debit=False).balances[0] for i in range(greenlets)]
    return {"outcomes": [job.value for job in jobs], "longest": max(waits), "left": left}


def killed(uri: str, pid: int) -> dict[str, Any]:
    """Greenlets die while they collect, call and queue; the rest goes on, and nobody gets another's answer."""
    store = open_store(uri, clock=SystemClock(), timeout=5.0)
    store.take([Charge("warm", NEVER, 10.0)])
    os.kill(pid, signal.SIGSTOP)
    victims = [gevent.spawn(outcome, store, [Charge(f"victim:{i}", NEVER, 10.0)]) for i in range(300)]
    gevent.sleep(0.1)  # some are in flight, the rest is queued
    gevent.killall(victims)
    survivors = [gevent.spawn(outcome, store, [Charge(f"survivor:{i}", NEVER, 10.0, 1.0 + i)]) for i in range(9)]
    collector = gevent.spawn(outcome, store, [Charge("collector", NEVER, 10.0)])
    gevent.sleep(0)
    collector.kill()
    os.kill(pid, signal.SIGCONT)
    gevent.joinall(survivors, raise_error=True)
    left = [store.take([Charge(f"survivor:{i}", NEVER, 10.0)], debit=False).balances[0] for i in range(9)]
    charged = sum(
        store.take([Charge(f"victim:{i}", NEVER, 10.0)], debit=False).balances[0] < 10.0 for i in range(300)
    )
    return {"outcomes": [job.value for job in survivors], "left": left, "charged": charged, "store": repr(store)}


def impatient(uri: str, pid: int) -> dict[str, Any]:
    """A timeout that the caller set itself comes out as such, from the call and from the queue."""
    store = open_store(uri, clock=SystemClock(), timeout=5.0)
    store.take([Charge("warm", NEVER, 10.0)])
    raised = []

    def session() -> None:
        mine = gevent.Timeout.start_new(0.1)
        try:
            store.take([Charge("impatient", NEVER, 10.0)])
        except gevent.Timeout as timeout:
            raised.append(timeout is mine)
        finally:
            mine.close()

    os.kill(pid, signal.SIGSTOP)
    jobs = []
    for _ in range(10):  # not all at once: the first two call, the others queue
        jobs.append(gevent.spawn(session))
        gevent.sleep(0.005)
    gevent.joinall(jobs, raise_error=True)
    os.kill(pid, signal.SIGCONT)
    return {"own": raised, "after": outcome(store, [Charge("after", NEVER, 10.0)])}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
