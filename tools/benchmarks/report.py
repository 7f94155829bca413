"""The table: medians over the rounds with their least and greatest, and ratios to nginx of the same run."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tools.benchmarks.measure import median
from tools.benchmarks.workloads import Measured

Rounds = Mapping[str, Sequence[Measured]]

_COLUMNS: Final[tuple[tuple[str, Callable[[Measured], float | None], str], ...]] = (
    ("msg/s", lambda one: one.rate, "{:.0f}"),
    ("us/msg", lambda one: one.cpu, "{:.0f}"),
    ("us/msg, all", lambda one: one.cpu_all, "{:.0f}"),
    ("p50 ms", lambda one: one.p50, "{:.1f}"),
    ("p99 ms", lambda one: one.p99, "{:.1f}"),
    ("RSS MiB", lambda one: one.rss / (1 << 20), "{:.0f}"),
)


def spread(values: Sequence[float | None], form: str) -> str:
    """median (least-greatest); "" where nothing was measured."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    return f"{form.format(median(numbers))} ({form.format(min(numbers))}-{form.format(max(numbers))})"


def ratios(rounds: Rounds) -> dict[str, float] | None:
    """smtpgate's medians against nginx's, in rate and CPU. None where one of the two did not run."""
    ours, theirs = rounds.get("smtpgate"), rounds.get("nginx")
    if not ours or not theirs:
        return None
    return {
        "rate": median([one.rate for one in ours]) / median([one.rate for one in theirs]),
        "cpu": median([one.cpu for one in ours]) / median([one.cpu for one in theirs]),
    }


def show(results: Mapping[str, Rounds], titles: Mapping[str, str], console: Console) -> None:
    """One table of all workloads."""
    table = Table("", *(name for name, _, _ in _COLUMNS), "to nginx: rate, CPU", show_lines=False)
    for key, rounds in results.items():
        table.add_section()
        table.add_row(f"[bold]{key}[/] {titles[key]}")
        for name, runs in rounds.items():
            cells = [spread([read(one) for one in runs], form) for _, read, form in _COLUMNS]
            found = ratios(rounds) if name == "smtpgate" else None
            table.add_row(f"  {name}", *cells, f"{found['rate']:.2f}, {found['cpu']:.2f}" if found else "")
    console.print(table)


def as_json(results: Mapping[str, Rounds], parts: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Everything, each run of it."""
    return {
        "machine": machine(),
        "workloads": {
            key: {
                "runs": {name: [asdict(one) for one in runs] for name, runs in rounds.items()},
                "to_nginx": ratios(rounds),
            }
            for key, rounds in results.items()
        },
        "parts": parts,
    }


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": _version("nginx", "-v"),
        "haproxy": _version("haproxy", "-v"),
        "redis": _version("redis-server", "--version"),
        "postfix": _version("postconf", "-d", "mail_version"),
    }


def _version(*argv: str) -> str:
    path = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=path, check=False)
    except OSError:
        return "not installed"
    return ((done.stdout or done.stderr).splitlines() or [""])[0]
