"""tools/bench: what it measures with, and one quick run of the real thing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.benchmarks.load import text_of
from tools.benchmarks.measure import median, quantile, usage
from tools.benchmarks.report import ratios, spread
from tools.benchmarks.workloads import WORKLOADS, Measured

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
    argv = [sys.executable, "-m", "tools.bench", "--quick", "--only", "W1b-10", "--contenders", "nginx,smtpgate"]
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
    assert runs.keys() == {"nginx", "smtpgate"}
    assert [run["messages"] for name in runs for run in runs[name]] == [300, 300]
    assert found["workloads"]["W1b-10"]["to_nginx"].keys() == {"rate", "cpu"}
    assert found["machine"]["cpus"] == os.cpu_count()
