"""The proxy's first process: reads the configuration, starts, reloads and drains the workers.

Owns what is made before the fork, and the command line. gunicorn's arbiter runs it, either from `python proxy.py` or
from `gunicorn -c conf/gunicorn.proxy.py`. What a worker is made of is `assembly`'s.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import traceback
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final

import click
from gunicorn.app.base import BaseApplication

from smtpgate import __version__, config
from smtpgate.assembly import Started, build_gate
from smtpgate.document import DocumentError, Problem
from smtpgate.drivers import privileges
from smtpgate.drivers.arbiter import ProxyArbiter, let_go
from smtpgate.drivers.journal import open_journal
from smtpgate.drivers.listener import Gate
from smtpgate.drivers.listenertls import CertificateFiles, ListenerTls, TlsSettings
from smtpgate.drivers.listening import BACKLOG, Bind
from smtpgate.drivers.loghandler import logging_config
from smtpgate.drivers.metricsfolder import MetricsFolder, hand_over
from smtpgate.drivers.nodestate import NodeFile
from smtpgate.drivers.policyfile import PolicyFolder, load_or_last_good
from smtpgate.drivers.sidefiles import FilesOnDisk
from smtpgate.journal import FileTarget
from smtpgate.session import flow

# What every message runs through is extension modules where mypyc made some (setup.py).
BUILD: Final = "compiled" if flow.__file__.endswith(tuple(EXTENSION_SUFFIXES)) else "plain Python"
DEFAULT_CONF: Final = "conf/proxy.yaml"
CONF_VARIABLE: Final = "SMTPGATE_CONF"
EXIT_BAD_CONFIG: Final = 2
# The arbiter's patience must outlast the worker's own drain and its last words.
ARBITER_MARGIN: Final = 5
WORKER_TIMEOUT: Final = 30  # seconds without a heartbeat before the arbiter replaces a worker


def tls_of(path: Path, conf: config.Config, before: Started | None) -> Mapping[str, ListenerTls]:
    """The TLS of the listeners that have any. before: what was in force; a listener whose settings are still the same
    keeps its own, and so its tickets stay good. Its files, if they have changed, are read and not yet used: that is
    for `InForce.settle`. Raises DocumentError for files that have just changed.
    """
    made: dict[str, ListenerTls] = {}
    for index, one in enumerate(conf.listeners):
        if one.protocol.tls == "off":
            continue
        settings = _tls_settings(one)
        known = None if before is None else before.tls.get(one.name)
        try:
            if known is None or known.settings != settings:
                made[one.name] = ListenerTls(settings)
            else:
                # Its files may have changed, and workers may not be allowed to read them.
                known.prepare()
                made[one.name] = known
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
        # For the workers, which take it all with them.
        self.node = share(started.config)
        self.metrics = metrics_folder(started.config)

    def binds(self) -> list[Bind]:
        conf = self.started.config
        binds = [Bind(one.name, address) for one in conf.listeners for address in one.binds]
        # The last one, where a worker looks for it.
        return binds if conf.metrics is None or self.metrics is None else [*binds, Bind("metrics", conf.metrics.bind)]

    def renew(self) -> bool:
        """Read the configuration again; False leaves everything as it is, and the problems are printed."""
        try:
            renewed = check(self._path, self.started)
            self._same_account(renewed.config)
            _give(renewed.config)
            self.metrics = self.metrics or metrics_folder(renewed.config)
        except DocumentError as error:
            _complain(error)
            return False
        except Exception as error:  # noqa: BLE001 - out of the arbiter's loop it would end the service
            traceback.print_exc()
            self.refuse(f"{type(error).__name__}: {error}; nothing has changed")
            return False
        self.started = renewed
        return True

    def settle(self) -> None:
        """What was read is what the next workers begin with: nothing is left that could refuse it."""
        for name, tls in self.started.tls.items():
            try:
                tls.take_up()
            except (OSError, ValueError) as error:
                self.refuse(f"listener {name}: its certificate has changed again: {error}; that of before stays")

    def _same_account(self, conf: config.Config) -> None:
        """Raises DocumentError where the workers are to be somebody else: what the old ones have made and the new
        ones go on with (metrics, state_dir, the log) would be closed to them. Nor does root give away files that lie
        in a folder of somebody else's: it may be led elsewhere by a link.
        """
        old, new = self.started.config.account, conf.account
        if (old and (old.uid, old.gid)) != (new and (new.uid, new.gid)):
            was = "nobody in particular" if old is None else f"{old.name} ({old.uid}:{old.gid})"
            message = f"cannot change while the proxy runs, it was {was}"
            raise DocumentError(
                [Problem(str(self._path), 1, 1, ("user",), message, "the user of before, or a restart")]
            )

    def gate(self) -> Gate:
        """In a worker: all that it is made of."""
        metrics = None if self.started.config.metrics is None else self.metrics
        return build_gate(self.started, self.node, metrics)

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
        return self.gate()

    def run(self) -> None:
        ProxyArbiter(self, self).run()


def gunicorn_settings(conf: config.Config) -> dict[str, Any]:
    """gunicorn's settings that follow from ours."""
    return {
        "bind": [str(bind) for listener in conf.listeners for bind in listener.binds],
        "workers": conf.workers,
        "worker_class": "smtpgate.drivers.worker.SmtpWorker",
        "backlog": BACKLOG,
        # For the file of a worker's heartbeat, which has to be the worker's; `privileges` does the rest.
        "user": conf.account.uid if conf.account else os.geteuid(),
        "group": conf.account.gid if conf.account else os.getegid(),
        "post_fork": let_go,
        "pre_exec": hand_over,
        "timeout": WORKER_TIMEOUT,
        "graceful_timeout": math.ceil(conf.graceful_timeout) + ARBITER_MARGIN,
        "proc_name": "smtpgate",
        "loglevel": conf.log.level,
        "logconfig_dict": logging_config(conf.log.format, conf.log.level, conf.log.to),
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
        open_journal(conf.log.format, conf.log.level, to=conf.log.to).warning("health_unshared", reason=reason)
        return None


def metrics_folder(conf: config.Config) -> MetricsFolder | None:
    """Where the workers' metrics are put together, made in the process that forks them and removed at its end; None
    where nobody asks for them, or where it cannot be made: mail is served without.
    """
    if conf.metrics is None:
        return None
    try:
        folder = MetricsFolder("proxy", os.environ)
        if conf.account is not None:
            privileges.hand_over(folder.path, conf.account.uid, conf.account.gid)
    except OSError as error:
        reason = f"{error}; the metrics tell nothing"
        open_journal(conf.log.format, conf.log.level, to=conf.log.to).warning("metrics_unshared", reason=reason)
        return None
    atexit.register(folder.close)
    return folder


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
        _prepare(_in_force.started)
    return gunicorn_settings(_in_force.started.config)


def arbiter(app: BaseApplication) -> ProxyArbiter:
    """For conf/gunicorn.proxy.py: what gunicorn's command is to run in the place of its own arbiter."""
    assert _in_force is not None, "settings_from_environment() comes first"
    return ProxyArbiter(app, _in_force)


def gate_from_environment() -> Gate:
    """For conf/gunicorn.proxy.py: the "WSGI application" of a worker, forked with what its master read."""
    assert _in_force is not None, "gunicorn is to be run with -c conf/gunicorn.proxy.py"
    return _in_force.gate()


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
@click.version_option(__version__, message=f"smtpgate %(version)s, {BUILD}")
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
    _prepare(started)
    Proxy(path, started).run()


def _give(conf: config.Config) -> None:
    """What workers write to, and may not make themselves, is theirs; the log before anybody of us opens it, since a
    file that root makes is closed to them. Where the log cannot be given, who opens it tells why.
    """
    if conf.account is None:
        return
    uid, gid = conf.account.uid, conf.account.gid
    if isinstance(conf.log.to, FileTarget):
        with contextlib.suppress(OSError):
            privileges.give_log(conf.log.to.path, uid, gid)
    if conf.state_dir is not None:
        try:
            privileges.give_folder(conf.state_dir, uid, gid)
        except OSError as error:
            advice = f"{error}; the last good policies are not kept"
            journal = open_journal(conf.log.format, conf.log.level, to=conf.log.to)
            journal.warning("config", about="state_dir", advice=advice)


def _prepare(started: Started) -> None:
    """For the first process, before it binds. What is valid and still worth a word is told."""
    privileges.protect()
    conf = started.config
    _give(conf)
    journal = open_journal(conf.log.format, conf.log.level, to=conf.log.to)
    if (advice := privileges.advice(None if conf.account is None else conf.account.uid)) is not None:
        journal.warning("config", about="user", advice=advice)
    if started.broken is not None:
        journal.warning(
            "config", about="policies", advice="the folder is broken: the last good policies are in force"
        )
        _complain(started.broken)
    if conf.workers > 1 and conf.store.startswith("memory:"):
        journal.warning("config", about="store", advice="memory:// is counted by each worker for itself")
