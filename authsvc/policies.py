"""The current policies of the auth service: limits for the throttle, routes and pools for the way.

Owns the swap, in one step without IO, what a worker begins with, and what the auth service asks of a folder beyond
its own rules: that it has routes, since an answer needs somewhere to go.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from authsvc.answer.destinations import Destinations
from smtpgate.clock import Clock
from smtpgate.document import DocumentError, Problem
from smtpgate.drivers.lastgood import LastGood
from smtpgate.drivers.policyfile import PolicyFolder, load_or_last_good
from smtpgate.journal import Journal
from smtpgate.policy.select import Policy
from smtpgate.snapshot import Snapshot


class PolicyHolder(Protocol):
    """smtpgate.policy.engine.Engine, as far as it is used here."""

    def swap(self, policy: Policy) -> None: ...


def require_routes(snapshot: Snapshot, folder: str) -> None:
    """Raises DocumentError where the policies lead nowhere. folder: its name, for the message."""
    if not snapshot.routes:
        message = "the auth service has no backend to name without routes"
        raise DocumentError([Problem(folder, 1, 1, ("routes",), message, "routes and pools in one of its files")])


class Policies:
    """What a PolicyFolder is made with: `apply`, `loaded` and `failed`.

    look_up: begins to look up the names of a new snapshot's backends, and returns at once: a silent name server must
    keep neither a start nor the next edit waiting.
    """

    def __init__(
        self,
        engine: PolicyHolder,
        destinations: Destinations,
        folder: str,
        journal: Journal,
        look_up: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._destinations = destinations
        self._folder = folder
        self._journal = journal
        self._look_up = look_up
        self._valid = False
        self._current: Snapshot | None = None
        self._listeners: list[Callable[[str], None]] = []

    @property
    def current(self) -> Snapshot:
        """What is in force. There is something from the first `apply` on."""
        assert self._current is not None, "follow() has applied one"
        return self._current

    @property
    def valid(self) -> bool:
        """Whether the folder, as it was when last looked at, is in force."""
        return self._valid

    def tell(self, listener: Callable[[str], None]) -> None:
        """Call it with the version of each snapshot that is in force from then on, and of the present one now."""
        self._listeners.append(listener)
        listener(self.current.version_hash)

    def apply(self, snapshot: Snapshot) -> None:
        """Take over all of a snapshot, or nothing of one without routes."""
        if snapshot.routes:
            self._current = snapshot
            self._engine.swap(snapshot.policy)
            self._destinations.replace(snapshot.routes, snapshot.pools)

    def loaded(self, snapshot: Snapshot) -> None:
        """Told after `apply`."""
        try:
            require_routes(snapshot, self._folder)
        except DocumentError as error:
            self.failed(error)
            return
        self._valid = True
        self._journal.info("policies_loaded", version=snapshot.version_hash)
        self._look_up()
        for listener in self._listeners:
            listener(snapshot.version_hash)

    def failed(self, error: DocumentError) -> None:
        self._valid = False
        self._journal.error("policies_rejected", problems=[str(problem) for problem in error.problems])

    def not_kept(self, reason: str) -> None:
        self._journal.warning("policies_not_kept", reason=reason)


def follow(path: Path, state_dir: Path | None, policies: Policies, current: Snapshot, clock: Clock) -> PolicyFolder:
    """The folder, read and applied for the first time; it is the caller's to run.

    current: what to begin with while the folder is broken. state_dir knows newer ones, in a worker that takes the
    place of another after edits.
    """

    def begin(current: Snapshot) -> tuple[PolicyFolder, DocumentError | None]:
        policies.apply(current)
        keep = None if state_dir is None else LastGood(state_dir, path)
        folder = PolicyFolder(
            path,
            policies.apply,
            policies.loaded,
            policies.failed,
            current=current,
            keep=keep,
            not_kept=policies.not_kept,
            clock=clock,
        )
        try:
            folder.load()
        except DocumentError as error:
            return folder, error
        return folder, None

    folder, broken = begin(current)
    if broken is not None:
        policies.failed(broken)
        try:
            folder, _ = begin(load_or_last_good(path, state_dir)[0])
        except DocumentError:
            pass  # told already, and there is no newer one
    return folder
