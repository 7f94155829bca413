"""What clients were told of their messages, against what Postfix has: the promise of a proxy, in numbers.

A message that was answered 250 is delivered, once, whatever happens to the backends. Clients here do not try again:
what they were refused and is delivered all the same had its answer lost, and would be a duplicate otherwise.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from peers.postfix import Postfix
from rawclient import RawClient

PAUSE = 0.002
"""Seconds between a step's parts: steps are spread, so that some client is in each of them."""

LOST = b"451 4.4.2 Mail server lost, try again later\r\n"
"""The proxy's words where a backend was lost and could not be replaced."""

DYING = b"451 4.3.0 Error: queue file write error\r\n"
"""Postfix's own last words, where cleanup(8) is killed before smtpd(8)."""

PATIENCE = 60.0
"""Seconds that a client waits for a reply."""


@dataclass(slots=True)
class Ledger:
    """Of messages 0 to `messages` - 1. delivered: answered 250. failed: message -> step and reply."""

    messages: int
    delivered: set[int] = field(default_factory=set)
    failed: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._numbers = iter(range(self.messages))

    @property
    def told(self) -> int:
        """Messages that their clients have heard of."""
        return len(self.delivered) + len(self.failed)

    def run(self, address: tuple[str, int], clients: int) -> None:
        """Send all. Half of the clients come anew for each message, the others stay for all of theirs."""
        with ThreadPoolExecutor(clients) as pool:
            ways = [self._stay if number % 2 else self._return for number in range(clients)]
            for one in [pool.submit(way, address) for way in ways]:
                one.result()

    def _stay(self, address: tuple[str, int]) -> None:
        with RawClient(address) as client:
            client.greeted()
            while (number := self._take()) is not None:
                self._send(client, number)

    def _return(self, address: tuple[str, int]) -> None:
        while (number := self._take()) is not None:
            with RawClient(address) as client:
                self._send(client.greeted(), number)
                client.ask(b"QUIT")

    def _take(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)

    def _send(self, client: RawClient, number: int) -> None:
        """One transaction, without trying again."""
        steps = [
            ("MAIL", [b"MAIL FROM:<m%d@example.com>\r\n" % number]),
            ("RCPT", [b"RCPT TO:<b@example.com>\r\n"]),
            ("DATA", [b"DATA\r\n"]),
            ("text", [b"Subject: %d\r\n\r\n" % number, b"line\r\n" * 300, b"line\r\n" * 200 + b".\r\n"]),
        ]
        for step, parts in steps:
            for octets in parts:
                client.send(octets)
                time.sleep(PAUSE)
            reply = client.reply(PATIENCE)
            if reply[:1] not in (b"2", b"3"):
                self.failed[number] = step, reply
                client.ask(b"RSET")
                return
        self.delivered.add(number)

    def close(self, *backends: Postfix) -> Balance:
        """Against what the backends delivered, their queues empty."""
        copies = _copies(*backends)
        return Balance(
            told=len(self.delivered),
            failed=Counter(step for step, _ in self.failed.values()),
            lost=self.delivered - copies.keys(),
            twice={number for number, times in copies.items() if times > 1},
            unheard=self.failed.keys() & copies.keys(),
            share={mta.name: mta.count() for mta in backends},
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """told: messages that were answered 250. failed: a number a step. unheard: failed, and delivered all the same.
    share: files a backend.
    """

    told: int
    failed: Counter[str]
    lost: set[int]
    twice: set[int]
    unheard: set[int]
    share: dict[str, int]

    def __str__(self) -> str:
        return (
            f"client said 250: {self.told}, lost: {len(self.lost)}, duplicated: {len(self.twice)}; "
            f"failed: {dict(self.failed)}, of these delivered all the same: {len(self.unheard)}; {self.share}"
        )


def _copies(*backends: Postfix) -> Counter[int]:
    """How often each message was accepted. By queue id: a Postfix that was killed while it delivered may write a
    file again, which is its own affair."""
    accepted = set()
    for mta in backends:
        for one in mta.messages():
            found = re.search(r" id ([0-9A-F]+)", one.trace["received"])
            assert found is not None
            assert one.content.count(b"line\n") == 500  # whole, or not at all
            accepted.add((int(one.trace["return-path"][2:].partition("@")[0]), mta.name, found[1]))
    return Counter(number for number, _, _ in accepted)
