from __future__ import annotations

import threading

import gevent
import pytest
from gevent.event import Event

from authsvc.bulkhead import Bulkhead, OverloadError


def test_work_runs_in_another_thread_while_greenlets_go_on(bulkhead: Bulkhead) -> None:
    started, go_on = threading.Event(), threading.Event()

    def work(answer: str) -> tuple[str, bool]:
        started.set()
        assert go_on.wait(10)
        return answer, threading.current_thread() is threading.main_thread()

    with bulkhead.attempt():
        running = gevent.spawn(bulkhead.run, work, "done")
        while not started.is_set():
            gevent.sleep(0.001)
        go_on.set()
        assert running.get(timeout=10) == ("done", False)


def test_what_work_raises_is_raised(bulkhead: Bulkhead) -> None:
    with bulkhead.attempt(), pytest.raises(ZeroDivisionError):
        bulkhead.run(divmod, 1, 0)


def test_no_more_than_at_once_and_in_order() -> None:
    bulkhead = Bulkhead(at_once=2, waiting=10)
    inside, most, order, leave = 0, 0, [], Event()

    def attempt(number: int) -> None:
        nonlocal inside, most
        with bulkhead.attempt():
            inside += 1
            most = max(most, inside)
            order.append(number)
            leave.wait()
            gevent.sleep(0)
            inside -= 1

    attempts = [gevent.spawn(attempt, number) for number in range(8)]
    gevent.sleep(0.01)
    assert order == [0, 1]
    leave.set()
    gevent.joinall(attempts, timeout=10, raise_error=True)
    assert (most, order) == (2, list(range(8)))
    bulkhead.close()


def test_beyond_the_queue_an_attempt_is_refused_at_once_and_the_place_comes_back() -> None:
    bulkhead = Bulkhead(at_once=1, waiting=1)
    leave = Event()

    def attempt() -> None:
        with bulkhead.attempt():
            leave.wait()

    holders = [gevent.spawn(attempt) for _ in range(2)]
    gevent.sleep(0.01)
    with pytest.raises(OverloadError, match="2 attempts under way; at most 2 allowed"):
        attempt()
    holders[1].kill()  # one that waited for a slot goes away
    last = gevent.spawn(attempt)
    gevent.sleep(0.01)
    leave.set()
    gevent.joinall([holders[0], last], timeout=10, raise_error=True)
    with bulkhead.attempt():
        pass
    bulkhead.close()
