"""The policies that the project ships: tripped, edited while mail flows, broken, repaired; and guessed passwords."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from peers.process import HOST, wait_until
from peers.smtptools import SmtpSink
from rawclient import RawClient, plain
from stack import EDIT_TIMEOUT, Stack, demo_policies

WRONG = b"535 5.7.8 Authentication credentials invalid\r\n"
ELSEWHERE = "127.0.3.9"
"""Another loopback address to come from."""

DENIED = re.compile(rb"450 4\.7\.1 rate limit user\.msgs\.min \(10/1m\), retry in ([0-9]+)s\r\n")

DELAY = 2.0
BUSY = 4.0
"""Seconds that a busy machine may add to a delay: hashing a password takes its cores a tenth of one each."""

GUESSES = """\
version: 1
limits:
  auth.fail.pair:
    event: auth_fail
    rate: 5/10m
    burst: 5
    key: "{net}|{login}"
    deny: {reply: "454 4.7.0 too many failed logins, retry in {retry}s", delay: 2s}
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


def logged_in(stack: Stack, user: str = "test", password: str = "1234", source: str | None = None) -> RawClient:
    return RawClient(stack.proxy, source).greeted().login(user, password)


def use_up(client: RawClient) -> bytes:
    """Ten messages, and the reply to the eleventh MAIL."""
    for n in range(10):
        assert client.deliver().startswith(b"250 "), n
    return client.ask(b"MAIL FROM:<a@example.com>")


def test_the_demo_limit_trips_at_the_eleventh_message(demo: Stack) -> None:
    with logged_in(demo) as client, logged_in(demo, "test2", "password") as other:
        refusal = DENIED.fullmatch(use_up(client))
        assert refusal is not None
        # A token comes back every six seconds; up to a tenth is added by chance.
        assert 1 <= int(refusal[1]) <= 7
        # It is the user's, not the connection's, and nobody else's.
        with logged_in(demo) as again:
            assert DENIED.fullmatch(again.ask(b"MAIL FROM:<a@example.com>"))
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
    delivered = demo.wait_for_event("transaction", 11, outcome="delivered")
    assert [line["backend"] for line in delivered] == ["sink"] * 11


def test_an_edit_lifts_it_within_two_seconds_and_without_a_restart(demo: Stack) -> None:
    limits = (demo.policies / "limits.yaml").read_text()
    raised = limits.replace("rate: 10/1m\n    burst: 10", "rate: 6000/1m\n    burst: 100")
    assert raised != limits
    workers = demo.worker_pids()
    with logged_in(demo) as client:
        assert DENIED.fullmatch(use_up(client))
        demo.edit_policy("limits.yaml", raised)
        began = time.monotonic()
        while not (reply := client.ask(b"MAIL FROM:<a@example.com>")).startswith(b"250 "):
            assert DENIED.fullmatch(reply)
            # By itself the bucket would have a token only 6 s after the refusal.
            assert time.monotonic() - began < EDIT_TIMEOUT, "the edit is not in force"
            time.sleep(0.02)
        assert client.ask(b"RSET") == b"250 2.0.0 OK\r\n"
        for _ in range(20):
            assert client.deliver().startswith(b"250 ")
    assert demo.worker_pids() == workers
    versions = [line["version"] for line in demo.log_events("policies_loaded")]
    assert len(versions) == len(set(versions)) == 2


def test_a_broken_edit_changes_nothing_and_is_told_with_its_place(demo: Stack) -> None:
    good = (demo.policies / "limits.yaml").read_text()
    lines = good.splitlines()
    at = lines.index("    rate: 10/1m")
    broken = "\n".join([*lines[:at], "    rate: 6000", *lines[at + 1 :]]) + "\n"
    with logged_in(demo) as client:
        assert DENIED.fullmatch(use_up(client))
        demo.edit_policy("limits.yaml", broken)
        [told] = demo.wait_for_event("policies_rejected", timeout=EDIT_TIMEOUT)
        assert told["level"] == "error"
        [problem] = told["problems"]
        place = f"{demo.policies}/limits.yaml:{at + 1}:5: limits[user.msgs.min].rate: "
        assert problem == place + "6000 is not a rate; expected a count and a period, e.g. 60/1m, 2000/1d, 2GiB/1d"
        wait_until(lambda: len(demo.auth_log_events("policies_rejected")) == 1, "the auth service tells it too")
        # What was in force is in force: the limit still speaks, and with its own rate.
        assert DENIED.fullmatch(client.ask(b"MAIL FROM:<a@example.com>"))
        with logged_in(demo, "test2", "password") as other:
            assert other.deliver().startswith(b"250 ")
        # One that does not even parse.
        demo.edit_policy("limits.yaml", "version: 1\nlimits: [\n")
        [_, unparsed] = demo.wait_for_event("policies_rejected", 2, timeout=EDIT_TIMEOUT)
        assert unparsed["problems"][0].startswith(f"{demo.policies}/limits.yaml:3:1: ")
        demo.edit_policy("limits.yaml", good.replace("rate: 10/1m\n    burst: 10", "rate: 6000/1m\n    burst: 100"))
        demo.wait_for_event("policies_loaded", 2, timeout=EDIT_TIMEOUT)
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
    # Once for each state of the folder, not at each look.
    assert len(demo.log_events("policies_rejected")) == 2


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
    assert all(1.0 <= waited < 1.0 + BUSY for _, waited in guesses), guesses
    # Even the right one: whoever guesses must not see when he was right.
    with ThreadPoolExecutor(4) as several:
        right = several.submit(guess, stack, "1234")
        wrong = several.submit(guess, stack, "guess6")
        other_user = several.submit(guess, stack, "password", "test2")
        other_place = several.submit(guess, stack, "1234", source=ELSEWHERE)
    for reply, waited in (right.result(), wrong.result()):
        refusal = re.fullmatch(rb"454 4\.7\.0 too many failed logins, retry in ([0-9]+)s\r\n", reply)
        assert refusal is not None, reply
        assert 100 <= int(refusal[1]) <= 132  # a token comes back every 120 s
        assert DELAY <= waited < DELAY + BUSY
    for reply, waited in (other_user.result(), other_place.result()):
        assert reply == b"235 2.0.0 OK\r\n"
        assert waited < DELAY
    throttled = stack.auth_log_events("auth", result="throttled")
    assert [line["limit"] for line in throttled] == ["auth.fail.pair"] * 2
    assert [line["client"] for line in throttled] == ["127.0.0.1"] * 2
    assert len(stack.auth_log_events("auth", result="wrong")) == 5


def test_a_throttled_session_may_go_on_with_another_login(sink: SmtpSink, start_stack: Callable[..., Stack]) -> None:
    stack = start_stack([(HOST, sink.port)], policy={"limits.yaml": GUESSES.replace("burst: 5", "burst: 1")})
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
    assert time.monotonic() - began < EDIT_TIMEOUT
    assert guess(stack, "1234")[0] == b"235 2.0.0 OK\r\n"
