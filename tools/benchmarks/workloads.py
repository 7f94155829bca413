"""The workloads, and what one round of each does. Owns what is sent, how often, and that it arrived.

W1 to W6, W8 and W9 go through each contender; W7 and W10 are about a part of smtpgate alone.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from peers.process import HOST
from peers.smtptools import SmtpSink, smtp_source

from tools.benchmarks.contenders import Contender, Setting, start
from tools.benchmarks.load import Job
from tools.benchmarks.measure import quantile, usage

PASSWORD: Final = "bench-password"  # noqa: S105 - of users that live as long as the run
USERS: Final = 100
LOAD_TIMEOUT: Final = 300.0


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
class Goal:
    """What smtpgate is to reach, as ratios to nginx of the same run: rate at least, cpu at most; None is any."""

    rate: float | None = None
    cpu: float | None = None

    def reached(self, rate: float, cpu: float) -> bool:
        return (self.rate is None or rate >= self.rate) and (self.cpu is None or cpu <= self.cpu)

    def __str__(self) -> str:
        bounds = (("rate >=", self.rate), ("CPU <=", self.cpu))
        return ", ".join(f"{name}{bound:g}" for name, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Workload:
    """quick: messages of a run under --quick. job: what the generator does; None is smtp-source's plain session.

    must, aim: what smtpgate is to reach beside nginx.
    """

    key: str
    title: str
    messages: int
    quick: int
    sessions: int = 20
    length: int = 1000
    setting: Mapping[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] | None = None
    contenders: Sequence[str] = ("direct", "haproxy", "nginx", "smtpgate")
    postfix: bool = False
    must: Goal = Goal()
    aim: Goal = Goal()


WORKLOADS: Final = (
    Workload(
        "W1", "1 KB, one message a connection, 20 clients", 4000, 800, must=Goal(0.95, 1.6), aim=Goal(1.25, 1.0)
    ),
    # Its latencies, which smtp-source does not tell: "cmd" is one NOOP.
    Workload("W1-latency", "W1 by our own generator, with one NOOP", 2000, 300, job={}),
    *(
        Workload(
            f"W1b-{clients}",
            f"5 KB, {clients} client{'s' * (clients > 1)}",
            messages,
            messages // 5,
            sessions=clients,
            length=5000,
            must=Goal(must),
            aim=Goal(aim),
        )
        for clients, messages, must, aim in ((1, 200, 10, 40), (10, 1500, 5, 12), (50, 4000, 2, 2.7))
    ),
    Workload(
        "W2",
        "AUTH PLAIN, 100 users, argon2id behind, 1 KB",
        2000,
        400,
        setting={"auth": True},
        job={"users": True},
        contenders=("nginx", "smtpgate"),
        must=Goal(0.9),
        aim=Goal(1.1),
    ),
    Workload("W3", "W1 with a real Postfix behind", 1500, 300, postfix=True, must=Goal(1.15), aim=Goal(1.4)),
    *(
        Workload(
            f"W4-{kind}",
            f"10 MB {title}",
            40,
            6,
            sessions=2,
            job={"body": 10_000_000, "dots": kind == "dots"},
            must=Goal(cpu=must),
            aim=Goal(cpu=aim),
        )
        for kind, title, must, aim in (("base64", "attachment", 1.1, 0.9), ("dots", "of lines with dots", 1.4, 1.1))
    ),
    *(
        Workload(
            f"W5-{mode}-{kind}",
            f"{mode} TLS, 1 KB, {kind} sessions",
            1000,
            200,
            setting={"tls": mode},
            job={"tls": mode, "resumed": kind == "resumed"},
            contenders=("nginx", "smtpgate"),
            must=Goal(cpu=1.3),
            aim=Goal(cpu=1.1),
        )
        for mode in ("implicit", "starttls")
        for kind in ("new", "resumed")
    ),
    Workload("W6-0", "W1 beside no idle sessions", 2000, 0, job={}, contenders=("nginx", "smtpgate")),
    Workload(
        "W6-10000", "W1 beside 10,000 idle sessions", 2000, 0, job={"idle": 10_000}, contenders=("nginx", "smtpgate")
    ),
    *(
        Workload(
            f"W8-{clients}",
            f"W1 with {clients} clients",
            max(4000, 2 * clients),
            0,
            sessions=clients,
            contenders=("nginx", "smtpgate"),
        )
        for clients in (10, 100, 1000, 5000)
    ),
    *(
        Workload(
            f"W8-entries-{entries}",
            f"W1 with {entries} limits, routes and users in a set",
            4000,
            0,
            setting={"entries": entries},
            contenders=("smtpgate",),
        )
        for entries in (10, 10_000)
    ),
    Workload("W9", "W1, two workers", 4000, 800, setting={"workers": 2}, contenders=("nginx", "smtpgate")),
)


def prepare(workload: Workload, name: str, folder: Path, backend: int, shared: Mapping[str, Any]) -> Contender:
    """The contender, ready for this workload."""
    setting = Setting(backend, **dict(workload.setting))
    extra: dict[str, Any] = {}
    if setting.tls != "off":
        extra["certificate"] = shared["certificate"]
    if setting.auth:
        extra["users"] = shared["users"]
    return start(name, folder, Setting(backend, **{**dict(workload.setting), **extra}))


def measure(workload: Workload, contender: Contender, messages: int, arrived: Callable[[], int]) -> Measured:
    """One round. arrived: how many messages the backend has taken so far. Raises SpoiltError."""
    before = arrived()
    resident = usage(contender.proxies()).rss
    proxy, helpers = usage(contender.proxies()), usage(contender.helpers())
    run = _source if workload.job is None else _generator
    seconds, details = run(workload, contender, messages)
    spent = usage(contender.proxies())
    cpu = spent.cpu - proxy.cpu
    cpu_all = cpu + usage(contender.helpers()).cpu - helpers.cpu
    deadline = time.monotonic() + 10
    while arrived() - before < messages and time.monotonic() < deadline:
        time.sleep(0.02)
    if (count := arrived() - before) != messages:
        raise SpoiltError(f"{count} of {messages} messages arrived")
    per = 1e6 / messages
    idle = 0 if workload.job is None else workload.job.get("idle", 0)
    if idle:
        details["idle"] = (details["rss"] - resident) / idle
    return Measured(
        **{
            "rate": messages / seconds,
            "cpu": cpu * per,
            "cpu_all": cpu_all * per,
            "rss": spent.rss,
            "seconds": seconds,
            "messages": messages,
            **details,
        }
    )


def _source(workload: Workload, contender: Contender, messages: int) -> tuple[float, dict[str, Any]]:
    """smtp-source: in C, so that it takes little of the machine that is measured."""
    before, began = _children(), time.monotonic()
    done = smtp_source(
        contender.port,
        messages=messages,
        sessions=workload.sessions,
        length=workload.length,
        timeout=LOAD_TIMEOUT,
    )
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise SpoiltError(f"smtp-source: {(done.stderr or done.stdout).strip()[:200]}")
    return seconds, {"load": 1e6 * (_children() - before) / messages}


def _children() -> float:
    """Seconds of CPU of the processes that we have waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _generator(workload: Workload, contender: Contender, messages: int) -> tuple[float, dict[str, Any]]:
    assert workload.job is not None
    words = {**workload.job}
    users = tuple(f"user{n}@example.com" for n in range(USERS)) if words.pop("users", False) else ()
    job = Job(
        HOST,
        contender.port,
        messages=messages,
        clients=workload.sessions,
        users=users,
        password=PASSWORD,
        **words,
    )
    argv = [sys.executable, "-m", "tools.benchmarks.load", json.dumps(asdict(job))]
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    rss = usage(contender.proxies()).rss  # while its idle sessions are open
    _, complaints = process.communicate(timeout=LOAD_TIMEOUT)
    if process.returncode != 0 or not line:
        raise SpoiltError(f"the generator: {complaints.strip()[-300:]}")
    outcome = json.loads(line)
    if outcome["errors"] or outcome["sent"] != messages:
        raise SpoiltError(f"{outcome['sent']} of {messages} sent; {outcome['errors'][:2]}")
    latencies, commands = outcome["latencies"], outcome["commands"]
    return outcome["seconds"], {
        "rss": rss,
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
        self._process = SmtpSink(folder, "-c", backlog=4000)
        self.port = self._process.port

    def arrived(self) -> int:
        """Messages so far."""
        counters = re.findall(r"mesg=(\d+)", self._process.output())
        return int(counters[-1]) if counters else 0

    def stop(self) -> None:
        self._process.stop()
