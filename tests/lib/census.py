"""proxy.py whose workers write down what they hold: greenlets, descriptors, memory. And the reader of that.

Greenlets cannot be counted from outside a process. SMTPGATE_TEST_CENSUS names the folder; each worker replaces its
`<pid>.json` there twice a second. Nothing else of the program is changed.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = "SMTPGATE_TEST_CENSUS"
EVERY: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Census:
    """One worker at one time. resident: octets. blocks: pieces of memory that Python has given out, and not got back:
    unlike the octets they do not depend on how malloc cuts and keeps what it has. greenlets: without those that wait
    for something to do (drivers.servants).
    """

    greenlets: int
    descriptors: int
    resident: int
    blocks: int


def read(folder: Path, pid: int) -> Census | None:
    """The latest of a worker; None before its first."""
    try:
        return Census(**json.loads((folder / f"{pid}.json").read_text()))
    except FileNotFoundError:
        return None


def take() -> Census:
    """Of this process."""
    import gc

    import gevent

    from smtpgate.drivers.servants import Servants

    # The collector does not show what is out of its sight (drivers.garbage). It must not look there afterwards:
    # what it frees here nobody would free elsewhere.
    gc.unfreeze()
    everything = gc.get_objects()
    alive = sum(isinstance(one, gevent.Greenlet) and not one.dead for one in everything)
    alive -= sum(one.resting for one in everything if isinstance(one, Servants))
    gc.freeze()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGESIZE")
    return Census(alive, len(os.listdir("/proc/self/fd")), resident, sys.getallocatedblocks())


def _run() -> None:
    from gevent import monkey

    monkey.patch_all()
    sys.path[0] = str(Path(__file__).resolve().parents[2])

    import gevent

    from smtpgate import main

    folder = Path(os.environ[FOLDER])
    load = main.Proxy.load

    def write() -> None:
        while True:
            census = take()
            draft = folder / f".{os.getpid()}"
            draft.write_text(json.dumps(asdict(census)))
            draft.replace(folder / f"{os.getpid()}.json")
            gevent.sleep(EVERY)

    def counted(self: main.Proxy) -> object:
        gate = load(self)
        gevent.spawn(write)
        return gate

    main.Proxy.load = counted  # type: ignore[method-assign,assignment]
    main.main()


if __name__ == "__main__":
    _run()
