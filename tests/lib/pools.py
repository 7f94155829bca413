"""Pools for tests: short ways to make one, to take sessions of it, and to eject a backend."""

from __future__ import annotations

from collections import Counter
from typing import Any

from smtpgate.routing.model import BackendSpec, BreakerSpec, PoolSpec
from smtpgate.routing.pool import Open, PoolState

NOW = 1000.0
BREAKER = BreakerSpec(connect=2, session=2, min_clients=2, open=30.0, max_open=0.5)


def backend(name: str, weight: int = 1, max_conns: int | None = None, **more: Any) -> BackendSpec:
    return BackendSpec(name, "127.0.0.1", 25, weight, max_conns, **more)


def spec(*backends: BackendSpec, **more: Any) -> PoolSpec:
    return PoolSpec("core", backends, breaker=BREAKER, **more)


def pool(*backends: BackendSpec, **more: Any) -> PoolState:
    return PoolState(spec(*backends, **more), NOW)


def take(state: PoolState, *tried: str, now: float = NOW, **more: Any) -> str:
    """The name of the backend acquired; a refusal fails the test."""
    answer = state.acquire(now, tried=tried, **more)
    assert isinstance(answer, Open)
    return answer.backend.name


def turns(state: PoolState, sessions: int, now: float = NOW) -> Counter[str]:
    """Where sessions go that do not overlap."""
    names = Counter[str]()
    for _ in range(sessions):
        name = take(state, now=now)
        state.release(name)
        names[name] += 1
    return names


def eject(state: PoolState, name: str, now: float = NOW) -> bool:
    return [state.connect_failed(name, now) for _ in range(BREAKER.connect)][-1]


def states(state: PoolState, now: float = NOW) -> dict[str, str]:
    return {view.name: view.state for view in state.view(now)}
