"""The live board that gatectl's commands look at: opened from the proxy's configuration, with its faults in words.

Owns what it means that a store is not shared, gives no answer, or has heard of nobody. Exit status of the commands:
0 fine, 1 the answer is no or something is wrong, 2 the command or the configuration is wrong, 3 the store gave no
answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from smtpgate.clock import SystemClock
from smtpgate.drivers.liveboard import PATIENCE, LiveBoard, NoBoard, open_board
from smtpgate.live import Report
from smtpgate.policy.store import StoreUnavailable

from .outcomes import Configuration, NoAnswer
from .pages import Note
from .proxyconf import read_conf


@contextmanager
def board_of(conf: Path, patience: float = PATIENCE) -> Iterator[LiveBoard]:
    """The board of a configuration, until the block ends. A store that gives no answer ends the command."""
    loaded = read_conf(conf)
    try:
        board = open_board(loaded.store, loaded.state_dir, SystemClock(), patience)
    except NoBoard as error:
        raise Configuration(f"{conf}: store: {error}") from None
    try:
        yield board
    except StoreUnavailable as error:
        raise NoAnswer(f"{board.public}: {error}") from None
    finally:
        board.close()


def nobody(board: LiveBoard) -> Note:
    """What to say where no worker has reported."""
    return Note(f"no worker has reported to {board.public}; expected a proxy that runs with this store", bad=True)


def untold(reports: Sequence[Report]) -> list[Note]:
    """What to say where there are more sessions than the reports tell of."""
    told, there = sum(len(report.sessions) for report in reports), sum(report.open_sessions for report in reports)
    return (
        [Note(f"{there} sessions are open, each worker tells of its oldest: {told} in all")] if told < there else []
    )
