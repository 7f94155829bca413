"""Cases of tests/corpora against the running proxy: each from a loopback address of its own, judged from behind it.

The backend is a `Recorder`, and XCLIENT tells it whose a conversation is: so what reached the backend is known case
by case. What is right is `hostile`'s to say.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from corpora import Case, wire
from hostile import SEGMENTATIONS, clean, replies, spelled
from peers.process import wait_until
from rawclient import TIMEOUT, RawClient
from recorder import Conversation, Recorder

QUIET: Final = 0.5  # seconds without another octet: the server has said what it had to say
SILENT: Final = frozenset({"no_message_on_close"})  # expectations with which no reply is fine

OUR_COMMANDS: Final = re.compile(
    rb"EHLO proxy\.example\.net|XCLIENT ADDR=\S+ (?:LOGIN=\S+ )?NAME=\[UNAVAILABLE\]|(?:EHLO|HELO) [!-~]+"
    rb"|MAIL FROM:<[^\r\n]*>(?: [!-~]+)*|RCPT TO:<[^\r\n]*>(?: [!-~]+)*|DATA|RSET|QUIT"
)

PAUSES: Final = {"at CR, LF and dot": 0.0005, "around the dot": 0.05}  # seconds between pieces of a segmentation

Connect = Callable[[tuple[str, int], str], RawClient]


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

    @property
    def answer(self) -> str:
        return spelled(b"".join(self.replies), self.closed)


@dataclass(frozen=True, slots=True)
class Play:
    """One case: say `pieces`, `pause` seconds apart, at a stage of a session of its own.

    number: makes the client's address. answer: what it is to hear, as `hostile.spelled`: so long it waits. login: who
    logs in where a stage is behind AUTH. connect: to the proxy.
    """

    case: Case
    number: int
    stage: str
    pieces: list[bytes]
    pause: float = 0.0
    answer: str | None = None
    login: tuple[str, str] | None = None
    connect: Connect = RawClient

    @property
    def source(self) -> str:
        """127.17.0.0/16 is nobody's else."""
        return f"127.17.{self.number // 256}.{self.number % 256}"

    def against(self, address: tuple[str, int]) -> Heard:
        with self.connect(address, self.source) as client:
            self._reach_stage(client)
            self._say(client)
            heard = []
            for _ in range(self._awaited):  # a login takes its time
                if not (reply := client.reply(TIMEOUT)):
                    break
                heard.append(reply)
            return Heard(self.case, self.source, [*heard, *client.replies(QUIET)], client.ended)

    @property
    def _awaited(self) -> int:
        """How many replies will come; of a text at least one, unless nothing must come."""
        if self.answer is not None:
            return len(replies(self.answer))
        return 0 if self.case["expect"] in SILENT else 1

    def _reach_stage(self, client: RawClient) -> None:
        if self.stage == "pre_helo":
            assert client.reply().startswith(b"220 ")
            return
        client.greeted(b"t.test")
        if self.stage == "auth_wait":
            assert client.ask(b"AUTH LOGIN").startswith(b"334 ")
        if self.stage in ("pre_auth", "auth_wait"):
            return
        if self.login is not None:
            client.login(*self.login)
        steps = [b"MAIL FROM:<a@a.test>", b"RCPT TO:<r1@x.test>", b"DATA"]
        for line in steps[: ("post_auth", "mail", "rcpt", "data").index(self.stage)]:
            assert client.ask(line)[:1] in (b"2", b"3")

    def _say(self, client: RawClient) -> None:
        try:
            for piece in self.pieces:
                client.send(piece)
                if self.pause:
                    time.sleep(self.pause)
        except OSError:
            pass  # the proxy closed before all was said: that is an answer


def texts(cases: Sequence[Case], segmentation: str, first: int = 0, connect: Connect = RawClient) -> list[Play]:
    """Cases of the smuggling corpora, cut so. first: the number of the first."""
    cut, pause = SEGMENTATIONS[segmentation], PAUSES.get(segmentation, 0.0)
    return [
        Play(case, number, "rcpt" if chunked(case) else "data", cut(wire(case)), pause, connect=connect)
        for number, case in enumerate(cases, first)
    ]


def chunked(case: Case) -> bool:
    """It is said instead of DATA, not behind it."""
    return bool(case["group"] == "bdat")


def run(plays: Sequence[Play], address: tuple[str, int], at_once: int) -> list[Heard]:
    """All of them, so many at a time: they mostly wait."""
    with ThreadPoolExecutor(at_once) as pool:
        return [one.result() for one in [pool.submit(play.against, address) for play in plays]]


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
    return clean(bytes(conversation.octets)) and all(map(OUR_COMMANDS.fullmatch, conversation.commands))
