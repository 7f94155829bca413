"""The console as an operator has it: the auth service with `console` on, a Redis, and the reports of a whole site.

Owns a folder, the processes, and a thread that reports for two nodes of two workers, as proxies do. What they report
is the worst that a client can send: markup, text that turns around, names without an end.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import argon2
from peers.process import HOST, Process, free_port
from peers.redis import Redis

from authsvc.proof.passwords import Passwords
from smtpgate.clock import SystemClock
from smtpgate.drivers.liveboard import LiveBoard, open_board
from smtpgate.drivers.store import open_store
from smtpgate.live import (
    BackendView,
    Counts,
    DenialView,
    PolicyView,
    PoolView,
    Report,
    SessionView,
    SubjectView,
)
from smtpgate.policy.store import Charge, Claim, Penalty

ROOT = Path(__file__).parents[2]
ARGV = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "authsvc.wsgi:app"]

OPERATOR, PASSWORD = "anna", "correct horse battery staple"
SCRIPT = "<script>document.title='owned'</script>"
BIDI = "\u202egro.live@nna"
LONG = "a" * 300 + ".example.com"
IPV6 = "2001:db8:1234:5678:9abc:def0:1234:5678"

POLICIES = """\
version: 1
sets:
  office: {cidr: [192.0.2.0/24]}
exempt:
  - {match: {client: "@office"}, limits: [conns]}
limits:
  conns: {event: connect, rate: 60/1m, burst: 5, key: "{net}", deny: {reply: "421 4.7.0 too many connections"}}
  msgs: {event: mail, rate: 10/1d, burst: 10, key: "{user}", match: {auth: true}, deny: {reply: "450 4.7.1 slow"}}
  open: {event: auth, concurrency: 5, key: "{user}", deny: {reply: "421 4.7.0 too many sessions"}}
overrides:
  - {match: {user: gold@example.com}, set: {msgs: {rate: 20/1d, burst: 20}}}
routes: [{name: all, match: {}, pool: core}]
pools:
  core:
    backends:
      - {name: mta1, addr: "127.0.0.1:10025"}
      - {name: mta2, addr: "127.0.0.1:10026", weight: 2}
"""
ONE, TWO = "mx1.mail.example.com", "mx2.mail.example.com"
"""Nodes."""
RULE = "policies/p.yaml:8"
"""Where `msgs` stands, as snapshot and log name it from the folder of the site."""


class ConsoleSite:
    """Started when it is made. url: of the console. shared: its store is a Redis; else memory://."""

    def __init__(self, folder: Path, *, workers: int = 2, shared: bool = True) -> None:
        self.folder = folder
        self.port, self.auth_port = free_port(), free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.redis = Redis(folder) if shared else None
        self.store = "memory://" if self.redis is None else self.redis.uri
        (folder / "policies").mkdir()
        self.edit(POLICIES)
        stored = Passwords(argon2.profiles.CHEAPEST).make(PASSWORD.encode())
        conf: dict[str, Any] = {
            "bind": f"{HOST}:{self.auth_port}",
            "workers": workers,
            "store": self.store,
            "policies": "policies",
            "state_dir": "state",
            "argon2id": {"memory": "8KiB", "passes": 1, "lanes": 1},
            "console": {"bind": f"{HOST}:{self.port}", "operators": {OPERATOR: stored}},
        }
        (folder / "users.yaml").write_text("users: {}\n")
        conf["users"] = {"file": "users.yaml"}
        (folder / "authsvc.yaml").write_text(json.dumps(conf))
        env = {"SMTPGATE_AUTHSVC_CONF": "authsvc.yaml", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        self.board: LiveBoard = open_board(self.store, folder / "state", SystemClock())
        self._end = threading.Event()
        self._reporter = threading.Thread(target=self._report)
        self._reporter.start()
        self.process = Process("authsvc", ARGV, folder, env)
        try:
            self.process.wait_for_port(self.port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._end.set()
        self._reporter.join()
        self.process.stop()
        self.board.close()
        if self.redis is not None:
            self.redis.stop()

    def edit(self, text: str) -> None:
        fresh = self.folder / "policies/p.new"
        fresh.write_text(text)
        fresh.rename(self.folder / "policies/p.yaml")

    def log(self) -> list[dict[str, Any]]:
        lines = self.process.output().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def spend(self) -> None:
        """Balances, places and a ban, as a proxy leaves them in the store."""
        store = open_store(self.store, clock=SystemClock(), timeout=5.0)
        store.take([Charge("msgs:ann@example.com", 10 / 86400, 10.0, 8.0)])
        store.take([Charge(f"msgs:{SCRIPT}", 10 / 86400, 10.0, 10.0)])
        store.take([], claims=[Claim("open:ann@example.com", 5, "s1"), Claim("open:ann@example.com", 5, "s2")])
        ban = Penalty("192.0.2.66", "conns policies/p.yaml:7", ban=3600.0)
        store.take([Charge("conns:192.0.2.66", 1.0, 1.0, 1.0, penalty=ban)])
        store.take([Charge("conns:192.0.2.66", 1.0, 1.0, 1.0, penalty=ban)])

    # --- what the proxies report ---

    def _report(self) -> None:
        clock = SystemClock()
        began = clock.now() - 4000
        for turn in range(1 << 30):
            drained = {(one.pool, one.backend): one for one in self.board.orders()}
            for at, (node, pid) in enumerate(((ONE, 101), (ONE, 102), (TWO, 201), (TWO, 202))):
                self.board.publish(_site_report(node, pid, began, clock.now(), turn, at, drained))
            if turn == 0:
                self.board.publish(
                    replace(_site_report("mx3.mail.example.com", 301, began, clock.now(), 0, 1, {}), time=began)
                )
            if self._end.wait(1.0):
                return


def _site_report(
    node: str, pid: int, began: float, now: float, turn: int, at: int, drained: dict[tuple[str, str], Any]
) -> Report:
    busy = turn * (40 + 10 * at) + 15 * (turn % 7)
    return Report(
        node=node,
        pid=pid,
        version="0.1.0",
        time=now,
        began=began,
        draining=pid == 202,
        store="local" if pid == 201 else "shared",
        open_sessions=120 + turn % 9,
        resident=64 << 20,
        counts=Counts(
            sessions=busy, delivered=busy, refused=busy // 9, denied=busy // 5, held=busy // 20, logins=busy // 2,
            failed_logins=busy // 30, octets=busy * 20_000,
        ),
        sessions=_sessions(now, pid) if at == 0 else (),
        denials=_denials(now) if at == 0 else (),
        subjects=(
            SubjectView("msgs", "ann@example.com", RULE, 120 + turn, 7, began),
            SubjectView("msgs", SCRIPT, RULE, 3, 0, began),
            SubjectView("conns", BIDI, "policies/p.yaml:7", 2, 1, began),
        ),
        pools=(PoolView("core", "round_robin", tuple(_backends(at, drained)), waiting=at),),
        policy=PolicyView("0123456789abcdef", began),
        server_name="submission.mail.example.com",
    )  # fmt: skip


def _backends(at: int, drained: dict[tuple[str, str], Any]) -> Sequence[BackendView]:
    order = drained.get(("core", "mta1"))
    state = "up" if order is None else "drain"
    by = None if order is None else "operator"
    first = BackendView("mta1", "127.0.0.1:10025", state, 1, 30 + at, 4, 0, by=by)
    if at == 3:
        ill = BackendView("mta2", "127.0.0.1:10026", "down", 2, 0, 0, 17, by="probe", reason="connection refused")
        return first, ill
    return first, BackendView("mta2", "127.0.0.1:10026", "up", 2, 61, 3, 0)


def _sessions(now: float, pid: int) -> tuple[SessionView, ...]:
    common = SessionView(
        "1f2e3d4c5b6a7988",
        "submission",
        "192.0.2.7",
        "mail.example.com",
        "ann@example.com",
        "TLSv1.3",
        now,
        "mail",
        2,
    )
    names = (SCRIPT, BIDI, LONG, "<img src=x onerror=alert(1)>", '"><svg onload=alert(2)>')
    hostile = [
        replace(common, session=session_id("h", at), client=IPV6, name=name, user=name, since=now - 60 * at)
        for at, name in enumerate(names)
    ]
    usual = [
        replace(
            common,
            session=session_id("u", at),
            user=f"user{at}@example.com",
            since=now - 700 - at,
            backend="core/mta1",
        )
        for at in range(40)
    ]
    return (*hostile, *usual)


def session_id(kind: str, number: int) -> str:
    """As long as they are."""
    return f"{kind}{number:015}"


def _denials(now: float) -> tuple[DenialView, ...]:
    common = DenialView(
        now, "1f2e3d4c5b6a7988", "192.0.2.7", "ann@example.com", "mail", "msgs", "ann@example.com", 0.25, 6480.0, RULE
    )
    return (
        common,
        replace(common, time=now - 5, user=SCRIPT, subject=SCRIPT),
        replace(common, time=now - 9, user=BIDI, subject=BIDI, shadow=True),
        replace(
            common, time=now - 20, limit="submission.rcpts.per.domain.and.day", rule="policies/customers.yaml:1284"
        ),
        replace(common, time=now - 60, client=IPV6, user=LONG, subject=LONG),
    )
