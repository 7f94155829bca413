"""Octets that a mail server, or an auth_http server, says behind its answer: whose answer are they? Nobody's.

On the wire, at every split: the answer and what is appended are two packets, cut at each octet, and behind each
command the client waits until both have come. A lane is a lying server with a route and a pool of its own, so that
lanes do not meet; within one the lie is told once, and all that is said before and after it names what it answers.
What is demanded of each run is `wrong`'s to say (reference/security.md B1). Behind a 220 to STARTTLS:
test_starttls_injection.py.

SMTPGATE_LONG=1 appends everything at every step; by default every step has two things appended, at every split.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pytest
import yaml
from hostileplay import OUR_COMMANDS
from liar import Committed, Liar, Lie, honest
from lyingauth import LyingAuth, answer, grant
from lyingauth import honest as honest_auth
from peers.process import HOST
from rawclient import RawClient, plain
from stack import NO_LIMITS, RELAY, SUBMISSION, Stack

LONG = os.environ.get("SMTPGATE_LONG") == "1"
LANES: Final = 8

# What is appended. The first two are what a client would be told of another command.
USUAL: Final = (b"250 INJECTED\r\n", b"550 INJECTED\r\n")
MORE: Final = (
    b"354 INJECTED\r\n",
    b"421 INJECTED\r\n",
    b"250-INJECTED\r\n",
    b"2",
    b"\r\n",
    b"250 INJECTED\r\n250 INJECTED\r\n354 INJECTED\r\n250 INJECTED\r\n",
)
APPENDED: Final = (*USUAL, *MORE) if LONG else USUAL
PART: Final = b"250-INJECTED\r\n"
"""Not a reply yet: what is said next, and answers the next command, is its last line. Nothing is shifted by it."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a lie is told: the `nth` time that the server answers `name`, `about` whom.

    group: replies that the proxy waits for together, up to this one, and in all. spoils: the transaction, from 1,
    that fails for it; 0 where the connection has carried a message and is replaced unnoticed.
    """

    name: str
    nth: int
    about: bytes = b""
    group: tuple[int, int] = (1, 1)
    spoils: int = 1


# The proxy introduces itself (GREETING, EHLO), then the client (XCLIENT, EHLO); MAIL goes with the first RCPT, behind
# a RSET where a transaction was left.
STEPS: Final = (
    Step("GREETING", 1),
    Step("EHLO", 1),
    Step("XCLIENT", 1),
    Step("EHLO", 2),
    Step("MAIL", 1, b"s1@c.test", (1, 2)),
    Step("RCPT", 1, b"a", (2, 2)),
    Step("RCPT", 2, b"nobody"),
    Step("DATA", 1),
    Step(".", 1, b"1", spoils=0),
    Step("MAIL", 2, b"s2@c.test", (1, 2), spoils=0),
    Step("RCPT", 3, b"b", (2, 2), spoils=0),
    Step("RSET", 1, group=(1, 3), spoils=0),
    Step("MAIL", 3, b"s3@c.test", (2, 3), spoils=0),
    Step(".", 2, b"3", spoils=0),
)
SILENT: Final = frozenset({"GREETING", "EHLO", "XCLIENT"})  # steps of which the client hears nothing

# Transactions of one session, by number: their recipients, and whether a message follows. Then another session's.
SESSIONS: Final = (
    ((1, (b"a", b"nobody"), True), (2, (b"b",), False), (3, (b"c",), True)),
    ((4, (b"d",), True),),
)


@dataclass(frozen=True, slots=True)
class Said:
    """A client's command, and what it was answered. own: what the server would have said to it."""

    transaction: int
    command: bytes
    reply: bytes
    own: bytes

    @property
    def right(self) -> bool:
        """It was answered by its own answer; lines before the last may be a part of a reply that was appended."""
        return self.reply.endswith(self.own)


class Lane:
    """A lying server, and what a client says to it through the proxy."""

    def __init__(self, number: int, liar: Liar) -> None:
        self.domain = b"lane%d.test" % number
        self.liar = liar

    def mailbox(self, name: bytes) -> bytes:
        return b"%b@%b" % (name, self.domain)

    def play(self, address: tuple[str, int], lie: Lie) -> list[Said]:
        """Both sessions, one after the other."""
        self.liar.tell(lie)
        return [said for transactions in SESSIONS for said in self._session(address, transactions)]

    def _session(
        self, address: tuple[str, int], transactions: Sequence[tuple[int, tuple[bytes, ...], bool]]
    ) -> Iterator[Said]:
        with RawClient(address) as client:
            client.greeted(b"c.test")

            def ask(transaction: int, command: bytes, own: bytes) -> Said:
                reply = client.ask(command)
                self.liar.settle()
                return Said(transaction, command, reply, own)

            for number, names, whole in transactions:
                yield ask(number, b"MAIL FROM:<s%d@c.test>" % number, b"250 2.0.0 OK\r\n")
                for mailbox in map(self.mailbox, names):
                    yield ask(number, b"RCPT TO:<%b>" % mailbox, honest("RCPT", mailbox))
                if whole:
                    yield (go := ask(number, b"DATA", honest("DATA")))
                    if go.reply.startswith(b"354 "):
                        yield ask(number, text(number) + b".", honest(".", b"%d" % number))
                yield ask(number, b"RSET", b"250 2.0.0 OK\r\n")
            yield ask(0, b"QUIT", b"221 2.0.0 Bye\r\n")

    def envelope(self, number: int) -> Committed:
        """What the proxy has admitted of a transaction in which each answer was its own."""
        names = next(names for one in SESSIONS for n, names, _ in one if n == number)
        taken = tuple(self.mailbox(name) for name in names if name != b"nobody")
        return Committed(b"s%d@c.test" % number, taken, text(number))


def text(number: int) -> bytes:
    return b"Subject: %d\r\n\r\nINNOCENT\r\n" % number


# --- what is right ----------------------------------------------------------------------------------------------


def unseen(step: Step, octets: bytes, cut: int) -> bool:
    """Nobody can tell yet: the first packet is one answer too many, and ends before the next, or a handshake went on
    when its packet ended with the answer; so one wrong answer may be told. It is the last one of its transaction.
    """
    own = honest(step.name, step.about)
    place, of = step.group
    if step.name in SILENT:
        return cut == len(own)
    return place < of and place - 1 + (own + octets)[:cut].count(b"\r\n") == of


def refused(step: Step, octets: bytes, said: Said) -> bool:
    """Behind a 354 a server may refuse the text before its end (RFC 5321 section 3.3): that is its answer."""
    return (step.name, said.reply) == ("DATA", octets) and octets[:1] == b"5" and said.command == text(1) + b"."


def wrong(step: Step, lie: Lie, lane: Lane, heard: Sequence[Said]) -> list[str]:
    """What is wrong with a run, in words.

    Each answer is the command's own, or 451 (503 to a DATA without a recipient), but for one that `unseen` allows. A
    transaction with another answer than its own is not committed, and at most the one of the lie has any. What is
    committed is what was admitted, once, and was answered 250.
    """
    found, failed, excused = [], set[int](), 0
    allowed = unseen(step, lie.octets, lie.cut)
    for said in heard:
        if said.right:
            continue
        first_rcpt = said.command.startswith(b"RCPT") and said.transaction not in failed
        failed.add(said.transaction)
        if said.reply.startswith((b"451 4.", b"503 5.5.1 ")) or refused(step, lie.octets, said):
            continue
        excused += 1
        if not (allowed and first_rcpt and excused == 1):
            found.append(f"{said.command!r} was answered {said.reply!r}")
    spoiled = {step.spoils} - {0}
    if allowed and not step.spoils:
        spoiled = {int(step.about[1:2] or b"3")} if excused else set()
    merged = lie.octets == PART and step.name not in ("RCPT", "DATA", ".")
    if failed != spoiled and not (merged and not failed):
        found.append(f"transactions {failed or 'none'} failed, expected {spoiled or 'none'}")
    told = {said.transaction for said in heard if said.command.startswith(b"Subject") and said.right}
    if lane.liar.messages != [lane.envelope(number) for number in sorted(told)]:
        found.append(f"told 250 for {told}, committed {lane.liar.messages}")
    lines = [line for one in lane.liar.connections for line in one.commands]
    found += [f"said {line!r}" for line in lines if not OUR_COMMANDS.fullmatch(line)]
    if not lane.liar.lied:
        found.append("there was no lie")
    return [f"{step.name} {step.nth} {lie.octets!r} cut at {lie.cut}: {what}" for what in found]


# --- mail servers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lanes() -> Iterator[list[Lane]]:
    made = [Lane(number, Liar()) for number in range(LANES)]
    yield made
    for lane in made:
        lane.liar.stop()


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack], lanes: list[Lane]) -> Iterator[Stack]:
    # One try, so that a client hears of each fault; a connection that rests is another session's.
    settings = {"health": {"probe": "off"}, "failover": {"attempts": 1}, "reuse": {"idle": "20s"}}
    names = [lane.domain.decode() for lane in lanes]
    pools = {
        name: {**settings, "backends": [{"name": "liar", "addr": f"{HOST}:{lane.liar.port}"}]}
        for name, lane in zip(names, lanes, strict=True)
    }
    routes = [{"name": name, "match": {"rcpt_domain": [name]}, "pool": name} for name in names]
    routes.append({"name": "default", "match": {}, "pool": names[0]})
    policy = {**NO_LIMITS, "routes.yaml": yaml.dump({"version": 1, "routes": routes, "pools": pools}, Dumper=Plain)}
    stack = start_module_stack([(HOST, lanes[0].liar.port)], listeners=[RELAY], auth_url=None, policy=policy)
    yield stack
    assert "Traceback" not in stack.show()
    assert stack.log_events("bug") == []


class Plain(yaml.SafeDumper):
    """Every value written out: the loader refuses anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def splits(step: Step, octets: bytes, mailbox: Callable[[bytes], bytes]) -> range:
    about = mailbox(step.about) if step.name == "RCPT" else step.about
    return range(1, len(honest(step.name, about) + octets) + 1)


def test_what_a_backend_appends_is_no_answer(
    stack: Stack, lanes: list[Lane], capsys: pytest.CaptureFixture[str]
) -> None:
    free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def run(job: tuple[Step, bytes, int]) -> tuple[list[str], bool]:
        step, octets, cut = job
        lane = free.get()
        try:
            lie = Lie(step.name, step.nth, octets, cut)
            heard = lane.play(stack.proxy, lie)
            return wrong(step, lie, lane, heard), any(b"INJECTED" in said.reply for said in heard)
        finally:
            free.put(lane)

    jobs = [
        (step, octets, cut) for step in STEPS for octets in APPENDED for cut in splits(step, octets, lanes[0].mailbox)
    ]
    with ThreadPoolExecutor(LANES) as pool:
        done = list(pool.map(run, jobs))
    assert [line for lines, _ in done for line in lines] == []
    with capsys.disabled():
        print(f"\n{len(jobs)} lies of a mail server, {sum(seen for _, seen in done)} of them told to a client")


# --- auth_http servers ------------------------------------------------------------------------------------------

GRANTED: Final = grant(9)
AUTH_APPENDED: Final = (GRANTED, answer(b"Auth-Status: INJECTED")) if LONG else (GRANTED,)


@pytest.fixture(scope="module")
def auth() -> Iterator[LyingAuth]:
    with LyingAuth() as server:
        yield server


@pytest.fixture(scope="module")
def submission(start_module_stack: Callable[..., Stack], auth: LyingAuth) -> Iterator[Stack]:
    # Its questions are one behind another: whatever it keeps to use again is used by the next.
    stack = start_module_stack([(HOST, 9)], listeners=[SUBMISSION], auth_url=auth.url)
    yield stack
    assert "Traceback" not in stack.show()
    assert stack.log_events("bug") == []


def login(stack: Stack, user: str) -> bytes:
    with RawClient(stack.proxy) as client:
        return client.greeted().ask(b"AUTH PLAIN " + plain(user, "x"))


def right(user: str) -> bytes:
    return b"235 2.0.0 OK\r\n" if user.startswith("good") else b"535 5.7.0 not you, %b\r\n" % user.encode()


@pytest.mark.parametrize("first", ["good", "bad"])
def test_what_an_auth_server_appends_is_no_answer(
    first: str, submission: Stack, auth: LyingAuth, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lie behind the answer to one user; the next, who may not log in, does not, and hears it by name."""
    told, before = 0, auth.connections
    for octets in AUTH_APPENDED:
        whole = len(honest_auth(first.encode() + b"0000") + octets)
        for cut in range(1, whole + 1):
            told += 1
            one, other = f"{first}{told:04}", f"next{told:04}"
            auth.tell(octets, cut)
            assert login(submission, one) == right(one), (octets, cut)
            auth.settle()
            assert login(submission, other) == right(other), (octets, cut)
            assert auth.asked[-2:] == [one.encode(), other.encode()]
    # Each lie has cost the connection that it came on; an answer without one is kept for the next question.
    assert auth.connections - before in (told, told + 1)
    with capsys.disabled():
        print(f"\n{told} lies of an auth server behind the answer to a {first} login")
