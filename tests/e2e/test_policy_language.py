"""The policy language with real workers on a real Redis: what is admitted, how fast it flows, and what an edit, a
crash and a drain do to sessions under way.

SMTPGATE_LONG=1 runs the same with the sizes and times of an acceptance test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from crowd import Tally, one_on_each, run_together, together
from peers.process import HOST, LATE, free_port, pause, wait_until
from peers.redis import Redis
from rawclient import RawClient, plain
from recorder import Recorder
from stack import RELAY, Stack

from smtpgate.policy.store import LEASE
from smtpgate.snapshot import version_of

LONG = os.environ.get("SMTPGATE_LONG") == "1"
GOODBYE = b"421 4.3.2 Service shutting down, try again later\r\n"
MIB = 1 << 20


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder(HOST, free_port()) as server:
        yield server


@pytest.fixture
def start(recorder: Recorder, start_stack: Callable[..., Stack], redis_server: Redis) -> Callable[..., Stack]:
    """A proxy without logins on a Redis of its own: what clients may do depends on the address they come from."""

    def begin(limits: str, **settings: object) -> Stack:
        policy = {"limits.yaml": f"version: 1\n{limits}"}
        # Who is refused and says RSET, for as long as the test likes.
        patient = {**RELAY, "max_junk": 100_000}
        given = {"auth_url": None, "listeners": [patient], "store": redis_server.uri, **settings}
        return start_stack([recorder.address], policy=policy, **given)

    return begin


def redis_cli(server: Redis, *command: str) -> list[str]:
    argv = ["redis-cli", "-h", HOST, "-p", str(server.port), *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


@pytest.fixture
def connect() -> Iterator[Callable[..., RawClient]]:
    """`connect(stack, source)`: a client that is closed at the test's end."""
    clients: list[RawClient] = []

    def make(stack: Stack, source: str | None = None) -> RawClient:
        clients.append(RawClient(stack.proxy, source))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


# --- eight limits, four workers, fifty clients -------------------------------------------------------------------


LOAD_SECONDS = 60.0 if LONG else 6.0
RATE, BURST = (40, 40) if LONG else (15, 45)
SIZE = 1000
PAUSE = 0.02  # seconds after a refusal: a client that asks as fast as it can would test the loopback
DENY = 'deny: {reply: "450 4.7.1 {limit}"}'
EIGHT = f"""
limiter: {{timeout: 5s}}  # on a busy machine 50 ms pass without an answer, and local buckets would admit besides
limits:
  connects: {{event: connect, rate: {RATE}/1s, burst: {BURST}, key: "{{ip/24}}", match: {{client: 127.5.1.0/24}},
             deny: {{reply: "421 4.7.0 {{limit}}", close: true}}}}
  mails: {{event: mail, rate: {RATE}/1s, burst: {BURST}, key: "{{ip/24}}", match: {{client: 127.5.2.0/24}}, {DENY}}}
  each.mails: {{event: mail, rate: {RATE}/1s, burst: {BURST}, key: "{{net}}", match: {{client: 127.5.3.1}}, {DENY}}}
  held: {{event: mail, rate: {RATE}/1s, burst: {BURST}, key: "{{ip/24}}", match: {{client: 127.5.4.0/24}},
         deny: {{reply: "450 4.7.1 {{limit}}", hold: 5s}}}}
  rcpts: {{event: rcpt, rate: {RATE}/1s, burst: {BURST}, key: "{{ip/24}}", match: {{client: 127.5.5.0/24}}, {DENY}}}
  bytes: {{event: eod, cost: bytes, rate: {RATE * SIZE}B/1s, burst: {BURST * SIZE}B, key: "{{ip/24}}",
          match: {{client: 127.5.6.0/24}}, {DENY}}}
  volume: {{event: eod, cost: recipients, rate: {RATE}/1s, burst: {BURST}, key: "{{ip/24}}",
           match: {{client: 127.5.7.0/24}}, {DENY}}}
  msg.rcpts: {{event: rcpt, max: 3, key: "{{transaction}}", match: {{client: 127.5.8.0/24}}, {DENY}}}
"""


class Load:
    """One client of a group, asking for `seconds`."""

    def __init__(self, stack: Stack, group: int, number: int, seconds: float) -> None:
        self.tally = Tally()
        self._address = stack.proxy
        self._source = f"127.5.{group}.{1 if group == 3 else number}"
        self._work = (
            self.connects,
            self.mails,
            self.mails,
            self.mails,
            self.rcpts,
            self.texts,
            self.texts,
            self.capped,
        )
        self._act = self._work[group - 1]
        self._seconds = seconds

    def run(self) -> None:
        self._end = time.monotonic() + self._seconds
        self._act()

    def _ask(self, client: RawClient, line: bytes, no: bytes = b"450") -> bool:
        """Count the answer; wait a little where it was no."""
        self.tally.ask()
        if self.tally.note(client.ask(line), yes=b"250", no=no):
            return True
        time.sleep(PAUSE)
        return False

    @property
    def _going_on(self) -> bool:
        return time.monotonic() < self._end and not self.tally.surprises

    def connects(self) -> None:
        while self._going_on:
            self.tally.ask()
            with RawClient(self._address, self._source) as client:
                if not self.tally.note(client.reply(), yes=b"220", no=b"421 4.7.0 connects"):
                    time.sleep(PAUSE)

    def mails(self) -> None:
        with RawClient(self._address, self._source).greeted() as client:
            while self._going_on:
                if self._ask(client, b"MAIL FROM:<a@example.com>"):
                    client.ask(b"RSET")

    def rcpts(self) -> None:
        with RawClient(self._address, self._source).greeted() as client:
            client.ask(b"MAIL FROM:<a@example.com>")
            while self._going_on:
                self._ask(client, b"RCPT TO:<b@example.com>")

    def texts(self) -> None:
        text = b"x" * (SIZE - 2) + b"\r\n"
        with RawClient(self._address, self._source).greeted() as client:
            while self._going_on:
                client.envelope().opened()
                self.tally.ask()
                if not self.tally.note(client.end(text), yes=b"250", no=b"450"):
                    time.sleep(PAUSE)

    def capped(self) -> None:
        with RawClient(self._address, self._source).greeted() as client:
            while self._going_on:
                client.ask(b"MAIL FROM:<a@example.com>")
                for _ in range(5):
                    self._ask(client, b"RCPT TO:<b@example.com>")
                client.ask(b"RSET")


def test_what_eight_limits_admit_is_what_the_arithmetic_says(start: Callable[..., Stack]) -> None:
    stack = start(EIGHT, workers=4)
    names = ("connects", "mails", "each.mails", "held", "rcpts", "bytes", "volume", "msg.rcpts")
    sizes = (6, 6, 6, 6, 6, 7, 7, 6)
    groups = [
        [Load(stack, group, number + 1, LOAD_SECONDS) for number in range(size)]
        for group, size in enumerate(sizes, 1)
    ]
    run_together([one.run for group in groups for one in group], LOAD_SECONDS + 30.0)
    assert stack.log_events("store_mode") == []
    rows = []
    for name, group in zip(names, groups, strict=True):
        whole = together([one.tally for one in group])
        assert whole.surprises == []
        if name == "msg.rcpts":
            # Of each five three: no matter of time. The last message of each client may be one that was cut short.
            assert abs(whole.admitted / (whole.admitted + whole.denied) - 3 / 5) < 0.01
            continue
        # The bucket's time began between the first question and its answer.
        least, most = (BURST + RATE * (whole.last - began) for began in (whole.first, whole.asked))
        rows.append((name, whole.admitted, least, most, whole.denied))
    print(f"\n{'limit':12}{'admitted':>10}{'arithmetic':>18}{'off':>8}{'denied':>9}")
    for name, admitted, least, most, denied in rows:
        off = 2 * admitted / (least + most) - 1
        print(f"{name:12}{admitted:10}{f'{least:.1f} - {most:.1f}':>18}{off:8.2%}{denied:9}")
    # One token is what a moment at the end may make. Clients of a busy machine may leave a bucket full for a while.
    asked = 0.99 if LONG else 0.8
    assert all(asked * least - 1 <= admitted <= 1.01 * most for _, admitted, least, most, _ in rows)


# --- shaping -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """rate, burst, size: octets. tolerance: of the rate in any window of two seconds."""

    rate: int
    burst: int
    size: int
    tolerance: float


COURSE = Course(MIB, 4 * MIB, 20 * MIB, 0.05) if LONG else Course(2 * MIB, MIB, 8 * MIB, 0.10)
WINDOW = 2.0
UPLOADING = (COURSE.size - COURSE.burst) / COURSE.rate
"""Seconds that an upload takes: what another client waits for at most if it has to wait for its end."""
SHAPED = f"""
limits:
  upload: {{event: data, shape: {COURSE.rate}B/1s, burst: {COURSE.burst}B, key: "{{net}}",
           match: {{client: 127.5.1.0/24}}}}
"""
UPLOADER, OTHER = "127.5.1.1", "127.5.2.1"


class Meter:
    """Samples how many octets the backend has, from its making until stop()."""

    def __init__(self, recorder: Recorder) -> None:
        self.samples: list[tuple[float, int]] = []
        self._recorder = recorder
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(0.005):
            have = sum(len(one.octets) for one in list(self._recorder.conversations))
            self.samples.append((time.monotonic(), have))

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def rates(self, begin: int, end: int) -> list[float]:
        """Octets a second in the windows of two seconds between two counts of octets."""
        inside = [sample for sample in self.samples if begin <= sample[1] <= end]
        found = []
        ahead = iter(inside)
        later = next(ahead, None)
        for when, have in inside:
            while later is not None and later[0] < when + WINDOW:
                later = next(ahead, None)
            if later is None:
                break
            found.append((later[1] - have) / (later[0] - when))
        return found


@pytest.mark.parametrize("sessions", [1, 4])
def test_an_upload_keeps_to_its_rate_and_nobody_else_feels_it(
    start: Callable[..., Stack], connect: Callable[..., RawClient], recorder: Recorder, sessions: int
) -> None:
    stack = start(SHAPED, workers=sessions, listeners=[{**RELAY, "capabilities": [f"SIZE {2 * COURSE.size}"]}])
    clients = one_on_each(lambda: connect(stack, UPLOADER), stack.worker_pids())
    line = b"x" * 998 + b"\r\n"
    text = line * (COURSE.size // sessions // len(line))
    for client in clients:
        client.ask(b"EHLO client.example")
        client.envelope().opened()
    replies: list[bytes] = []
    took: list[float] = []
    uploading = threading.Event()

    def upload(client: RawClient) -> None:
        client.sock.settimeout(60.0)
        client.sock.sendall(text + b".\r\n")
        replies.append(client.reply(60.0))
        uploading.set()

    def small_messages() -> None:
        """Of another client, to the same workers, until the first upload has ended."""
        with RawClient(stack.proxy, OTHER).greeted() as other:
            while not uploading.is_set():
                began = time.monotonic()
                assert other.deliver().startswith(b"250 ")
                took.append(time.monotonic() - began)
                time.sleep(0.05)

    meter = Meter(recorder)
    run_together([*[lambda one=one: upload(one) for one in clients], small_messages], 90.0)
    meter.stop()
    assert [reply[:4] for reply in replies] == [b"250 "] * sessions
    assert sorted(len(one.text) for one in recorder.messages)[-sessions:] == [len(text)] * sessions
    # From a second after the burst is used up, which takes a while by itself, to the end.
    rates = meter.rates(COURSE.burst + COURSE.rate, sessions * len(text))
    assert len(rates) > 5  # a busy machine samples seldom
    took.sort()
    print(
        f"\n{sessions} sessions: {min(rates) / COURSE.rate:.3f} to {max(rates) / COURSE.rate:.3f} of the rate in"
        f" {len(rates)} windows; {len(took)} small messages: median {took[len(took) // 2] * 1000:.1f} ms,"
        f" slowest {took[-1] * 1000:.1f} ms"
    )
    # Who samples late sees too little in one window and as much too much in the next.
    usual = sorted(rates)[len(rates) // 2]
    assert (1 - COURSE.tolerance) * COURSE.rate < usual < (1 + COURSE.tolerance) * COURSE.rate
    if LONG:
        assert min(rates) > (1 - COURSE.tolerance) * COURSE.rate
        assert max(rates) < (1 + COURSE.tolerance) * COURSE.rate
    # One slice of the upload is 50 ms: whoever had to wait behind it would take four of them a message.
    assert took[len(took) // 2] < (0.05 if LONG else 0.2)
    assert took[-1] < (1.0 if LONG else UPLOADING)


# --- edits -------------------------------------------------------------------------------------------------------


EDITS, EDITING_SECONDS = (100, 30.0) if LONG else (10, 4.0)
SEEN_WITHIN = 2.0
BUSY = 0.5 if LONG else LATE
"""Seconds that a busy machine may add."""


def version(n: int) -> str:
    """limits.yaml that says in two places which version it is."""
    return (
        "version: 1\n"
        f'replies: {{no: "452 4.5.3 {{limit}} is of {n}"}}\n'
        f"limits:\n  v{n}: {{event: rcpt, max: 1, key: '{{transaction}}', deny: {{reply: no}}}}\n"
    )


def test_edits_under_load_drop_no_session_and_tear_no_policy(start: Callable[..., Stack]) -> None:
    workers = 4
    stack = start("", workers=workers)
    stack.edit_policy("limits.yaml", version(0))
    stack.wait_for_event("policies_loaded", 2 * workers)
    routes = (stack.policies / "routes.yaml").read_bytes()
    names = {version_of([("limits.yaml", version(n).encode()), ("routes.yaml", routes)]): n for n in range(EDITS + 1)}
    done = threading.Event()
    written: list[float] = []
    seen: list[list[int]] = []

    def edit() -> None:
        for n in range(1, EDITS + 1):
            stack.edit_policy("limits.yaml", version(n))
            written.append(time.time())
            time.sleep(EDITING_SECONDS / EDITS)
        try:
            wait_until(
                lambda: len(seen) == 12 and all(mine[-1:] == [EDITS] for mine in seen),
                "every session sees the last edit",
                SEEN_WITHIN + BUSY,
            )
        finally:
            done.set()

    def session() -> None:
        mine: list[int] = []
        seen.append(mine)
        with RawClient(stack.proxy).greeted() as client:
            while not done.is_set():
                client.envelope()
                reply = client.ask(b"RCPT TO:<c@example.com>")
                found = re.fullmatch(rb"452 4\.5\.3 v([0-9]+) is of ([0-9]+)\r\n", reply)
                assert found is not None, reply
                assert found[1] == found[2]
                mine.append(int(found[1]))
                assert client.ask(b"RSET") == b"250 2.0.0 OK\r\n"
                time.sleep(0.01)
            assert client.ask(b"QUIT").startswith(b"221 ")

    run_together([edit, *[session] * 12], EDITING_SECONDS + 60.0)
    assert len(seen) == 12
    assert all(mine == sorted(mine) and mine[-1] == EDITS for mine in seen)
    loads: dict[int, list[tuple[float, int]]] = {}
    for line in stack.log_events("policies_loaded"):
        if line["version"] in names:
            loads.setdefault(line["pid"], []).append((_seconds(line["timestamp"]), names[line["version"]]))
    assert len(loads) == workers
    latest = max(
        min(when for when, n in own if n >= edit) - written[edit - 1]
        for own in loads.values()
        for edit in names.values()
        if edit
    )
    print(
        f"\n{EDITS} edits, {workers} workers, {sum(map(len, seen))} answers; the latest was seen after {latest:.2f} s"
    )
    assert latest < SEEN_WITHIN + BUSY
    assert stack.log_events("policies_rejected") == []
    assert stack.log_events("bug") == []


def _seconds(timestamp: str) -> float:
    """Unix seconds of a log line."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


# --- places ------------------------------------------------------------------------------------------------------


PLACES = """
limits:
  conns: {event: connect, concurrency: 3, key: "{net}", deny: {reply: "421 4.7.0 {limit}", close: true}}
"""
FULL = b"421 4.7.0 conns\r\n"
LEASES = "smtpgate:cc:{rl}:conns:127.0.0.1"


def test_places_are_free_after_a_session_and_after_a_crash(
    start: Callable[..., Stack], connect: Callable[..., RawClient], redis_server: Redis
) -> None:
    stack = start(PLACES, workers=2)

    def greeting() -> tuple[RawClient, bytes]:
        client = connect(stack)
        return client, client.reply()

    sessions = [greeting() for _ in range(3)]
    assert [reply[:4] for _, reply in sessions] == [b"220 "] * 3
    assert greeting()[1] == FULL
    # One ends: its place is free at once.
    sessions[0][0].close()
    wait_until(lambda: redis_cli(redis_server, "ZCARD", LEASES) == ["2"], "the place is given back")
    again, reply = greeting()
    assert reply.startswith(b"220 ")
    # All workers are killed: nobody gives anything back.
    crashed = set(stack.worker_pids())
    for pid in crashed:
        os.kill(pid, signal.SIGKILL)
    for client in (again, *[client for client, _ in sessions[1:]]):
        assert client.at_end()
    wait_until(lambda: len(set(stack.worker_pids()) - crashed) == 2, "new workers")
    stack.wait_for_event("policies_loaded", 4)
    assert greeting()[1] == FULL
    leases = redis_cli(redis_server, "ZRANGE", LEASES, "0", "-1", "WITHSCORES")
    ends = [float(score) for score in leases[1::2]]
    assert len(ends) == 3
    assert all(0 < end - time.time() <= LEASE for end in ends)
    if LONG:
        time.sleep(LEASE)
    else:  # the time that nobody wants to wait for
        for holder, end in zip(leases[::2], ends, strict=True):
            redis_cli(redis_server, "ZADD", LEASES, str(end - LEASE), holder)
    assert greeting()[1].startswith(b"220 ")


# --- logins ------------------------------------------------------------------------------------------------------


LOGINS = """\
version: 1
limits:
  user.logins: {event: auth, rate: 3/1h, burst: 3, key: "{user}", deny: {reply: "454 4.7.0 {limit} of {rate}"}}
  user.conns: {event: auth, concurrency: 2, key: "{user}", deny: {reply: "421 4.7.0 {limit}", close: true}}
"""


def test_a_login_through_our_own_proxy_is_counted_once(
    start_stack: Callable[..., Stack], connect: Callable[..., RawClient], recorder: Recorder, redis_server: Redis
) -> None:
    """The auth service knows the same limits, and that the proxy asks them itself."""
    stack = start_stack([recorder.address], store=redis_server.uri, policy={"limits.yaml": LOGINS}, workers=2)
    first, second, third, fourth = (connect(stack).greeted() for _ in range(4))
    first.login()
    second.login()
    command = b"AUTH PLAIN " + plain("test", "1234")
    # Two are at work: a third login is refused, and has cost nothing.
    assert third.ask(command) == b"421 4.7.0 user.conns\r\n"
    assert third.at_end()
    first.ask(b"QUIT")
    wait_until(
        lambda: redis_cli(redis_server, "ZCARD", "smtpgate:cc:{rl}:user.conns:test") == ["1"], "a place is free"
    )
    fourth.login()
    second.ask(b"QUIT")
    fifth = connect(stack).greeted()
    assert fifth.ask(command) == b"454 4.7.0 user.logins of 3/1h\r\n"
    assert fifth.ask(b"MAIL FROM:<a@example.com>") == b"530 5.7.1 Authentication required\r\n"
    assert fifth.ask(b"AUTH PLAIN " + plain("test2", "password")) == b"235 2.0.0 OK\r\n"
    assert [line["limit"] for line in stack.wait_for_event("denied", 2)] == ["user.conns", "user.logins"]
    assert len(stack.auth_log_events("auth", result="granted")) == 6


# --- a drain -----------------------------------------------------------------------------------------------------


DRAINED = """
limits:
  held.mails: {event: mail, rate: 2/1m, burst: 1, key: "{net}", match: {client: 127.5.1.0/24},
               deny: {reply: "450 4.7.1 {limit}", hold: 45s}}
  held.rcpts: {event: rcpt, rate: 30/1m, burst: 1, key: "{net}", match: {client: 127.5.2.0/24},
               deny: {reply: "450 4.7.1 {limit}", hold: 45s}}
  upload: {event: data, shape: 200KiB/1s, burst: 100KiB, key: "{net}", match: {client: 127.5.3.0/24}}
"""


def test_a_drain_while_sessions_are_held_and_shaped(
    start: Callable[..., Stack], connect: Callable[..., RawClient], recorder: Recorder
) -> None:
    stack = start(DRAINED, proxy={"graceful_timeout": "30s"})
    mailing = connect(stack, "127.5.1.1").greeted()
    assert mailing.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
    assert mailing.ask(b"RSET").startswith(b"250 ")
    sending = connect(stack, "127.5.2.1").greeted().envelope()
    shaped = connect(stack, "127.5.3.1").greeted().envelope().opened()
    text = (b"x" * 998 + b"\r\n") * 500
    uploading = threading.Thread(target=shaped.send, args=(text + b".\r\n",))
    uploading.start()
    mailing.send(b"MAIL FROM:<a@example.com>\r\n")
    sending.send(b"RCPT TO:<c@example.com>\r\n")
    pause(0.8)  # they wait by now
    assert recorder.messages == []
    began = time.monotonic()
    stack.signal(signal.SIGTERM)
    # What has not begun begins elsewhere: it is refused at once, in the limit's words.
    assert [mailing.reply(), mailing.reply()] == [b"450 4.7.1 held.mails\r\n", GOODBYE]
    assert mailing.at_end()
    assert time.monotonic() - began < 10.0
    # What has begun is let finish.
    assert sending.reply().startswith(b"250 ")
    assert sending.opened().end(b"x\r\n").startswith(b"250 ")
    assert sending.reply() == GOODBYE
    assert shaped.reply().startswith(b"250 ")
    assert shaped.reply() == GOODBYE
    uploading.join()
    wait_until(lambda: not stack.process.running, "the end")
    assert sorted(len(one.text) for one in recorder.messages) == [3, len(text)]
    [held] = stack.log_events("denied")
    assert (held["limit"], held["at"]) == ("held.mails", "mail")
    assert 0.0 < held["held"] < 30.0
