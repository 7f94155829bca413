"""Metrics of what stands rather than happens: pools, limits, policies, the store, certificates, the process.

Asked once a second, and when somebody asks for the metrics. Owns their families, and what they are worth where a
count of someone else's begins anew. What has no records of its own is counted elsewhere already; nothing here is on
a message's way. The auth service has the same limits, policies and processes, and uses the same families.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography import x509

from smtpgate import __version__
from smtpgate.clock import Clock
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.listenertls import ListenerTls
from smtpgate.drivers.logqueue import Tally
from smtpgate.drivers.metricsvalues import Families, Labels
from smtpgate.drivers.policyfile import FolderStatus
from smtpgate.policy.engine import Engine, StoreMode

# Backends of one process that are told of one by one.
MAX_BACKENDS: Final = 300
# Seconds between two looks at certificates: they are for hours at least, and each look is a file's.
CERTIFICATE_INTERVAL: Final = 60.0
# Seconds between two counts of the descriptors: 20,000 take the kernel 10 ms. As often as Prometheus asks.
DESCRIPTOR_INTERVAL: Final = 15.0

Gather = Callable[[], None]
"""Bring families up to date. Must not wait."""


class _Since:
    """A count of someone else's, which may begin anew at 0, as one that only grows."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def growth(self, name: str, what: str, now: float) -> float:
        """How much has been added since it was last asked."""
        before = self._seen.get((name, what), 0.0)
        self._seen[name, what] = now
        return now - before if now >= before else now

    def keep(self, names: Mapping[str, object]) -> None:
        """Forget all others."""
        for key in [key for key in self._seen if key[0] not in names]:
            del self._seen[key]


def limits(families: Families, engine: Engine) -> Gather:
    """Of an engine: what it was asked by limit, and whether its store answers."""
    kinds = {
        "checked": families.counter("smtpgate_limit_checked_total", "Questions to a limit.", "limit"),
        "denied": families.counter("smtpgate_limit_denied_total", "Its refusals.", "limit"),
        "shadow_denied": families.counter(
            "smtpgate_limit_shadow_denied_total", "What it would have refused in shadow mode.", "limit"
        ),
        "refunded": families.counter("smtpgate_limit_refunded_total", "Charges that were given back.", "limit"),
        "held_seconds": families.counter(
            "smtpgate_limit_held_seconds_total", "For which sessions were held in line, together.", "limit"
        ),
    }
    places = families.gauge("smtpgate_places_held", "Places of concurrency limits that sessions hold.", "sum")
    up = families.gauge("smtpgate_store_up", "Whether the limits' store answers, as every worker finds.", "min")
    since = _Since()

    def gather() -> None:
        counters = engine.counters
        since.keep(counters)
        for limit, counts in counters.items():
            for what, counter in kinds.items():
                grown = since.growth(limit, what, getattr(counts, what))
                # All of a limit's series are there from its first question on: a rate needs a beginning.
                counter.add((limit,), grown)
        places.set(engine.held)
        up.set(engine.mode is StoreMode.SHARED)

    return gather


def door(
    families: Families, refused: Callable[[], Mapping[tuple[str, str], int]], stressed: Callable[[], bool]
) -> Gather:
    """Connections that did not become sessions, by listener and reason, and whether the next ones are about to."""
    connections = families.counter(
        "smtpgate_connections_refused_total",
        "Connections that got no session, by what they were too many for.",
        "listener",
        "reason",
    )
    crowded = families.gauge(
        "smtpgate_workers_stressed", "Workers that have more than 90 % of max_sessions: waits are cut short.", "sum"
    )
    since = _Since()

    def gather() -> None:
        for (listener, reason), count in refused().items():
            connections.add((listener, reason), since.growth(listener, reason, count))
        crowded.set(stressed())

    return gather


def pools(families: Families, backends: PoolBackends, clock: Clock) -> Gather:
    """Each backend as this worker sees it, the connections that rest, the sessions that wait."""
    state = families.gauge(
        "smtpgate_backend_state",
        "1 for the state that a backend is in: up, backup, down (probes), open (ejected), drain, off.",
        "max",
        "pool",
        "backend",
        "state",
    )
    connections = families.gauge("smtpgate_backend_connections", "Sessions that have it.", "sum", "pool", "backend")
    idle = families.gauge(
        "smtpgate_backend_idle_connections",
        "Those that are kept for the next client.",
        "sum",
        "pool",
        "backend",
    )
    failures = families.gauge(
        "smtpgate_backend_failures", "Failures in a row, in the worker that has most.", "max", "pool", "backend"
    )
    waiting = families.gauge("smtpgate_pool_waiting", "Sessions in a pool's queue.", "sum", "pool")

    def gather() -> None:
        now, resting = clock.monotonic(), backends.resting
        states: dict[Labels, float] = {}
        conns: dict[Labels, float] = {}
        idles: dict[Labels, float] = {}
        fails: dict[Labels, float] = {}
        for name, pool in backends.pools.items():
            for view in pool.view(now):
                if len(states) == MAX_BACKENDS:
                    break
                key = (name, view.name)
                states[*key, view.state] = 1.0
                conns[key], fails[key] = float(view.conns), float(view.failures)
                idles[key] = float(resting.get(key, 0))
        state.replace(states)
        connections.replace(conns)
        idle.replace(idles)
        failures.replace(fails)
        waiting.replace({(name,): float(count) for name, count in backends.waiting.items()})

    return gather


def policies(families: Families, status: Callable[[], FolderStatus]) -> Gather:
    """As Prometheus tells of its own configuration: whether the last edit was taken, and when that in force was."""
    info = families.gauge("smtpgate_policy_info", "1, with the hash of the policies in force.", "max", "version")
    loaded = families.gauge(
        "smtpgate_policy_loaded_timestamp_seconds", "When the policies in force were loaded, in every worker.", "min"
    )
    valid = families.gauge(
        "smtpgate_policy_valid", "1 where the folder, as it is now, is what is in force in every worker.", "min"
    )

    def gather() -> None:
        now = status()
        info.replace({(now.version,): 1.0} if now.version else {})
        loaded.set(now.loaded)
        valid.set(now.valid)

    return gather


def certificates(families: Families, listeners: Mapping[str, ListenerTls], clock: Clock) -> Gather:
    """When the listeners' certificates end, as they are on the disk: by name of the file."""
    expiry = families.gauge(
        "smtpgate_certificate_expiry_timestamp_seconds",
        "When the first certificate of a chain to end does, as the file has it.",
        "min",
        "listener",
        "file",
    )
    due = clock.monotonic()

    def gather() -> None:
        nonlocal due
        if clock.monotonic() < due:
            return
        due = clock.monotonic() + CERTIFICATE_INTERVAL
        found: dict[Labels, float] = {}
        for name, tls in listeners.items():
            for chain in {one.chain for one in tls.settings.certificates}:
                end = _expiry(chain)
                if end is not None:
                    found[name, str(chain)] = end
        expiry.replace(found)

    return gather


def _expiry(chain: Path) -> float | None:
    try:
        found = x509.load_pem_x509_certificates(chain.read_bytes())
    except (OSError, ValueError):
        return None  # half written; what is in force is in force, and the log tells of what cannot be used
    return min(one.not_valid_after_utc.timestamp() for one in found)


def log(families: Families, tally: Tally) -> Gather:
    """Lines by level, and those that were lost."""
    lines = families.counter("smtpgate_log_lines_total", "Lines of the log.", "level")
    dropped = families.counter("smtpgate_log_lines_dropped_total", "Lines that could not be written.")
    since = _Since()

    def gather() -> None:
        for level, count in tally.lines.items():
            lines.add((level,), since.growth(level, "", count))
        dropped.add((), since.growth("", "dropped", tally.dropped))

    return gather


def process(families: Families, worker: int, clock: Clock) -> Gather:
    """What the kernel and gevent know of this process. worker: its number, which its successor has after it.

    One of these is a start.
    """
    label = (str(worker),)
    families.gauge(
        "smtpgate_build_info", "1, with the versions of smtpgate and Python.", "max", "version", "python"
    ).set(1, (__version__, platform.python_version()))
    families.gauge(
        "smtpgate_worker_start_time_seconds", "When a worker was started, Unix seconds.", "max", "worker"
    ).set(clock.now(), label)
    families.counter("smtpgate_worker_starts_total", "Workers that were started, for whatever reason.").add()
    resident = families.gauge(
        "smtpgate_worker_resident_memory_bytes", "Memory that a worker has now.", "max", "worker"
    )
    descriptors = families.gauge("smtpgate_worker_open_fds", "Descriptors that are open.", "max", "worker")
    most = families.gauge("smtpgate_worker_max_fds", "Descriptors that may be.", "max", "worker")
    cpu = families.counter("smtpgate_worker_cpu_seconds_total", "User and system, its predecessors' too.", "worker")
    since = _Since()
    due = clock.monotonic()

    def gather() -> None:
        nonlocal due
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu.add(label, since.growth("", "cpu", used.ru_utime + used.ru_stime))
        most.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0], label)
        try:
            with open("/proc/self/statm", "rb") as file:
                resident.set(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"), label)
            if clock.monotonic() >= due:
                due = clock.monotonic() + DESCRIPTOR_INTERVAL
                descriptors.set(len(os.listdir("/proc/self/fd")) - 1, label)  # one is the folder's that is read
        except OSError:
            pass  # no /proc

    return gather
