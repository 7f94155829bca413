"""One scripted client against nginx and against us: what the client heard, what the backend and auth_http were told.

Owns the playing of a dialogue, its transcript, and the comparison of two. What differs from one run to the next
(ports, salts) is levelled here; what differs between the two programs is not, see test_nginx_differential.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Final

from peers.process import wait_until
from rawclient import TIMEOUT, RawClient
from recorder import ANSWERS, Act, Recorder
from scriptedauth import Answer, ScriptedAuth

CLIENT: Final = "127.0.7.7"  # where the clients come from
CUT: Final = 0.03  # seconds between two pieces of a line, so that they are read apart
ENDING: Final = 5.0  # seconds for the other side to close

# Backends of these dialogues use the proxy's words: whose reply it was is seen in what the backend was told.
BACKEND: Final[Mapping[str, bytes]] = {
    **ANSWERS,
    "EHLO": b"250 backend\r\n",  # without XCLIENT: so we keep no connection for another client
    "MAIL": b"250 2.0.0 OK\r\n",
    "NOOP": b"250 2.0.0 OK\r\n",
    "RSET": b"250 2.0.0 OK\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
    "AUTH": b"235 2.7.0 in\r\n",
    "PROXY": b"",
}


@dataclass(frozen=True, slots=True)
class Send:
    """Octets as they are, in pieces that are read apart, and how many replies are to be heard then."""

    pieces: tuple[bytes, ...]
    replies: int = 1


@dataclass(frozen=True, slots=True)
class StartTls:
    """The handshake, after a 220 or at once. as_client: with the client's certificate."""

    as_client: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The other side closes; what it says before is heard."""


Step = str | Send | StartTls | End
"""A str: a line, or several with "|" between them, said in one write; and as many replies are heard."""

OK: Final = {"Auth-Status": "OK"}
"""Auth-Server and Auth-Port of the backend are added."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """server: the one of the configuration that it is held with. auth: the service's answers. backend: what the
    backend does otherwise than BACKEND. early: the client does not wait for the greeting.
    """

    name: str
    server: str
    steps: Sequence[Step]
    auth: Sequence[Answer] = (OK,)
    backend: Mapping[str, Act] = field(default_factory=dict)
    early: bool = False
    patience: float = TIMEOUT


@dataclass(frozen=True, slots=True)
class Transcript:
    """Lines. client: a step each, what it said, then what it heard. backend: a connection each. auth: a question."""

    client: tuple[tuple[str, ...], ...]
    backend: tuple[tuple[str, ...], ...]
    auth: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two programs, with an auth service and a backend of its own. ports: by the server's name."""

    host: str
    ports: Mapping[str, int]
    auth: ScriptedAuth
    backend: Recorder
    tls: Mapping[bool, ssl.SSLContext]

    def play(self, dialogue: Dialogue) -> Transcript:
        """Waits until the backend is left."""
        self.auth.script([self._located(answer) for answer in dialogue.auth])
        self.backend.script = {**{name: Act(reply) for name, reply in BACKEND.items()}, **dialogue.backend}
        before = len(self.backend.conversations)
        heard = tuple(self._converse(dialogue))
        wait_until(lambda: self.backend.open == 0, f"{dialogue.name}: the backend is left", ENDING)
        told = [bytes(one.octets) for one in self.backend.conversations[before:]]
        return Transcript(heard, tuple(map(_told, told)), tuple(map(_asked, self.auth.asked)))

    def _located(self, answer: Answer) -> Answer:
        """Where a yes leads to, unless the dialogue says so itself."""
        if not isinstance(answer, Mapping) or answer.get("Auth-Status") != "OK":
            return answer
        host, port = self.backend.address
        return {"Auth-Server": host, "Auth-Port": str(port), **answer}

    def _converse(self, dialogue: Dialogue) -> Iterator[tuple[str, ...]]:
        with RawClient((self.host, self.ports[dialogue.server]), source=CLIENT) as client:
            greeted = dialogue.early
            for step in dialogue.steps:
                if not greeted and not isinstance(step, StartTls):
                    yield "(greeting)", *_lines(client.reply(dialogue.patience))
                    greeted = True
                yield tuple(self._step(client, step, dialogue.patience))
            if isinstance(dialogue.steps[-1], End) or isinstance(client.sock, ssl.SSLSocket):
                return
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError:  # closed already: what was said before tells
                return
            while reply := client.reply(ENDING):
                yield "(nothing)", *_lines(reply)

    def _step(self, client: RawClient, step: Step, patience: float) -> Iterator[str]:
        """What is said, then the lines that are heard."""
        match step:
            case str():
                said = step.split("|")
                yield step
                yield from _say(
                    client, ["".join(f"{line}\r\n" for line in said).encode("latin-1")], len(said), patience
                )
            case Send(pieces, replies):
                yield " ".join(map(_shown, pieces))
                yield from _say(client, pieces, replies, patience)
            case StartTls(as_client):
                yield "(TLS)"
                client.sock = self.tls[as_client].wrap_socket(client.sock, server_hostname=self.host)
            case End():
                yield "(end)"
                while reply := client.reply(min(patience, ENDING)):
                    yield from _lines(reply)
                yield "(closed)" if client.ended else "(open)"


def _say(client: RawClient, pieces: Iterable[bytes], replies: int, patience: float) -> Iterator[str]:
    try:
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(CUT)
            client.send(piece)
    except OSError:  # closed already: the replies tell
        pass
    for _ in range(replies):
        reply = client.reply(patience)
        yield from _lines(reply) if reply else ["(closed)" if client.ended else "(silence)"]
        if not reply:
            return


# --- octets as lines -----------------------------------------------------------------------------------------

_SALT = re.compile(rb"<\d+\.\d+@([a-z.]+)>")
_PROXY_PORTS = re.compile(r"^(PROXY TCP. \S+ \S+) \d+ \d+")
_ASKED_SALT = re.compile(r"^Auth-Salt: <\d+\.\d+@([a-z.]+)>$")


def _shown(octets: bytes) -> str:
    """One line's text, with escapes for what cannot be seen."""
    return octets.decode("latin-1").encode("unicode_escape").decode("ascii")


def _lines(reply: bytes) -> Iterator[str]:
    for line in reply.removesuffix(b"\r\n").split(b"\r\n"):
        yield _levelled_challenge(line)


def _levelled_challenge(line: bytes) -> str:
    """CRAM-MD5's challenge is another one each time."""
    if line.startswith(b"334 ") and (salt := _SALT.fullmatch(base64.b64decode(line[4:]))):
        return f"334 <RANDOM.TIME@{salt[1].decode()}>"
    return _shown(line)


def _told(octets: bytes) -> tuple[str, ...]:
    lines = octets.removesuffix(b"\r\n").split(b"\r\n") if octets else []
    return tuple(_PROXY_PORTS.sub(r"\1 PORT PORT", _shown(line)) for line in lines)


def _asked(question: bytes) -> tuple[str, ...]:
    lines = question.removesuffix(b"\r\n\r\n").split(b"\r\n")
    return tuple(_ASKED_SALT.sub(r"Auth-Salt: <RANDOM.TIME@\1>", _shown(line)) for line in lines)


# --- two transcripts -----------------------------------------------------------------------------------------


def differing(nginx: Transcript, ours: Transcript) -> list[str]:
    """What only one of them has, in order: "-" nginx's lines, "+" ours; then C, B or A for the channel.

    Of a step, a connection or a question that the other has not at all only its number is told.
    """
    lines: list[str] = []
    for channel, word, first, second in (
        ("C", "step", nginx.client, ours.client),
        ("B", "connection", nginx.backend, ours.backend),
        ("A", "question", nginx.auth, ours.auth),
    ):
        for number in range(max(len(first), len(second))):
            if number >= len(first):
                lines.append(f"+{channel} {word} {number + 1}")
            elif number >= len(second):
                lines.append(f"-{channel} {word} {number + 1}")
            else:
                lines += _changes(channel, first[number], second[number])
    return lines


def _changes(channel: str, nginx: Sequence[str], ours: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for kind, first, last, start, end in SequenceMatcher(None, nginx, ours, autojunk=False).get_opcodes():
        if kind != "equal":
            lines += [f"-{channel} {line}" for line in nginx[first:last]]
            lines += [f"+{channel} {line}" for line in ours[start:end]]
    return lines
