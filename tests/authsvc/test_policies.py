from __future__ import annotations

from pathlib import Path

import pytest

from authsvc.answer.addresses import Addresses
from authsvc.answer.destinations import Destinations, NoDestinationError
from authsvc.policies import Policies, follow, require_routes
from smtpgate.document import DocumentError, Problem
from smtpgate.drivers.lastgood import LastGood
from smtpgate.policy.model import Facts
from smtpgate.policy.select import Policy
from smtpgate.snapshot import Snapshot, build

FACTS = Facts(client="192.0.2.7", user="test")
LIMITS = b"version: 1\n"
ROUTES = b"""
version: 1
routes: [{name: all, match: {}, pool: core}]
pools: {core: {backends: [{name: a, addr: "127.0.0.1:25"}]}}
"""


class Holder:
    def __init__(self) -> None:
        self.policies: list[Policy] = []

    def swap(self, policy: Policy) -> None:
        self.policies.append(policy)


def snapshot(text: bytes) -> Snapshot:
    return build([("policies/p.yaml", text)])


@pytest.fixture
def holder() -> Holder:
    return Holder()


@pytest.fixture
def destinations(clock) -> Destinations:
    return Destinations(Addresses(clock, str), clock)


@pytest.fixture
def policies(holder: Holder, destinations: Destinations, journal) -> Policies:
    return Policies(holder, destinations, "policies", journal, look_up=lambda: journal.info("look_up"))


def test_a_snapshot_reaches_limits_and_routes(
    policies: Policies, holder: Holder, destinations: Destinations, journal
) -> None:
    taken = snapshot(ROUTES)
    assert not policies.valid
    policies.apply(taken)
    policies.loaded(taken)
    assert policies.valid
    assert holder.policies == [taken.policy]
    assert destinations.find(FACTS).server == ("127.0.0.1", 25)
    assert journal.lines == [("info", "policies_loaded", {"version": taken.version_hash}), ("info", "look_up", {})]


def test_an_edit_that_takes_the_routes_away_changes_nothing(
    policies: Policies, holder: Holder, destinations: Destinations, journal
) -> None:
    before, after = snapshot(ROUTES), snapshot(LIMITS)
    for taken in (before, after):
        policies.apply(taken)
        policies.loaded(taken)
    assert holder.policies == [before.policy]
    assert destinations.find(FACTS).pool == "core"
    assert not policies.valid
    expected = (
        "policies:1:1: routes: the auth service has no backend to name without routes; "
        "expected routes and pools in one of its files"
    )
    assert journal.lines[2:] == [("error", "policies_rejected", {"problems": [expected]})]


def test_who_wants_to_know_is_told_of_what_is_in_force_now_and_later(policies: Policies) -> None:
    first, broken, second = snapshot(ROUTES), snapshot(LIMITS), snapshot(ROUTES + b"# edited\n")
    told: list[str] = []
    policies.apply(first)
    policies.tell(told.append)
    for taken in (first, broken, second):
        policies.apply(taken)
        policies.loaded(taken)
    assert told == [first.version_hash, first.version_hash, second.version_hash]
    assert policies.current is second


def test_a_broken_edit_is_reported(policies: Policies, destinations: Destinations, journal) -> None:
    problems = [Problem("policies/p.yaml", line, 1, (), "wrong") for line in (1, 2)]
    policies.failed(DocumentError(problems))
    assert journal.lines == [
        ("error", "policies_rejected", {"problems": ["policies/p.yaml:1:1: wrong", "policies/p.yaml:2:1: wrong"]})
    ]
    with pytest.raises(NoDestinationError):
        destinations.find(FACTS)


def test_the_projects_own_policies_have_routes() -> None:
    folder = Path(__file__).parents[2] / "policies"
    files = [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.yaml"))]
    snapshot = build(files, {})
    require_routes(snapshot, "policies")
    assert [route.name for route in snapshot.routes] == ["default"]


# --- what a worker begins with --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_bytes(ROUTES)
    return tmp_path / "policies"


NAMED = ROUTES.replace(b"name: all", b"name: named")


def route_of(destinations: Destinations) -> str | None:
    return destinations.find(FACTS).route


def test_a_worker_begins_with_the_folder_and_keeps_it(
    policies: Policies, destinations: Destinations, folder: Path, clock
) -> None:
    state_dir = folder.parent / "state"
    follow(folder, state_dir, policies, snapshot(NAMED), clock)
    assert (route_of(destinations), policies.valid) == ("all", True)
    assert LastGood(state_dir, folder).load() is not None


def test_while_the_folder_is_broken_a_worker_begins_with_what_was_kept_last(
    policies: Policies, destinations: Destinations, folder: Path, clock, journal
) -> None:
    """A worker that takes another's place: gunicorn's first process may know but older policies."""
    state_dir = folder.parent / "state"
    (folder / "p.yaml").write_bytes(NAMED)
    follow(folder, state_dir, policies, snapshot(ROUTES), clock)
    (folder / "p.yaml").write_text("version: 2\n")
    follow(folder, state_dir, policies, snapshot(ROUTES), clock)
    assert (route_of(destinations), policies.valid) == ("named", False)
    assert [event for _, event, _ in journal.lines] == ["policies_loaded", "look_up", "policies_rejected"]


def test_where_nothing_was_kept_a_worker_begins_with_what_it_was_forked_with(
    policies: Policies, destinations: Destinations, folder: Path, clock
) -> None:
    (folder / "p.yaml").write_text("version: 2\n")
    follow(folder, None, policies, snapshot(NAMED), clock)
    assert (route_of(destinations), policies.valid) == ("named", False)


def test_policies_that_cannot_be_kept_are_told_of(policies: Policies, folder: Path, clock, journal) -> None:
    (folder.parent / "state").write_text("a file")
    follow(folder, folder.parent / "state", policies, snapshot(NAMED), clock)
    level, event, fields = journal.lines[-1]
    assert (level, event) == ("warning", "policies_not_kept")
    assert str(fields["reason"]).endswith("policies.last-good.json: cannot be written: File exists")
