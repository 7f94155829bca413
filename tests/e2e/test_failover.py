"""Pools: who gets the next session, and what a backend's end costs the clients.

The ledger is the promise: a message that was answered 250 is delivered, once, whatever happens to the backends; a
client that has not come to its text yet notices nothing. Shown with two real Postfix, one ended in the middle.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from ledger import DYING, LOST, Ledger
from peers.fixtures import StartPostfix
from peers.postfix import Postfix
from peers.process import HOST, free_port, wait_until
from rawclient import RawClient
from recorder import Recorder
from stack import RELAY, Stack

MESSAGES = 500
CLIENTS = 20
END_AFTER = 150  # messages answered 250 when a backend ends

FULL = b"451 4.4.1 no mail server available, try again later\r\n"
DONE = b"250 2.0.0 recorded\r\n"


# --- a backend ends in the middle --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Postfix.stop, Postfix.kill], ids=["stopped", "killed"])
def test_every_message_that_got_250_is_delivered_once(
    end: Callable[[Postfix], None], postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    first, second = postfix(2)
    stack = start_stack([(HOST, first.port), (HOST, second.port)], listeners=[RELAY], auth_url=None)
    ledger = Ledger(MESSAGES)
    clients = threading.Thread(target=ledger.run, args=(stack.proxy, CLIENTS))
    clients.start()
    wait_until(lambda: len(ledger.delivered) >= END_AFTER, "the clients are under way", 60)
    end(first)
    clients.join(90)
    assert not clients.is_alive()
    # What the ended one had accepted is in its queue.
    first.start()
    wait_until(lambda: first.queued() == second.queued() == 0, "both queues are empty", 60)

    balance = ledger.close(first, second)
    print(balance)
    assert balance.lost == set()
    assert balance.twice == set()
    assert ledger.told == MESSAGES
    # Only those whose text was on its way; each client has one at a time.
    assert balance.failed.keys() <= {"text"}
    assert {reply for _, reply in ledger.failed.values()} <= {LOST, DYING}
    assert len(ledger.failed) <= CLIENTS
    assert len(balance.unheard) <= len(stack.log_events("transaction", outcome="unknown"))
    assert stack.log_events("backend_failed") != []  # sessions did move
    assert first.count() > 0
    assert second.count() > first.count()


def test_a_backend_that_hangs_costs_a_bounded_time_and_comes_back(
    postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    """All of Postfix is stopped by SIGSTOP: its port still takes connections."""
    first, second = postfix(2)
    pool = {"failover": {"attempts": 1, "deadline": "6s"}}
    stack = start_stack([(HOST, first.port), (HOST, second.port)], listeners=[RELAY], auth_url=None, pool=pool)
    first.master.pause()
    took = []
    for _ in range(2):
        with RawClient(stack.proxy) as client:
            client.greeted()
            since = time.monotonic()
            assert client.deliver().startswith(b"250 2.0.0 Ok: queued as ")
            took.append(time.monotonic() - since)
    assert 2.8 < max(took) < 6.0  # half of the deadline for the one that hangs
    first.master.resume()
    for _ in range(2):
        with RawClient(stack.proxy) as client:
            assert client.greeted().deliver().startswith(b"250 2.0.0 Ok: queued as ")
    second.wait_for(3)
    first.wait_for(1)


# --- who gets the next session -----------------------------------------------------------------------------------

ONE, TWO = free_port(), free_port()
PAIR = f'[{{name: b1, addr: "{HOST}:{ONE}"}}, {{name: b2, addr: "{HOST}:{TWO}"}}]'
# Each session has a connection of its own, so that connections tell who was chosen.
PLAIN = "health: {probe: off}\n    reuse: {idle: 0s}"
POOLS = f"""
version: 1
routes:
  - {{name: turns, match: {{rcpt_domain: turns.example}}, pool: turns}}
  - {{name: heavy, match: {{rcpt_domain: heavy.example}}, pool: heavy}}
  - {{name: least, match: {{rcpt_domain: least.example}}, pool: least}}
  - {{name: narrow, match: {{}}, pool: narrow}}
pools:
  turns:
    {PLAIN}
    backends: {PAIR}
  heavy:
    {PLAIN}
    backends:
      - {{name: b1, addr: "{HOST}:{ONE}", weight: 3}}
      - {{name: b2, addr: "{HOST}:{TWO}"}}
  least:
    {PLAIN}
    balance: least_conn
    backends: {PAIR}
  narrow:
    {PLAIN}
    queue: {{max: 0}}
    backends:
      - {{name: b1, addr: "{HOST}:{ONE}", max_conns: 2}}
      - {{name: b2, addr: "{HOST}:{TWO}", max_conns: 3}}
"""


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack]) -> Stack:
    return start_module_stack([], listeners=[RELAY], auth_url=None, policy={"routes.yaml": POOLS})


@pytest.fixture
def pair() -> Iterator[tuple[Recorder, Recorder]]:
    with Recorder(HOST, ONE) as first, Recorder(HOST, TWO) as second:
        yield first, second


@pytest.fixture
def enter() -> Iterator[Callable[[RawClient], RawClient]]:
    """`enter(RawClient(...))`: closed at the test's end, if not before."""
    with ExitStack() as clients:
        yield clients.enter_context


def arrived(stack: Stack, domain: bytes) -> RawClient:
    """A session that holds a backend."""
    return RawClient(stack.proxy).greeted().envelope(recipient=b"b@" + domain)


def sessions(pair: tuple[Recorder, Recorder]) -> tuple[int, int]:
    return len(pair[0].conversations), len(pair[1].conversations)


def test_round_robin_takes_turns(stack: Stack, pair: tuple[Recorder, Recorder]) -> None:
    for _ in range(10):
        with arrived(stack, b"turns.example") as client:
            assert client.opened().end(b"x\r\n") == DONE
    assert sessions(pair) == (5, 5)
    assert [len(recorder.messages) for recorder in pair] == [5, 5]


def test_round_robin_by_weight(stack: Stack, pair: tuple[Recorder, Recorder]) -> None:
    for _ in range(12):
        arrived(stack, b"heavy.example").close()
    assert sessions(pair) == (9, 3)


def test_a_session_stays_with_its_backend(stack: Stack, pair: tuple[Recorder, Recorder]) -> None:
    with arrived(stack, b"turns.example") as client:
        assert client.opened().end(b"x\r\n") == DONE
        for _ in range(5):
            assert client.envelope(recipient=b"b@turns.example").opened().end(b"x\r\n") == DONE
    assert sorted(len(recorder.messages) for recorder in pair) == [0, 6]
    assert sum(sessions(pair)) == 1


def test_least_conn_prefers_the_idle(
    stack: Stack, pair: tuple[Recorder, Recorder], enter: Callable[[RawClient], RawClient]
) -> None:
    first, second = pair
    held: dict[Recorder, list[RawClient]] = {first: [], second: []}
    for _ in range(6):
        before = first.open
        client = enter(arrived(stack, b"least.example"))
        held[first if first.open > before else second].append(client)
    assert (first.open, second.open) == (3, 3)
    for client in held[first]:
        assert client.ask(b"QUIT").startswith(b"221 ")
    wait_until(lambda: first.open == 0, "the idle one is idle")
    for _ in range(3):
        enter(arrived(stack, b"least.example"))
    assert (first.open, second.open) == (3, 3)


def test_max_conns_is_never_exceeded(
    stack: Stack, pair: tuple[Recorder, Recorder], enter: Callable[[RawClient], RawClient]
) -> None:
    """Five places; who finds none is told so, stays, and gets the next that is free."""

    def come(_: int) -> RawClient:
        client = enter(RawClient(stack.proxy)).greeted()
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
        return client

    clients = [come(number) for number in range(20)]
    with ThreadPoolExecutor(len(clients)) as pool:
        heard = list(pool.map(lambda client: client.ask(b"RCPT TO:<b@narrow.example>"), clients))
    assert Counter(heard) == {b"250 2.1.5 recipient taken\r\n": 5, FULL: 15}
    assert (pair[0].open, pair[1].open) == (2, 3)
    happy = clients[heard.index(b"250 2.1.5 recipient taken\r\n")]
    waiting = clients[heard.index(FULL)]
    assert happy.opened().end(b"x\r\n") == DONE
    assert happy.ask(b"QUIT").startswith(b"221 ")
    wait_until(lambda: pair[0].open + pair[1].open == 4, "a place is free")
    assert waiting.ask(b"RSET").startswith(b"250 ")
    waiting.envelope()
    assert (pair[0].peak, pair[1].peak) == (2, 3)
