"""Composition root: reads the configuration, builds the objects, starts, reloads and drains.

Owns which object gets which; decides nothing else. gunicorn's arbiter runs it, either from `python proxy.py` or
from `gunicorn -c conf/gunicorn.proxy.py`.
"""

from __future__ import annotations

import functools
import math
import os
import random
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import gevent
from gunicorn.app.base import BaseApplication

from smtpgate import __version__, config
from smtpgate.clock import SystemClock
from smtpgate.document import DocumentError, Problem
from smtpgate.drivers.accesslog import AccessLog
from smtpgate.drivers.arbiter import ProxyArbiter, let_go
from smtpgate.drivers.authhttp import AuthHttp
from smtpgate.drivers.backends import Direct, ListenerBackends, PoolBackends
from smtpgate.drivers.backendtls import ClientTls
from smtpgate.drivers.clientnames import ClientNames
from smtpgate.drivers.decisionlog import DecisionLog
from smtpgate.drivers.dial import Dialler
from smtpgate.drivers.healthwatch import HealthWatch
from smtpgate.drivers.holds import Lines
from smtpgate.drivers.journal import logging_config, open_journal
from smtpgate.drivers.lastgood import LastGood
from smtpgate.drivers.listener import Gate, Listener
from smtpgate.drivers.listenertls import CertificateFiles, ListenerTls, TlsSettings, keep_fresh
from smtpgate.drivers.listening import BACKLOG, Bind
from smtpgate.drivers.nodestate import Board, NodeFile
from smtpgate.drivers.policies import Policies
from smtpgate.drivers.policyfile import PolicyFolder, load_or_last_good
from smtpgate.drivers.probes import Prober, Probes
from smtpgate.drivers.resolver import Resolver
from smtpgate.drivers.shaper import Shaper
from smtpgate.drivers.sidefiles import FilesOnDisk
from smtpgate.drivers.spool import TemporarySpool
from smtpgate.drivers.store import open_store
from smtpgate.journal import Journal
from smtpgate.policy.engine import Engine
from smtpgate.routing.model import PoolSpec
from smtpgate.session.flow import SessionSettings
from smtpgate.session.ports import Ports
from smtpgate.snapshot import Snapshot
from smtpgate.units import HostPort

DEFAULT_CONF: Final = "conf/proxy.yaml"
CONF_VARIABLE: Final = "SMTPGATE_CONF"
EXIT_BAD_CONFIG: Final = 2
# The arbiter's patience must outlast the worker's own drain and its last words.
ARBITER_MARGIN: Final = 5
WORKER_TIMEOUT: Final = 30  # seconds without a heartbeat before the arbiter replaces a worker
MAX_SESSIONS: Final = 10_000  # a worker; beyond it connections wait in the kernel's backlog
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


def build_gate(started: Started, node: NodeFile | None) -> Gate:
    """Everything that one worker process needs. Called in the worker, after the fork. node: what workers share."""
    conf = started.config
    clock = SystemClock()
    # Of this process alone, since it begins after the fork. It spreads load and retries: nobody gains by a guess.
    chance = random.Random().random  # noqa: S311
    journal = open_journal(conf.log.format, conf.log.level).bind(pid=os.getpid())
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
    lines = Lines()
    engine = Engine(
        open_store(conf.store, clock=clock, journal=journal),
        clock,
        chance,
        host=conf.server_name,
        on_mode=lambda mode: journal.warning("store_mode", mode=mode.value),
        token=secrets.token_hex,
        waiting=lines.waiting,
    )
    gevent.spawn(_renew, engine)
    authenticators = _authenticators(conf, clock, journal)

    def replace_pools(pools: Mapping[str, PoolSpec]) -> None:
        backends.replace(pools)
        watch.edited()
        for _, authenticator in authenticators:
            authenticator.forget()

    def drain() -> None:
        watch.drain()
        backends.drain()

    policies = Policies(DecisionLog(engine, journal, clock) if conf.log.decisions else engine, replace_pools)
    ports = Ports(
        authenticator=_answering(conf.auth_http, authenticators),
        policy=policies,
        holds=lines,
        shaper=Shaper(engine, clock),
        backends=backends,
        records=AccessLog(journal),
        journal=journal,
        clock=clock,
        token=lambda octets: secrets.token_hex(octets),
        draining=bool,
        spool=TemporarySpool,
    )
    gate = Gate(_listeners(started, authenticators, backends, clock), ports, conf.graceful_timeout, drain)
    gevent.spawn(keep_fresh, started.tls, journal)
    if started.snapshot is not None:
        _watch(conf, started.snapshot, policies, journal, clock)
        watch.start(Probes(clock, Prober(clock, dial, conf.server_name), chance, watch.found, journal))
    return gate


def _dialler(clock: SystemClock, journal: Journal) -> Dialler:
    resolver = Resolver(clock, warn=lambda name, reason: journal.warning("lookup_failed", name=name, reason=reason))
    return Dialler(clock, resolver, ClientTls(clock, lambda reason: journal.warning("backend_tls", reason=reason)))


def _renew(engine: Engine) -> None:
    """Whoever holds a place holds it for as long as its session lives."""
    while True:
        gevent.sleep(RENEW_INTERVAL)
        engine.renew()


def _watch(
    conf: config.Config, last_good: Snapshot, policies: Policies, journal: Journal, clock: SystemClock
) -> None:
    """Load the policies, and again whenever they change. A broken edit is logged and changes nothing.

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
    )


def _answering(wanted: config.AuthHttpConfig | None, made: Authenticators) -> AuthHttp | None:
    return next((authenticator for known, authenticator in made if known == wanted), None)


def _listeners(
    started: Started, authenticators: Authenticators, backends: PoolBackends, clock: SystemClock
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
            backends=None if own is None else ListenerBackends(backends, Direct(own.settings, own.allow)),
            names=names(one.resolver, one.resolver_timeout) if one.resolver else None,
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
    )


def tls_of(path: Path, conf: config.Config, before: Started | None) -> Mapping[str, ListenerTls]:
    """The TLS of the listeners that have any. before: what was in force; a listener whose settings are still the same
    keeps its own, and so its tickets stay good. Raises DocumentError for files that have just changed.
    """
    made: dict[str, ListenerTls] = {}
    for index, one in enumerate(conf.listeners):
        if one.protocol.tls == "off":
            continue
        settings = _tls_settings(one)
        known = None if before is None else before.tls.get(one.name)
        try:
            made[one.name] = known if known is not None and known.settings == settings else ListenerTls(settings)
        except (OSError, ValueError) as error:
            where = ("listeners", index, "certificate")
            raise DocumentError([Problem(str(path), 1, 1, where, f"cannot be used: {error}", "")]) from None
    return made


def _tls_settings(conf: config.ListenerConfig) -> TlsSettings:
    options, client = conf.tls_options, conf.client_certificate
    return TlsSettings(
        certificates=tuple(CertificateFiles(one.cert, one.key, one.password_file) for one in conf.certificates),
        minimum=options.minimum,
        maximum=options.maximum,
        ciphers=options.ciphers,
        curve=options.curve,
        tickets=options.tickets,
        client="off" if client is None else client.mode,
        client_ca=None if client is None else client.ca,
        client_crl=None if client is None else client.crl,
    )


class InForce:
    """The configuration in force, for the arbiter: read again from `path` at each HUP."""

    def __init__(self, path: Path, started: Started) -> None:
        self._path = path
        self.started = started
        self.node = share(started.config)  # before the fork

    def binds(self) -> list[Bind]:
        return [Bind(one.name, address) for one in self.started.config.listeners for address in one.binds]

    def renew(self) -> bool:
        """Read the configuration again; False leaves everything as it is, and the problems are printed."""
        try:
            self.started = check(self._path, self.started)
        except DocumentError as error:
            _complain(error)
            return False
        return True

    def refuse(self, problem: str) -> None:
        click.echo(f"{self._path}: {problem}", err=True)


class Proxy(InForce, BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's view of us: its settings from our configuration, and a Gate where a WSGI callable would be."""

    def __init__(self, path: Path, started: Started) -> None:
        InForce.__init__(self, path, started)
        BaseApplication.__init__(self, prog="smtpgate")

    def load_config(self) -> None:
        for key, value in gunicorn_settings(self.started.config).items():
            self.cfg.set(key, value)

    def load(self) -> Gate:
        return build_gate(self.started, self.node)

    def run(self) -> None:
        ProxyArbiter(self, self).run()


def gunicorn_settings(conf: config.Config) -> dict[str, Any]:
    """gunicorn's settings that follow from ours."""
    return {
        "bind": [str(bind) for listener in conf.listeners for bind in listener.binds],
        "workers": conf.workers,
        "worker_class": "smtpgate.drivers.worker.SmtpWorker",
        "worker_connections": MAX_SESSIONS,
        "backlog": BACKLOG,
        "post_fork": let_go,
        "timeout": WORKER_TIMEOUT,
        "graceful_timeout": math.ceil(conf.graceful_timeout) + ARBITER_MARGIN,
        "proc_name": "smtpgate",
        "loglevel": conf.log.level,
        "logconfig_dict": logging_config(conf.log.format, conf.log.level),
        "control_socket_disable": True,
    }


def check(path: Path, before: Started | None = None) -> Started:
    """The configuration and the policies that it names, both valid. before: what is in force. Raises DocumentError
    with every problem.
    """
    conf = config.load(path, os.environ)
    snapshot = None
    if conf.policies is not None:
        snapshot = PolicyFolder.check(conf.policies, backend=conf.backend.settings, side=FilesOnDisk())
    return Started(conf, snapshot, tls=tls_of(path, conf, before))


def share(conf: config.Config) -> NodeFile | None:
    """What the workers are to have in common, made in the process that forks them. Without it each one probes the
    backends for itself, and learns nothing of what the others find out.
    """
    try:
        return NodeFile()
    except OSError as error:
        reason = f"no shared memory: {error.strerror}; each worker probes the backends for itself"
        open_journal(conf.log.format, conf.log.level).warning("health_unshared", reason=reason)
        return None


def first_check(path: Path) -> Started:
    """For a start: a machine that boots while the policies are broken serves mail under the last good ones.

    Raises DocumentError where there are none in `state_dir`, and for the configuration as ever.
    """
    conf = config.load(path, os.environ)
    snapshot = broken = None
    if conf.policies is not None:
        settings, side = conf.backend.settings, FilesOnDisk()
        snapshot, broken = load_or_last_good(conf.policies, conf.state_dir, backend=settings, side=side)
    return Started(conf, snapshot, broken, tls_of(path, conf, None))


# For gunicorn's own command: it runs conf/gunicorn.proxy.py anew at each HUP, only a module outlives that.
_in_force: InForce | None = None


def settings_from_environment() -> dict[str, Any]:
    """For conf/gunicorn.proxy.py: gunicorn's settings, from the configuration that SMTPGATE_CONF names.

    Exits with EXIT_BAD_CONFIG where it is broken. At a HUP our arbiter has read it again before it comes to this.
    """
    global _in_force
    if _in_force is None:
        path = Path(os.environ.get(CONF_VARIABLE, DEFAULT_CONF))
        try:
            _in_force = InForce(path, first_check(path))
        except DocumentError as error:
            _complain(error)
            sys.exit(EXIT_BAD_CONFIG)
    return gunicorn_settings(_in_force.started.config)


def arbiter(app: BaseApplication) -> ProxyArbiter:
    """For conf/gunicorn.proxy.py: what gunicorn's command is to run in the place of its own arbiter."""
    assert _in_force is not None, "settings_from_environment() comes first"
    return ProxyArbiter(app, _in_force)


def gate_from_environment() -> Gate:
    """For conf/gunicorn.proxy.py: the "WSGI application" of a worker, forked with what its master read."""
    assert _in_force is not None, "gunicorn is to be run with -c conf/gunicorn.proxy.py"
    return build_gate(_in_force.started, _in_force.node)


def _complain(error: DocumentError) -> None:
    for problem in error.problems:
        click.echo(str(problem), err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=Path(DEFAULT_CONF),
    show_default=True,
    help="The configuration file.",
)
@click.option("--check", "only_check", is_flag=True, help="Validate the configuration and the policies, and exit.")
@click.version_option(__version__)
def main(path: Path, only_check: bool) -> None:
    """The SMTP proxy.

    HUP reads configuration and policies again; sessions live on, up to graceful_timeout. TERM ends when the
    transactions under way have, INT and QUIT at once. For a new version of the program: USR2 starts it beside this
    one, on the same sockets; then WINCH to the old process lets its workers go, and QUIT ends it when they have.
    """
    try:
        started = check(path) if only_check else first_check(path)
    except DocumentError as error:
        _complain(error)
        sys.exit(EXIT_BAD_CONFIG)
    if only_check:
        click.echo(f"{path}: valid")
        return
    _advise(started)
    Proxy(path, started).run()


def _advise(started: Started) -> None:
    """What is valid and still worth a word at start."""
    conf = started.config
    journal = open_journal(conf.log.format, conf.log.level)
    if started.broken is not None:
        journal.warning(
            "config", about="policies", advice="the folder is broken: the last good policies are in force"
        )
        _complain(started.broken)
    if conf.workers > 1 and conf.store.startswith("memory:"):
        journal.warning("config", about="store", advice="memory:// is counted by each worker for itself")
    if conf.metrics is not None:
        journal.warning("config", about="metrics", advice="not served by this version")
