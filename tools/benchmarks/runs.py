"""One contender under one workload: warmed up, then run after run.

Owns how long a run is, that every message arrived, and what it cost. A run that proves nothing is a SpoiltError.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Timer
from typing import Any, Final

from peers.postfix import Postfix
from peers.process import HOST
from peers.smtptools import SmtpSink, smtp_source

from tools.benchmarks.contenders import Contender
from tools.benchmarks.load import READY, Job
from tools.benchmarks.measure import Usage, quantile, usage
from tools.benchmarks.workloads import Workload

PASSWORD: Final = "bench-password"  # noqa: S105 - of users that live as long as the run
USERS: Final = 100
NEWCOMERS: Final = 2  # who log in for the first time at once: argon2id has as many cores, and refuses a crowd
LOAD_TIMEOUT: Final = 300.0
ARRIVAL_TIMEOUT: Final = 10.0
MOST: Final = 50_000  # messages of a run: however fast a contender is, it ends
WARMING: Final = 0.3  # seconds of the run that tells how many messages the others have
SINK_SESSIONS: Final = 6_000  # smtp-sink's own bound is 256: more clients would wait in its backlog


class SpoiltError(Exception):
    """A run that proves nothing: an error, or messages that did not arrive. `str()` says which."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one contender. Microseconds of CPU a message: of the proxy's processes, and with what serves them.

    p50, p99: milliseconds a message; command: of one NOOP. load: CPU of the generator, microseconds a message. rss:
    octets of the proxy's processes; idle: of each idle session, where there are any.
    """

    rate: float
    cpu: float
    cpu_all: float
    rss: int
    seconds: float
    messages: int
    p50: float | None = None
    p99: float | None = None
    command_p50: float | None = None
    command_p99: float | None = None
    load: float | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """By the processes that carry the mail, and by those that serve them."""

    proxies: Usage
    helpers: Usage


class Course:
    """A contender under a workload. arrived: how many messages the backend has taken so far."""

    def __init__(self, workload: Workload, contender: Contender, arrived: Callable[[], int]) -> None:
        self._workload, self._contender, self._arrived = workload, contender, arrived
        self._rate = 0.0
        self._resident = 0

    def warm_up(self) -> bool:
        """Nobody is measured while it wakes up. True, or SpoiltError."""
        alone = {"idle": 0}
        few = max(1, self._workload.least // 4)
        if self._workload.setting.get("auth"):
            self._measure(USERS, {**alone, "clients": NEWCOMERS})
        # The first opens the connections that are used again.
        self._rate = self._measure(few, alone).rate
        self._rate = self._measure(self._messages(WARMING, few), alone).rate
        # Before there was any idle session: what theirs was is not given back to the system.
        self._resident = usage(self._contender.proxies()).rss
        return True

    def run(self, seconds: float) -> Measured:
        """About so long. Raises SpoiltError."""
        found = self._measure(self._messages(seconds * self._workload.longer, self._workload.least), {})
        self._rate = found.rate
        return found

    def _messages(self, seconds: float, least: int) -> int:
        return max(least, min(round(self._rate * seconds), MOST))

    def _measure(self, messages: int, words: Mapping[str, Any]) -> Measured:
        before = self._arrived()
        began = self._spent()
        seconds, details = self._load(messages, words)
        # The idle sessions of a run are opened before it begins, and looked at while they are there.
        began, ended = details.pop("began", began), details.pop("ended", None) or self._spent()
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        while (count := self._arrived() - before) < messages and time.monotonic() < deadline:
            time.sleep(0.02)
        if count != messages:
            raise SpoiltError(f"{count} of {messages} messages arrived")
        per = 1e6 / messages
        cpu = ended.proxies.cpu - began.proxies.cpu
        if idle := details.pop("idle", 0):
            details["idle"] = (ended.proxies.rss - self._resident) / idle
        return Measured(
            rate=messages / seconds,
            cpu=cpu * per,
            cpu_all=(cpu + ended.helpers.cpu - began.helpers.cpu) * per,
            rss=ended.proxies.rss,
            seconds=seconds,
            messages=messages,
            **details,
        )

    def _load(self, messages: int, words: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
        if self._workload.job is None:
            return _source(self._workload, self._contender, messages)
        job = {**self._workload.job, **words}
        return _generator(self._workload.sessions, self._contender.port, messages, job, self._spent)

    def _spent(self) -> Spent:
        return Spent(usage(self._contender.proxies()), usage(self._contender.helpers()))


def _source(workload: Workload, contender: Contender, messages: int) -> tuple[float, dict[str, Any]]:
    """smtp-source: in C, so that it takes little of the machine that is measured."""
    before, began = _children(), time.monotonic()
    try:
        done = smtp_source(
            contender.port,
            messages=messages,
            sessions=min(workload.sessions, messages),
            length=workload.length,
            timeout=LOAD_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise SpoiltError(f"smtp-source is not done after {LOAD_TIMEOUT:.0f} s") from error
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise SpoiltError(f"smtp-source: {(done.stderr or done.stdout).strip()[:200]}")
    return seconds, {"load": 1e6 * (_children() - before) / messages}


def _children() -> float:
    """Seconds of CPU of the processes that we have waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _generator(
    sessions: int, port: int, messages: int, words: dict[str, Any], spent: Callable[[], Spent]
) -> tuple[float, dict[str, Any]]:
    """tools.benchmarks.load with a job of these words, in a process of its own."""
    users = tuple(f"user{n}@example.com" for n in range(USERS)) if words.pop("users", False) else ()
    job = Job(
        HOST, port, messages=messages, clients=words.pop("clients", sessions), users=users, password=PASSWORD, **words
    )
    argv = [sys.executable, "-m", "tools.benchmarks.load", json.dumps(asdict(job))]
    pipe = subprocess.PIPE
    details: dict[str, Any] = {}
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        late = Timer(LOAD_TIMEOUT, process.kill)
        late.start()
        line = process.stdout.readline()
        if job.idle and line == READY:
            details |= {"began": spent(), "idle": job.idle}
            process.stdin.write(READY)
            process.stdin.flush()
            line = process.stdout.readline()
            details["ended"] = spent()
        _, complaints = process.communicate()
        late.cancel()
    if process.returncode != 0 or not line:
        raise SpoiltError(f"the generator, status {process.returncode}: {complaints.strip()[-300:]}")
    outcome = json.loads(line)
    if outcome["errors"] or outcome["sent"] != messages:
        raise SpoiltError(f"{outcome['sent']} of {messages} sent; {outcome['errors'][:2]}")
    latencies, commands = outcome["latencies"], outcome["commands"]
    return outcome["seconds"], {
        **details,
        "p50": 1e3 * quantile(latencies, 0.5),
        "p99": 1e3 * quantile(latencies, 0.99),
        "command_p50": 1e3 * quantile(commands, 0.5),
        "command_p99": 1e3 * quantile(commands, 0.99),
        "load": 1e6 * outcome["cpu"] / messages,
    }


class Sink:
    """smtp-sink, and how many messages it has taken: it prints a running counter."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._process = SmtpSink(folder, "-c", "-m", str(SINK_SESSIONS), backlog=4000)
        self.port = self._process.port

    def arrived(self) -> int:
        """Messages so far."""
        counters = re.findall(r"mesg=(\d+)", self._process.output())
        return int(counters[-1]) if counters else 0

    def stop(self) -> None:
        self._process.stop()


@contextmanager
def backend(workload: Workload, folder: Path) -> Iterator[tuple[int, Callable[[], int]]]:
    """The port of what takes the messages, and how many it has taken."""
    if workload.postfix:
        # Taken is what counts: no message is kept.
        postfix = Postfix("bench", {"smtpd_milters": "", "virtual_transport": "discard:", "in_flow_delay": "0"})
        with_discard = postfix.folder / "etc/master.cf"
        with_discard.write_text(with_discard.read_text() + "discard unix - - n - - discard\n")
        postfix.start()
        try:
            # What has been delivered: what waits in its queue would be work for the next run. A line is
            # "postfix/bench/discard[7]: 297A02201F9: to=<...>, relay=none, delay=0.02, ..., status=sent (...)".
            yield postfix.port, lambda: len(re.findall(r"/discard\[\d+\]: \w+: to=.* status=sent ", postfix.log()))
        finally:
            postfix.remove()
        return
    sink = Sink(folder)
    try:
        yield sink.port, sink.arrived
    finally:
        sink.stop()
