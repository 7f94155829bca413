"""Many hostile clients, and some honest ones beside them, each in a process of its own.

The attacker has its own machine in real life. Here its process can have the lowest priority: on two cores the
generator would else take from the honest what the flood itself does not. What it has reached nevertheless is told.
Both are bounded in number and time, and come from loopback addresses of their own.

    attack = Attack(tmp_path, Flood(stack.proxy, seconds=10, connections=1000, drippers=50, logins=100))
    honest = honest_clients(tmp_path, stack.proxy, clients=20, seconds=10)
    print(honest, attack.result())
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import gevent
import gevent.pool
import gevent.socket

TIMEOUT: Final = 30.0  # seconds for any one reply
PERIOD: Final = 0.25  # seconds between an honest client's messages
DRIP: Final = 1.0  # seconds between a dripper's octets
HOLD: Final = 5.0
SPARE: Final = 200  # descriptors that are not for connections
SESSION_LOGINS: Final = 3  # wrong logins of one connection, as password guessers do before they are thrown out
GUESSERS: Final = 400  # addresses of those
GUESSING: Final = 2000  # connections of those at once: a wrong login waits for a second or more


@dataclass(frozen=True, slots=True)
class Flood:
    """connections: opened evenly over the time, or over `opening` seconds, and held for `hold` seconds each.
    drippers: an octet a second each. logins: wrong ones a second, each with another password, by connections that
    come anew; one whose connection is refused counts. nice: the generator's, up to 19, with which it runs when nobody
    else wants to.
    """

    address: tuple[str, int]
    seconds: float
    connections: int
    drippers: int
    logins: int
    opening: float | None = None
    hold: float = HOLD
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Damage:
    """What the attacker has done. greeted: of the connections. answers: a number for each reply to a login, "" where
    there was none. cpu: seconds of the generator.
    """

    opened: int
    greeted: int
    dripping: int
    answers: dict[str, int]
    cpu: float
    seconds: float

    @property
    def logins(self) -> float:
        """Wrong logins a second that were answered, at AUTH or at the door."""
        return sum(count for code, count in self.answers.items() if code) / self.seconds


@dataclass(frozen=True, slots=True)
class Honest:
    """What honest clients have met. told: numbers of the messages that were answered 250. latencies: seconds from
    connect to 250, login included, in the order in which they began. began: when, in seconds since the first. steps:
    the seconds to each reply by itself.
    """

    told: list[int]
    failures: list[str]
    latencies: list[float]
    began: list[float]
    steps: dict[str, list[float]]

    def percentile(self, part: float) -> float:
        """Seconds; of all."""
        return _percentile(self.latencies, part)

    def windows(self, part: float, seconds: float) -> list[float]:
        """The percentile of each window of so many seconds by itself, in order of time."""
        found: dict[int, list[float]] = {}
        for began, latency in zip(self.began, self.latencies, strict=True):
            found.setdefault(int(began / seconds), []).append(latency)
        return [_percentile(found[number], part) for number in sorted(found)]

    def __str__(self) -> str:
        return (
            f"{len(self.told)} delivered, {len(self.failures)} failed, "
            f"p50 {self.percentile(0.5) * 1000:.1f} ms, p99 {self.percentile(0.99) * 1000:.1f} ms, "
            f"most {max(self.latencies) * 1000:.1f} ms; p99 of steps: "
            + ", ".join(f"{name} {_percentile(times, 0.99) * 1000:.1f}" for name, times in self.steps.items())
        )


class Attack:
    """Runs from construction; `result()` waits for its end."""

    def __init__(self, folder: Path, flood: Flood) -> None:
        self._process = _start(folder, "attack", {"role": "attack", **asdict(flood)})
        self.pid = self._process.pid

    def stop(self) -> None:
        """At once, if it still runs."""
        self._process.kill()

    def result(self) -> Damage:
        return Damage(**_finish(self._process))


def honest_clients(folder: Path, address: tuple[str, int], clients: int, seconds: float, first: int = 0) -> Honest:
    """Returns when they are done. first: number of the first message."""
    plan = {"role": "honest", "address": address, "clients": clients, "seconds": seconds, "first": first}
    return Honest(**_finish(_start(folder, f"honest{first}", plan)))


def _percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def cpu_seconds(pid: int) -> float:
    """What a process has used so far; proc(5), utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _start(folder: Path, name: str, plan: dict[str, Any]) -> Any:
    from peers.process import Process  # not on the path of the process that sends

    return Process(name, [sys.executable, __file__, json.dumps(plan)], folder)


def _finish(process: Any) -> Any:
    process._popen.wait()
    assert process.running is False
    lines = process.output().splitlines()
    return json.loads(lines[-1])


# --- in the processes ----------------------------------------------------------------------------------------------


class _Client:
    """One connection from an address of its own."""

    def __init__(self, address: list[Any], source: str) -> None:
        # create_connection() asks a thread to look the address up, which would be more than half of what it costs.
        self.sock = gevent.socket.socket()
        try:
            self.sock.settimeout(TIMEOUT)
            self.sock.bind((source, 0))
            self.sock.connect(tuple(address))
        except BaseException:  # nor does a killed greenlet leave one behind
            self.sock.close()
            raise
        self.replies = self.sock.makefile("rb")

    def say(self, line: bytes) -> bytes:
        self.sock.sendall(line + b"\r\n")
        return self.hear()

    def hear(self) -> bytes:
        """The last line of the next reply."""
        line: bytes = self.replies.readline()
        while line[3:4] == b"-":
            line = self.replies.readline()
        return line

    def close(self) -> None:
        self.replies.close()
        self.sock.close()


def _login(user: str, password: str) -> bytes:
    return b"AUTH PLAIN " + b64encode(f"\0{user}\0{password}".encode())


def _honest(plan: dict[str, Any]) -> dict[str, Any]:
    numbers = iter(range(plan["first"], 1 << 30))
    told: list[int] = []
    failures: list[str] = []
    measured: list[tuple[float, float]] = []
    waits: dict[str, list[float]] = {}
    start = time.monotonic()
    until = start + plan["seconds"]

    def message(number: int, source: str) -> None:
        steps = [
            ("EHLO", b"EHLO honest.example", b"250"),
            ("AUTH", _login("test", "1234"), b"235"),
            ("MAIL", b"MAIL FROM:<a@example.com>", b"250"),
            ("RCPT", b"RCPT TO:<b@example.com>", b"250"),
            ("DATA", b"DATA", b"354"),
            ("text", b"Message-ID: <%d@honest>\r\n\r\nx\r\n." % number, b"250"),
        ]
        began = time.monotonic()
        client: _Client | None = None
        try:
            client = _Client(plan["address"], source)
            heard = client.hear()
            expected = b"220"
            passed = [("greeting", time.monotonic())]
            for name, line, good in steps:
                if not heard.startswith(expected):
                    break
                heard, expected = client.say(line), good
                passed.append((name, time.monotonic()))
            if heard.startswith(expected) and expected == b"250":
                measured.append((began - start, passed[-1][1] - began))
                told.append(number)
                for (_, before), (name, now) in pairwise([("", began), *passed]):
                    waits.setdefault(name, []).append(now - before)
                client.say(b"QUIT")
            else:
                failures.append(f"{number}: {heard!r}, expected {expected!r}")
        except OSError as error:
            failures.append(f"{number}: {error!r}")
        finally:
            if client is not None:
                client.close()

    def client(n: int) -> None:
        gevent.sleep(PERIOD * n / plan["clients"])
        while time.monotonic() < until:
            began = time.monotonic()
            message(next(numbers), f"127.1.1.{n + 1}")
            gevent.sleep(max(0.0, began + PERIOD - time.monotonic()))

    gevent.joinall([gevent.spawn(client, n) for n in range(plan["clients"])])
    return {
        "told": told,
        "failures": failures,
        "latencies": [latency for _, latency in sorted(measured)],
        "began": [began for began, _ in sorted(measured)],
        "steps": waits,
    }


def _sources(second: int) -> Iterator[str]:
    """Addresses in many networks: no two in a row share a /24."""
    number = 0
    while True:
        yield f"127.{second + number // 62500 % 8}.{number % 250}.{number // 250 % 250 + 1}"
        number += 1


class _Attacker:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._began = time.monotonic()
        self._until = self._began + plan["seconds"]
        self.opened = self.greeted = self.dripping = 0
        self.answers: Counter[str] = Counter()

    def run(self) -> None:
        plan = self._plan
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        opening = plan["opening"] or plan["seconds"]
        crowd = gevent.pool.Pool(max(1, hard - SPARE - plan["drippers"] - GUESSING))
        parts: list[gevent.Greenlet[..., Any]] = [
            gevent.spawn(self._evenly, plan["connections"] / opening, _sources(2), crowd, self._hold, opening),
            gevent.spawn(self._guess_on, plan["logins"], _guessers(), gevent.pool.Pool(GUESSING)),
            *(
                gevent.spawn(self._drip, source)
                for source, _ in zip(_sources(20), range(plan["drippers"]), strict=False)
            ),
        ]
        gevent.joinall(parts)
        crowd.kill()

    def _evenly(
        self, rate: float, sources: Iterator[str], pool: gevent.pool.Pool, one: Any, seconds: float = float("inf")
    ) -> None:
        """`rate` a second for so many seconds, as far as the pool has room."""
        done = 0
        until = min(self._until, self._began + seconds)
        while (now := time.monotonic()) < until:
            due = int((now - self._began) * rate)
            while done < due:
                if pool.free_count() > 0:
                    pool.spawn(one, next(sources))
                done += 1
            gevent.sleep(0.01)

    def _guess_on(self, rate: float, sources: Iterator[str], pool: gevent.pool.Pool) -> None:
        """So many logins a second are tried. A connection that is turned away at the door is one of them."""
        while (now := time.monotonic()) < self._until:
            due = (now - self._began) * rate
            while sum(self.answers.values()) + SESSION_LOGINS * len(pool) < due and pool.free_count() > 0:
                pool.spawn(self._guess, next(sources))
            gevent.sleep(0.01)

    def _hold(self, source: str) -> None:
        """Connected and silent."""
        try:
            client = _Client(self._plan["address"], source)
        except OSError:
            return
        try:
            self.opened += 1
            heard = client.hear()
            self.greeted += heard.startswith(b"220")
            gevent.sleep(min(self._plan["hold"], max(0.0, self._until - time.monotonic())))
        except OSError:
            pass
        finally:
            client.close()

    def _drip(self, source: str) -> None:
        """A command that never ends; again, when it is thrown out."""
        while time.monotonic() < self._until:
            try:
                client = _Client(self._plan["address"], source)
            except OSError:
                gevent.sleep(DRIP)
                continue
            self.dripping += 1
            try:
                while time.monotonic() < self._until:
                    client.sock.sendall(b"N")
                    gevent.sleep(DRIP)
            except OSError:
                pass
            finally:
                client.close()

    def _guess(self, source: str) -> None:
        try:
            client = _Client(self._plan["address"], source)
        except OSError:
            self.answers[""] += 1
            return
        try:
            if not (heard := client.hear()).startswith(b"220"):
                self.answers[heard[:3].decode("latin-1")] += 1
                return
            client.say(b"EHLO guess.example")
            for n in range(SESSION_LOGINS):
                if time.monotonic() > self._until:
                    return
                heard = client.say(_login("test", f"wrong{n}{time.monotonic()}"))
                if not heard:
                    return  # hung up behind the last answer
                self.answers[heard[:3].decode("latin-1")] += 1
                if heard[:3] not in (b"535", b"454"):
                    return
        except OSError:
            self.answers[""] += 1
        finally:
            client.close()


def _step_back(nice: int) -> None:
    os.nice(nice)
    # Linux shares the processor among sessions (setsid) first, and niceness counts within one (sched(7), autogroup).
    group = Path("/proc/self/autogroup")
    if group.exists():
        group.write_text(str(nice))


def _guessers() -> Iterator[str]:
    while True:
        for number in range(GUESSERS):
            yield f"127.40.{number}.1" if number < 250 else f"127.41.{number - 250}.1"


def _attack(plan: dict[str, Any]) -> dict[str, Any]:
    _step_back(plan["nice"])
    attacker = _Attacker(plan)
    attacker.run()
    return {
        "opened": attacker.opened,
        "greeted": attacker.greeted,
        "dripping": attacker.dripping,
        "answers": dict(attacker.answers),
        "cpu": time.process_time(),
        "seconds": plan["seconds"],
    }


if __name__ == "__main__":
    gc.disable()  # its pauses would be taken for the proxy's
    _plan = json.loads(sys.argv[1])
    print(json.dumps({"attack": _attack, "honest": _honest}[_plan["role"]](_plan)))
