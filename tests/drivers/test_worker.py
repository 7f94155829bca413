"""What a worker does with its memory before it serves; the rest of its life is tests/e2e/test_processes.py's."""

import gc

import pytest

from smtpgate.drivers import worker


@pytest.fixture
def collector():
    """The garbage collector, as it was afterwards."""
    before = gc.get_threshold()
    yield gc
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_was_loaded_is_not_looked_at_again(collector):
    before = collector.get_threshold()
    loaded = [[] for _ in range(1000)]
    worker.settle_memory()
    assert collector.get_freeze_count() >= len(loaded)
    assert len(collector.get_objects()) < len(loaded)
    assert collector.get_threshold() == (worker.GC_THRESHOLD, *before[1:])
