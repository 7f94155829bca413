"""tools/bench: what it measures with, and one quick run of the real thing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from peers.fixtures import StartSink
from peers.process import free_port

from smtpgate.snapshot import build
from tools.benchmarks import interpreters, runs
from tools.benchmarks.contenders import KINDS, Contender, unrelated
from tools.benchmarks.interpreters import InterpreterError, known
from tools.benchmarks.load import text_of
from tools.benchmarks.measure import median, quantile, usage
from tools.benchmarks.profile import calls_of, spy_top
from tools.benchmarks.report import growth, ratios, spread, verdict
from tools.benchmarks.runs import Course, Measured, Spent, SpoiltError
from tools.benchmarks.workloads import WORKLOADS, Goal, Workload, chosen

ROOT = Path(__file__).parents[2]


def measured(rate: float, cpu: float) -> Measured:
    return Measured(rate, cpu, cpu, 1 << 20, 1.0, 100)


def test_quantiles() -> None:
    assert (quantile([3, 1, 2], 0.5), quantile([3, 1, 2], 0.99), median([4, 1]), median([3, 1, 2])) == (2, 3, 2.5, 2)
    assert math.isnan(quantile([], 0.5))
    assert math.isnan(median([]))


def test_cpu_is_that_of_the_process() -> None:
    before = usage([os.getpid()])
    spun = time.process_time() + 0.05
    while time.process_time() < spun:
        pass
    after = usage([os.getpid()])
    assert 0.04 < after.cpu - before.cpu < 1.0
    assert after.rss > 1 << 20
    assert usage([]).cpu == 0


def test_ratios_are_of_medians() -> None:
    rounds = {"nginx": [measured(100, 10), measured(300, 30), measured(200, 20)], "smtpgate": [measured(400, 10)]}
    assert ratios(rounds) == {"rate": 2.0, "cpu": 0.5}
    assert ratios({"smtpgate": [measured(1, 1)]}) is None
    assert spread([1.0, 3.0, 2.0], "{:.0f}") == "2 (1-3)"
    assert spread([None], "{:.0f}") == ""


@pytest.mark.parametrize(
    ("rate", "cpu", "reached"),
    [(1.25, 1.0, "aim"), (1.25, 1.01, "must"), (0.95, 1.6, "must"), (0.94, 0.5, "short"), (2.0, 1.61, "short")],
)
def test_a_verdict_needs_both(rate: float, cpu: float, reached: str) -> None:
    workload = Workload("W", "", must=Goal(0.95, 1.6), aim=Goal(1.25, 1.0))
    assert verdict(workload, {"rate": rate, "cpu": cpu}) == reached
    assert verdict(Workload("W", ""), {"rate": rate, "cpu": cpu}) == ""


def test_growth_is_told_where_both_ends_were_measured() -> None:
    results = {"W8-10": {"smtpgate": [measured(1, 100)]}, "W8-5000": {"smtpgate": [measured(1, 125)]}}
    assert growth(results) == {"W8 CPU, 5,000 clients to 10": {"ratio": 1.25, "must": 1.3, "aim": 1.1}}
    assert growth({"W8-10": results["W8-10"]}) == {}
    nine = {"W1": {"nginx": [measured(100, 1)], "smtpgate": [measured(50, 1)]}}
    nine["W9"] = {"nginx": [measured(200, 1)], "smtpgate": [measured(80, 1)]}
    assert growth(nine)["W9 rate, one worker's ratio to two's"]["ratio"] == 1.25
    idle = replace(measured(1, 1), idle=12 * 1024)
    assert growth({"W6-10000": {"smtpgate": [idle]}})["W6 KiB of an idle session"]["ratio"] == 12


def test_unrelated_entries_are_as_many_as_asked_for() -> None:
    rest = (
        "version: 1\nroutes: [{name: rest, match: {}, pool: core}]\n"
        'pools: {core: {backends: [{name: b1, addr: "127.0.0.1:25"}]}}\n'
    )
    snapshot = build([(name, text.encode()) for name, text in {**unrelated(1001), "routes.yaml": rest}.items()])
    assert len(snapshot.routes) == 1002
    assert sum(len(limits) for limits in snapshot.policy.limits.values()) == 1002
    assert unrelated(0) == {}


@pytest.mark.parametrize("dots", [False, True])
def test_a_big_message_has_its_size_and_one_end(dots: bool) -> None:
    text = text_of(100_000, dots=dots)
    assert abs(len(text) - 100_000) < 200
    assert text.count(b"\r\n.\r\n") == 1
    assert text.endswith(b"\r\n.\r\n")
    assert all(line.startswith(b"..") == dots for line in text.split(b"\r\n")[2:-2])


def test_workloads_are_chosen_by_name() -> None:
    assert len({one.key for one in WORKLOADS}) == len(WORKLOADS)
    assert {name for one in WORKLOADS for name in one.contenders} <= KINDS.keys()
    assert [one.key for one in chosen("W1b,W9", quick=True)] == ["W1b-1", "W1b-10", "W1b-50", "W9"]
    assert [one.key for one in chosen("W6", quick=False)] == ["W6-0", "W6-10000"]
    assert chosen("W6", quick=True) == []
    assert chosen("", quick=False) == list(WORKLOADS)


class Idler(Contender):
    """A contender that is this process."""

    def proxies(self) -> list[int]:
        return [os.getpid()]

    def stop(self) -> None:
        return None


def course(monkeypatch: pytest.MonkeyPatch, lost: int = 0) -> Course:
    """Of a load that takes 2 ms a message, of which `lost` do not arrive."""
    arrived = [0]

    def load(workload: Workload, contender: Contender, messages: int) -> tuple[float, dict[str, float]]:
        arrived[0] += messages - lost
        return messages * 0.002, {}

    monkeypatch.setattr(runs, "_source", load)
    monkeypatch.setattr(runs, "ARRIVAL_TIMEOUT", 0.0)
    return Course(Workload("W", "", least=40, longer=2.0), Idler(), lambda: arrived[0])


def test_a_run_is_as_long_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    one = course(monkeypatch)
    assert one.warm_up()
    found = one.run(1.5)
    assert (found.messages, found.seconds, round(found.rate)) == (1500, 3.0, 500)
    assert one.run(0.001).messages == 40


def test_a_run_of_which_a_message_is_lost_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpoiltError, match=r"^9 of 10 messages arrived$"):
        course(monkeypatch, lost=1).warm_up()


# --- the interpreter --------------------------------------------------------------------------------------------


def test_the_interpreter_of_this_process() -> None:
    one = known(sys.executable)
    assert one.version == ".".join(map(str, sys.version_info[:3]))
    asked = [
        *one.command(built=False),
        "-c",
        "import os, sys, smtpgate, yaml; print(os.environ['SMTPGATE_COMPILED'])",
    ]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "0\n"
    assert str(one).startswith(f"Python {one.version}, {one.path}, ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("""echo '{"tag": "cpython-37"}'""", "is cpython-37: what .venv holds is compiled for cpython-3"),
        ("echo no >&2; exit 3", "is no Python that can be asked: no"),
    ],
)
def test_one_that_cannot_run_it(tmp_path: Path, text: str, message: str) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    with pytest.raises(InterpreterError, match=message):
        known(str(program))


def test_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterpreterError, match=r"^/nowhere/python: there is no such program$"):
        known("/nowhere/python")
    monkeypatch.setattr(interpreters, "SYSTEM", "/nowhere/python")
    assert interpreters.usual().path == interpreters.own().path


# --- profiles ---------------------------------------------------------------------------------------------------


def test_functions_by_their_own_samples() -> None:
    stacks = (
        "run (a.py);read (b.py) 3\nrun (a.py);write (b.py) 5\nrun (a.py);read (b.py);read (b.py) 1\nrun (a.py) 1\n"
    )
    assert spy_top(stacks) == [
        "share of 10 looks by Python function (py-spy): self, with what it called",
        " 50.00%  50.00%  write (b.py)",
        " 40.00%  40.00%  read (b.py)",
        " 10.00% 100.00%  run (a.py)",
    ]


def test_system_calls_a_message() -> None:
    table = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100        10 recvfrom
 40.00    0.000400           2       200           sendto
  0.00    0.000000           0         4           mmap
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           3       304        10 total
"""
    assert calls_of(table, 100) == [
        "system calls a message (strace), of which failed",
        "   2.00    0.00  sendto",
        "   1.00    0.10  recvfrom",
    ]


# --- the real thing ---------------------------------------------------------------------------------------------


@pytest.mark.peer("postfix")
def test_idle_sessions_are_open_while_messages_are_sent(smtp_sink: StartSink) -> None:
    sink = smtp_sink()
    looks: list[int] = []

    def look() -> Spent:
        with Path(f"/proc/{sink.pid}/net/tcp").open() as table:
            established = [line for line in table if f":{sink.port:04X} " in line.split()[1] + " " and " 01 " in line]
        looks.append(len(established))
        return Spent(usage([]), usage([]))

    seconds, details = runs._generator(2, sink.port, 6, {"idle": 5}, look)
    assert looks == [5, 5]
    assert (details["idle"], seconds > 0, details["p50"] > 0) == (5, True, True)


def test_an_idle_session_that_is_refused_spoils_the_run() -> None:
    with pytest.raises(SpoiltError, match="an idle session: ConnectionRefusedError"):
        runs._generator(1, free_port(), 1, {"idle": 1}, lambda: Spent(usage([]), usage([])))


@pytest.mark.peer("nginx")
@pytest.mark.peer("libnginx-mod-mail")
@pytest.mark.peer("postfix")
@pytest.mark.peer("redis-server")
def test_a_quick_run(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    argv = [sys.executable, "-m", "tools.bench", "--quick", "--only", "W1b-10", "--contenders", "nginx,venv"]
    path = os.pathsep.join(str(ROOT / part) for part in ("", "tests", "tests/lib"))
    done = subprocess.run(
        [*argv, "--json", str(target)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "W1b-10" in done.stdout
    found = json.loads(target.read_text())
    made = found["workloads"]["W1b-10"]["runs"]
    assert made.keys() == {"nginx", "venv"}
    assert all(run["messages"] >= 40 for name in made for run in made[name])
    assert found["workloads"]["W1b-10"]["to_nginx"]["venv"].keys() == {"rate", "cpu"}
    assert found["contenders"]["venv"].startswith("smtpgate 0.1.0, plain Python; Python 3.")
    assert found["spoilt"] == []
    assert found["machine"]["cpus"] == os.cpu_count()
