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

from smtpgate.snapshot import build
from tools.benchmarks.contenders import unrelated
from tools.benchmarks.load import text_of
from tools.benchmarks.measure import median, quantile, usage
from tools.benchmarks.report import growth, ratios, spread, verdict
from tools.benchmarks.workloads import WORKLOADS, Goal, Measured, Workload

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
    workload = Workload("W", "", 1, 1, must=Goal(0.95, 1.6), aim=Goal(1.25, 1.0))
    assert verdict(workload, {"rate": rate, "cpu": cpu}) == reached
    assert verdict(Workload("W", "", 1, 1), {"rate": rate, "cpu": cpu}) == ""


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


def test_each_workload_has_its_own_name() -> None:
    assert len({one.key for one in WORKLOADS}) == len(WORKLOADS)


@pytest.mark.peer("nginx")
@pytest.mark.peer("libnginx-mod-mail")
@pytest.mark.peer("postfix")
@pytest.mark.peer("redis-server")
def test_a_quick_run(tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    argv = [sys.executable, "-m", "tools.bench", "--quick", "--only", "W1b-10", "--contenders", "nginx,plain"]
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
    runs = found["workloads"]["W1b-10"]["runs"]
    assert runs.keys() == {"nginx", "plain"}
    assert [run["messages"] for name in runs for run in runs[name]] == [300, 300]
    assert found["workloads"]["W1b-10"]["to_nginx"]["plain"].keys() == {"rate", "cpu"}
    assert found["machine"]["cpus"] == os.cpu_count()
