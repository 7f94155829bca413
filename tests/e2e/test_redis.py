"""Limits in a real Redis: readable as quotas, shared by workers, edited, and missed for a while."""

from __future__ import annotations

import re
import smtplib
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from peers.process import HOST, LATE
from peers.redis import Redis
from peers.smtptools import SmtpSink
from rawclient import RawClient
from stack import EDIT_TIMEOUT, Stack

BUCKET = "smtpgate:tb:{rl}:user.msgs:test"
SLOW = b"450 4.7.1 rate limit user.msgs, retry in "

# So slow that no token comes back while a test looks: 0.000278 a second.
LIMIT = """\
version: 1
limiter: {{local_share: 0.5}}
limits:
  user.msgs:
    event: mail
    rate: {rate}
    burst: {burst}
    key: "{{user}}"
    match: {{auth: true}}
    deny: {{reply: "450 4.7.1 rate limit {{limit}}, retry in {{retry}}s"}}
"""

RECOVERY = 10.0
"""Seconds for the shared buckets to be back: the store is asked again every 5 s (drivers.redisstore.Breaker)."""


def limit(burst: int, rate: str = "1/1h") -> dict[str, str]:
    return {"limits.yaml": LIMIT.format(burst=burst, rate=rate)}


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpSink]:
    server = SmtpSink(tmp_path_factory.mktemp("sink"))
    yield server
    server.stop()


def redis_cli(server: Redis, *command: str) -> list[str]:
    """The lines of the answer, as an operator sees them."""
    argv = ["redis-cli", "-h", HOST, "-p", str(server.port), *command]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def quota(server: Redis) -> dict[str, str]:
    lines = redis_cli(server, "HGETALL", BUCKET)
    return dict(zip(lines[::2], lines[1::2], strict=True))


def session(stack: Stack) -> RawClient:
    return RawClient(stack.proxy).greeted().login()


def send(address: tuple[str, int]) -> int:
    """One message in a session of its own: 250, or the code that refused it."""
    with smtplib.SMTP(*address) as client:
        client.login("test", "1234")  # CRAM-MD5, which costs the auth service little
        code, _ = client.mail("a@example.com")
        if code != 250:
            return code
        assert client.rcpt("b@example.com")[0] == 250
        return client.data(b"Subject: x\r\n\r\nx\r\n")[0]


def test_a_bucket_reads_as_a_quota(redis_server: Redis, sink: SmtpSink, start_stack: Callable[..., Stack]) -> None:
    stack = start_stack([(HOST, sink.port)], store=redis_server.uri, policy=limit(5, "6/1m"))
    began = time.time()
    with session(stack) as client:
        for _ in range(5):
            assert client.deliver().startswith(b"250 ")
        assert [client.ask(b"MAIL FROM:<a@example.com>").startswith(SLOW) for _ in range(3)] == [True] * 3
    fields = quota(redis_server)
    assert set(fields) == {"tokens", "ts", "rate", "cap", "denied"}
    assert all(re.fullmatch(r"[0-9]+(\.[0-9]+)?", value) for value in fields.values()), fields
    assert (fields["rate"], fields["cap"], fields["denied"]) == ("0.1", "5", "3")
    assert 0 <= float(fields["tokens"]) < 1
    assert began <= float(fields["ts"]) <= time.time()
    [ttl] = redis_cli(redis_server, "TTL", BUCKET)
    # Until full: 5 tokens at 0.1 a second, and a second to spare.
    assert 0 < int(ttl) <= 51
    assert redis_cli(redis_server, "KEYS", "*{rl}*") == [BUCKET]


def test_two_workers_share_one_bucket(redis_server: Redis, sink: SmtpSink, start_stack: Callable[..., Stack]) -> None:
    burst = 15
    stack = start_stack([(HOST, sink.port)], store=redis_server.uri, policy=limit(burst), workers=2)
    codes: list[int] = []
    served: set[int] = set()
    with ThreadPoolExecutor(8) as clients:
        # The kernel hands connections out; more of them until both workers have had some.
        while len(codes) < 40 or (len(served) < 2 and len(codes) < 400):
            codes += clients.map(send, [stack.proxy] * 20)
            served = {line["pid"] for line in stack.wait_for_event("session", len(codes))}
    assert (codes.count(250), codes.count(450)) == (burst, len(codes) - burst)
    assert served == set(stack.worker_pids())
    delivered = stack.log_events("transaction", outcome="delivered")
    assert len(delivered) == burst
    assert float(quota(redis_server)["tokens"]) < 0.1
    assert quota(redis_server)["denied"] == str(len(codes) - burst)
    assert stack.log_events("store_mode") == []


def test_an_edit_keeps_the_balance(redis_server: Redis, sink: SmtpSink, start_stack: Callable[..., Stack]) -> None:
    stack = start_stack([(HOST, sink.port)], store=redis_server.uri, policy=limit(10))

    def edit(burst: int) -> None:
        loaded = len(stack.log_events("policies_loaded"))
        stack.edit_policy("limits.yaml", limit(burst)["limits.yaml"])
        stack.wait_for_event("policies_loaded", loaded + 1, timeout=EDIT_TIMEOUT + LATE)

    def left() -> int:
        """Whole tokens in the bucket; an hour's waiting gives one."""
        return int(float(quota(redis_server)["tokens"]))

    with session(stack) as client:
        for _ in range(3):
            assert client.deliver().startswith(b"250 ")
        assert left() == 7
        edit(100)
        assert client.deliver().startswith(b"250 ")
        assert (left(), quota(redis_server)["cap"]) == (6, "100")
        # Less room than there is in it: cut to fit.
        edit(4)
        assert client.deliver().startswith(b"250 ")
        assert (left(), quota(redis_server)["cap"]) == (3, "4")
        for _ in range(3):
            assert client.deliver().startswith(b"250 ")
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(SLOW)


def test_mail_flows_while_redis_is_away(
    redis_server: Redis,
    sink: SmtpSink,
    start_stack: Callable[..., Stack],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack = start_stack([(HOST, sink.port)], store=redis_server.uri, policy=limit(10))

    def modes() -> list[str]:
        return [line["mode"] for line in stack.log_events("store_mode")]

    with session(stack) as client:
        for _ in range(4):
            assert client.deliver().startswith(b"250 ")
        assert int(float(quota(redis_server)["tokens"])) == 6
        redis_server.stop()
        # Buckets of this process, at half of everything: five, and not one more.
        for _ in range(5):
            began = time.monotonic()
            assert client.deliver().startswith(b"250 ")
            assert time.monotonic() - began < LATE
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(SLOW)
        assert modes() == ["local"]
        monkeypatch.setattr("peers.redis.free_port", lambda: redis_server.port)
        folder = tmp_path / "redis2"
        folder.mkdir()
        again = Redis(folder)
        try:
            deadline = time.monotonic() + RECOVERY
            while client.ask(b"MAIL FROM:<a@example.com>").startswith(SLOW):
                assert time.monotonic() < deadline, "the shared buckets are not back"
                time.sleep(0.05)
            # It came back empty: a missing bucket is a full one.
            assert int(float(quota(again)["tokens"])) == 9
            assert client.ask(b"RSET") == b"250 2.0.0 OK\r\n"
            for _ in range(9):
                assert client.deliver().startswith(b"250 ")
            # Told when it has been back for a second, and somebody asks.
            while modes() == ["local"]:
                assert client.ask(b"MAIL FROM:<a@example.com>").startswith(SLOW)
                assert time.monotonic() < deadline, "nobody was told that the shared buckets are back"
                time.sleep(0.05)
            assert modes() == ["local", "shared"]
        finally:
            again.stop()
    assert [line["level"] for line in stack.log_events("store_mode")] == ["warning"] * 2


def test_a_redis_that_hangs_holds_nobody_up(
    redis_server: Redis, sink: SmtpSink, start_stack: Callable[..., Stack]
) -> None:
    stack = start_stack([(HOST, sink.port)], store=redis_server.uri, policy=limit(30))
    with session(stack) as client:
        assert client.deliver().startswith(b"250 ")
        redis_server.pause()
        try:
            began = time.monotonic()
            for _ in range(10):
                assert client.deliver().startswith(b"250 ")
            # Five errors open the breaker, each of at most 100 ms; from then on nobody waits.
            assert time.monotonic() - began < LATE
            assert [line["mode"] for line in stack.log_events("store_mode")] == ["local"]
        finally:
            redis_server.resume()


def test_without_redis_at_the_start(sink: SmtpSink, start_stack: Callable[..., Stack]) -> None:
    """A store that is down is no reason not to carry mail: the proxy comes up, and limits by itself."""
    stack = start_stack([(HOST, sink.port)], store=f"redis://{HOST}:1/0", policy=limit(4))
    with session(stack) as client:
        for _ in range(2):
            assert client.deliver().startswith(b"250 ")
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(SLOW)
    assert [line["mode"] for line in stack.log_events("store_mode")] == ["local"]
