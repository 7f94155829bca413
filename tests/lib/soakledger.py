"""What a load's clients were told, against what was delivered behind the proxy: of messages that SessionLoad sends.

A message that was told 250 is delivered, once. Clients here do not try again: what was not told 250 and is delivered
all the same is one whose answer was lost.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from peers.postfix import Postfix
from sessionload import Result

NUMBER: Final = re.compile(rb"^Message-ID: <(\d+)@load>$", re.MULTILINE)


def delivered(backends: Sequence[Postfix]) -> Counter[int]:
    """How often each message was accepted, by queue id: a Postfix that was killed while it delivered may write a file
    again, which is its own affair."""
    accepted = set()
    for mta in backends:
        for one in mta.messages():
            number, queue_id = NUMBER.search(one.content), re.search(r" id ([0-9A-F]+)", one.trace["received"])
            assert number is not None
            assert queue_id is not None
            assert one.content.endswith(b"\n\nx\n")  # whole, or not at all
            accepted.add((int(number[1]), mta.name, queue_id[1]))
    return Counter(number for number, _, _ in accepted)


@dataclass
class Balance:
    """Of one part. refused: a number for each step and reply code. broken: sessions that ended without a word."""

    told: int
    delivered: int
    lost: set[int]
    twice: set[int]
    unknown: set[int]
    unheard: set[int]
    unexplained: set[int]
    refused: Counter[str]
    broken: Counter[str]

    def __str__(self) -> str:
        return (
            f"told 250: {self.told}, delivered: {self.delivered}, lost: {len(self.lost)}, twice: {len(self.twice)}, "
            f"unknown: {len(self.unknown)} (of these delivered: {len(self.unheard)}); refused: {dict(self.refused)}; "
            f"ended without a word: {dict(self.broken)}"
        )


def balance(result: Result, copies: Counter[int]) -> Balance:
    """What clients were told against what was delivered. unknown: the text was sent, and no 250 came."""
    refused, broken, unknown = Counter[str](), Counter[str](), set[int]()
    told = set(result.told)
    for failure in result.failures:
        found = re.match(r"(\d+), (\w+): (.*)", failure)
        assert found is not None, failure
        number, step, words = int(found[1]), found[2], found[3]
        code = re.search(r"b'(\d\d\d)", words)
        if step == "QUIT":
            continue  # it had its 250
        if step == "Mess":
            unknown.add(number)
        (refused if code else broken)[f"{step} {code[1] if code else words[:40]}"] += 1
    return Balance(
        told=len(told),
        delivered=len(copies),
        lost=told - copies.keys(),
        twice={number for number, times in copies.items() if times > 1},
        unknown=unknown,
        unheard=unknown & copies.keys(),
        unexplained=copies.keys() - told - unknown,
        refused=refused,
        broken=broken,
    )
