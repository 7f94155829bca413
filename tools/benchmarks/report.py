"""The table: medians over the rounds with their least and greatest, and ratios to nginx of the same run."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tools.benchmarks.contenders import OURS
from tools.benchmarks.measure import median
from tools.benchmarks.runs import Measured
from tools.benchmarks.workloads import Goal, Workload

Rounds = Mapping[str, Sequence[Measured]]


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure is to be: at least, or at most."""

    least: float = -math.inf
    most: float = math.inf

    def reached(self, figure: float) -> bool:
        return self.least <= figure <= self.most


# W7: decisions a second, and microseconds of CPU each. W10: requests a second.
PART_GOALS: Final[Mapping[str, Mapping[str, Mapping[str, Bound]]]] = {
    "W7": {"rate": {"must": Bound(15_000), "aim": Bound(25_000)}, "cpu": {"must": Bound(most=40)}},
    "W10": {"rate": {"must": Bound(2500), "aim": Bound(5000)}},
}

_COLUMNS: Final[tuple[tuple[str, Callable[[Measured], float | None], str], ...]] = (
    ("msg/s", lambda one: one.rate, "{:.0f}"),
    ("us/msg", lambda one: one.cpu, "{:.0f}"),
    ("us/msg, all", lambda one: one.cpu_all, "{:.0f}"),
    ("p50 ms", lambda one: one.p50, "{:.1f}"),
    ("p99 ms", lambda one: one.p99, "{:.1f}"),
    ("cmd p50", lambda one: one.command_p50, "{:.2f}"),
    ("cmd p99", lambda one: one.command_p99, "{:.1f}"),
    ("RSS MiB", lambda one: one.rss / (1 << 20), "{:.0f}"),
    ("load us", lambda one: one.load, "{:.0f}"),
)


def spread(values: Sequence[float | None], form: str) -> str:
    """median (least-greatest), of one the number; "" where nothing was measured."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    if len(numbers) == 1:
        return form.format(numbers[0])
    return f"{form.format(median(numbers))} ({form.format(min(numbers))}-{form.format(max(numbers))})"


def ratios(rounds: Rounds, name: str = "smtpgate") -> dict[str, float] | None:
    """A contender's medians against nginx's, in rate and CPU. None where one of the two did not run."""
    ours, theirs = rounds.get(name), rounds.get("nginx")
    if not ours or not theirs:
        return None
    return {
        "rate": median([one.rate for one in ours]) / median([one.rate for one in theirs]),
        "cpu": median([one.cpu for one in ours]) / median([one.cpu for one in theirs]),
    }


def verdict(workload: Workload, found: Mapping[str, float]) -> str:
    """ "aim", "must", or "short": how far the ratios of a workload have come; "" where nothing is to be reached."""
    if workload.must == workload.aim == Goal():
        return ""
    if workload.aim.reached(found["rate"], found["cpu"]):
        return "aim"
    return "must" if workload.must.reached(found["rate"], found["cpu"]) else "short"


def growth(results: Mapping[str, Rounds]) -> dict[str, dict[str, float]]:
    """What two workloads say together, of smtpgate: `ratio`, and at most which is a must, and which the aim."""
    cpu, p99 = _medians(results, lambda one: one.cpu), _medians(results, lambda one: one.p99)
    found = {}
    for name, most, least, of in (
        ("W8 CPU, 5,000 clients to 10", "W8-5000", "W8-10", cpu),
        ("W8 CPU, 10,000 entries to 10", "W8-entries-10000", "W8-entries-10", cpu),
        ("W6 p99, beside 10,000 idle sessions", "W6-10000", "W6-0", p99),
    ):
        if most in of and least in of:
            bounds = (2.0, 2.0) if of is p99 else (1.3, 1.1)
            found[name] = {"ratio": of[most] / of[least], "must": bounds[0], "aim": bounds[1]}
    idle = _medians(results, lambda one: one.idle)
    if "W6-10000" in idle:
        found["W6 KiB of an idle session"] = {"ratio": idle["W6-10000"] / 1024, "must": 24.0, "aim": 14.0}
    two, one = (ratios(results.get(key, {})) for key in ("W9", "W1"))
    if two and one:
        # Upside down, so that less is better here too: 1.053 is 1 / 0.95.
        name = "W9 rate, one worker's ratio to two's"
        found[name] = {"ratio": one["rate"] / two["rate"], "must": 1.053, "aim": 1.0}
    return found


def _medians(results: Mapping[str, Rounds], read: Callable[[Measured], float | None]) -> dict[str, float]:
    """smtpgate's, by workload."""
    found = {}
    for key, rounds in results.items():
        numbers = [value for one in rounds.get("smtpgate", ()) if (value := read(one)) is not None]
        if numbers:
            found[key] = median(numbers)
    return found


def show(results: Mapping[str, Rounds], workloads: Mapping[str, Workload], console: Console) -> None:
    """A table of each workload, with what smtpgate must reach and is to aim at."""
    for key, rounds in results.items():
        workload = workloads[key]
        console.print(f"\n[bold]{key}[/] {workload.title}")
        table = Table("", *(name for name, _, _ in _COLUMNS), "to nginx: rate, CPU", box=None, pad_edge=False)
        for column in table.columns:
            column.no_wrap = True
        for name, runs in rounds.items():
            if not runs:
                table.add_row(f"  {name}", "no run that proves anything")
                continue
            found = ratios(rounds, name) if name in OURS else None
            told = "" if found is None else f"{found['rate']:.2f}, {found['cpu']:.2f}"
            if found is not None and (reached := verdict(workload, found)):
                told += f" (must {workload.must}; aim {workload.aim}): {reached}"
            table.add_row(
                f"  {name}", *(spread([read(one) for one in runs], form) for _, read, form in _COLUMNS), told
            )
        console.print(table)
    console.print()
    for name, numbers in growth(results).items():
        reached = next((word for word in ("aim", "must") if numbers["ratio"] <= numbers[word]), "short")
        told = f"{numbers['ratio']:.2f} (must <={numbers['must']:g}, aim <={numbers['aim']:g}): {reached}"
        console.print(f"{name}: {told}")


def show_parts(found: Mapping[str, Sequence[Mapping[str, float]]], console: Console) -> None:
    """W7 and W10: figures of smtpgate alone."""
    for key, runs in found.items():
        for name in runs[0]:
            values = [run[name] for run in runs]
            goals = PART_GOALS[key].get(name, {})
            reached = [word for word in ("aim", "must") if word in goals and goals[word].reached(median(values))]
            verdict_of = reached[0] if reached else "short" if goals else ""
            console.print(f"{key} {name}: {spread(values, '{:.0f}')} {verdict_of}")


def as_json(
    results: Mapping[str, Rounds],
    parts: Mapping[str, Sequence[Mapping[str, float]]],
    contenders: Mapping[str, str],
    spoilt: Sequence[str],
) -> dict[str, Any]:
    """Everything, each run of it. contenders: what each of ours is; spoilt: the runs that were thrown away."""
    return {
        "machine": machine(),
        "contenders": contenders,
        "spoilt": spoilt,
        "workloads": {
            key: {
                "runs": {name: [asdict(one) for one in runs] for name, runs in rounds.items()},
                "to_nginx": {name: ratios(rounds, name) for name in OURS if rounds.get(name)},
            }
            for key, rounds in results.items()
        },
        "growth": growth(results),
        "parts": parts,
    }


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "cpu": _processor(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "nginx": _version("nginx", "-v"),
        "haproxy": _version("haproxy", "-v"),
        "redis": _version("redis-server", "--version"),
        "postfix": _version("postconf", "-d", "mail_version"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(*argv: str) -> str:
    path = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=path, check=False)
    except OSError:
        return "not installed"
    return ((done.stdout or done.stderr).splitlines() or [""])[0]
