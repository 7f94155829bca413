"""Golden dialogues: a text file that anyone can add to tests/golden/, run through a whole session.

    # comment
    ! auth plain login        mechanisms of the listener ("none": no AUTH); default none
    ! capability SIZE 1000    one EHLO line more
    ! option helo_required true
    ! grant user=ann pool=core plan=gold    an answer of auth_http; also "refuse 2 535 5.7.8 text", "unavailable text"
    ! deny mail 450 4.7.1 slow down         the policy's answer to one event
    ! limit few: {event: mail, ...}         a line of `limits:`; they are compiled, and decided by the real engine
    ! earlier MAIL FROM:<a@a.test>          an earlier session of the same client said this; one more each time
    ! xclient_from 192.0.2.0/24   the listener's `xclient`; the client is 192.0.2.7
    ! smtp_auth on            a backend setting; also xclient, tls, pass_error_message
    ! smtp_auth user password
    ! until buffered          the last moment at which a lost backend is replaced; attempts 2: how many others
    ! disk 1000               octets of a message that can be kept
    ! reuse                   a connection that may be kept for another session is, without QUIT
    C EHLO client.test        the client says this and CRLF (Python escapes allowed)
    R a\\nb                    the client says just these octets
    W                         the client waits here until it is answered; it is known to be waiting (RFC 2920: behind
                              a refused DATA that makes a difference)
    S 250-mx.test             the proxy says this
    S .                       the proxy closes here
    B mta1                    a backend is dialled; its lines follow, in order
    < 220 mta1 ESMTP          the backend says
    > EHLO mx.test            the backend receives
    } half a line             the backend receives just these octets
    x                         the backend hangs up
    B mta2 refused            this dial fails

The client's lines are sent as one stream, or as one for each W, cut in every way that the test asks for: a dialogue
must not depend on where its octets are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fakes import (
    FakeAuthenticator,
    FakeBackends,
    FakeHolds,
    FakePolicy,
    FakeSpools,
    FakeStream,
    ListJournal,
    ManualClock,
    ScriptedBackend,
    ports,
)

from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts, ReplyText
from smtpgate.routing.model import BackendAuth, BackendSettings, BackendTls, Failover
from smtpgate.session import flow
from smtpgate.session.ports import AuthAnswer, AuthGranted, AuthRefused, AuthUnavailable
from smtpgate.smtp.server import ServerSettings
from smtpgate.snapshot import build
from smtpgate.units import PeerNetwork, parse_peers


@dataclass
class Dialogue:
    """bursts: what the client says, in several parts where it waits in between."""

    name: str
    bursts: list[bytes] = field(default_factory=lambda: [b""])
    proxy: bytes = b""
    closes: bool = False
    settings: ServerSettings = field(
        default_factory=lambda: ServerSettings("mx.test", mechanisms=(), auth_required=False)
    )
    backend_settings: BackendSettings = field(default_factory=BackendSettings)
    failover: Failover = field(default_factory=Failover)
    disk: int = 1 << 30
    reuse: bool = False
    answers: list[AuthAnswer] = field(default_factory=list)
    denials: dict[Event, Denial] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    earlier: list[bytes] = field(default_factory=list)
    relays: tuple[PeerNetwork, ...] = ()
    backends: list[tuple[str, list[tuple[bytes, bytes | None]] | str]] = field(default_factory=list)


@dataclass
class Outcome:
    proxy: bytes
    backends: list[ScriptedBackend]
    left_pieces: int
    journal: ListJournal
    clock: ManualClock
    writes: int
    policy: FakePolicy
    kept: int


class EnginePolicy(FakePolicy):
    """Limits as an operator writes them, decided by the real engine on buckets of this process."""

    def __init__(self, limits: list[str], clock: ManualClock) -> None:
        super().__init__()
        text = "version: 1\nlimits:\n" + "".join(f"  {line}\n" for line in limits)
        policy = build([("limits.yaml", text.encode())]).policy
        self.engine = Engine(MemoryBuckets(clock), clock, lambda: 0.0, policy=policy, host="mx.test")
        self.refund = self.engine.refund
        self.release = self.engine.release

    def decide(self, event: Event, facts: Facts, *, turn: bool = False, hold: float | None = None) -> Decision:
        return self.engine.decide(event, facts, turn=turn, hold=hold)


def _octets(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def parse(path: Path) -> Dialogue:
    dialogue = Dialogue(path.stem)
    script: list[tuple[bytes, bytes | None]] = []
    for number, raw in enumerate(path.read_text("latin-1").splitlines(), 1):
        if not raw.strip() or raw.startswith("#"):
            continue
        mark, _, rest = raw.partition(" ")
        if mark == "!":
            _option(dialogue, rest)
        elif mark == "C":
            dialogue.bursts[-1] += _octets(rest) + b"\r\n"
        elif mark == "R":
            dialogue.bursts[-1] += _octets(rest)
        elif mark == "W":
            dialogue.bursts.append(b"")
        elif mark == "S" and rest == ".":
            dialogue.closes = True
        elif mark == "S":
            dialogue.proxy += _octets(rest) + b"\r\n"
        elif mark == "B":
            name, _, fault = rest.partition(" ")
            script = []
            dialogue.backends.append((name, fault or script))
        elif mark == ">" and script and script[-1][1] == b"":
            script[-1] = (script[-1][0] + _octets(rest) + b"\r\n", b"")
        elif mark == ">":
            script.append((_octets(rest) + b"\r\n", b""))
        elif mark == "}":
            script.append((_octets(rest), b""))
        elif mark == "<" and script and script[-1][1] is not None:
            script[-1] = (script[-1][0], script[-1][1] + _octets(rest) + b"\r\n")
        elif mark == "<":
            script.append((b"", _octets(rest) + b"\r\n"))
        elif mark == "x":
            script.append((b"", None))
        else:
            raise ValueError(f"{path}:{number}: {raw!r}: no such line; expected one of #!CRWSB<>}}x")
    return dialogue


def _option(dialogue: Dialogue, text: str) -> None:
    key, _, rest = text.partition(" ")
    settings = dialogue.settings
    if key == "auth":
        names = [name.upper() for name in rest.split()]
        settings = replace(
            settings,
            mechanisms=tuple(name for name in names if name != "NONE"),
            auth_required="NONE" not in names,
        )
    elif key == "capability":
        settings = replace(settings, capabilities=(*settings.capabilities, rest))
    elif key == "option":
        name, _, value = rest.partition(" ")
        assert name in {one.name for one in fields(ServerSettings)}, name
        typed: Any = {"true": True, "false": False}.get(value, int(value) if value.isdigit() else value)
        settings = replace(settings, **{name: typed})
    elif key == "grant":
        given = dict(pair.split("=", 1) for pair in rest.split())
        server = given.pop("server", None)
        password = given.pop("password", None)
        dialogue.answers.append(
            AuthGranted(
                server=(server.rpartition(":")[0], int(server.rpartition(":")[2])) if server else None,
                password=password.encode() if password else None,
                own_routes=given.get("pool") == "*",
                **{name: value for name, value in given.items() if value != "*"},
            )
        )
    elif key == "refuse":
        wait, code, enhanced, words = rest.split(" ", 3)
        dialogue.answers.append(AuthRefused(f"{code} {enhanced}", words, float(wait)))
    elif key == "unavailable":
        dialogue.answers.append(AuthUnavailable(rest))
    elif key == "deny":
        event, code, enhanced, words = rest.split(" ", 3)
        reply = ReplyText(int(code), enhanced, words)
        dialogue.denials[Event(event)] = Denial(
            limit=f"demo.{event}",
            subject="s",
            reply=reply,
            retry=1.0,
            delay=0.0,
            close=False,
            balance=0.0,
            source="p:1",
        )
    elif key == "limit":
        dialogue.limits.append(rest)
    elif key == "earlier":
        dialogue.earlier.append(_octets(rest) + b"\r\n")
    elif key == "xclient_from":
        dialogue.relays = (parse_peers(rest),)
    elif key == "smtp_auth":
        user, _, password = rest.partition(" ")
        auth = BackendAuth(user=user, password=password) if password else BackendAuth(replay=True)
        dialogue.backend_settings = replace(dialogue.backend_settings, auth=auth)
    elif key == "tls":
        tls = BackendTls(rest)  # type: ignore[arg-type]
        dialogue.backend_settings = replace(dialogue.backend_settings, tls=tls)
    elif key == "until":
        dialogue.failover = replace(dialogue.failover, until=rest)  # type: ignore[arg-type]
    elif key == "attempts":
        dialogue.failover = replace(dialogue.failover, attempts=int(rest))
    elif key == "disk":
        dialogue.disk = int(rest)
    elif key == "reuse":
        dialogue.reuse = True
    elif key == "xclient":
        dialogue.backend_settings = replace(dialogue.backend_settings, xclient=rest)  # type: ignore[arg-type]
    elif key == "pass_error_message":
        dialogue.backend_settings = replace(dialogue.backend_settings, pass_error_message=rest == "on")
    else:
        raise ValueError(f"{dialogue.name}: ! {key}: no such option")
    dialogue.settings = settings


def whole(dialogue: Dialogue) -> list[bytes | None]:
    """Each burst in one piece."""
    return _joined([[burst] for burst in dialogue.bursts])


def cuts(dialogue: Dialogue) -> Iterator[list[bytes | None]]:
    """Whole, octet by octet, and every two-way split."""
    yield whole(dialogue)
    yield _joined([[burst[i : i + 1] for i in range(len(burst))] for burst in dialogue.bursts])
    for number, burst in enumerate(dialogue.bursts):
        for at in range(1, len(burst)):
            bursts = [[one] for one in dialogue.bursts]
            bursts[number] = [burst[:at], burst[at:]]
            yield _joined(bursts)


def _joined(bursts: list[list[bytes]]) -> list[bytes | None]:
    """With a wait between them."""
    first, *others = bursts
    pieces: list[bytes | None] = [*first]
    for burst in others:
        pieces += [None, *burst]
    return pieces


def play(dialogue: Dialogue, pieces: list[bytes | None], *, backend_piece: int = 1 << 20) -> Outcome:
    clock = ManualClock()
    stream = FakeStream(pieces)
    scripted: list[ScriptedBackend] = []
    offered: list[tuple[str, ScriptedBackend | str]] = []
    for name, script in dialogue.backends:
        if isinstance(script, str):
            offered.append((name, script))
        else:
            scripted.append(ScriptedBackend(script, backend_piece))
            offered.append((name, scripted[-1]))
    journal = ListJournal()

    def decide(event: Event, _facts: object) -> Decision:
        denial = dialogue.denials.get(event)
        return ALLOWED if denial is None else Decision(denial)

    policy = EnginePolicy(dialogue.limits, clock) if dialogue.limits else FakePolicy(decide)
    backends = FakeBackends(clock, offered, dialogue.backend_settings, dialogue.failover, keeping=dialogue.reuse)
    world = ports(
        clock,
        backends,
        policy=policy,
        holds=FakeHolds(clock),
        authenticator=FakeAuthenticator(*dialogue.answers) if dialogue.answers else None,
        journal=journal,
        spool=FakeSpools(dialogue.disk),
    )
    settings = flow.SessionSettings("demo", dialogue.settings, xclient=dialogue.relays)
    for octets in dialogue.earlier:
        flow.run(FakeStream([octets]), settings, world)
    flow.run(stream, settings, world)
    kept = len(backends.kept)
    return Outcome(bytes(stream.received), scripted, len(stream.pieces), journal, clock, stream.writes, policy, kept)
