"""Every smuggling case through the proxy into real mail servers, judged by the envelopes that they delivered.

Postfix with Debian's settings and the proxy in mynetworks, Exim and OpenSMTPD: each reads the end of data in its own
way. What they delivered must be what the proxy's log says it handed over, sender by sender. The control sends the
same cases to that Postfix directly, where some of them do smuggle: so the eye that finds none behind the proxy sees.

SMTPGATE_LONG=1 plays all segmentations, servers and policies; by default each text is one write.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from corpora import cases, wire
from hostile import POLICIES, SEGMENTATIONS, SMUGGLER, Policy, expected
from hostileplay import Heard, Play, run, texts
from peers.fixtures import StartExim, StartPostfix
from peers.process import HOST, wait_until
from stack import CAPABILITIES, Stack

LONG = os.environ.get("SMTPGATE_LONG") == "1"
TEXTS = [*cases("smuggling_cases.json"), *cases("more_smuggling.json")]
PLAYED = tuple(SEGMENTATIONS) if LONG else ("whole",)
AT_ONCE = 48
# OpenSMTPD listens with a backlog of 5 (`ss -ltn`). Of more clients that come at once, with the proxy before it or
# without, the kernel forgets some, which are greeted when TCP has tried again: after 1, 3, 7, 15, 31 s.
SLOWLY = 8
RICH: dict[str, Any] = {
    "auth": ["none"],
    "capabilities": [*CAPABILITIES, "CHUNKING", "SMTPUTF8"],
    "error_delay": "0s",
}
# By default each server sees one policy, and Postfix, which is most easily fooled, both.
BEHIND = [(name, policy) for name in ("postfix", "exim", "opensmtpd") for policy in POLICIES]
USUAL = {("postfix", "reject"), ("postfix", "normalize"), ("exim", "normalize"), ("opensmtpd", "reject")}

# Where each server writes the envelope's sender: Return-Path, or Exim's Received.
SENDER = re.compile(rb"(?:^Return-[Pp]ath:|\(envelope-from) <([^>\n]*)>", re.MULTILINE)
OWN = ("two_or_reject_second", "reject_first")  # expectations with a transaction that the client opened itself

Delivered = Callable[[], list[str]]
"""The senders of all that was delivered."""


def plays() -> list[Play]:
    found: list[Play] = []
    for segmentation in PLAYED:
        found += texts(TEXTS, segmentation, len(found))
    return found


def sender(text: bytes) -> str:
    found = SENDER.search(text)
    assert found is not None, text[:400]
    return found[1].decode()


@pytest.fixture
def serve(
    postfix: StartPostfix, exim: StartExim, request: pytest.FixtureRequest
) -> Callable[[str], tuple[int, Delivered]]:
    """`serve(name)`: a running server's port, and what it delivered."""

    def start(name: str) -> tuple[int, Delivered]:
        if name == "postfix":
            [mta] = postfix()
            assert mta.postconf("smtpd_forbid_bare_newline") == "no"
            assert mta.postconf("mynetworks") == "127.0.0.0/8"
            return mta.port, lambda: [one.trace["return-path"].strip("<>") for one in mta.messages()]
        server = exim() if name == "exim" else request.getfixturevalue("opensmtpd")
        return server.port, lambda: [sender(text) for text in server.messages()]

    return start


def smuggled(senders: Sequence[str], heard: Sequence[Heard], policy: Policy) -> int:
    """Envelopes of the smuggler beyond those that its client opened behind a true end of data."""
    own = [one for one in heard if expected(one.case, policy) in OWN and 354 in one.codes and one.codes[-1] == 250]
    return sum(SMUGGLER in one for one in senders) - len(own)


@pytest.mark.parametrize(("name", "policy"), [one for one in BEHIND if LONG or one in USUAL])
def test_nothing_is_smuggled(
    name: str,
    policy: Policy,
    serve: Callable[[str], tuple[int, Delivered]],
    start_stack: Callable[..., Stack],
    capsys: pytest.CaptureFixture[str],
) -> None:
    port, delivered = serve(name)
    listeners = [{**RICH, "name": policy, "bare_newline": policy}]
    stack = start_stack([(HOST, port)], listeners=listeners, auth_url=None, pool={"health": {"probe": "off"}})
    heard = run(plays(), stack.proxy, SLOWLY if name == "opensmtpd" else AT_ONCE)
    assert len(heard) == len(TEXTS) * len(PLAYED)

    def admitted() -> Counter[str]:
        return Counter(line["sender"] for line in stack.log_events("transaction", outcome="delivered"))

    wait_until(lambda: Counter(delivered()) == admitted(), "the server has delivered what the proxy handed over", 60)
    assert set(delivered()) == {"a@a.test", "smug@attacker.test"}
    found = smuggled(delivered(), heard, policy)
    with capsys.disabled():
        print(f"\n{name}, {policy}: {len(heard)} texts, {len(delivered())} messages delivered, {found} smuggled")
    assert found == 0


def test_the_same_cases_do_smuggle_where_no_proxy_stands_between(
    postfix: StartPostfix, capsys: pytest.CaptureFixture[str]
) -> None:
    [mta] = postfix()
    heard = run([play for play in plays() if len(wire(play.case)) < 4000], (HOST, mta.port), AT_ONCE)
    wait_until(lambda: mta.queued() == 0, "Postfix has delivered what it took", 60)
    found = smuggled([one.trace["return-path"] for one in mta.messages()], heard, "reject")
    with capsys.disabled():
        print(f"\nPostfix without the proxy: {len(heard)} texts, {found} smuggled")
    assert found > 0
