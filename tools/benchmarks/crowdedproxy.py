"""proxy.py for thousands of sessions in a container that allows too few descriptors.

smtpgate keeps four for a session (drivers.descriptors.PER_SESSION) and takes in no more than it has descriptors for:
5,000 sessions where there may be 20,000. The idle sessions of a benchmark have one each, so here one is kept; nothing
else is changed.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - nothing may be imported before the patch
from pathlib import Path  # noqa: E402 - as above

sys.path[0] = str(Path(__file__).resolve().parents[2])

import compiled  # noqa: E402 - as above


def run() -> None:
    compiled.use_if_wanted()
    from smtpgate.drivers import descriptors
    from smtpgate.main import main

    descriptors.PER_SESSION = 1  # type: ignore[misc] # Final, for all but this
    main()


if __name__ == "__main__":
    run()
