from __future__ import annotations

import _thread
import os
import sys
import threading

import gevent
import pytest

from authsvc.proof.bulkhead import NICE, Bulkhead


def test_work_runs_in_another_thread_while_greenlets_go_on(bulkhead: Bulkhead) -> None:
    started, go_on = threading.Event(), threading.Event()

    def work(answer: str) -> tuple[str, bool]:
        started.set()
        assert go_on.wait(10)
        return answer, threading.current_thread() is threading.main_thread()

    with bulkhead.attempt("a"):
        running = gevent.spawn(bulkhead.run, work, "done")
        while not started.is_set():
            gevent.sleep(0.001)
        go_on.set()
        assert running.get(timeout=10) == ("done", False)


def test_what_work_raises_is_raised(bulkhead: Bulkhead) -> None:
    with bulkhead.attempt("a"), pytest.raises(ZeroDivisionError):
        bulkhead.run(divmod, 1, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness belongs to the whole process")
def test_hashing_is_nicer_than_answering(bulkhead: Bulkhead) -> None:
    with bulkhead.attempt("a"):
        inside = bulkhead.run(lambda: os.getpriority(os.PRIO_PROCESS, _thread.get_native_id()))
    here = os.getpriority(os.PRIO_PROCESS, _thread.get_native_id())
    assert inside == max(NICE, here)
