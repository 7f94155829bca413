"""What an operator does to a running proxy, done and waited for: reload, upgrade; and who knocks meanwhile.

All of it takes the pid of the arbiter, which is another one after an upgrade.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Final, Self

from peers.process import wait_until
from processtree import children, running
from rawclient import RawClient
from stack import Stack

IN_FORCE: Final = "The new configuration is in force"
PROMOTED: Final = "Master has been promoted."
NEW_PROGRAM: Final = 60.0  # seconds for it to serve: it starts anew, on a machine that is busy with the old one


def reload(stack: Stack, pid: int, *, retired: bool = True) -> None:
    """HUP, until new workers serve. retired: and until the old ones are gone, which their sessions may hold up."""
    done = len(stack.log_events("process", message=IN_FORCE))
    os.kill(pid, signal.SIGHUP)
    stack.wait_for_event("process", done + 1, message=IN_FORCE)
    if retired:
        wait_until(lambda: len(children(pid)) == stack.workers, "the end of the old workers")


def start_upgrade(stack: Stack, pid: int) -> int:
    """USR2 and WINCH: the new program serves, the old one's workers retire. The pid of the new one."""
    before = set(children(pid))
    loaded = len(stack.log_events("policies_loaded"))
    os.kill(pid, signal.SIGUSR2)
    stack.wait_for_event("policies_loaded", loaded + stack.workers, NEW_PROGRAM)
    [new] = set(children(pid)) - before
    os.kill(pid, signal.SIGWINCH)
    return new


def end_upgrade(stack: Stack, pid: int, new: int) -> None:
    """QUIT to the old one, when its workers are gone. Until then the new one takes no USR2 itself."""
    promoted = len(stack.log_events("process", message=PROMOTED))
    wait_until(lambda: children(pid) == [new], "the end of the old workers", 60)
    os.kill(pid, signal.SIGQUIT)
    wait_until(lambda: not running(pid), "the end of the old program")
    stack.wait_for_event("process", promoted + 1, message=PROMOTED)


def upgrade(stack: Stack, pid: int) -> int:
    """USR2, WINCH and QUIT; the pid of the new program."""
    new = start_upgrade(stack, pid)
    end_upgrade(stack, pid, new)
    return new


def end(pid: int) -> None:
    """TERM to an arbiter that is not our child, and wait for its end."""
    if running(pid):
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not running(pid), "the end of the program", 60)


class Knocking:
    """Somebody who connects again and again, and wants the greeting each time.

    knocks: how often; refused: what else came.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.knocks = 0
        self.refused: list[str] = []
        self._address = address
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.005):
            self.knocks += 1
            try:
                with RawClient(self._address) as client:
                    greeting = client.reply()
                    if not greeting.startswith(b"220 "):
                        self.refused.append(repr(greeting))
            except OSError as error:
                self.refused.append(repr(error))
