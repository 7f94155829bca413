"""Waits for tests that share one gevent loop with what they test."""

from __future__ import annotations

import gevent


def turns(seconds: float = 0.02) -> None:
    """Everybody else in the loop runs for so long, and has several turns at least. Where a busy machine oversleeps,
    the loop tells of a sleep's end before it looks at what else has happened meanwhile.
    """
    for _ in range(4):
        gevent.sleep(seconds / 4)
