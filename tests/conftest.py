"""What every test may use: Hypothesis without clocks, and real peers as fixtures.

The fixtures that start Postfix, nginx, HAProxy and Redis are in peers/fixtures.py.
"""

from __future__ import annotations

import gc

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


def pytest_collection_finish() -> None:
    """Thousands of collected tests live to the end: looking at them again at each collection costs a sixth of the
    pure rooms' time, and finds nothing.
    """
    gc.collect()
    gc.freeze()
