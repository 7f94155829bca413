"""GET /metrics: what is answered to whom, over a socket, and that a bug does not end it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import gevent.socket
import pytest
from fakes import ListJournal, ManualClock

from smtpgate.drivers import metricsserver
from smtpgate.drivers.metricsfolder import MetricsFolder, Slot
from smtpgate.drivers.metricsserver import MAX_SCRAPES, WorkerMetrics
from smtpgate.drivers.metricsvalues import Counter, Families


class Served:
    """A worker's metrics on a socket of this process. counter: one that it tells."""

    def __init__(self, slot: Slot) -> None:
        self.families, self.journal, self.asked = Families(), ListJournal(), 0
        self.counter: Counter = self.families.counter("x_total", "X.")
        self.metrics = WorkerMetrics(slot, self.families, [self._gather], ManualClock(), self.journal)
        self._listener = gevent.socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.address = self._listener.getsockname()
        self.metrics.serve(self._listener)

    def _gather(self) -> None:
        self.asked += 1

    def connect(self) -> gevent.socket.socket:
        return gevent.socket.create_connection(self.address, timeout=5)

    def ask(self, request: str) -> str:
        with self.connect() as sock:
            sock.sendall(request.encode())
            answer = b""
            while octets := sock.recv(65536):
                answer += octets
        return answer.decode()


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    folder = MetricsFolder("test", {"RUNTIME_DIRECTORY": str(tmp_path)})
    slot = folder.claim()
    yield slot
    slot.release()
    folder.close()


@pytest.fixture
def served(slot: Slot) -> Iterator[Served]:
    served = Served(slot)
    yield served
    served.metrics.end()


def test_what_has_been_counted_until_now(served: Served) -> None:
    served.counter.add((), 3)
    answer = served.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, page = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert "\r\nConnection: close" in head
    assert "x_total 3.0\n" in page
    assert served.asked == 1
    served.counter.add()
    assert "x_total 4.0\n" in served.ask("GET /metrics?name=whatever HTTP/1.0\r\n\r\n")


def test_openmetrics_for_who_asks_for_it(served: Served) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = served.ask(f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")
    assert "Content-Type: application/openmetrics-text; version=1.0.0" in answer
    assert answer.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", "404 Not Found"),
        ("GET /metrics/ HTTP/1.1", "404 Not Found"),
        ("GET //metrics HTTP/1.1", "404 Not Found"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
        ("HEAD /metrics HTTP/1.1", "405 Method Not Allowed"),
        ("EHLO x", "400 Bad Request"),
        (f"GET /{10_000 * 'x'} HTTP/1.1", "414 Request URI Too Long"),
    ],
)
def test_everything_else_is_refused(served: Served, request_line: str, status: str) -> None:
    answer = served.ask(f"{request_line}\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert answer.split("\r\n")[0] == f"HTTP/1.1 {status}"
    assert "x_total" not in answer
    assert served.asked == 0


def test_who_says_nothing_is_not_waited_for(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metricsserver, "SCRAPE_TIMEOUT", 0.05)
    served = Served(slot)
    silent = [served.connect() for _ in range(MAX_SCRAPES)]
    try:
        # All places are taken: the next one's turn comes when the others' time is over.
        assert "x_total 0.0\n" in served.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [one.recv(1) for one in silent] == [b""] * MAX_SCRAPES
    finally:
        served.metrics.end()
        for one in silent:
            one.close()


def test_who_has_asked_is_answered_before_the_end(served: Served) -> None:
    with served.connect() as sock:
        gevent.sleep(0.01)  # accepted
        served.metrics.retire()
        with pytest.raises(ConnectionRefusedError):
            served.connect()
        ending = gevent.spawn(served.metrics.end)
        gevent.sleep(0.01)
        assert not ending.dead
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b""
        while octets := sock.recv(65536):
            answer += octets
        assert b"x_total 0.0\n" in answer
        ending.join(1)
        assert ending.dead


def test_a_bug_in_one_part_is_told_once_and_the_page_is_there(slot: Slot) -> None:
    def broken() -> None:
        raise KeyError("a bug")

    journal = ListJournal()
    metrics = WorkerMetrics(slot, Families(), [broken], ManualClock(), journal)
    metrics.publish()
    metrics.publish()
    (line,) = journal.of("bug")
    assert "KeyError: 'a bug'" in str(line["traceback"])


def test_more_than_there_is_room_for_is_told_once(slot: Slot) -> None:
    families, journal = Families(), ListJournal()
    counter = families.counter("x_total", "X." * 500, "of")
    for label in range(1000):
        counter.add((f"{label:0500}",))
    metrics = WorkerMetrics(slot, families, [], ManualClock(), journal)
    metrics.publish()
    metrics.publish()
    assert len(journal.of("metrics_full")) == 1


def test_it_publishes_every_second_and_tells_how_late_it_is(slot: Slot) -> None:
    class Late(ManualClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds + 0.25)
            if self.monotonic() > start + 3:
                raise gevent.GreenletExit

    clock, families, seen = Late(), Families(), []
    start = clock.monotonic()
    metrics = WorkerMetrics(slot, families, [lambda: seen.append(clock.monotonic() - start)], clock, ListJournal())
    with pytest.raises(gevent.GreenletExit):
        metrics.run()
    assert seen == [0.0, 1.25, 2.5]
    (lag,) = families.gauges
    assert lag.values == {("0",): 0.25}
