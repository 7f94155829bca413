"""One client's transaction into which a fault falls: brought to its phase, then finished, and what it was told.

Owns the client's side and the backend that can be held in a step, so that a fault is injected in that step and in no
other. Refuses to know what a fault is.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from faults.cells import Phase, Seen
from peers.process import HOST, free_port
from rawclient import RawClient
from recorder import Act, Message, Recorder
from stack import Stack

PATIENCE: Final = 8.0  # seconds until no reply is silence; more than any wait of these worlds
SETTLE: Final = 0.05  # seconds for what a backend does in the text to be on its way to us
HALF: Final = b"Subject: %b\r\nX-Check: whole\r\n\r\nfirst half\r\n"
REST: Final = b"second half\r\n"
HELD: Final[Mapping[Phase, str]] = {Phase.TEXT: "TEXT", Phase.DOT: "."}
STEP: Final[Mapping[Phase, str]] = {Phase.BEFORE: "GREETING", Phase.AFTER: "RCPT", **HELD}
"""The step of the backend's dialogue that comes next when a fault is injected in a phase."""


class HoldingRecorder(Recorder):
    """A Recorder that waits in a step until it is let go; what it does then is looked up only then."""

    def __init__(self, port: int) -> None:
        self._held_step = ""
        self._go = threading.Event()
        self._reached = threading.Event()
        super().__init__(HOST, port)
        # A window that a few megabytes fill: a backend that does not read stalls whoever writes to it.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    def hold(self, step: str) -> None:
        self._go.clear()
        self._reached.clear()
        self._held_step = step

    def wait_held(self) -> None:
        """Until a conversation stands in the step."""
        assert self._reached.wait(PATIENCE), f"the backend was not brought to {self._held_step}"

    def let_go(self) -> None:
        self._held_step = ""
        self._go.set()

    def stop(self) -> None:
        self.let_go()
        super().stop()

    def _step(self, name: str) -> Act:
        if name == self._held_step:
            self._reached.set()
            self._go.wait(4 * PATIENCE)
        return super()._step(name)


class Node:
    """A backend at one address, that may be away for a while."""

    def __init__(self) -> None:
        self.port = free_port()
        self._past: list[Message] = []
        self.recorder = HoldingRecorder(self.port)
        self._up = True

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    @property
    def messages(self) -> list[Message]:
        """All that it has ever committed."""
        return self._past + self.recorder.messages

    def hold(self, phase: Phase) -> None:
        self.recorder.hold(HELD[phase])

    def wait_held(self) -> None:
        self.recorder.wait_held()

    def let_go(self) -> None:
        self.recorder.let_go()

    def act(self, **steps: Act) -> None:
        self.recorder.script = steps

    def down(self) -> None:
        """Nobody listens."""
        if self._up:
            self.recorder.stop()
            self._past += self.recorder.messages
            self._up = False

    def up(self) -> None:
        """As it should be."""
        if not self._up:
            self.recorder, self._up = HoldingRecorder(self.port), True
        self.recorder.script = {}
        self.recorder.let_go()


@dataclass(slots=True)
class Scene:
    """One client before one proxy. sender: the cell's own, by which its message is known everywhere. padding: octets
    that the second half has beside, so that no buffer holds them. again: whether the session is tried once more.
    """

    phase: Phase
    stack: Stack
    node: Node
    sender: str
    recipient: str = "b@example.com"
    listener: str | None = None
    login: tuple[str, str] | None = None
    padding: int = 0
    address: tuple[str, int] | None = None
    client: RawClient = field(init=False)
    told: list[str] = field(default_factory=list)

    def approach(self) -> Self:
        """Up to the phase, all well."""
        where = self.stack.proxy if self.listener is None else self.stack.listeners[self.listener]
        self.client = RawClient(self.address or where).greeted()
        if self.phase is Phase.BEFORE:
            return self
        if self.login is not None:
            assert self._ask(self._auth()) == "235"
        assert self._envelope() == ["250", "250"]
        if self.phase is Phase.AFTER:
            return self
        self.node.hold(self.phase)
        assert self._ask(b"DATA") == "354"
        self.client.send(self._half())
        if self.phase is Phase.DOT:
            self.before_dot()
            self.client.send(REST + b".\r\n")
        self.node.wait_held()
        return self

    def before_dot(self) -> None:
        """The final dot is about to be sent. For whoever holds the answer in another way than the node does."""

    def hear(self) -> Self:
        """What comes unasked, in the place of `finish`."""
        self.told.append(self._reply())
        return self

    def finish(self) -> Self:
        """From the phase to the transaction's end, or as far as it goes; fills `told`."""
        go_on = {
            Phase.BEFORE: self._from_the_start,
            Phase.AFTER: self._from_rcpt,
            Phase.TEXT: self._from_text,
            Phase.DOT: self._from_dot,
        }[self.phase]
        go_on()
        return self

    def session(self) -> str:
        """Whether the same connection delivers another message: "stays", "ends", or what stands in its way. An end
        that has its own word adds it to `told`.
        """
        if self.told[-1:] == ["closed"] or self.client.ended:
            return "ends"
        reply = self._ask(b"RSET")
        if reply.startswith("421"):
            self.told.append(reply)
            return "ends"
        if reply == "closed":
            return "ends"
        if self.login is not None and self.phase is Phase.BEFORE and "235" not in self.told:
            reply = self._ask(self._auth())
            if reply != "235":
                return f"stays, and says {reply} to AUTH"
        replies = [*self._envelope(next_one=True), self._ask(b"DATA")]
        if replies == ["250", "250", "354"]:
            self.client.send(b"Subject: next\r\n\r\nnext\r\n.\r\n")
            replies.append(self._reply())
        return "stays" if replies[-1] == "250" else f"stays, and then says {', '.join(replies)}"

    def close(self) -> None:
        self.client.close()

    def committed(self, nodes: Iterable[Node]) -> int:
        """How many copies of the message there are, each of them whole."""
        mine = [one for node in nodes for one in node.messages if b"<%b>" % self.sender.encode() in one.sender]
        for message in mine:
            assert message.text.startswith(self._half()), "a message has lost its beginning"
            assert message.text.endswith(REST), "a part of a message was committed"
        return len(mine)

    def logged(self) -> tuple[str, frozenset[str]]:
        """The outcome of the transaction and the events of its session, as the log has them."""
        found = self.stack.log_events("transaction", sender=self.sender)
        if not found:
            return "", frozenset()
        session = found[-1]["session"]
        return found[-1]["outcome"], frozenset(line["event"] for line in self.stack.log_events(session=session))

    def wait_logged(self) -> None:
        """Until the transaction's line is there."""
        self.stack.wait_for_event("transaction", sender=self.sender)

    # --- the parts ------------------------------------------------------------------------------------------------

    def _from_the_start(self) -> None:
        if self.login is not None:
            self._tell(self._auth())
            if self.told != ["235"]:
                return
        for line in self.envelope_lines:
            if self._tell(line) != "250":
                return
        if self._tell(b"DATA") == "354":
            self._whole_text()

    def _from_rcpt(self) -> None:
        self._tell(b"RCPT TO:<second-%b>" % self.recipient.encode())
        if self.told[-1] not in ("closed", "silence") and self._tell(b"DATA") == "354":
            self._whole_text()

    def _whole_text(self) -> None:
        self._say(self._half() + REST + b".\r\n")

    def _from_text(self) -> None:
        self.node.let_go()
        time.sleep(SETTLE)
        self._say((b"x" * 1022 + b"\r\n") * (self.padding // 1024) + REST + b".\r\n")

    def _from_dot(self) -> None:
        self.node.let_go()
        self.told.append(self._reply())
        time.sleep(SETTLE)  # where the client hears of its end before the backend has taken the message

    def _half(self) -> bytes:
        return HALF % self.sender.encode()

    def _auth(self) -> bytes:
        assert self.login is not None
        user, password = self.login
        return b"AUTH PLAIN " + b64encode(f"\0{user}\0{password}".encode())

    @property
    def envelope_lines(self) -> list[bytes]:
        """MAIL and RCPT of the message."""
        return self._lines_from(self.sender)

    def _lines_from(self, sender: str) -> list[bytes]:
        return [b"MAIL FROM:<%b>" % sender.encode(), b"RCPT TO:<%b>" % self.recipient.encode()]

    def _envelope(self, *, next_one: bool = False) -> list[str]:
        return [self._ask(line) for line in self._lines_from("next@next.example" if next_one else self.sender)]

    def _tell(self, line: bytes) -> str:
        self.told.append(self._ask(line))
        return self.told[-1]

    def _say(self, octets: bytes) -> None:
        try:
            self.client.send(octets)
        except OSError:
            pass  # it was closed; the last words may wait to be read all the same
        self.told.append(self._reply())

    def _ask(self, line: bytes) -> str:
        try:
            self.client.send(line + b"\r\n")
        except OSError:
            pass
        return self._reply()

    def _reply(self) -> str:
        reply = self.client.reply(PATIENCE)
        if not reply:
            return "closed" if self.client.ended else "silence"
        return short(reply)


def short(reply: bytes) -> str:
    """Code and enhanced code; the code alone where all is well."""
    text = reply.decode("latin-1")
    if text[0] in "23":
        return text[:3]
    found = re.match(r"\d{3}[ -](\d\.\d+\.\d+)?", text)
    return found[0].replace("-", " ").strip() if found else text.strip()


def play(
    scene: Scene,
    inject: Callable[[], None],
    heal: Callable[[], None],
    nodes: Iterable[Node],
    note: Callable[[], str] = str,
) -> Seen:
    """The whole of a cell: to the phase, the fault, the rest; healed, and then the same session once more."""
    try:
        scene.approach()
        try:
            inject()
            scene.finish()
            committed = scene.committed(nodes)
            noted = note()
        finally:
            heal()
        session = scene.session()
        outcome, events = scene.logged()
        return Seen(tuple(scene.told), session, committed, outcome, events, noted)
    finally:
        scene.close()
