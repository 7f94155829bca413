"""Composition root of a worker: builds every object of the service, once, and exposes the application as `app`.

Imported by gunicorn in each worker after the fork and after gevent's patching, so threads started here are
greenlets and connections belong to one process.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Final

from flask import Flask
from gevent import Timeout

from authsvc import startup
from authsvc.addresses import Addresses, LookupFailedError
from authsvc.app import create_app
from authsvc.bulkhead import Bulkhead
from authsvc.destinations import Destinations
from authsvc.passwords import Passwords
from authsvc.policies import Policies
from authsvc.startup import Started
from authsvc.userfile import UserFile
from smtpgate.clock import SystemClock
from smtpgate.document import DocumentError
from smtpgate.drivers.journal import open_journal
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.drivers.store import open_store
from smtpgate.policy.engine import Engine

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


def _spawn(work: Callable[..., None], *args: object) -> None:
    """Run it beside the requests: a greenlet under gunicorn, a thread elsewhere."""
    threading.Thread(target=work, args=args, daemon=True).start()


def build(started: Started) -> Flask:
    """The service, polling its policies and users, with the state of `started` where they are broken now."""
    config, clock = started.config, SystemClock()
    journal = open_journal(config.log_format, config.log_level).bind(pid=os.getpid())

    def users_failed(error: DocumentError) -> None:
        journal.error("users_rejected", problems=[str(problem) for problem in error.problems])

    engine = Engine(
        open_store(config.store, clock=clock, journal=journal),
        clock,
        secrets.SystemRandom().random,
        host=config.server_name or socket.gethostname(),
        on_mode=lambda mode: journal.warning("store_mode", mode=mode.value),
    )
    destinations = Destinations(Addresses(clock, look_up))
    policies = Policies(
        engine, destinations, str(config.policies), journal, look_up=lambda: _spawn(destinations.look_up)
    )
    folder = PolicyFolder(config.policies, policies.apply, policies.loaded, policies.failed)
    users = UserFile(
        config.users,
        loaded=lambda count: journal.info("users_loaded", users=count),
        failed=users_failed,
        users=started.users,
    )
    policies.apply(started.snapshot)
    for load, failed in ((folder.load, policies.failed), (users.load, users_failed)):
        try:
            load()
        except DocumentError as error:
            failed(error)
    for poll in (folder.run, users.run):
        _spawn(poll, clock)
    return create_app(
        config,
        users=users,
        engine=engine,
        destinations=destinations,
        passwords=Passwords(),
        bulkhead=Bulkhead(),
        clock=clock,
        journal=journal,
        checks={"policies": lambda: policies.valid, "users": lambda: users.valid},
    )


app = build(startup.in_force())
