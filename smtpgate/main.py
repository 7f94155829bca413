"""Composition root: reads the configuration, builds the objects, starts, reloads and drains.

Owns which object gets which; decides nothing else. gunicorn's arbiter runs it, either from `python proxy.py` or
from `gunicorn -c conf/gunicorn.proxy.py`.
"""

from __future__ import annotations

import math
import os
import random
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import gevent
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from smtpgate import __version__, config
from smtpgate.clock import SystemClock
from smtpgate.document import DocumentError
from smtpgate.drivers.authhttp import AuthHttp
from smtpgate.drivers.backends import PoolBackends
from smtpgate.drivers.journal import logging_config, open_journal
from smtpgate.drivers.listener import Gate, Listener
from smtpgate.drivers.policies import Policies
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.drivers.store import open_store
from smtpgate.drivers.stream import connect
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
EXIT_TAKEN: Final = 1
# The arbiter's patience must outlast the worker's own drain and its last words.
ARBITER_MARGIN: Final = 5
WORKER_TIMEOUT: Final = 30  # seconds without a heartbeat before the arbiter replaces a worker
MAX_SESSIONS: Final = 10_000  # a worker; beyond it connections wait in the kernel's backlog
BACKLOG: Final = 2048


@dataclass(frozen=True, slots=True)
class Started:
    """A configuration and the policies that it names, both valid when they were read."""

    config: config.Config
    snapshot: Snapshot | None


def build_gate(started: Started) -> Gate:
    """Everything that one worker process needs. Called in the worker, after the fork."""
    conf = started.config
    clock = SystemClock()
    journal = open_journal(conf.log.format, conf.log.level).bind(pid=os.getpid())
    backends = PoolBackends(
        clock,
        connect,
        conf.backend.settings,
        allow=conf.backend.allow,
        own_ports={bind.port for listener in conf.listeners for bind in listener.binds if isinstance(bind, HostPort)},
    )
    engine = Engine(
        open_store(conf.store, clock=clock, journal=journal),
        clock,
        random.SystemRandom().random,
        host=conf.server_name,
        on_mode=lambda mode: journal.warning("store_mode", mode=mode.value),
    )
    authenticator = _authenticator(conf, clock, journal)

    def replace_pools(pools: Mapping[str, PoolSpec]) -> None:
        backends.replace(pools)
        if authenticator is not None:
            authenticator.forget()

    policies = Policies(engine, replace_pools)
    if started.snapshot is not None:
        _watch(conf, started.snapshot, policies, journal, clock)
    ports = Ports(
        authenticator=authenticator,
        policy=policies,
        backends=backends,
        journal=journal,
        clock=clock,
        token=lambda octets: secrets.token_hex(octets),
        draining=bool,
    )
    return Gate([_listener(one) for one in conf.listeners for _ in one.binds], ports, conf.graceful_timeout)


def _watch(
    conf: config.Config, last_good: Snapshot, policies: Policies, journal: Journal, clock: SystemClock
) -> None:
    """Load the policies, and again whenever they change. A broken edit is logged and changes nothing.

    A worker that is started while they are broken begins with the last good ones that the arbiter has seen.
    """
    assert conf.policies is not None

    def failed(error: DocumentError) -> None:
        journal.error("policies_rejected", problems=[str(problem) for problem in error.problems])

    def loaded(snapshot: Snapshot) -> None:
        journal.info("policies_loaded", version=snapshot.version_hash)

    policies.apply(last_good)
    folder = PolicyFolder(conf.policies, policies.apply, loaded, failed, backend=conf.backend.settings)
    try:
        folder.load()
    except DocumentError as error:
        failed(error)
    gevent.spawn(folder.run, clock)


def _authenticator(conf: config.Config, clock: SystemClock, journal: Journal) -> AuthHttp | None:
    auth_http = conf.auth_http
    if auth_http is None:
        return None
    return AuthHttp(
        auth_http.urls,
        auth_http.timeout,
        auth_http.headers,
        cache=auth_http.cache,
        ca=None if auth_http.ca is None else str(auth_http.ca),
        clock=clock,
        on_failover=lambda reason: journal.warning("auth_failover", reason=reason),
    )


def _listener(conf: config.ListenerConfig) -> Listener:
    settings = SessionSettings(
        listener=conf.name,
        protocol=conf.protocol,
        timeout=conf.timeout,
        idle_timeout=conf.idle_timeout,
        envelope=conf.envelope,
    )
    return Listener(settings, tuple((pair.cert, pair.key) for pair in conf.certificates))


class Proxy(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's view of us: its settings from our configuration, and a Gate where a WSGI callable would be."""

    def __init__(self, path: Path, started: Started) -> None:
        self._path = path
        self._started = started
        super().__init__(prog="smtpgate")

    def load_config(self) -> None:
        for key, value in gunicorn_settings(self._started.config).items():
            self.cfg.set(key, value)

    def load(self) -> Gate:
        return build_gate(self._started)

    def run(self) -> None:
        ProxyArbiter(self).run()

    def renew(self) -> bool:
        """Read the configuration again; False leaves everything as it is, and the problems are printed."""
        try:
            started = check(self._path)
        except DocumentError as error:
            _complain(error)
            return False
        if _binds(started.config) != _binds(self._started.config):
            click.echo(f"{self._path}: listeners: a changed bind takes effect at the next start only", err=True)
            return False
        self._started = started
        return True


class ProxyArbiter(Arbiter):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's arbiter, but a HUP with a broken configuration restarts no worker and drops no session."""

    def reload(self) -> None:
        if self.app.renew():
            super().reload()


def gunicorn_settings(conf: config.Config) -> dict[str, Any]:
    """gunicorn's settings that follow from ours."""
    return {
        "bind": _binds(conf),
        "workers": conf.workers,
        "worker_class": "smtpgate.drivers.worker.SmtpWorker",
        "worker_connections": MAX_SESSIONS,
        "backlog": BACKLOG,
        "timeout": WORKER_TIMEOUT,
        "graceful_timeout": math.ceil(conf.graceful_timeout) + ARBITER_MARGIN,
        "proc_name": "smtpgate",
        "loglevel": conf.log.level,
        "logconfig_dict": logging_config(conf.log.format, conf.log.level),
        "control_socket_disable": True,
    }


def _binds(conf: config.Config) -> list[str]:
    return [str(bind) for listener in conf.listeners for bind in listener.binds]


def check(path: Path) -> Started:
    """The configuration and the policies that it names, both valid. Raises DocumentError with every problem."""
    conf = config.load(path, os.environ)
    if conf.policies is None:
        return Started(conf, None)
    return Started(conf, PolicyFolder.check(conf.policies, backend=conf.backend.settings))


# For gunicorn's own command: it runs conf/gunicorn.proxy.py anew at each HUP, only a module outlives that.
_in_force: Started | None = None


def settings_from_environment() -> dict[str, Any]:
    """For conf/gunicorn.proxy.py: gunicorn's settings, from the configuration that SMTPGATE_CONF names.

    Exits with EXIT_BAD_CONFIG where it is broken, unless there is an earlier one that was valid: that one stays.
    """
    global _in_force
    try:
        _in_force = check(Path(os.environ.get(CONF_VARIABLE, DEFAULT_CONF)))
    except DocumentError as error:
        _complain(error)
        if _in_force is None:
            sys.exit(EXIT_BAD_CONFIG)
    return gunicorn_settings(_in_force.config)


def gate_from_environment() -> Gate:
    """For conf/gunicorn.proxy.py: the "WSGI application" of a worker, forked with what its master read."""
    assert _in_force is not None, "gunicorn is to be run with -c conf/gunicorn.proxy.py"
    return build_gate(_in_force)


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
    """The SMTP proxy. HUP reloads the configuration, TERM lets sessions finish and ends."""
    try:
        started = check(path)
    except DocumentError as error:
        _complain(error)
        sys.exit(EXIT_BAD_CONFIG)
    if only_check:
        click.echo(f"{path}: valid")
        return
    _advise(started.config)
    if taken := _taken(started.config):
        click.echo(f"{path}: {taken}", err=True)
        sys.exit(EXIT_TAKEN)
    Proxy(path, started).run()


def _taken(conf: config.Config) -> str:
    """The first address that cannot be bound, and why; "" where all can. gunicorn would try for seconds, and then
    say that it cannot connect. Sockets that systemd or a binary upgrade hands over are bound already.
    """
    if "LISTEN_FDS" in os.environ or "GUNICORN_FD" in os.environ:
        return ""
    for listener in conf.listeners:
        for bind in listener.binds:
            if not isinstance(bind, HostPort):
                continue
            family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((bind.host, bind.port))
                except OSError as error:
                    return f"listener {listener.name}: {bind} cannot be bound: {error.strerror}"
    return ""


def _advise(conf: config.Config) -> None:
    """What is valid and still worth a word at start."""
    journal = open_journal(conf.log.format, conf.log.level)
    if conf.workers > 1 and conf.store.startswith("memory:"):
        journal.warning("config", about="store", advice="memory:// is counted by each worker for itself")
    if conf.metrics is not None:
        journal.warning("config", about="metrics", advice="not served by this version")
