"""Who is whose child, for tests of processes that start processes."""

from __future__ import annotations

from pathlib import Path

from stack import Stack


def children(pid: int) -> list[int]:
    """Those that live, the eldest first (the dead that nobody has waited for do not)."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [child for child in map(int, found) if running(child)]


def running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # "pid (name) state ...": a name may hold spaces and brackets, so cut behind it.
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def workers_of(stack: Stack, pid: int) -> int:
    """How many workers of the program `pid` serve: their policies are the last thing that they load."""
    loaded = {line["pid"] for line in stack.log_events("policies_loaded")}
    return len(loaded.intersection(children(pid)))
