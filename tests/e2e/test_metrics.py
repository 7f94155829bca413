"""Metrics as Prometheus sees them: a real one, two nodes of two workers, the auth service, and load."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import certificates
import pytest
from peers.process import HOST, free_port, require, wait_until
from peers.prometheus import INTERVAL as SCRAPE_INTERVAL
from peers.prometheus import Prometheus
from peers.redis import Redis
from peers.smtptools import SmtpSink
from processtree import children, running
from rawclient import RawClient, plain
from sessionload import SessionLoad, Target
from stack import GRACE, RELAY, ROOT, SUBMISSION, Stack

from smtpgate.drivers.metricsserver import INTERVAL

LIMITS = """\
version: 1
limiter: {timeout: 5s}
limits:
  msgs: {event: mail, rate: 100000/1s, key: "{net}", deny: {reply: "450 4.7.1 slow"}}
  one: {event: mail, match: {sender: "spam@*"}, rate: 1/1d, key: "{sender_domain}", deny: {reply: "450 4.7.1 one"}}
  watched: {event: mail, rate: 1/1d, burst: 1, key: "{net}", shadow: true, deny: {reply: "450 4.7.1 no"}}
"""
USER = ("test", "1234")
# Whatever is counted later than this after it happened is too late.
SEEN = 30.0
DASHBOARD = ROOT / "conf/grafana/smtpgate.json"
RULES = ROOT / "conf/prometheus"


@pytest.fixture
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpSink]:
    server = SmtpSink(tmp_path_factory.mktemp("sink"))
    yield server
    server.stop()


class Node:
    """A stack with metrics. port and auth_port: where they are. grace: graceful_timeout."""

    def __init__(
        self, start_stack: Callable[..., Stack], sink: SmtpSink, name: str, grace: str = GRACE, **settings: object
    ) -> None:
        self.port, self.auth_port = free_port(), free_port()
        self.stack = start_stack(
            [(HOST, sink.port)],
            workers=2,
            policy={"limits.yaml": LIMITS},
            pool={"health": {"every": "1s"}},
            proxy={"server_name": name, "graceful_timeout": grace, "metrics": {"bind": f"{HOST}:{self.port}"}},
            authsvc={"metrics": {"bind": f"{HOST}:{self.auth_port}"}, "workers": 2},
            **settings,
        )


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(method, path)
        with connection.getresponse() as response:
            return response.status, response.read().decode()
    finally:
        connection.close()


def samples(page: str) -> dict[str, float]:
    """By name and labels, as they are written."""
    lines = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def total(page: str, name: str, *having: str) -> float:
    """Of all series of a name that have these labels."""
    return sum(
        value
        for series, value in samples(page).items()
        if series.partition("{")[0] == name and all(label in series for label in having)
    )


def told(port: int, name: str) -> float:
    """As `total`, of the page there; -1 where nobody answers, as when the worker that was to do it ends."""
    try:
        return total(get(port)[1], name)
    except (OSError, http.client.HTTPException):
        return -1.0


def deliver(stack: Stack, listener: str = "relay", messages: int = 1) -> None:
    for _ in range(messages):
        with RawClient(stack.listeners[listener]) as client:
            assert client.greeted().deliver().startswith(b"250 ")
            client.ask(b"QUIT")


def panels() -> list[tuple[str, str]]:
    """Title and query of each target of the dashboard, with its variables as Grafana puts them in."""
    found = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "5s")
            found.append((panel["title"], re.sub(r"\$(job|instance)", ".*", expression)))
    return found


def has_data(prometheus: Prometheus, query: str) -> bool:
    return any(not math.isnan(value) for _, value in prometheus.query(query))


def test_prometheus_counts_what_was_sent(
    tmp_path: Path, start_stack: Callable[..., Stack], sink: SmtpSink, redis_server: Redis
) -> None:
    """On two nodes, through a killed worker and a reload; and each query of the dashboard has data."""
    require("prometheus")
    pair = certificates.Authority(tmp_path).sign("mx", "mx.test")
    pem = {"cert": str(pair.cert), "key": str(pair.key)}
    secure = {"name": "secure", "auth": ["none"], "tls": "starttls", "certificate": [pem]}
    listeners = [SUBMISSION, RELAY, secure]
    nodes = [
        Node(start_stack, sink, name, store=redis_server.uri, listeners=listeners)
        for name in ("one.test", "two.test")
    ]
    jobs = {
        "smtpgate": [f"{HOST}:{node.port}" for node in nodes],
        "smtpgate-authsvc": [f"{HOST}:{node.auth_port}" for node in nodes],
    }
    prometheus = Prometheus(tmp_path, jobs)
    targets = [
        Target(*node.stack.listeners[name], login=USER if name == "submission" else None)
        for node in nodes
        for name in ("submission", "relay")
    ]
    sent: list[int] = []

    def delivered() -> float | None:
        return prometheus.value('sum(smtpgate_transactions_total{outcome="delivered"})')

    def load(seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        folder = tmp_path / f"load{len(sent)}"
        folder.mkdir()
        sessions = SessionLoad(folder, targets, rate=40)
        time.sleep(seconds)
        meanwhile()
        result = sessions.stop()
        assert result.failures == []
        sent.extend(result.told)
        wait_until(lambda: delivered() == len(sent), f"{len(sent)} messages are counted", SEEN)

    try:
        wait_until(lambda: prometheus.value("sum(smtpgate_workers)") == 8, "all are scraped", SEEN)
        load(1.0)
        killed = nodes[0].stack.worker_pids()[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: prometheus.value("sum(smtpgate_worker_starts_total)") == 9, "a new worker", SEEN)
        assert prometheus.value("sum(smtpgate_workers)") == 8

        def reload_and_look() -> None:
            nodes[1].stack.signal(signal.SIGHUP)
            for node in nodes:
                with RawClient(node.stack.proxy) as guesser:
                    assert guesser.greeted().ask(b"AUTH PLAIN " + plain("test", "wrong")).startswith(b"535 ")
                for expected in (b"250 ", b"450 "):
                    with RawClient(node.stack.listeners["relay"]) as spammer:
                        sender = f"spam@{node.port}.example".encode()
                        assert spammer.greeted().ask(b"MAIL FROM:<" + sender + b">").startswith(expected)
            empty: list[tuple[str, str]] = []

            def all_have_data() -> bool:
                empty[:] = [panel for panel in panels() if not has_data(prometheus, panel[1])]
                return not empty

            deadline = time.monotonic() + SEEN
            while not all_have_data() and time.monotonic() < deadline:
                time.sleep(SCRAPE_INTERVAL)
            assert empty == []

        load(2.0, reload_and_look)
        logins = sum(number % 2 == 0 for number in sent)  # every other target has some
        expected = {
            "sum(smtpgate_message_size_bytes_count)": len(sent),
            'sum(smtpgate_sessions_total{end="quit"})': len(sent),
            'sum(smtpgate_auth_total{result="granted"})': logins,
            'sum(smtpgate_auth_total{result="refused"})': 2,
            'sum(smtpgate_authsvc_requests_total{method="plain", result="granted"})': logins,
            'sum(smtpgate_authsvc_requests_total{method="none", result="granted"})': len(sent) - logins,
            'sum(smtpgate_limit_denied_total{limit="one"})': 2,
            'sum(smtpgate_limit_checked_total{job="smtpgate", limit="msgs"})': len(sent) + 4,
            "sum(smtpgate_log_lines_dropped_total)": 0,
        }
        # The auth service is asked at another moment than the proxy.
        wait_until(lambda: {query: prometheus.value(query) for query in expected} == expected, "all is counted", SEEN)
        time.sleep(INTERVAL + 2 * SCRAPE_INTERVAL)  # and nothing is counted twice
        assert {query: prometheus.value(query) for query in expected} == expected
        grown = prometheus.query('count by (__name__) ({__name__=~"smtpgate_.*(_total|_sum|_count|_bucket)"})')
        assert len(grown) > 40
        for name in (labels["__name__"] for labels, _ in grown):
            assert prometheus.query(f"resets({name}[10m]) > 0") == [], f"{name} has gone back"
        wait_until(lambda: prometheus.query("up == 0") == [], "nobody is down", SEEN)
    finally:
        prometheus.stop()


def test_the_page(start_stack: Callable[..., Stack], sink: SmtpSink) -> None:
    """Who may ask for what, what it costs a session, where it goes with an edit, and how long it is there."""
    node = Node(start_stack, sink, "one.test", listeners=[RELAY], grace="30s")
    stack, port = node.stack, node.port
    deliver(stack, messages=3)
    # Each worker tells what all have counted, a second later at most.
    wait_until(lambda: told(port, "smtpgate_sessions_total") == 3, "all are told of", SEEN)
    for where in (port, node.auth_port):
        assert get(where)[0] == 200
        assert get(where, "/") == (404, "expected /metrics\n")
        assert get(where, "/metrics/x")[0] == 404
        assert get(where, method="POST") == (405, "expected GET\n")
    # Nobody's address shows the other's pages.
    assert get(node.auth_port, "/auth")[0] == 404
    assert get(stack.auth[1], "/metrics")[0] == 404
    # It is not a session, and no session's place is taken.
    assert total(get(port)[1], "smtpgate_sessions_opened_total") == 3

    moved = free_port()
    stack.write_proxy_conf(metrics={"bind": f"{HOST}:{moved}"})
    stack.signal(signal.SIGHUP)
    wait_until(lambda: _answers(moved), "it has moved")
    assert total(get(moved)[1], "smtpgate_sessions_total") == 3
    wait_until(lambda: not _answers(port), "it is there no more")

    # While the process drains, and no longer.
    with RawClient(stack.proxy) as client:
        client.greeted().ask(b"EHLO x.example")
        client.ask(b"MAIL FROM:<a@example.com>")
        stack.signal(signal.SIGTERM)
        wait_until(lambda: told(moved, "smtpgate_sessions_open") == 1, "one session is left")
        folder = re.findall(r"/\S*smtpgate-proxy-metrics-\w+", _maps(stack))[0]
        assert (Path(folder).stat().st_mode & 0o777, Path(folder).exists()) == (0o700, True)
    wait_until(lambda: not stack.process.running, "the end")
    assert not Path(folder).exists()


GUNICORN = (sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.proxy.py"))


@pytest.mark.parametrize("command", [None, GUNICORN], ids=["proxy.py", "gunicorn"])
def test_an_upgrade_goes_on_counting(
    start_stack: Callable[..., Stack], sink: SmtpSink, tmp_path: Path, command: tuple[str, ...] | None
) -> None:
    """Whichever of the two programs is asked tells what both have counted; the old one's end takes nothing away."""
    env = {"SMTPGATE_CONF": str(tmp_path / "stack1/proxy.yaml")}
    node = Node(start_stack, sink, "one.test", listeners=[RELAY], command=command, env=env)
    stack = node.stack

    def counts(name: str) -> set[float]:
        return {told(node.port, name) for _ in range(4)}

    deliver(stack, messages=3)
    wait_until(lambda: counts("smtpgate_sessions_total") == {3}, "all are told of", SEEN)
    stack.signal(signal.SIGUSR2)
    (new,) = _upgraded(stack)
    try:
        wait_until(lambda: counts("smtpgate_workers") == {4}, "the new program's workers", SEEN)
        deliver(stack, messages=4)
        wait_until(lambda: counts("smtpgate_sessions_total") == {7}, "both count", SEEN)
        stack.signal(signal.SIGWINCH)
        wait_until(lambda: counts("smtpgate_workers") == {2}, "the old workers' end", SEEN)
        stack.signal(signal.SIGQUIT)
        wait_until(lambda: not stack.process.running, "the old program's end", SEEN)
        assert counts("smtpgate_sessions_total") == {7}
        assert counts("smtpgate_worker_starts_total") == {4}
    finally:
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not running(new), "the new program's end", SEEN)


def _upgraded(stack: Stack) -> list[int]:
    """The pid of the program that was started by USR2, once it has workers."""

    def new() -> list[int]:
        return [pid for pid in children(stack.process.pid) if len(children(pid)) == stack.workers]

    wait_until(lambda: bool(new()), "the new program and its workers")
    return new()


def _answers(port: int) -> bool:
    try:
        return get(port)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _maps(stack: Stack) -> str:
    """Of the workers that live; they end while we look."""
    maps = ""
    for pid in stack.worker_pids():
        with contextlib.suppress(OSError):
            maps += Path(f"/proc/{pid}/maps").read_text()
    return maps


def test_the_rules_do_as_their_tests_say() -> None:
    promtool = str(Path(require("prometheus")).with_name("promtool"))
    for argv in (
        ["check", "config", str(RULES / "prometheus.yml")],
        ["check", "rules", str(RULES / "smtpgate.rules.yml")],
        ["test", "rules", str(RULES / "tests/smtpgate.test.yml")],
    ):
        done = subprocess.run([promtool, *argv], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    # Every rule is tried.
    alerts = re.findall(r"alert: (\w+)", (RULES / "smtpgate.rules.yml").read_text())
    tried = set(re.findall(r'alertname="(\w+)"', (RULES / "tests/smtpgate.test.yml").read_text()))
    assert [alert for alert in alerts if alert not in tried] == []
