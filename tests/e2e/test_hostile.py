"""The corpora of hostile input (reference/security.md), against the running proxy: judged from behind it.

A recorder is the backend, and every case comes from a loopback address of its own, which XCLIENT tells: so what
reached the backend is known case by case. Whatever a client sends, the backend gets CR and LF only as CRLF, no NUL,
commands of ours alone, and no envelope that the client did not open outside of a message. Then once more with
Debian's Postfix as the backend, the lenient reader that smuggling needs, which trusts the proxy by its network.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pytest
from corpora import Case, cases, expand, octets, wire
from peers.fixtures import StartPostfix
from peers.process import HOST, free_port, wait_until
from rawclient import TIMEOUT, RawClient
from recorder import Conversation, Recorder
from stack import AUTH, CAPABILITIES, UNSHARED, Stack
from watch import leaked, users_yaml

BACKEND = free_port()
PASSWORD = "Sesam-oeffne-dich-0815"

AT_ONCE = 24  # cases at a time: they mostly wait; authsvc lets 32 logins wait, and refuses more
QUIET = 0.5  # seconds without another octet: the server has said what it had to say
PAUSE = 0.05  # between segments
LONG = 4000  # octets from which a case is cut at its end only
SILENT = {"none", "5xx|close|none", "no_message_on_close"}  # expectations with which no reply is fine

LISTENERS = [
    # With every extension, so that nothing is refused for want of one; and as it comes, without CHUNKING.
    {
        "name": "rich",
        "auth": ["none", *AUTH],
        "capabilities": [*CAPABILITIES, "CHUNKING", "SMTPUTF8"],
        "helo_required": True,
    },
    {"name": "usual", "auth": ["none"]},
    {"name": "submission"},
]
OUR_COMMANDS: Final = re.compile(
    rb"EHLO proxy\.example\.net|XCLIENT ADDR=\S+ (?:LOGIN=ann )?NAME=\[UNAVAILABLE\]|(?:EHLO|HELO) [!-~]+"
    rb"|MAIL FROM:<[^\r\n]*>(?: [!-~]+)*|RCPT TO:<[^\r\n]*>(?: [!-~]+)*|DATA|RSET|QUIT"
)


HOSTILE = cases("hostile_commands.json")
SMUGGLING = cases("smuggling_cases.json")


# --- segmentations: pieces and the seconds between them ----------------------------------------------------------


def at_marks(said: bytes) -> list[bytes]:
    """Split behind each CR, LF and dot; of a long case only where it happens, at its end."""
    start = max(0, len(said) - LONG)
    return [said[:start], *re.findall(rb"[^\r\n.]*[\r\n.]|[^\r\n.]+", said[start:])]


def one_by_one(said: bytes) -> list[bytes]:
    start = max(0, len(said) - LONG)
    return [said[:start], *(said[at : at + 1] for at in range(start, len(said)))]


def around_the_dot(said: bytes) -> list[bytes]:
    """The first dot at what may be a line's start, with a pause on either side, and one inside its line end."""
    dot = re.search(rb"(?<=[\r\n])\.", said)
    at = dot.start() if dot else 0
    return [said[:at], said[at : at + 1], said[at + 1 : at + 2], said[at + 2 :]]


SEGMENTATIONS: dict[str, tuple[Callable[[bytes], list[bytes]], float]] = {
    "whole": (lambda said: [said], 0.0),
    "octets": (one_by_one, 0.0),
    "at CR, LF and dot": (at_marks, 0.0005),
    "pauses around the dot": (around_the_dot, PAUSE),
}


# --- one case ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """What the client of a case heard: its replies, and whether the proxy closed by itself."""

    case: Case
    source: str
    replies: list[bytes]
    closed: bool

    @property
    def codes(self) -> list[int]:
        return [int(reply[:3]) for reply in self.replies]


@dataclass(frozen=True, slots=True)
class Play:
    """One case: say `pieces`, `pause` seconds apart, at a stage of a session of its own.

    number: makes the client's address. login: the stages behind AUTH want it.
    """

    case: Case
    number: int
    stage: str
    pieces: list[bytes]
    pause: float = 0.0
    login: bool = False

    @property
    def source(self) -> str:
        """127.16.0.0/16 is nobody's else."""
        return f"127.16.{self.number // 256}.{self.number % 256}"

    def against(self, address: tuple[str, int]) -> Heard:
        with RawClient(address, self.source) as client:
            self._reach_stage(client)
            self._say(client)
            # A login takes its time; who expects nothing waits for nothing.
            expected = self.case.get("expect") or self.case["expect_reply_class"]
            first = client.reply(QUIET if expected in SILENT else TIMEOUT)
            replies = [first, *client.replies(QUIET)] if first else []
            return Heard(self.case, self.source, replies, client.ended)

    def _reach_stage(self, client: RawClient) -> None:
        if self.stage == "pre_helo":
            assert client.reply().startswith(b"220 ")
            return
        client.greeted(b"t.test")
        if self.stage == "auth_wait":
            assert client.ask(b"AUTH LOGIN").startswith(b"334 ")
        if self.stage in ("pre_auth", "auth_wait"):
            return
        if self.login:
            client.login("ann", PASSWORD)
        steps = [b"MAIL FROM:<a@a.test>", b"RCPT TO:<r1@x.test>", b"DATA"]
        for line in steps[: ("post_auth", "mail", "rcpt", "data").index(self.stage)]:
            assert client.ask(line)[:1] in (b"2", b"3")

    def _say(self, client: RawClient) -> None:
        try:
            for piece in self.pieces:
                client.send(piece)
                time.sleep(self.pause)
        except OSError:
            pass  # the proxy closed before all was said: that is an answer


def commands(*, login: bool) -> list[Play]:
    return [
        Play(case, number, case["stage"], [expand(case["send"])], login=login) for number, case in enumerate(HOSTILE)
    ]


def texts(segmentation: str) -> list[Play]:
    cut, pause = SEGMENTATIONS[segmentation]
    return [
        Play(case, number, "rcpt" if case["group"] == "bdat" else "data", cut(wire(case)), pause)
        for number, case in enumerate(SMUGGLING)
    ]


def run(plays: Sequence[Play], address: tuple[str, int]) -> list[Heard]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [one.result() for one in [pool.submit(play.against, address) for play in plays]]


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack]) -> Iterator[Stack]:
    stack = start_module_stack(
        [(HOST, BACKEND)],
        listeners=LISTENERS,
        users=users_yaml({"ann": PASSWORD}),
        pool=UNSHARED,  # a conversation is a case
        authsvc={"failed_login_wait": "0s"},
        proxy={"log": {"format": "json", "level": "debug"}},
    )
    yield stack
    assert leaked(stack.show(), PASSWORD) == []
    assert "Traceback" not in stack.show()
    assert stack.log_events("bug") == []


@pytest.fixture
def backend() -> Iterator[Recorder]:
    with Recorder(HOST, BACKEND) as recorder:
        yield recorder


def by_client(backend: Recorder) -> dict[str, list[Conversation]]:
    """What the backend heard of each client. All connections have told whose they are."""
    wait_until(lambda: backend.open == 0, "the proxy has left its backend", 10)
    told = defaultdict(list)
    for conversation in backend.conversations:
        assert conversation.client is not None, conversation.octets
        told[conversation.client].append(conversation)
    return told


def in_order(conversation: Conversation) -> bool:
    """What the backend heard can be read in one way only, whoever reads it."""
    heard = bytes(conversation.octets)
    bare = heard.replace(b"\r\n", b"")
    return (
        b"\r" not in bare
        and b"\n" not in bare
        and b"\0" not in bare
        and all(OUR_COMMANDS.fullmatch(command) for command in conversation.commands)
    )


# --- commands ----------------------------------------------------------------------------------------------------

REPLY_LINE: Final = re.compile(rb"[2-5][0-9]{2}[ -][ -~]*\r\n")


def classes(heard: Heard) -> set[str]:
    """As the corpus names them."""
    if not heard.replies:
        return {"close" if heard.closed else "none"}
    last = f"{heard.codes[-1] // 100}xx"
    return {last, f"{last}+close", "close"} if heard.closed else {last}


def complaints(heard: Heard) -> list[str]:
    case = heard.case
    expected = set(case["expect_reply_class"].split("|"))
    lines = [line for reply in heard.replies for line in reply.splitlines(keepends=True)]
    wrong = {
        f"expected {expected}": not classes(heard) & expected,
        "a malformed line": not all(REPLY_LINE.fullmatch(line) for line in lines),
        "more than one reply": case.get("one_reply", False) and len(heard.replies) > 1,
        "a reply that must not come": "no_line_starting" in case
        and any(line.startswith(case["no_line_starting"].encode()) for line in lines),
    }
    name = case["name"]
    return [f"{name}: {what}; heard {heard.replies[-3:]} {heard.closed}" for what, holds in wrong.items() if holds]


@pytest.mark.parametrize("listener", ["submission", "rich"])
def test_hostile_commands(listener: str, stack: Stack, backend: Recorder) -> None:
    heard = run(commands(login=listener == "submission"), stack.listeners[listener])
    assert len(heard) == 136
    assert [line for one in heard for line in complaints(one)] == []
    told = by_client(backend)
    assert [c.octets for conversations in told.values() for c in conversations if not in_order(c)] == []
    assert b"smug" not in b"".join(bytes(c.octets) for c in backend.conversations)
    delivered = {one.case["name"] for one in heard if any(c.messages for c in told[one.source])}
    # Those whose text is a message, however strange; and nothing else.
    assert delivered == {"data_pipelined_body", "data_msg_headerless", "data_huge_header", "data_cmds_as_text"}


# --- smuggling ---------------------------------------------------------------------------------------------------


def verdict(heard: Heard, envelopes: list[bytes]) -> str:
    """What became of a case: the words of the corpus. envelopes: the senders of what was committed, in order."""
    smuggled = [sender for sender in envelopes if b"smug" in sender]
    codes = heard.codes
    if smuggled and codes == [250, 250, 250, 354, 250]:
        return "two"  # a transaction of its own, that the client was answered for, command by command
    if smuggled and codes == [550, 250, 250, 354, 250] and len(envelopes) == 1:
        return "second"
    if smuggled:
        return "SMUGGLED"
    if len(envelopes) == 1 and set(codes) == {250}:
        return "one"
    if not envelopes and codes and codes[-1] >= 500:
        return "refused"
    if not envelopes and (heard.closed or not codes):
        return "nothing"
    return "CONFUSED"


ACCEPTABLE: dict[str, set[str]] = {
    "one_message": {"one"},
    "reject": {"refused"},
    "one_message|reject": {"one", "refused"},
    "reject_first": {"second"},
    "two_or_reject_second": {"two"},
    "reject_or_close": {"refused", "nothing"},
    "no_message_on_close": {"nothing"},
}


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_nothing_is_smuggled(segmentation: str, stack: Stack, backend: Recorder) -> None:
    heard = run(texts(segmentation), stack.listeners["rich"])
    told = by_client(backend)
    assert [bytes(c.octets) for c in backend.conversations if not in_order(c)] == []
    failed = []
    for one in heard:
        messages = [message for c in told[one.source] for message in c.messages]
        found = verdict(one, [message.sender for message in messages])
        if found not in ACCEPTABLE[one.case["expect"]] or len(messages) > one.case["max_messages"]:
            failed.append((one.case["name"], one.case["expect"], found, one.codes))
        if "delivered_tail" in one.case:
            text = re.sub(rb"(?<=\r\n)\.", b"", messages[0].text)
            assert text.endswith(octets(one.case["delivered_tail"])), one.case["name"]
    assert failed == []
    assert len(heard) == len(SMUGGLING) == 97


def test_bdat_that_is_not_offered_delivers_nothing(stack: Stack, backend: Recorder) -> None:
    bdat = [play for play in texts("whole") if play.case["group"] == "bdat"]
    heard = run(bdat, stack.listeners["usual"])
    by_client(backend)
    assert {tuple(one.codes) for one in heard} == {(502,)}
    assert all(one.closed for one in heard)
    assert backend.messages == []


def test_nothing_is_smuggled_into_postfix(postfix: StartPostfix, start_stack: Callable[..., Stack]) -> None:
    """Debian 12's own settings: bare newlines are taken, and the proxy is in mynetworks."""
    [mta] = postfix()
    assert mta.postconf("smtpd_forbid_bare_newline") == "no"
    assert mta.postconf("mynetworks") == "127.0.0.0/8"
    [naked] = [play for play in texts("whole") if play.case["name"] == "eod_LF_dot_CRLF"]
    assert naked.against((HOST, mta.port)).codes == [250, 250, 250, 354, 250]  # so it is a reader that can be fooled
    mta.wait_for(2)

    listeners = [{**LISTENERS[0], "auth": ["none"]}]
    stack = start_stack([(HOST, mta.port)], listeners=listeners, auth_url=None)
    heard = run(texts("whole"), stack.proxy)
    wait_until(lambda: mta.queued() == 0, "Postfix has delivered what it took", 30)
    senders = Counter(message.trace["return-path"] for message in mta.messages()) - Counter(
        ["<a@a.test>", "<smug@attacker.test>"]  # of the naked one
    )
    # The two cases that open a transaction of their own behind a true end of data, and no other.
    own = [one for one in heard if 354 in one.codes]
    assert {one.case["expect"] for one in own} == {"two_or_reject_second", "reject_first"}
    assert senders["<smug@attacker.test>"] == len(own) == 2
    fooled = [one.case["name"] for one in heard if one.case["expect"] == "reject" and 250 in one.codes]
    assert fooled == ["bdat_data_after_bdat"]  # its first chunk is fine, and is then dropped
    # Whoever was told 250 for a text, or for all its chunks, has one message there. "Two" has one more.
    taken = [one for one in heard if one not in own and set(one.codes) == {250}]
    assert senders["<a@a.test>"] == len(taken) + 1
    assert senders.total() == len(taken) + 3
