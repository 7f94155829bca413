"""The policies that the project ships: tripped, edited while mail flows, broken, repaired; and guessed passwords."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from peers.process import HOST, LATE, wait_until
from peers.smtptools import SmtpSink
from rawclient import RawClient, plain
from stack import EDIT_TIMEOUT, Stack, demo_policies

WRONG = b"535 5.7.8 Authentication credentials invalid\r\n"
ELSEWHERE = "127.0.3.9"
"""Another loopback address to come from."""

DENIED = re.compile(rb"450 4\.7\.1 rate limit user\.msgs\.min \(10/1[mh]\), retry in ([0-9]+)s\r\n")

DELAY = 5.0
"""Seconds; `delay` below. Who is not delayed is answered sooner, also where hashing takes a busy machine a while."""

TEN, TEN_AN_HOUR = ("rate: 10/1m\n    burst: 10", "rate: 10/1h\n    burst: 10")
MANY = "rate: 6000/1m\n    burst: 100"
GUESSES = """\
version: 1
limits:
  auth.fail.pair:
    event: auth_fail
    rate: 5/10m
    burst: 5
    key: "{net}|{login}"
    deny: {reply: "454 4.7.0 too many failed logins, retry in {retry}s", delay: 5s}
"""


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpSink]:
    server = SmtpSink(tmp_path_factory.mktemp("sink"))
    yield server
    server.stop()


@pytest.fixture
def demo(sink: SmtpSink, start_stack: Callable[..., Stack]) -> Stack:
    """The whole of policies/ as it ships."""
    return start_stack([], policy=demo_policies(sink.port))


@pytest.fixture
def slow_demo(sink: SmtpSink, start_stack: Callable[..., Stack]) -> Stack:
    """The same, where no token comes back while a test looks."""
    policy = demo_policies(sink.port)
    assert policy["limits.yaml"].count(TEN) == 1
    return start_stack([], policy=policy | {"limits.yaml": policy["limits.yaml"].replace(TEN, TEN_AN_HOUR)})


def logged_in(stack: Stack, user: str = "test", password: str = "1234", source: str | None = None) -> RawClient:
    return RawClient(stack.proxy, source).greeted().login(user, password)


def use_up(client: RawClient, refill: float = 360.0) -> tuple[int, bytes]:
    """Ten messages, and one for each `refill` seconds that they took: how many, and the reply to the next MAIL."""
    began = time.monotonic()
    count = 0
    while (reply := client.ask(b"MAIL FROM:<a@example.com>")).startswith(b"250 "):
        assert client.ask(b"RCPT TO:<b@example.com>").startswith(b"250 ")
        assert client.opened().end(b"Subject: x\r\n\r\nx\r\n").startswith(b"250 ")
        count += 1
    assert 10 <= count <= 10 + (time.monotonic() - began) / refill
    return count, reply


def test_the_demo_limit_trips_at_the_eleventh_message(demo: Stack) -> None:
    with logged_in(demo) as client, logged_in(demo) as again, logged_in(demo, "test2", "password") as other:
        count, reply = use_up(client, 6.0)
        refusal = DENIED.fullmatch(reply)
        assert refusal is not None
        # It is the user's, not the connection's, and nobody else's.
        assert DENIED.fullmatch(again.ask(b"MAIL FROM:<a@example.com>"))
        # A token comes back every six seconds; up to a tenth is added by chance.
        assert 1 <= int(refusal[1]) <= 7
        assert other.deliver().startswith(b"250 ")
        # Nothing has begun, and the session goes on.
        assert client.ask(b"RCPT TO:<b@example.com>") == b"503 5.5.1 Bad sequence of commands\r\n"
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
    [first, second] = demo.wait_for_event("denied", 2)
    expected = {"user": "test", "limit": "user.msgs.min", "subject": "test", "client": "127.0.0.1"}
    assert expected.items() <= first.items()
    assert expected.items() <= second.items()
    file, line = first["rule"].rsplit(":", 1)
    assert file == f"{demo.policies}/limits.yaml"
    assert (demo.policies / "limits.yaml").read_text().splitlines()[int(line) - 1].strip() == "user.msgs.min:"
    delivered = demo.wait_for_event("transaction", count + 1, outcome="delivered")
    assert [line["backend"] for line in delivered] == ["sink"] * (count + 1)


def test_an_edit_lifts_it_within_two_seconds_and_without_a_restart(slow_demo: Stack) -> None:
    limits = (slow_demo.policies / "limits.yaml").read_text()
    raised = limits.replace(TEN_AN_HOUR, MANY)
    assert raised != limits
    workers = slow_demo.worker_pids()
    with logged_in(slow_demo) as client:
        assert DENIED.fullmatch(use_up(client)[1])
        slow_demo.edit_policy("limits.yaml", raised)
        began = time.monotonic()
        while not (reply := client.ask(b"MAIL FROM:<a@example.com>")).startswith(b"250 "):
            assert DENIED.fullmatch(reply)
            # By itself the bucket would have a token only 6 minutes after the refusal.
            assert time.monotonic() - began < EDIT_TIMEOUT + LATE, "the edit is not in force"
            time.sleep(0.02)
        assert client.ask(b"RSET") == b"250 2.0.0 OK\r\n"
        for _ in range(20):
            assert client.deliver().startswith(b"250 ")
    assert slow_demo.worker_pids() == workers
    versions = [line["version"] for line in slow_demo.log_events("policies_loaded")]
    assert len(versions) == len(set(versions)) == 2


def test_a_broken_edit_changes_nothing_and_is_told_with_its_place(slow_demo: Stack) -> None:
    good = (slow_demo.policies / "limits.yaml").read_text()
    lines = good.splitlines()
    at = lines.index("    rate: 10/1h")
    broken = "\n".join([*lines[:at], "    rate: 6000", *lines[at + 1 :]]) + "\n"
    with logged_in(slow_demo) as client:
        assert DENIED.fullmatch(use_up(client)[1])
        slow_demo.edit_policy("limits.yaml", broken)
        [told] = slow_demo.wait_for_event("policies_rejected", timeout=EDIT_TIMEOUT + LATE)
        assert told["level"] == "error"
        [problem] = told["problems"]
        place = f"{slow_demo.policies}/limits.yaml:{at + 1}:5: limits[user.msgs.min].rate: "
        assert problem == place + "6000 is not a rate; expected a count and a period, e.g. 60/1m, 2000/1d, 2GiB/1d"
        wait_until(lambda: len(slow_demo.auth_log_events("policies_rejected")) == 1, "the auth service tells it too")
        # What was in force is in force: the limit still speaks, and with its own rate.
        assert DENIED.fullmatch(client.ask(b"MAIL FROM:<a@example.com>"))
        with logged_in(slow_demo, "test2", "password") as other:
            assert other.deliver().startswith(b"250 ")
        # One that does not even parse.
        slow_demo.edit_policy("limits.yaml", "version: 1\nlimits: [\n")
        [_, unparsed] = slow_demo.wait_for_event("policies_rejected", 2, timeout=EDIT_TIMEOUT + LATE)
        assert unparsed["problems"][0].startswith(f"{slow_demo.policies}/limits.yaml:3:1: ")
        slow_demo.edit_policy("limits.yaml", good.replace(TEN_AN_HOUR, MANY))
        slow_demo.wait_for_event("policies_loaded", 2, timeout=EDIT_TIMEOUT + LATE)
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
    # Once for each state of the folder, not at each look.
    assert len(slow_demo.log_events("policies_rejected")) == 2


def test_many_connections_of_one_address_are_refused_at_the_greeting(
    sink: SmtpSink, start_stack: Callable[..., Stack]
) -> None:
    policy = demo_policies(sink.port)
    policy["limits.yaml"] = policy["limits.yaml"].replace("rate: 120/1m\n    burst: 60", "rate: 2/1h\n    burst: 3")
    stack = start_stack([], policy=policy)
    for _ in range(3):
        with RawClient(stack.proxy) as client:
            client.greeted()
    with RawClient(stack.proxy) as client:
        greeting = client.reply()
        assert re.fullmatch(
            rb"421 4\.7\.0 proxy\.example\.net too many connections, retry in 1[6-9][0-9][0-9]s\r\n", greeting
        )
        assert client.at_end()
    with RawClient(stack.proxy, ELSEWHERE) as client:
        client.greeted()
    [denied] = stack.wait_for_event("denied")
    assert (denied["limit"], denied["subject"]) == ("ip.conn_rate", "127.0.0.1")


def guess(stack: Stack, password: str, user: str = "test", source: str | None = None) -> tuple[bytes, float]:
    """One login in a session of its own: its reply, and the seconds until it came."""
    with RawClient(stack.proxy, source) as client:
        client.greeted()
        began = time.monotonic()
        return client.ask(b"AUTH PLAIN " + plain(user, password)), time.monotonic() - began


def test_guessed_passwords_are_throttled(sink: SmtpSink, start_stack: Callable[..., Stack]) -> None:
    stack = start_stack([(HOST, sink.port)], policy={"limits.yaml": GUESSES})
    with ThreadPoolExecutor(5) as several:
        guesses = list(several.map(lambda n: guess(stack, f"guess{n}"), range(5)))
    assert [reply for reply, _ in guesses] == [WRONG] * 5
    assert all(1.0 <= waited < 1.0 + LATE for _, waited in guesses), guesses
    # Even the right one: whoever guesses must not see when he was right.
    with ThreadPoolExecutor(4) as several:
        right = several.submit(guess, stack, "1234")
        wrong = several.submit(guess, stack, "guess6")
        other_user = several.submit(guess, stack, "password", "test2")
        other_place = several.submit(guess, stack, "1234", source=ELSEWHERE)
    for reply, waited in (right.result(), wrong.result()):
        refusal = re.fullmatch(rb"454 4\.7\.0 too many failed logins, retry in ([0-9]+)s\r\n", reply)
        assert refusal is not None, reply
        assert 60 <= int(refusal[1]) <= 132  # a token comes back every 120 s
        assert DELAY <= waited < DELAY + LATE
    for reply, waited in (other_user.result(), other_place.result()):
        assert reply == b"235 2.0.0 OK\r\n"
        assert waited < DELAY
    throttled = stack.auth_log_events("auth", result="throttled")
    assert [line["limit"] for line in throttled] == ["auth.fail.pair"] * 2
    assert [line["client"] for line in throttled] == ["127.0.0.1"] * 2
    assert len(stack.auth_log_events("auth", result="wrong")) == 5


def test_a_throttled_session_may_go_on_with_another_login(sink: SmtpSink, start_stack: Callable[..., Stack]) -> None:
    stack = start_stack(
        [(HOST, sink.port)],
        policy={"limits.yaml": GUESSES.replace("burst: 5", "burst: 1").replace("delay: 5s", "delay: 1s")},
    )
    assert guess(stack, "wrong")[0] == WRONG
    with RawClient(stack.proxy) as client:
        client.greeted()
        assert client.ask(b"AUTH PLAIN " + plain("test", "1234"))[:9] == b"454 4.7.0"
        client.login("test2", "password")
        assert client.deliver().startswith(b"250 ")
    # An edit reaches the auth service as well.
    stack.edit_policy("limits.yaml", GUESSES.replace("rate: 5/10m", "rate: 600/1m"))
    began = time.monotonic()
    wait_until(lambda: len(stack.auth_log_events("policies_loaded")) == 2, "the edit in the auth service")
    assert time.monotonic() - began < EDIT_TIMEOUT + LATE
    assert guess(stack, "1234")[0] == b"235 2.0.0 OK\r\n"
