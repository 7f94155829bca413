"""What a run costs: CPU and memory of whole process trees, read from /proc.

Owns the reading; whoever runs a workload says which processes belong to what.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NANOSECONDS: Final = 1e9


@dataclass(frozen=True, slots=True)
class Usage:
    """cpu: seconds since the processes began. rss: octets resident now."""

    cpu: float
    rss: int


def usage(pids: Iterable[int]) -> Usage:
    """Of all threads of these processes. One that ends meanwhile is not counted any more."""
    cpu, rss = 0.0, 0
    for pid in pids:
        process = Path("/proc") / str(pid)
        try:
            # /proc/PID/stat counts in hundredths of a second: too coarse for a run of a second.
            for task in (process / "task").iterdir():
                cpu += int((task / "schedstat").read_text().split()[0]) / NANOSECONDS
            for line in (process / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    rss += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
    return Usage(cpu, rss)


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them lie; nan where there is none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
