"""An engine under load while its Redis falls ill: `python fault_scenarios.py <function> <JSON arguments>`.

What must hold is asserted in test_faults.py; here it is only measured.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import secrets  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import gevent.socket  # noqa: E402
import redis  # noqa: E402
from gevent.server import StreamServer  # noqa: E402

import smtpgate.policy.engine  # noqa: E402
from smtpgate.clock import SystemClock  # noqa: E402
from smtpgate.drivers.store import open_store  # noqa: E402
from smtpgate.policy.engine import Engine, StoreMode  # noqa: E402
from smtpgate.policy.model import Decision, Event, Facts  # noqa: E402
from smtpgate.policy.rules import Breaker, Limiter, OnError  # noqa: E402
from smtpgate.policy.store import Charge  # noqa: E402
from tests.policy.handmade import limit, policy  # noqa: E402

SESSIONS = 20
PAUSE = 0.005  # seconds between the decisions of a session
ILL = 0.6  # seconds
SETTLE = 0.2
RECOVERY = 20.0
BURST = 1e6
NEVER = 1e-9
# One limit for each `on_error`, at an event of its own.
EVENTS = {OnError.LOCAL: Event.MAIL, OnError.ALLOW: Event.RCPT, OnError.TEMPFAIL: Event.EOD}
# Three times the default: a machine that runs other tests too must not look like a fault.
LIMITER = Limiter(timeout=0.15, breaker=Breaker(errors=5, within=2.0, open_for=0.2))


class Load:
    """Sessions that decide without end, and what became of it: (phase, on_error, outcome) -> how often."""

    def __init__(self, uri: str) -> None:
        # A line that flickers is written when it has settled; here that must not take a second.
        smtpgate.policy.engine.SETTLE = SETTLE
        self.modes: list[str] = []
        self.lines: list[str] = []
        self.phase = "well"
        self.over = False
        self.seen: Counter[tuple[str, str, str]] = Counter()
        self.longest = 0.0
        self.shared = 0
        self.unknown = 0
        limits = [
            limit(error.value, event, key="{listener}", rate=NEVER, burst=BURST, on_error=error)
            for error, event in EVENTS.items()
        ]
        self.store = open_store(uri, clock=SystemClock(), journal=self)  # type: ignore[arg-type]
        self.engine = Engine(
            self.store,
            SystemClock(),
            lambda: 0.0,
            policy=policy(*limits, limiter=LIMITER),
            on_mode=lambda mode: self.modes.append(mode.value),
            token=secrets.token_hex,
        )
        self._sessions = [gevent.spawn(self._session) for _ in range(SESSIONS)]

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(event)

    error = info

    def _session(self) -> None:
        facts = Facts("192.0.2.1", listener="mx")
        while not self.over:
            for error, event in EVENTS.items():
                phase, began = self.phase, time.monotonic()
                decision = self.engine.decide(event, facts)
                self.longest = max(self.longest, time.monotonic() - began)
                self._note(phase, error, decision)
                gevent.sleep(PAUSE)

    def _note(self, phase: str, error: OnError, decision: Decision) -> None:
        outcome = "denied"
        if decision.allowed:
            outcome = "allowed" if decision.paid and not decision.paid[0].local else "without"
        elif decision.denial is not None and decision.denial.reply.code == 451:
            outcome = "tempfail"
        self.seen[phase, error.value, outcome] += 1
        self.shared += outcome == "allowed"
        self.unknown += outcome != "allowed"

    def settle(self) -> float:
        """Seconds until decisions are shared again."""
        began = time.monotonic()
        while self.engine.mode is not StoreMode.SHARED and time.monotonic() - began < RECOVERY:
            gevent.sleep(0.01)
        return time.monotonic() - began

    def result(self, recovery: float, modes: list[str], lines: list[str]) -> dict[str, Any]:
        gevent.sleep(0.2)
        self.over = True
        gevent.joinall(self._sessions, raise_error=True)
        charges = [Charge(f"{error.value}:mx", NEVER, BURST) for error in EVENTS]
        left = self.store.take(charges, debit=False).balances
        return {
            "modes": modes,
            "lines": lines,
            "longest": self.longest,
            "recovery": recovery,
            "charged": round(len(EVENTS) * BURST - sum(left)),
            "shared": self.shared,
            "unknown": self.unknown,
            "ill": {f"{error} {what}": n for (phase, error, what), n in self.seen.items() if phase == "ill"},
            "again": sorted({f"{error} {what}" for (phase, error, what), _ in self.seen.items() if phase == "again"}),
        }


def _suffer(
    load: Load, harm: Callable[[], object], heal: Callable[[], object], *, grace: float = LIMITER.timeout * 2
) -> dict[str, Any]:
    """grace: seconds after which what was asked before has been answered, or never will be."""
    gevent.sleep(0.3)
    harm()
    gevent.sleep(grace)
    load.phase = "ill"
    gevent.sleep(ILL)
    load.phase = "healing"
    heal()
    recovery, modes, lines = load.settle(), list(load.modes), list(load.lines)
    gevent.sleep(LIMITER.timeout * 2)
    load.phase = "again"
    return load.result(recovery, modes, lines)


def stopped(uri: str, pid: int) -> dict[str, Any]:
    """SIGSTOP, later SIGCONT."""
    return _suffer(Load(uri), lambda: os.kill(pid, signal.SIGSTOP), lambda: os.kill(pid, signal.SIGCONT))


def killed(uri: str, pid: int, argv: list[str]) -> dict[str, Any]:
    """SIGKILL, later the same server again, empty."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        started.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    load = Load(uri)
    try:
        return _suffer(load, lambda: os.kill(pid, signal.SIGKILL), start)
    finally:
        for process in started:
            process.kill()
            process.wait()


def full(uri: str) -> dict[str, Any]:
    """maxmemory is reached, with noeviction, later no more."""
    with redis.Redis.from_url(uri) as client:
        return _suffer(
            Load(uri), lambda: client.config_set("maxmemory", 1), lambda: client.config_set("maxmemory", 0)
        )


def slow(port: int, host: str) -> dict[str, Any]:
    """Every answer takes 200 ms, later none of it."""
    delay = 0.0

    def carry(source: gevent.socket.socket, target: gevent.socket.socket) -> None:
        try:
            while data := source.recv(65536):
                gevent.sleep(delay)
                target.sendall(data)
            target.shutdown(gevent.socket.SHUT_WR)
        except OSError:
            return  # the other side was faster

    def serve(client: gevent.socket.socket, _address: object) -> None:
        with gevent.socket.create_connection((host, port)) as server:
            back = gevent.spawn(carry, server, client)
            carry(client, server)
            back.join()

    def set_delay(seconds: float) -> None:
        nonlocal delay
        delay = seconds

    proxy = StreamServer((host, 0), serve)
    proxy.start()
    try:
        return _suffer(Load(f"redis://{host}:{proxy.server_port}/0"), lambda: set_delay(0.2), lambda: set_delay(0.0))
    finally:
        proxy.stop()


def failing_over(uri: str, pid: int) -> dict[str, Any]:
    """The master dies; nobody heals it: Sentinel promotes the replica, sometimes within a third of a second."""
    return _suffer(Load(uri), lambda: os.kill(pid, signal.SIGKILL), lambda: None, grace=0.0)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
