"""What the auth service starts from: its configuration, the policies and the users, read and checked as one.

Owns the state in force of gunicorn's first process. It is read there before any worker exists, so that every
problem is told at once and the exit status is 2; for broken policies alone the last good ones of `state_dir` do. On
HUP it is read again; if it is broken then, the state of before stays, and new workers, forked with it, start from
that.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from authsvc import config
from authsvc.console.sittings import SittingsFile
from authsvc.metrics import make_folder
from authsvc.policies import require_routes
from authsvc.users.forms import form_of
from authsvc.users.model import User
from authsvc.users.sources import PasswdFile, YamlFile
from smtpgate.document import DocumentError, Problem, read_file
from smtpgate.drivers import privileges
from smtpgate.drivers.metricsfolder import MetricsFolder
from smtpgate.drivers.policyfile import PolicyFolder, load_or_last_good
from smtpgate.snapshot import Snapshot

EXIT_BAD_CONFIG: Final = 2
CONF_VARIABLE: Final = "SMTPGATE_AUTHSVC_CONF"
DEFAULT_CONF: Final = "conf/authsvc.yaml"

# For who has no `throttle_key`: the same in all workers, which are forked with it, and over HUP. What another node,
# or the next start, calls a new wrong password has then been counted once more, which is all that there is to lose.
_OWN_KEY: Final = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Started:
    """A valid state of all that is configured. users: those of each file; other stores are the workers' to ask.
    throttle_key: the configured one, or ours. sittings: who is logged in at the console, None where there is none.
    metrics: where the workers' are put together, None where nobody asks for them.
    """

    config: config.Config
    snapshot: Snapshot
    users: Mapping[Path, Mapping[str, User]]
    throttle_key: bytes = field(default=_OWN_KEY, repr=False)
    sittings: SittingsFile | None = field(default=None, repr=False)
    metrics: MetricsFolder | None = field(default=None, repr=False)


# One for all workers, over HUP too: a reload logs nobody out.
_sittings: SittingsFile | None = None

_metrics: MetricsFolder | None = None

# gunicorn runs its configuration file anew at each HUP: only a module outlives that.
_in_force: Started | None = None


def read(path: Path, environ: Mapping[str, str], *, first: bool = False) -> Started:
    """Raises DocumentError with every problem: of the configuration, else of all that it names.

    first: at a start the last good policies do in place of broken ones, whose problems go to standard error.
    """
    conf = config.load(path, environ)
    problems: list[Problem] = []
    try:
        if first:
            snapshot, broken = load_or_last_good(conf.policies, conf.state_dir, environ=environ)
            if broken is not None:
                print(f"{broken}\nauthsvc: starts with the last good policies", file=sys.stderr, flush=True)
        else:
            snapshot = PolicyFolder.check(conf.policies, environ=environ)
        require_routes(snapshot, str(conf.policies))
    except DocumentError as error:
        problems += error.problems
    users: dict[Path, Mapping[str, User]] = {}
    for source in conf.users:
        if isinstance(source, YamlFile | PasswdFile):
            form = form_of(source, plain=conf.methods.plain_passwords)
            try:
                users[source.path] = form.parse(read_file(source.path, form.limit), str(source))
            except DocumentError as error:
                problems += error.problems
    if problems:
        raise DocumentError(problems)
    sittings = None if conf.console is None else _sittings_file()
    return Started(conf, snapshot, users, conf.throttle_key or _OWN_KEY, sittings)


def _sittings_file() -> SittingsFile:
    global _sittings
    _sittings = _sittings or SittingsFile()
    return _sittings


def _with_metrics(started: Started) -> Started:
    """A folder for them, once; where it cannot be made the service goes on without."""
    global _metrics
    if started.config.metrics is not None and _metrics is None:
        try:
            _metrics = make_folder()
            if (account := started.config.account) is not None:
                privileges.hand_over(_metrics.path, account.uid, account.gid)
        except OSError as error:
            print(f"authsvc: {error}; the metrics tell nothing", file=sys.stderr, flush=True)
    return replace(started, metrics=None if started.config.metrics is None else _metrics)


def start() -> Started:
    """Read everything now; the file is named by the environment. For gunicorn's configuration file.

    What is wrong goes to standard error, a line for each problem. Then exits with status 2, unless there is an
    earlier state that was valid: that one is returned.
    """
    global _in_force
    try:
        path = Path(os.environ.get(CONF_VARIABLE, DEFAULT_CONF))
        _in_force = _with_metrics(read(path, os.environ, first=_in_force is None))
    except DocumentError as error:
        print(error, file=sys.stderr, flush=True)
        if _in_force is None:
            sys.exit(EXIT_BAD_CONFIG)
        print("authsvc: the configuration stays as it was", file=sys.stderr, flush=True)
    return _in_force


def in_force() -> Started:
    """The state that this process was forked with, or, without gunicorn, the one that is read now."""
    return start() if _in_force is None else _in_force
