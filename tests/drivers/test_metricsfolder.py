"""The files of all workers: sums that outlive them, gauges that do not, and what a crash leaves."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from smtpgate.drivers import metricsfolder
from smtpgate.drivers.metricsfolder import FILE_SIZE, MAX_SLOTS, FolderCollector, MetricsFolder, Slot, hand_over
from smtpgate.drivers.metricsvalues import Families


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"RUNTIME_DIRECTORY": str(tmp_path)}


@pytest.fixture
def folder(environ: dict[str, str]) -> Iterator[MetricsFolder]:
    made = MetricsFolder("test", environ)
    yield made
    made.close()


_claimed: list[Slot] = []


def claim(folder: MetricsFolder) -> Slot:
    _claimed.append(folder.claim())
    return _claimed[-1]


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    while _claimed:
        _claimed.pop().release()


def told(folder: MetricsFolder) -> dict[str, float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FolderCollector(folder))
    lines = [line.split(" ") for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in lines}


def counted(amount: float = 1.0) -> Families:
    families = Families()
    families.counter("x_total", "X.", "kind").add(("a",), amount)
    families.histogram("y_seconds", "Y.", (0.1, 1.0)).observe((), amount / 2)
    for merge in ("sum", "max", "min"):
        families.gauge(f"z_{merge}", "Z.", merge).set(amount)
    return families


def test_workers_are_put_together(folder: MetricsFolder) -> None:
    first, second = claim(folder), claim(folder)
    first.write(counted(1.0))
    second.write(counted(4.0))
    assert told(folder) == {
        'x_total{kind="a"}': 5.0,
        'y_seconds_bucket{le="0.1"}': 0.0,
        'y_seconds_bucket{le="1.0"}': 1.0,
        'y_seconds_bucket{le="+Inf"}': 2.0,
        "y_seconds_sum": 2.5,
        "y_seconds_count": 2.0,
        "z_sum": 5.0,
        "z_max": 4.0,
        "z_min": 1.0,
        "smtpgate_workers": 2.0,
    }


def test_what_has_not_changed_is_told_once(folder: MetricsFolder) -> None:
    slot, families = claim(folder), counted(2.0)
    slot.write(families)
    slot.write(families)
    assert told(folder)['x_total{kind="a"}'] == 2.0
    families.counters[0].add(("a",))
    slot.write(families)
    assert told(folder)['x_total{kind="a"}'] == 3.0


def test_a_successor_goes_on_with_the_sums_and_not_with_the_gauges(folder: MetricsFolder) -> None:
    first = claim(folder)
    first.write(counted(3.0))
    first.release()
    left = told(folder)
    assert (left['x_total{kind="a"}'], left["y_seconds_count"], left["smtpgate_workers"]) == (3.0, 1.0, 0.0)
    assert "z_sum" not in left
    second = claim(folder)
    assert second.number == first.number
    assert told(folder)['x_total{kind="a"}'] == 3.0
    second.write(counted(4.0))
    assert told(folder)['x_total{kind="a"}'] == 7.0
    assert told(folder)["z_sum"] == 4.0


def test_a_killed_process_leaves_its_sums_and_its_slot(folder: MetricsFolder) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        claim(folder).write(counted(3.0))
        os.write(writing, b".")
        signal.pause()
    assert os.read(reading, 1) == b"."
    os.close(reading)
    os.close(writing)
    assert told(folder)["smtpgate_workers"] == 1.0
    assert claim(folder).number == 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert claim(folder).number == 0
    assert told(folder)['x_total{kind="a"}'] == 3.0


def test_a_gauge_that_is_told_no_more_is_gone(folder: MetricsFolder) -> None:
    slot, families = claim(folder), Families()
    gauge = families.gauge("state", "S.", "max", "of")
    gauge.replace({("a",): 1.0, ("b",): 1.0})
    slot.write(families)
    gauge.replace({("b",): 2.0})
    slot.write(families)
    assert told(folder) == {'state{of="b"}': 2.0, "smtpgate_workers": 1.0}


def test_no_file_grows(folder: MetricsFolder) -> None:
    """A map of a file that is cut short, or that the disk has no room for, would end the process."""
    slot, families = claim(folder), Families()
    for number in range(8):
        counter = families.counter(f"x{number}_total", "X." * 50, "of")
        gauge = families.gauge(f"z{number}", "Z." * 50, "sum", "of")
        for label in range(1000):
            counter.add((f"{label:040}",))
            gauge.set(1.0, (f"{label:040}",))
    assert slot.room
    slot.write(families)
    assert not slot.room
    sizes = {path.stat().st_size for path in folder.path.glob("*.db")}
    assert sizes == {FILE_SIZE}
    found = told(folder)
    assert sum(name.startswith("x") for name in found) > 1000
    families.counters[0].add((f"{0:040}",))
    slot.write(families)  # what has room is still told
    assert told(folder)[f'x0_total{{of="{0:040}"}}'] == 2.0
    slot.release()
    again = claim(folder)
    again.write(families)  # and the successor finds it full
    assert not again.room


def test_who_asks_while_a_slot_is_made_is_answered(folder: MetricsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(folder).write(counted(1.0))
    asked: list[float] = []
    allocate = os.posix_fallocate

    def look(*arguments: int) -> None:
        """When the file is there, and again when it has its size."""
        asked.append(told(folder)["z_sum"])
        allocate(*arguments)
        asked.append(told(folder)["z_sum"])

    monkeypatch.setattr(os, "posix_fallocate", look)
    claim(folder)
    assert asked == [1.0] * 10


def test_a_full_disk_is_told_at_once(folder: MetricsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        folder.claim()


def test_there_are_so_many_slots(folder: MetricsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metricsfolder, "MAX_SLOTS", 2)
    claimed = [claim(folder), claim(folder)]
    with pytest.raises(OSError, match="all 2 slots are taken"):
        claim(folder)
    assert [slot.number for slot in claimed] == [0, 1]
    assert MAX_SLOTS == 128


def test_it_is_for_us_alone_and_goes_with_us(environ: dict[str, str], tmp_path: Path) -> None:
    folder = MetricsFolder("test", environ)
    assert folder.path.parent == tmp_path
    claim(folder)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()} == {0o600}
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_does_not_remove_it(folder: MetricsFolder) -> None:
    pid = os.fork()
    if pid == 0:
        folder.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert folder.path.is_dir()


def test_an_upgrade_goes_on_in_the_same_folder(environ: dict[str, str]) -> None:
    old = MetricsFolder("test", environ)
    claim(old).write(counted(3.0))
    new = MetricsFolder("test", environ)
    assert new.path == old.path
    claim(new).write(counted(1.0))
    assert told(old)['x_total{kind="a"}'] == told(new)['x_total{kind="a"}'] == 4.0
    old.close()
    assert told(new)['x_total{kind="a"}'] == 4.0
    new.close()
    assert not new.path.exists()
    # Another program is not taken for the one before.
    other = MetricsFolder("other", environ)
    assert other.path != new.path
    other.close()


def test_gunicorn_is_given_what_the_program_after_us_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Arbiter:
        class cfg:  # noqa: N801 - gunicorn's
            env_orig: dict[str, str] = {"PATH": "/bin"}  # noqa: RUF012

    monkeypatch.setenv("SMTPGATE_METRICS_PROXY", "/run/x")
    hand_over(Arbiter)
    assert Arbiter.cfg.env_orig["SMTPGATE_METRICS_PROXY"] == "/run/x"


CRASH = """
import os, sys
from smtpgate.drivers.metricsfolder import MetricsFolder
print(MetricsFolder("test", {"RUNTIME_DIRECTORY": sys.argv[1]}).path, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_crash_has_left_is_removed_by_the_next_one(tmp_path: Path, folder: MetricsFolder) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], capture_output=True, text=True, timeout=60)
    left = Path(done.stdout.strip())
    assert (left.is_dir(), left != folder.path) == (True, True)
    unfinished = tmp_path / "smtpgate-test-metrics-new"
    unfinished.mkdir()  # somebody is making it
    following = MetricsFolder("test", {"RUNTIME_DIRECTORY": str(tmp_path)})
    assert (left.exists(), folder.path.exists(), unfinished.exists()) == (False, True, True)
    following.close()


def test_without_a_folder_of_the_service_it_is_in_memory() -> None:
    folder = MetricsFolder("test", {"RUNTIME_DIRECTORY": "/nowhere"})
    assert str(folder.path.parent) in ("/dev/shm", "/tmp")
    folder.close()
