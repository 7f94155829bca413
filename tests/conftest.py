"""What every test may use: Hypothesis without clocks, and real peers as fixtures.

The fixtures that start Postfix, nginx, HAProxy and Redis are in peers/fixtures.py.
"""

from __future__ import annotations

import gc

from hypothesis import settings

pytest_plugins = ["peers.fixtures"]

# A busy machine must not fail a property: how long an example takes is not what these tests are about.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


def pytest_collection_finish() -> None:
    """Thousands of collected tests live to the end: looking at them again at each collection costs a sixth of the
    pure rooms' time, and finds nothing.
    """
    gc.collect()
    gc.freeze()
