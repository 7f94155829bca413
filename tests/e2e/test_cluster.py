"""A cluster of three real Postfix under load, while each of them ends in its own way and comes back.

One is stopped (TERM), one killed (KILL), one frozen (STOP). What the clients were told is held against what was
delivered; the ledger is printed. SMTPGATE_LONG=1 sends 5,000 messages instead of 600.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable

import pytest
from ledger import DYING, LOST, Ledger
from peers.fixtures import StartPostfix
from peers.postfix import Postfix
from peers.process import HOST, wait_until
from stack import RELAY, Stack

LONG = os.environ.get("SMTPGATE_LONG") == "1"
MESSAGES = 5000 if LONG else 600
CLIENTS = 50

# What an operator would set for machines in one room, where a second is long.
POOL = {
    "health": {"probe": "ehlo", "every": "500ms", "timeout": "500ms", "rise": 1, "fall": 2},
    "breaker": {"connect": 3, "open": "1s"},
    "failover": {"attempts": 2, "deadline": "6s"},
}


def disturb(ledger: Ledger, first: Postfix, second: Postfix, third: Postfix) -> None:
    """One after the other ends, and comes back, as the messages go."""

    def at(part: float) -> None:
        wait_until(lambda: ledger.told >= part * ledger.messages, f"{part:.0%} of the messages are told of", 120)

    at(0.15)
    first.stop()
    at(0.25)
    first.start()
    at(0.40)
    second.kill()
    at(0.50)
    second.start()
    at(0.65)
    third.master.pause()
    at(0.80)
    third.master.resume()


@pytest.mark.parametrize("until", ["data_start", "buffered"])
def test_the_ledger_of_a_cluster_whose_backends_end_and_come_back(
    until: str, postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    backends = postfix(3)
    failover = {**POOL["failover"], "until": until}
    pool = {**POOL, "failover": failover}
    stack = start_stack([(HOST, one.port) for one in backends], listeners=[RELAY], auth_url=None, pool=pool)
    ledger = Ledger(MESSAGES)
    clients = threading.Thread(target=ledger.run, args=(stack.proxy, CLIENTS))
    clients.start()
    try:
        disturb(ledger, *backends)
    finally:
        clients.join(180)
    assert not clients.is_alive()
    wait_until(lambda: sum(one.queued() for one in backends) == 0, "all queues are empty", 60)

    balance = ledger.close(*backends)
    unknown = stack.log_events("transaction", outcome="unknown")
    replayed = [line for line in stack.log_events("transaction") if line["replays"]]
    print(f"\n{until}: {balance}; outcome unknown: {len(unknown)}, said again: {len(replayed)}")
    assert ledger.told == MESSAGES
    assert balance.lost == set()
    assert balance.twice == set()
    assert min(balance.share.values()) > 0
    # Nobody is failed but in the text, and with words that claim nothing.
    assert balance.failed.keys() <= {"text"}
    words = Counter(reply for _, reply in ledger.failed.values())
    assert words.keys() <= {LOST, DYING}
    assert len(balance.unheard) <= len(unknown)
    failures = sum(balance.failed.values())
    if until == "buffered":
        assert words[LOST] == len(unknown)  # only those whose final dot was on its way
        assert replayed
    else:
        assert failures <= CLIENTS
    if LONG:
        assert failures < 0.005 * MESSAGES
