"""The workloads: what is sent, how, and what smtpgate is to reach beside nginx.

W1 to W6, W8 and W9 go through each contender; W7 and W10 are about a part of smtpgate alone (parts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


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
    """sessions: clients at once. length: octets of smtp-source's messages. setting: of contenders.Setting. job: what
    our generator does (load.Job); None is smtp-source's plain session. postfix: a real one behind.

    least: messages of a run however slow, as many as say something. longer: how much longer a run is than others.
    quick: it runs under --quick too. must, aim: what smtpgate is to reach beside nginx.
    """

    key: str
    title: str
    sessions: int = 20
    length: int = 1000
    setting: Mapping[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] | None = None
    contenders: Sequence[str] = ("direct", "haproxy", "nginx", "smtpgate")
    postfix: bool = False
    least: int = 100
    longer: float = 1.0
    quick: bool = True
    must: Goal = Goal()
    aim: Goal = Goal()


TWO: Final = ("nginx", "smtpgate")
WORKLOADS: Final = (
    Workload(
        "W1",
        "1 KB, one message a connection, 20 clients",
        contenders=("direct", "haproxy", "nginx", "smtpgate", "plain", "venv"),
        longer=1.5,
        must=Goal(0.95, 1.6),
        aim=Goal(1.25, 1.0),
    ),
    # Its latencies, which smtp-source does not tell: "cmd" is one NOOP.
    Workload("W1-latency", "W1 by our own generator, with one NOOP", job={}),
    *(
        Workload(
            f"W1b-{clients}",
            f"5 KB, {clients} client{'s' * (clients > 1)}",
            sessions=clients,
            length=5000,
            contenders=TWO,
            least=40,
            must=Goal(must),
            aim=Goal(aim),
        )
        for clients, must, aim in ((1, 10, 40), (10, 5, 12), (50, 2, 2.7))
    ),
    Workload(
        "W2",
        "AUTH PLAIN, 100 users, argon2id behind, 1 KB",
        setting={"auth": True},
        job={"users": True},
        contenders=TWO,
        least=400,
        longer=1.5,
        must=Goal(0.9),
        aim=Goal(1.1),
    ),
    # As many operators would run it; what is to be reached is to be reached without.
    Workload(
        "W2-kept",
        "W2, with grants that are good for 60 s (auth_cache)",
        setting={"auth": True, "kept": "60s"},
        job={"users": True},
        contenders=TWO,
        least=400,
    ),
    Workload("W3", "W1 with a real Postfix behind", postfix=True, must=Goal(1.15), aim=Goal(1.4)),
    *(
        Workload(
            f"W4-{kind}",
            f"10 MB {title}",
            sessions=2,
            job={"body": 10_000_000, "dots": kind == "dots"},
            least=6,
            must=Goal(cpu=must),
            aim=Goal(cpu=aim),
        )
        for kind, title, must, aim in (("base64", "attachment", 1.1, 0.9), ("dots", "of lines with dots", 1.4, 1.1))
    ),
    *(
        Workload(
            f"W5-{mode}-{kind}",
            f"{mode} TLS, 1 KB, {kind} sessions",
            setting={"tls": mode},
            job={"tls": mode, "resumed": kind == "resumed"},
            contenders=TWO,
            must=Goal(cpu=1.3),
            aim=Goal(cpu=1.1),
        )
        for mode in ("implicit", "starttls")
        for kind in ("new", "resumed")
    ),
    Workload("W6-0", "W1 beside no idle sessions", setting={"crowded": True}, job={}, contenders=TWO, quick=False),
    Workload(
        "W6-10000",
        "W1 beside 10,000 idle sessions",
        setting={"crowded": True},
        job={"idle": 10_000},
        contenders=TWO,
        quick=False,
    ),
    *(
        Workload(
            f"W8-{clients}",
            f"W1 with {clients} clients",
            sessions=clients,
            setting={"crowded": True},
            contenders=TWO,
            least=2 * clients,
            quick=False,
        )
        for clients in (10, 100, 1000, 5000)
    ),
    *(
        Workload(
            f"W8-entries-{entries}",
            f"W1 with {entries} limits, routes and users in a set",
            setting={"entries": entries},
            contenders=("smtpgate",),
            quick=False,
        )
        for entries in (10, 10_000)
    ),
    Workload("W9", "W1, two workers", setting={"workers": 2}, contenders=TWO),
)


def chosen(only: str, *, quick: bool) -> list[Workload]:
    """Those of `W1,W3`; W5 stands for all that begin with it. "" is all. quick: those alone that are short."""
    wanted = [key for key in only.split(",") if key]
    return [
        one
        for one in WORKLOADS
        if (one.quick or not quick)
        and (not wanted or any(one.key == key or one.key.startswith(f"{key}-") for key in wanted))
    ]
