"""What waits to be written is bounded, and what was lost is counted and told once."""

from __future__ import annotations

from collections.abc import Sequence

import gevent
import pytest

from smtpgate.drivers.logoutput import Line
from smtpgate.drivers.logqueue import GATHER, MAX_PENDING, MAX_UNSPELT, RETRY, LineQueue, Unspelt


class Disk:
    """Takes `room` lines at a time; None is as many as come. `full`: nothing at all, with an error."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.writes = 0
        self.room: int | None = None
        self.full = False

    def write(self, lines: Sequence[Line]) -> int:
        self.writes += 1
        if self.full:
            raise OSError(28, "No space left on device")
        taken = list(lines)[: self.room]
        self.written += [text for _, _, text in taken]
        return len(taken)


def queue_of(disk: Disk, *, gathered: bool = False) -> LineQueue:
    return LineQueue(disk, lambda lost: ("warning", "T", f"lost {lost}"), gathered=gathered)


def line(text: str) -> Line:
    return "info", "T", text


def test_a_process_without_a_loop_writes_each_line_at_once() -> None:
    disk = Disk()
    queue = queue_of(disk)
    for text in "abc":
        queue.add(line(text))
        assert disk.written[-1] == text


def test_lines_are_gathered_and_written_together() -> None:
    disk = Disk()
    queue = queue_of(disk, gathered=True)
    for text in "abc":
        queue.add(line(text))
    assert disk.writes == 0
    gevent.sleep(4 * GATHER)
    assert (disk.written, disk.writes, queue.pending) == (["a", "b", "c"], 1, 0)
    queue.add(line("d"))
    queue.flush()
    assert disk.written[-1] == "d"
    gevent.sleep(2 * GATHER)
    assert disk.writes == 2


class Later(Unspelt):
    """Spelt when it is asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.spelt = 0

    def line(self) -> Line:
        self.spelt += 1
        return line(self.text)


def test_what_is_spelt_later_keeps_its_place() -> None:
    disk = Disk()
    queue = queue_of(disk, gathered=True)
    rows = [Later(text) for text in "abcd"]
    queue.add_unspelt(rows[0])
    queue.add_unspelt(rows[1])
    assert (rows[0].spelt, queue.tally.lines["info"]) == (0, 0)
    queue.add(line("in between"))
    queue.add_unspelt(rows[2])
    gevent.sleep(4 * GATHER)
    assert (disk.written, disk.writes) == (["a", "b", "in between", "c"], 1)
    queue.add_unspelt(rows[3])
    queue.flush()
    assert disk.written[-1] == "d"
    assert [row.spelt for row in rows] == [1, 1, 1, 1]
    assert queue.tally.lines["info"] == 5


def test_few_lines_wait_to_be_spelt() -> None:
    queue = queue_of(Disk(), gathered=True)
    rows = [Later("x") for _ in range(MAX_UNSPELT)]
    for row in rows:
        queue.add_unspelt(row)
    assert all(row.spelt == 1 for row in rows)
    queue.flush()


def test_what_was_not_taken_is_tried_again_in_order() -> None:
    disk = Disk()
    disk.room = 2
    queue = queue_of(disk, gathered=True)
    for text in "abcde":
        queue.add(line(text))
    gevent.sleep(GATHER + 3 * RETRY)
    assert disk.written == list("abcde")


@pytest.mark.parametrize("gathered", [False, True])
def test_a_full_disk_costs_lines_and_never_more_than_the_bound(gathered: bool) -> None:
    disk = Disk()
    disk.full = True
    queue = queue_of(disk, gathered=gathered)
    text = 1000 * "x"
    for _ in range(5000):
        queue.add(line(text))
    kept = -(-MAX_PENDING // len(text))
    assert queue.pending == kept * len(text) < MAX_PENDING + len(text)
    disk.full = False
    queue.add(line("lost too"))
    queue.flush()
    written = [text] * kept
    # The first line that there is room for again, behind those that waited, says what is missing between.
    assert disk.written == [*written, f"lost {5001 - kept}"]
    queue.add(line("and on"))
    queue.flush()
    assert disk.written[-1] == "and on"


def test_the_count_itself_may_have_to_wait() -> None:
    disk = Disk()
    disk.full = True
    queue = queue_of(disk)
    for _ in range(3):
        queue.add(line(MAX_PENDING * "x"))
    disk.full, disk.room = False, 1
    queue.flush()
    assert disk.written[1:] == ["lost 2"]


def test_errors_while_nothing_can_be_written_do_not_add_to_the_tries() -> None:
    disk = Disk()
    disk.full = True
    queue = queue_of(disk, gathered=True)
    for _ in range(100):
        queue.add(line("error"))
        queue.flush()
    before = disk.writes
    gevent.sleep(4.5 * RETRY)
    assert 1 <= disk.writes - before <= 5
    disk.full = False
    gevent.sleep(2 * RETRY)
    assert disk.written == ["error"] * 100
