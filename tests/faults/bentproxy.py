"""proxy.py with a hand on its clocks: the program of the cells that would else take ten minutes.

SMTPGATE_TEST_WAIT: seconds that a backend has for each of RFC 5321's waits (session/link.py). SMTPGATE_TEST_CLOCK: a
file that holds the seconds by which the wall clock is off; read at every look at it. Nothing else is changed.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - nothing may be imported before the patch
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path[0] = str(Path(__file__).resolve().parents[2])

WAITS = ("COMMAND_TIMEOUT", "DATA_INIT_TIMEOUT", "DATA_BLOCK_TIMEOUT", "DATA_DONE_TIMEOUT")


def bend_clock(file: Path) -> None:
    """Before anything has taken `time.time` for itself."""
    true = time.time
    time.time = lambda: true() + float(file.read_text() or 0)


def shorten_waits(seconds: float) -> None:
    """In every module that has taken one of the names."""
    modules = [module for name, module in sys.modules.items() if name.startswith("smtpgate.session")]
    for wait in WAITS:
        holders = [module for module in modules if hasattr(module, wait)]
        assert holders, f"no module of smtpgate.session has {wait} any more"
        for module in holders:
            setattr(module, wait, seconds)


def run() -> None:
    if file := os.environ.get("SMTPGATE_TEST_CLOCK"):
        bend_clock(Path(file))
    from smtpgate.main import main

    if wait := os.environ.get("SMTPGATE_TEST_WAIT"):
        shorten_waits(float(wait))
    main()


if __name__ == "__main__":
    run()
