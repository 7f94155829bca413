"""Many clients at once, and what they counted: load for tests, bounded in number and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rawclient import RawClient


@dataclass(slots=True)
class Tally:
    """What one client was told. asked, first, last: monotonic seconds of its first question, and of its first and its
    last answer.
    """

    admitted: int = 0
    denied: int = 0
    asked: float = float("inf")
    first: float = float("inf")
    last: float = 0.0
    surprises: list[bytes] = field(default_factory=list)

    def ask(self) -> None:
        """A question is about to be asked."""
        self.asked = min(self.asked, time.monotonic())

    def note(self, reply: bytes, *, yes: bytes, no: bytes) -> bool:
        """Count a reply that begins with one of the two; whether it was a yes."""
        self.last = time.monotonic()
        self.first = min(self.first, self.last)
        if reply.startswith(yes):
            self.admitted += 1
        elif reply.startswith(no):
            self.denied += 1
        else:
            self.surprises.append(reply)
        return reply.startswith(yes)


def together(tallies: Sequence[Tally]) -> Tally:
    """The sum of several clients' tallies."""
    whole = Tally()
    for one in tallies:
        whole.admitted += one.admitted
        whole.denied += one.denied
        whole.asked = min(whole.asked, one.asked)
        whole.first = min(whole.first, one.first)
        whole.last = max(whole.last, one.last)
        whole.surprises += one.surprises
    return whole


def run_together(jobs: Sequence[Callable[[], None]], timeout: float) -> None:
    """All jobs at the same time, a thread each, from one starting line. Raises the first error of any."""
    start = threading.Barrier(len(jobs))
    errors: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            start.wait(timeout)
            job()
        except BaseException as error:  # told to whoever waits
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"a client is not done after {timeout} s"
    if errors:
        raise errors[0]


def worker_of(client: RawClient, pids: Sequence[int]) -> int:
    """The pid of the worker that serves this connection (proc(5): net/tcp names the socket, fd/ who holds it)."""
    near, far = client.sock.getpeername(), client.sock.getsockname()
    wanted = (_hex(near), _hex(far))
    for pid in pids:
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if (fields[1], fields[2]) == wanted and _holds(pid, fields[9]):
                return pid
    raise AssertionError(f"no worker of {list(pids)} serves {far}")


def one_on_each(connect: Callable[[], RawClient], pids: Sequence[int], attempts: int = 400) -> list[RawClient]:
    """Connections of which each worker serves one. The kernel hands them out: more are made, and closed again."""
    found: dict[int, RawClient] = {}
    spare: list[RawClient] = []
    for _ in range(attempts):
        client = connect()
        client.reply()  # the greeting: it has been accepted
        pid = worker_of(client, pids)
        (spare.append if pid in found else lambda one, pid=pid: found.__setitem__(pid, one))(client)
        if len(found) == len(pids):
            break
    for one in spare:
        one.close()
    assert len(found) == len(pids), f"only {sorted(found)} of {sorted(pids)} were given connections"
    return list(found.values())


def _hex(address: tuple[str, int]) -> str:
    octets = [int(part) for part in address[0].split(".")]
    return "".join(f"{octet:02X}" for octet in reversed(octets)) + f":{address[1]:04X}"


def _holds(pid: int, inode: str) -> bool:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(link.readlink()) == f"socket:[{inode}]":
                return True
        except OSError:  # closed while we looked
            continue
    return False
