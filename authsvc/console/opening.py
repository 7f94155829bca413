"""What the console is made of in a worker: the board, the store's balances, the samples, the login.

Part of the composition root (wsgi), as far as it is the console's alone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from flask import Flask

from authsvc.config import Config
from authsvc.console.app import create_console
from authsvc.console.edits import Edits
from authsvc.console.entry import Desk
from authsvc.console.settings import Console
from authsvc.console.sittings import Sittings, SittingsFile
from authsvc.console.sources import Sources, watch
from authsvc.console.traffic import INTERVAL, Traffic
from authsvc.console.tries import Tries
from authsvc.policies import Policies
from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.passwords import Passwords
from smtpgate.clock import SystemClock
from smtpgate.drivers.liveboard import LiveBoard, NoBoard, open_board
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.drivers.quotas import NotShared, Quotas
from smtpgate.journal import Journal
from smtpgate.policy.store import BucketStore

# Passwords of operators that are hashed at a time, and that wait for it: an operator is one, a guesser waits.
HASHED_AT_ONCE: Final = 1
WAITING: Final = 4


def open_console(
    config: Config,
    console: Console,
    file: SittingsFile,
    policies: Policies,
    folder: PolicyFolder,
    store: BucketStore,
    journal: Journal,
    spawn: Callable[..., None],
) -> Flask:
    """The console of this worker, sampling the traffic. store: the service's own, for logins and balances. spawn:
    runs a function beside the requests.
    """
    clock = SystemClock()
    # Two: a comparison of two folders takes seconds where they are large, and nobody's login is to wait for it.
    hashing, comparing = (Bulkhead(at_once=HASHED_AT_ONCE, waiting=WAITING) for _ in range(2))
    edits = Edits(config.policies, config.state_dir, lambda: folder.status, clock, in_turn(comparing))
    policies.tell(edits.note)
    board, no_board = _board(config, clock)
    quotas = _quotas(config)
    sources = Sources(
        board=board,
        no_board=no_board,
        quotas=quotas,
        store=None if quotas is None else store,
        snapshot=lambda: policies.current,
        status=lambda: folder.status,
        edits=edits,
        traffic=Traffic(),
        host=config.server_name or socket.gethostname(),
        clock=clock,
        journal=journal,
    )
    spawn(watch, sources, INTERVAL)
    desk = Desk(
        console,
        Sittings(file, console.operators, clock, lifetime=console.lifetime, idle=console.idle),
        Tries(store, clock),
        Passwords(config.methods.argon2id),
        hashing,
        journal,
    )
    journal.info("console", bind=str(console.bind), operators=len(console.operators))
    return create_console(desk, sources, key=file.key, secure=config.tls is not None)


def in_turn(bulkhead: Bulkhead) -> Callable[[Callable[[], object]], object]:
    """Runs work in the bulkhead's threads, within its bounds. Raises OverloadError, beside what the work raises."""

    def run(work: Callable[[], object]) -> object:
        with bulkhead.attempt(""):  # operators are no strangers to each other: one queue
            return bulkhead.run(work)

    return run


def _board(config: Config, clock: SystemClock) -> tuple[LiveBoard | None, str]:
    try:
        return open_board(config.store, config.state_dir, clock), ""
    except NoBoard as error:
        return None, f"No proxy can be seen from here: {error}."


def _quotas(config: Config) -> Quotas | None:
    try:
        return Quotas(config.store)
    except NotShared:
        return None
