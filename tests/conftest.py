"""What every test may use: Hypothesis without clocks, and real peers as fixtures; and which tests may try again.

The fixtures that start Postfix, nginx, HAProxy and Redis are in peers/fixtures.py.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from smtpgate.drivers import privileges

pytest_plugins = ["peers.fixtures"]

# A busy machine must not fail a property: how long an example takes is not what these tests are about.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _our_process_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program under test that is called, and not started, would change our umask for good: Postfix and MariaDB,
    which other tests start, could not read what we write.
    """
    monkeypatch.setattr(privileges, "protect", lambda: None)


STARTERS = {
    "dovecot",
    "exim",
    "haproxy",
    "mariadb",
    "nginx_mail",
    "opensmtpd",
    "postfix",
    "postgres",
    "redis_server",
    "smtp_sink",
    "start_module_stack",
    "start_stack",
    "worlds",
}
"""Fixtures that start programs."""


LONGEST = (
    "authsvc/test_outages.py",
    "faults/test_matrix.py",
    "test_docs.py",
    "e2e/test_live_board.py",
    "e2e/test_gatectl.py",
    "e2e/test_metrics.py",
    "e2e/test_soak.py",
    "authsvc/test_gunicorn.py",
    "e2e/test_smuggling_behind.py",
    "e2e/test_console.py",
    "e2e/test_nginx_ways.py",
    "authsvc/test_login_rate.py",
)
"""Files that take half a minute or more. A file is one process's, so these go first: a run ends with short ones."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that waits for programs may find the machine too busy for them: it runs once more when it fails, and the
    summary tells of it. Nothing else does: what has no program to wait for fails for a reason.
    """
    slow: set[Path] = set()
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if STARTERS.intersection(fixtures) or item.get_closest_marker("peer") or item.get_closest_marker("programs"):
            item.add_marker(pytest.mark.flaky(reruns=1))
            slow.add(item.path)
    if hasattr(config, "workerinput"):  # one of several processes (pytest-xdist)
        order = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path, len(order) + (item.path not in slow)))


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """What runs once more begins with programs of its own: those that the module shares have met the first try, whose
    buckets are empty, sessions open and lines in the log. Whoever comes next starts them anew.
    """
    if item.stash.get(_FAILED, False) and item.get_closest_marker("flaky"):
        item.stash[_FAILED] = False
        item.session._setupstate.teardown_exact(None)  # first: pytest-rerunfailures would keep what is shared
    return (yield)


def pytest_collection_finish() -> None:
    """Thousands of collected tests live to the end: looking at them again at each collection costs a sixth of the
    pure rooms' time, and finds nothing.
    """
    gc.collect()
    gc.freeze()
