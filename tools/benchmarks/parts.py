"""W7 and W10: the limiter and the auth service by themselves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from peers.process import HOST
from peers.redis import Redis
from stack import Stack

from tools.benchmarks.interpreters import ROOT, Interpreter
from tools.benchmarks.measure import usage
from tools.benchmarks.runs import NEWCOMERS, PASSWORD, USERS, SpoiltError

TIMEOUT: Final = 120.0
Figures = dict[str, float]


def limiter(folder: Path, decisions: int, rounds: int, python: Interpreter) -> list[Figures]:
    """Decisions over four buckets each, 200 callers, a real Redis: decisions a second and our CPU a decision."""
    folder.mkdir(parents=True)
    server = Redis(folder)
    settings = {"uri": server.unix_uri, "decisions": decisions}
    try:
        return [_child("limiter", settings, python) for _ in range(rounds)]
    finally:
        server.stop()


def authsvc(folder: Path, requests: int, users: str, rounds: int, python: Interpreter) -> list[Figures]:
    """Known users over kept connections: requests a second, and the service's CPU a request."""
    folder.mkdir(parents=True)
    stack = Stack(folder, [(HOST, 1)], users=users, python=python.command(built=True))
    settings = {"host": stack.auth[0], "port": stack.auth[1], "users": USERS, "password": PASSWORD}
    try:
        assert stack.auth_process is not None
        _child("authsvc", {**settings, "requests": USERS, "clients": NEWCOMERS}, python)  # each is hashed once
        runs = []
        for _ in range(rounds):
            before = usage(stack.auth_process.members()).cpu
            found = _child("authsvc", {**settings, "requests": requests}, python)
            found["cpu"] = 1e6 * (usage(stack.auth_process.members()).cpu - before) / requests
            runs.append(found)
        return runs
    finally:
        stack.stop()


def _child(part: str, settings: dict[str, Any], python: Interpreter) -> Figures:
    """tools.benchmarks.callers in a process of its own, with the compiled modules."""
    argv = [*python.command(built=True), "-m", "tools.benchmarks.callers", part, json.dumps(settings)]
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise SpoiltError(f"{part}: not done after {TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        raise SpoiltError(f"{part}: {done.stderr.strip()[-300:]}")
    found: Figures = json.loads(done.stdout)
    return found
