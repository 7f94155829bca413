"""What one worker process of the proxy is made of: configuration and policies -> a Gate with all its objects.

Owns which object gets which, after the fork; decides nothing else. Everything before the fork is `main`'s.
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import secrets
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import gevent

from smtpgate import __version__, config
from smtpgate.clock import SystemClock
from smtpgate.document import DocumentError
from smtpgate.drivers import descriptors
from smtpgate.drivers.accesslog import AccessLog
from smtpgate.drivers.admission import AddressLimits
from smtpgate.drivers.authhttp import AuthHttp
from smtpgate.drivers.backends import Direct, ListenerBackends, PoolBackends
from smtpgate.drivers.backendtls import ClientTls
from smtpgate.drivers.clientnames import ClientNames
from smtpgate.drivers.decisionlog import DecisionLog
from smtpgate.drivers.dial import Dialler
from smtpgate.drivers.healthwatch import HealthWatch
from smtpgate.drivers.holds import Lines
from smtpgate.drivers.journal import open_journal
from smtpgate.drivers.lastgood import LastGood
from smtpgate.drivers.listener import Gate, Listener
from smtpgate.drivers.listenertls import ListenerTls, keep_fresh
from smtpgate.drivers.liveboard import NoBoard, open_board
from smtpgate.drivers.livepublisher import PATIENCE, LivePublisher
from smtpgate.drivers.livereport import LiveRecords, WorkerReports
from smtpgate.drivers.metricsfolder import MetricsFolder
from smtpgate.drivers.metricsproxy import ProxyMetrics
from smtpgate.drivers.nodestate import Board, NodeFile
from smtpgate.drivers.policies import Policies
from smtpgate.drivers.policyfile import FolderStatus, PolicyFolder, load_or_last_good
from smtpgate.drivers.probes import Prober, Probes
from smtpgate.drivers.records import AllRecords
from smtpgate.drivers.rediskeys import split
from smtpgate.drivers.resolver import Resolver
from smtpgate.drivers.shaper import Shaper
from smtpgate.drivers.sidefiles import FilesOnDisk
from smtpgate.drivers.spool import TemporarySpool
from smtpgate.drivers.store import open_store
from smtpgate.journal import Journal
from smtpgate.policy.engine import Engine
from smtpgate.policy.storeuri import MEMORY, parse_store_uri
from smtpgate.routing.model import PoolSpec
from smtpgate.session.flow import SessionSettings
from smtpgate.session.ports import Ports
from smtpgate.snapshot import Snapshot
from smtpgate.units import HostPort

# Seconds between two renewals of the places that sessions hold in concurrency limits: two may fail before a lease
# ends (policy.store.LEASE).
RENEW_INTERVAL: Final = 20.0


Authenticators = Sequence[tuple[config.AuthHttpConfig, AuthHttp]]


@dataclass(frozen=True, slots=True)
class Started:
    """A valid configuration and the policies to begin with: those that it names, or the last that were good, where
    `broken` says what is wrong with those. tls: by the names of the listeners that have any; made before the workers
    are forked, who so take each other's session tickets.
    """

    config: config.Config
    snapshot: Snapshot | None
    broken: DocumentError | None = None
    tls: Mapping[str, ListenerTls] = field(default_factory=dict)


def build_gate(started: Started, node: NodeFile | None, metrics: MetricsFolder | None = None) -> Gate:
    """Everything that one worker process needs. Called in the worker, after the fork. node, metrics: what workers
    share; without metrics nobody counts.
    """
    conf = started.config
    clock = SystemClock()
    # Of this process alone, since it begins after the fork. It spreads load and retries: nobody gains by a guess.
    chance = random.Random().random  # noqa: S311 - as said
    journal = open_journal(conf.log.format, conf.log.level, to=conf.log.to, gathered=True).bind(pid=os.getpid())
    dial = _dialler(clock, journal).dial
    backends = PoolBackends(
        clock,
        dial,
        conf.backend.settings,
        chance,
        changed=lambda pool, backend, up: watch.turned(pool, backend, up),
        allow=conf.backend.allow,
        own_ports={bind.port for listener in conf.listeners for bind in listener.binds if isinstance(bind, HostPort)},
    )
    watch = HealthWatch(clock, backends, Board(node), journal, lambda capabilities: gate.offer(capabilities))
    live = LiveRecords(clock)
    counting = ProxyMetrics(metrics, clock, journal)
    lines = Lines(joined=lambda key: _held(key, live, counting))
    engine = Engine(
        open_store(conf.store, clock=clock, journal=journal, families=counting.families),
        clock,
        chance,
        host=conf.server_name,
        on_mode=lambda mode: journal.warning("store_mode", mode=mode.value),
        token=secrets.token_hex,
        waiting=lines.waiting,
    )
    gevent.spawn(_renew, engine, journal)
    authenticators = _authenticators(conf, clock, journal)

    def replace_pools(pools: Mapping[str, PoolSpec]) -> None:
        backends.replace(pools)
        watch.edited()
        for _, authenticator in authenticators:
            authenticator.forget()

    def drain() -> None:
        watch.drain()
        backends.drain()
        if publisher is not None:
            publisher.drain()

    policies = Policies(DecisionLog(engine, journal, clock) if conf.log.decisions else engine, replace_pools)
    ports = Ports(
        authenticator=_answering(conf.auth_http, authenticators),
        policy=policies,
        holds=lines,
        shaper=Shaper(engine, clock),
        backends=counting.backends(backends),
        records=AllRecords((AccessLog(journal), live, *counting.readers)),
        journal=journal,
        clock=clock,
        token=lambda octets: secrets.token_hex(octets),
        draining=bool,
        spool=TemporarySpool,
    )
    listeners = _listeners(started, authenticators, backends, counting, clock)
    gate = Gate(listeners, ports, conf.graceful_timeout, drain, _sessions(conf, journal))
    gevent.spawn(keep_fresh, started.tls, journal)
    status: Callable[[], FolderStatus] | None = None
    if started.snapshot is not None:
        status = _watch(conf, started.snapshot, policies, journal, clock)
        watch.start(Probes(clock, Prober(clock, dial, conf.server_name), chance, watch.found, journal))
    publisher = _publisher(conf, live, backends, engine, status, journal, clock)
    gate.metrics = counting.start(gate, engine, backends, started.tls, status, gevent.spawn)
    return gate


def _sessions(conf: config.Config, journal: Journal) -> int:
    """As many as are wanted, if there are descriptors for them."""
    allowed = descriptors.sessions_for(conf.max_sessions)
    if allowed < conf.max_sessions:
        advice = f"RLIMIT_NOFILE is enough for {allowed} of {conf.max_sessions}; the next ones are told 421"
        journal.warning("config", about="max_sessions", advice=advice)
    return allowed


def _dialler(clock: SystemClock, journal: Journal) -> Dialler:
    resolver = Resolver(clock, warn=lambda name, reason: journal.warning("lookup_failed", name=name, reason=reason))
    return Dialler(clock, resolver, ClientTls(clock, lambda reason: journal.warning("backend_tls", reason=reason)))


def _held(key: str, live: LiveRecords, counting: ProxyMetrics) -> None:
    """A session stands in line for a bucket."""
    limit, subject = split(key)
    live.held(limit, subject)
    counting.held(limit)


def _renew(engine: Engine, journal: Journal) -> None:
    """Whoever holds a place holds it for as long as its session lives."""
    while True:
        gevent.sleep(RENEW_INTERVAL)
        try:
            engine.renew()
        except Exception:  # noqa: BLE001 - a bug of ours must not let all places lapse
            journal.error("bug", traceback=traceback.format_exc(limit=-6))


def _watch(
    conf: config.Config, last_good: Snapshot, policies: Policies, journal: Journal, clock: SystemClock
) -> Callable[[], FolderStatus]:
    """Load the policies, and again whenever they change. A broken edit is logged and changes nothing. What is given
    back tells how they stand.

    A worker that is started while they are broken begins with the last good ones, of which `state_dir` knows newer
    ones than the arbiter has seen.
    """
    assert conf.policies is not None
    path, backend = conf.policies, conf.backend.settings

    def failed(error: DocumentError) -> None:
        journal.error("policies_rejected", problems=[str(problem) for problem in error.problems])

    def loaded(snapshot: Snapshot) -> None:
        journal.info("policies_loaded", version=snapshot.version_hash)

    side = FilesOnDisk()

    def begin(current: Snapshot) -> tuple[PolicyFolder, DocumentError | None]:
        policies.apply(current)
        folder = PolicyFolder(
            path,
            policies.apply,
            loaded,
            failed,
            backend=backend,
            side=side,
            current=current,
            keep=None if conf.state_dir is None else LastGood(conf.state_dir, path),
            not_kept=lambda reason: journal.warning("policies_not_kept", reason=reason),
            clock=clock,
        )
        try:
            folder.load()
        except DocumentError as error:
            return folder, error
        return folder, None

    folder, broken = begin(last_good)
    if broken is not None:
        failed(broken)
        try:
            folder, _ = begin(load_or_last_good(path, conf.state_dir, backend=backend, side=side)[0])
        except DocumentError:
            pass  # told already, and there is no newer one
    gevent.spawn(folder.run, clock)
    return lambda: folder.status


def _publisher(
    conf: config.Config,
    live: LiveRecords,
    backends: PoolBackends,
    engine: Engine,
    status: Callable[[], FolderStatus] | None,
    journal: Journal,
    clock: SystemClock,
) -> LivePublisher | None:
    """Tells gatectl and the console of this worker, and takes their orders. None where the configuration names no
    place for that.
    """
    try:
        board = open_board(conf.store, conf.state_dir, clock, PATIENCE)
    except NoBoard:
        return None
    alone = parse_store_uri(conf.store).scheme == MEMORY
    reports = WorkerReports(
        node=socket.gethostname(),
        server_name=conf.server_name,
        version=__version__,
        records=live,
        backends=backends,
        store=lambda: MEMORY if alone else engine.mode.value,
        status=status,
        sources=lambda: {one.name: one.source for those in engine.policy.limits.values() for one in those},
        clock=clock,
    )
    publisher = LivePublisher(board, reports, backends, clock, journal)
    publisher.start()
    atexit.register(publisher.end)  # gunicorn's worker ends by sys.exit
    return publisher


def _authenticators(conf: config.Config, clock: SystemClock, journal: Journal) -> Authenticators:
    """One for each `auth_http` that says something else: listeners that say the same share its connections."""
    distinct: list[config.AuthHttpConfig] = []
    for one in (conf.auth_http, *(listener.auth_http for listener in conf.listeners)):
        if one is not None and one not in distinct:
            distinct.append(one)
    return [(one, _authenticator(one, clock, journal)) for one in distinct]


def _authenticator(conf: config.AuthHttpConfig, clock: SystemClock, journal: Journal) -> AuthHttp:
    pair = conf.certificate
    return AuthHttp(
        conf.urls,
        conf.timeout,
        conf.headers,
        cache=conf.cache,
        pass_client_cert=conf.pass_client_cert,
        ca=None if conf.ca is None else str(conf.ca),
        certificate=None if pair is None else (str(pair.cert), str(pair.key)),
        clock=clock,
        on_failover=lambda reason: journal.warning("auth_failover", reason=reason),
        on_down=lambda server, reason: journal.error("auth_server_down", server=server, reason=reason),
        on_up=lambda server: journal.info("auth_server_up", server=server),
    )


def _answering(wanted: config.AuthHttpConfig | None, made: Authenticators) -> AuthHttp | None:
    return next((authenticator for known, authenticator in made if known == wanted), None)


def _listeners(
    started: Started,
    authenticators: Authenticators,
    backends: PoolBackends,
    counting: ProxyMetrics,
    clock: SystemClock,
) -> list[Listener]:
    """One for each address that is bound."""
    # Listeners that ask the same name servers share what these have said.
    names = functools.cache(lambda servers, timeout: ClientNames(servers, timeout, clock))
    made = []
    for one in started.config.listeners:
        own = one.backend
        listener = Listener(
            settings=_settings(one),
            tls=started.tls.get(one.name),
            learn_capabilities=one.learn_capabilities,
            proxies=one.proxy_protocol,
            authenticator=_answering(one.auth_http, authenticators),
            backends=None
            if own is None
            else counting.backends(ListenerBackends(backends, Direct(own.settings, own.allow))),
            names=names(one.resolver, one.resolver_timeout) if one.resolver else None,
            limits=AddressLimits(one.max_sessions_per_ip, one.max_sessions_per_network),
        )
        made += [listener] * len(one.binds)
    return made


def _settings(conf: config.ListenerConfig) -> SessionSettings:
    client = conf.client_certificate
    return SessionSettings(
        listener=conf.name,
        protocol=conf.protocol,
        timeout=conf.timeout,
        idle_timeout=conf.idle_timeout,
        envelope=conf.envelope,
        greeting_delay=conf.greeting_delay,
        certificate_required=client is not None and client.mode == "required",
        xclient=conf.xclient,
        soft_errors=conf.soft_errors,
        error_delay=conf.error_delay,
        min_data_rate=conf.min_data_rate,
    )
