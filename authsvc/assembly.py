"""Composition root of a worker: builds every object of the service, once.

Owns which object gets which; decides nothing else. build() is called in each worker, after the fork and after
gevent's patching, so threads that it starts are greenlets and connections belong to one process.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gevent import Timeout
from werkzeug.exceptions import ServiceUnavailable

from authsvc.answer.addresses import Addresses, LookupFailedError
from authsvc.answer.destinations import Destinations
from authsvc.answer.holds import Holds
from authsvc.answer.knownnets import KnownNets
from authsvc.answer.service import Slots
from authsvc.answer.throttle import Throttle
from authsvc.app import create_app
from authsvc.config import Config
from authsvc.console.opening import open_console
from authsvc.door import Doors
from authsvc.metrics import AuthMetrics
from authsvc.policies import Policies, follow
from authsvc.probing import open_probes
from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.jwks import Jwks, open_jwks
from authsvc.proof.passwords import Passwords
from authsvc.proof.proofs import Proofs
from authsvc.proof.remembered import KEY_OCTETS, Remembered
from authsvc.proof.tokens import Tokens
from authsvc.proof.upgrade import MAX_PENDING, Upgrader
from authsvc.startup import Started
from authsvc.users.model import UpgradableStore
from authsvc.users.stores import open_stores
from smtpgate.clock import Clock, SystemClock
from smtpgate.drivers import metricsgather
from smtpgate.drivers.decisionlog import DecisionLog
from smtpgate.drivers.journal import open_journal
from smtpgate.drivers.metricsserver import open_metrics
from smtpgate.drivers.metricsvalues import Families
from smtpgate.drivers.probes import Probes
from smtpgate.drivers.store import open_store
from smtpgate.journal import Journal
from smtpgate.policy.engine import Engine

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

# Seconds for one look-up; our proxy waits 10 s for an answer, nginx by default 60 s.
LOOKUP_TIMEOUT: Final = 2.0


def look_up(host: str) -> str:
    """One address of a host name, as the system resolves it. Raises LookupFailedError."""
    try:
        with Timeout(LOOKUP_TIMEOUT, LookupFailedError(f"{host}: no answer in {LOOKUP_TIMEOUT:g} s")):
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LookupFailedError(f"{host}: {error}") from error
    return str(found[0][4][0])


def open_proofs(
    config: Config, users: UpgradableStore, slots: Slots, jwks: Jwks | None, clock: Clock, journal: Journal
) -> Proofs:
    """What proves a login, as configured. jwks: the keys of `oauth`, None where that is not configured."""
    methods = config.methods
    passwords = Passwords(methods.argon2id, plain=methods.plain_passwords)
    tokens = None
    if methods.oauth is not None and jwks is not None:
        tokens = Tokens(methods.oauth, jwks, clock)
    return Proofs(
        methods,
        passwords,
        Remembered(clock, methods.remember, secrets.token_bytes(KEY_OCTETS)),
        slots.slow,
        tokens,
        Upgrader(users, passwords, Bulkhead(at_once=1, waiting=MAX_PENDING), journal),
    )


def _spawn(work: Callable[..., None], *args: object) -> None:
    """Run it beside the requests: a greenlet under gunicorn, a thread elsewhere."""
    threading.Thread(target=work, args=args, daemon=True).start()


def _look_at_backends(destinations: Destinations, probes: Probes | None) -> None:
    """New policies name other mail servers, perhaps. Returns at once."""
    _spawn(destinations.look_up)
    if probes is not None:
        probes.watch(destinations.pools)


def build(started: Started) -> WSGIApplication:
    """The service, and the console where that is on. Policies and users are polled; what `started` has of them is in
    force while they are broken.
    """
    config, clock = started.config, SystemClock()
    journal = open_journal(config.log_format, config.log_level, gathered=True).bind(pid=os.getpid())
    if config.is_open:
        reason = "whoever can connect may try passwords; expected secret, tls with client_ca, or a loopback address"
        journal.warning("open_to_all", bind=str(config.bind), reason=reason)
    families = None if started.metrics is None else Families()
    store = open_store(config.store, clock=clock, journal=journal, families=families)
    engine = Engine(
        store,
        clock,
        secrets.SystemRandom().random,
        host=config.server_name or socket.gethostname(),
        on_mode=lambda mode: journal.warning("store_mode", mode=mode.value),
        token=secrets.token_hex,
    )
    throttle = Throttle(
        DecisionLog(engine, journal, clock) if config.log_decisions else engine,
        config.failed_login_wait,
        key=started.throttle_key,
        nets=KnownNets(store, clock),
        holds=Holds(clock),
        clock=clock,
    )
    destinations = Destinations(Addresses(clock, look_up), clock)
    name = config.server_name or socket.gethostname()
    probes = open_probes(destinations, name, clock, journal) if config.probe else None
    policies = Policies(
        engine, destinations, str(config.policies), journal, look_up=lambda: _look_at_backends(destinations, probes)
    )
    folder = follow(config.policies, config.state_dir, policies, started.snapshot, clock)
    stores = open_stores(config, started.users, clock, journal)
    for poll in (folder.run, *stores.watchers):
        _spawn(poll, clock)
    checks = {"policies": lambda: policies.valid, "users": stores.ready}
    oauth = config.methods.oauth
    jwks = None if oauth is None else open_jwks(oauth.keys, clock, journal)
    if jwks is not None:
        # Not waited for: the first token would ask too, but a wrong URL should be told of at once.
        _spawn(jwks.load)
        checks["oauth_keys"] = lambda: jwks.valid
    slots = Slots(slow=Bulkhead(), quick=Bulkhead())
    service = create_app(
        config,
        users=stores.users,
        throttle=throttle,
        destinations=destinations,
        proofs=open_proofs(config, stores.users, slots, jwks, clock, journal),
        slots=slots,
        clock=clock,
        journal=journal,
        checks=checks,
        metrics=None if families is None else AuthMetrics(families),
    )
    app: WSGIApplication = service
    if config.console is not None and started.sittings is not None:
        console = open_console(config, config.console, started.sittings, policies, folder, store, journal, _spawn)
        app = Doors(app, console, config.console.bind.port)
    if config.metrics is not None:
        metrics = None
        if started.metrics is not None and families is not None:
            gathers = [
                metricsgather.limits(families, engine),
                metricsgather.policies(families, lambda: folder.status),
            ]
            metrics = open_metrics(started.metrics, families, gathers, journal, clock, _spawn)
        # The port is the metrics' also where this worker has none: it is never the service's.
        app = Doors(app, ServiceUnavailable() if metrics is None else metrics.application, config.metrics.bind.port)
    return app
