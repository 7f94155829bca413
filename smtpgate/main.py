"""The proxy's first process: reads the configuration, starts, reloads and drains the workers.

Owns what is made before the fork, and the command line. gunicorn's arbiter runs it, either from `python proxy.py` or
from `gunicorn -c conf/gunicorn.proxy.py`. What a worker is made of is `assembly`'s.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from gunicorn.app.base import BaseApplication

from smtpgate import __version__, config
from smtpgate.assembly import Started, build_gate
from smtpgate.document import DocumentError, Problem
from smtpgate.drivers.arbiter import ProxyArbiter, let_go
from smtpgate.drivers.journal import logging_config, open_journal
from smtpgate.drivers.listener import Gate
from smtpgate.drivers.listenertls import CertificateFiles, ListenerTls, TlsSettings
from smtpgate.drivers.listening import BACKLOG, Bind
from smtpgate.drivers.nodestate import NodeFile
from smtpgate.drivers.policyfile import PolicyFolder, load_or_last_good
from smtpgate.drivers.sidefiles import FilesOnDisk

DEFAULT_CONF: Final = "conf/proxy.yaml"
CONF_VARIABLE: Final = "SMTPGATE_CONF"
EXIT_BAD_CONFIG: Final = 2
# The arbiter's patience must outlast the worker's own drain and its last words.
ARBITER_MARGIN: Final = 5
WORKER_TIMEOUT: Final = 30  # seconds without a heartbeat before the arbiter replaces a worker
MAX_SESSIONS: Final = 10_000  # a worker; beyond it connections wait in the kernel's backlog


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
