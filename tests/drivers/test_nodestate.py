"""Memory between processes: one leader, one writer an area, and what the dead leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smtpgate.drivers import nodestate
from smtpgate.drivers.nodestate import AREAS, LEADER, MAX_VALUE, Board, NodeFile

ROOT = Path(__file__).parents[2]

# A worker: it does what each line of its input says and answers with a line.
WORKER = """
import json, sys
from smtpgate.drivers.nodestate import Board, NodeFile
file = NodeFile.__new__(NodeFile)
file.fd = int(sys.argv[1])
board = Board(file)
for line in sys.stdin:
    name, *args = json.loads(line)
    result = getattr(board, name)
    if callable(result):
        result = result(*args[:1], **(args[1] if len(args) > 1 else {}))
    print(json.dumps(result), flush=True)
"""


class Worker:
    def __init__(self, file: NodeFile) -> None:
        os.set_inheritable(file.fd, True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(file.fd)],
            pass_fds=[file.fd],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, name, *args):
        self._process.stdin.write(json.dumps([name, *args]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def file():
    made = NodeFile()
    yield made
    made.close()


@pytest.fixture
def worker(file):
    workers = []

    def start():
        workers.append(Worker(file))
        workers[-1]("leads")  # it runs, and has taken the next area
        return workers[-1]

    yield start
    for one in workers:
        one.kill()


def test_one_leads_until_it_resigns_or_dies(worker):
    first, second, third = worker(), worker(), worker()
    assert [one("lead") for one in (first, second, third)] == [True, False, False]
    assert first("lead") is True
    first("resign")
    assert [one("lead") for one in (second, first, third)] == [True, False, False]
    second.kill()
    assert third("lead") is True


def test_what_one_says_all_others_hear_once(worker):
    first, second, third = worker(), worker(), worker()
    for one in (first, second, third):
        one("news")  # the areas as they were taken
    assert first("publish", {"mta1": "down"}) is True
    assert second("news") == third("news") == [[1, {"mta1": "down"}]]
    assert second("news") == []
    assert first("news") == []
    first("publish", {"mta1": "up"})
    third("publish", {"mta2": "down"})
    assert second("news") == [[1, {"mta1": "up"}], [3, {"mta2": "down"}]]


def test_the_leader_has_an_area_that_passes_on(worker):
    first, second = worker(), worker()
    assert first("publish", {"a": 1}, {"as_leader": True}) is False
    first("lead")
    assert first("publish", {"a": 1}, {"as_leader": True}) is True
    assert dict(second("news"))[LEADER] == {"a": 1}
    first.kill()
    second("lead")
    second("publish", {"a": 2}, {"as_leader": True})
    third = worker()
    assert dict(third("news"))[LEADER] == {"a": 2}


def test_the_area_of_a_dead_worker_is_taken_over_empty(worker):
    first, second = worker(), worker()
    first("publish", {"a": 1})
    assert dict(second("news"))[1] == {"a": 1}
    first.kill()
    worker()
    assert dict(second("news")) == {1: {}}


def test_a_write_half_done_is_not_seen(file):
    board = Board(file)
    board.publish({"a": 1})
    reader = Board(file)
    reader._own = AREAS - 1  # locks are a process's own: both got the first area
    reader.news()
    start = nodestate.AREA_SIZE
    board._memory[start + nodestate._HEADER.size] ^= 1
    nodestate._HEADER.pack_into(board._memory, start, 9, 7, 0)
    assert reader.news() == []
    board.publish({"a": 2})
    assert reader.news() == [(1, {"a": 2})]


def test_what_does_not_fit_is_refused_and_leaves_what_was_said(file):
    board = Board(file)
    board.publish("a")
    assert board.publish("x" * MAX_VALUE) is False
    assert board.publish("x" * (MAX_VALUE - 2)) is True


def test_alone():
    board = Board(None)
    assert board.leads
    assert board.lead()
    assert board.publish({"a": 1})
    assert board.publish({"a": 1}, as_leader=True)
    assert board.news() == []
    board.resign()


def test_without_memfd_a_nameless_file_is_as_good(monkeypatch, worker):
    monkeypatch.delattr(os, "memfd_create")
    file = NodeFile()
    first, second = Worker(file), Worker(file)
    try:
        assert [first("lead"), second("lead")] == [True, False]
        first("publish", {"a": 1})
        assert {"a": 1} in [value for _, value in second("news")]
    finally:
        first.kill()
        second.kill()
        file.close()


def test_a_process_holds_no_memory_for_areas_that_nobody_writes(file):
    board = Board(file)
    board.news()
    board.publish({"a": 1})
    assert os.fstat(file.fd).st_blocks * 512 < 1 << 20
