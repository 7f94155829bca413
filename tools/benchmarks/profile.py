"""What a worker spends its time on, as text: system calls by strace, C functions by perf, Python functions by py-spy.

Owns how it is looked at. perf knows no names of CPython 3.11's own frames: it tells the interpreter from the kernel,
TLS and our extension modules. py-spy tells the Python functions of what is not compiled.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tools.benchmarks.measure import usage
from tools.benchmarks.runs import Course

SECONDS: Final = 6.0  # of load, under each of the three
FIRST: Final = 0.5  # that tell which process it is
RATE: Final = 499  # looks a second; no divisor of a clock's
LINES: Final = 40
STOP: Final = 30.0
RARELY: Final = 0.05  # calls a message; below it something is done by time, or once for many


def top(course: Course, pids: Sequence[int], folder: Path, *, python: bool) -> str:
    """The tables of the busiest of these processes under load. folder: for what the tools write. python: its Python
    functions too.
    """
    before = {pid: usage([pid]).cpu for pid in pids}
    course.run(FIRST)
    worker = max(pids, key=lambda pid: usage([pid]).cpu - before[pid])
    tables = [_calls(course, worker, folder), _perf(course, worker, folder)]
    if python:
        tables.append(_spy(course, worker, folder))
    return "\n\n".join("\n".join(table) for table in tables)


def _calls(course: Course, worker: int, folder: Path) -> Iterable[str]:
    if shutil.which("strace") is None:
        return ["strace is not installed"]
    counts = folder / "calls.txt"
    messages, failed = _beside(["strace", "-c", "-f", "-p", str(worker), "-o", str(counts)], course)
    if failed:
        return [f"strace: {failed}"]
    return calls_of(counts.read_text(), messages)


def calls_of(table: str, messages: int) -> list[str]:
    """strace -c's table as calls a message; those that failed (there was nothing to read) apart."""
    # % time, seconds, usecs/call, calls, errors where there were any, name
    rows = [re.fullmatch(r" *[\d.]+ +[\d.]+ +\d+ +(\d+) +(\d+)? +(\w+)", line) for line in table.splitlines()]
    found = sorted(((int(row[1]), int(row[2] or 0), row[3]) for row in rows if row is not None), reverse=True)
    lines = ["system calls a message (strace), of which failed"]
    for calls, errors, name in found:
        if name != "total" and calls >= RARELY * messages:
            lines.append(f"{calls / messages:7.2f} {errors / messages:7.2f}  {name}")
    return lines


def _perf(course: Course, worker: int, folder: Path) -> Iterable[str]:
    if shutil.which("perf") is None:
        return ["perf is not installed"]
    data = folder / "perf.data"
    # task-clock: virtual machines have no counters of cycles.
    record = ["perf", "record", "-q", "-e", "task-clock", "-F", str(RATE), "-g", "-p", str(worker), "-o", str(data)]
    _, failed = _beside(record, course)
    if failed:
        return [f"perf: {failed}"]
    lines = ["share of the worker's CPU by object, and by C function (perf, self)"]
    for order in ("dso", "dso,symbol"):
        report = ["perf", "report", "-q", "--stdio", "--no-children", "-g", "none", "--sort", order, "-i", str(data)]
        done = subprocess.run(report, capture_output=True, text=True, check=False)
        lines += [line.rstrip(" -") for line in done.stdout.splitlines() if line.strip()][:LINES]
        lines.append("")
    return lines[:-1]


def _spy(course: Course, worker: int, folder: Path) -> Iterable[str]:
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists():
        return ["py-spy is not installed (pip install py-spy)"]
    stacks = folder / "stacks.txt"
    # -F: a function is one, whichever of its lines runs.
    record = [str(program), "record", "-f", "raw", "-F", "-r", str(RATE), "-d", "600", "-p", str(worker)]
    _, failed = _beside([*record, "-o", str(stacks)], course)
    if failed:
        return [f"py-spy: {failed}"]
    return spy_top(stacks.read_text())


def spy_top(stacks: str) -> list[str]:
    """The functions of py-spy's raw stacks ("frame;frame;frame 12" a line), by their own samples; with those of
    what they called beside.
    """
    alone: Counter[str] = Counter()
    with_called: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = frames.split(";")
        alone[names[-1]] += int(count)
        for name in set(names):
            with_called[name] += int(count)
    whole = sum(alone.values()) or 1
    lines = [f"share of {whole} looks by Python function (py-spy): self, with what it called"]
    for name, own in alone.most_common(LINES):
        lines.append(f"{100 * own / whole:6.2f}% {100 * with_called[name] / whole:6.2f}%  {name}")
    return lines


def _beside(argv: list[str], course: Course) -> tuple[int, str]:
    """Run a recorder while there is load: how many messages that was, and "" or what it complained of."""
    messages = 0
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as recorder:
        time.sleep(0.5)  # until it is attached
        until = time.monotonic() + SECONDS
        while (left := until - time.monotonic()) > 0 and recorder.poll() is None:
            messages += course.run(left).messages
        recorder.send_signal(signal.SIGINT)
        try:
            _, complaints = recorder.communicate(timeout=STOP)
        except subprocess.TimeoutExpired:
            recorder.kill()
            return messages, f"did not end within {STOP:.0f} s"
    # Asked to end they do so each in a way of its own; one that could not begin tells why and has looked at nothing.
    ended = recorder.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT)
    return messages, "" if ended else complaints.strip()
