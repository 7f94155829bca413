"""Rows about backends: one that is away, resets, falls silent, says 421, answers early, or talks nonsense.

Played before a recorder, which does on demand what no real server can be made to do. What a real one can be made to
do is in rows_postfix.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from faults.cells import Cell, Expected, Phase, Seen
from faults.player import STEP, Node, Scene, play
from peers.process import HOST
from recorder import Act
from stack import RELAY, Stack

BENT: Final = str(Path(__file__).with_name("bentproxy.py"))
WAIT: Final = 1.0  # seconds for each of RFC 5321's waits, in these worlds
SEARCH: Final = 1.0  # seconds of `failover: deadline`
FILL: Final = 8 * 1024 * 1024  # octets that fill all buffers between us and a backend that does not read

# What one cell does to a backend is not held against it in the next, and each session has a connection of its own.
FORGETFUL = "{health: {probe: off}, breaker: {max_open: 0%}, reuse: {idle: 0s}"
ROUTES = """
version: 1
routes:
  - {{name: pair, match: {{rcpt_domain: pair.example}}, pool: pair}}
  - {{name: narrow, match: {{rcpt_domain: narrow.example}}, pool: narrow}}
  - {{name: default, match: {{}}, pool: one}}
pools:
  one: {forgetful}, failover: {{until: connect, deadline: {search:g}s}},
    backends: [{{name: b1, addr: "{one}"}}]}}
  pair: {forgetful}, failover: {{deadline: {search:g}s}},
    backends: [{{name: b1, addr: "{one}"}}, {{name: b2, addr: "{two}", backup: true}}]}}
  narrow: {forgetful}, failover: {{deadline: 20s}}, queue: {{wait: 10s, max: 9}},
    backends: [{{name: b1, addr: "{one}", max_conns: 1}}]}}
"""

_numbers = itertools.count(1)


def sender(domain: str = "cell.example") -> str:
    """Nobody else's, in a domain that nobody else uses."""
    number = next(_numbers)
    return f"c{number}@c{number}.{domain}"


def bent(folder: Path, **env: str) -> dict[str, object]:
    """Arguments of a Stack whose proxy is bentproxy.py."""
    return {"command": (sys.executable, BENT, "-c", str(folder / "proxy.yaml")), "env": env}


class Backends:
    """Two recorders behind a proxy: pool `one` has the first alone, `pair` has the second in reserve, `narrow` has
    one place.
    """

    def __init__(self, folder: Path) -> None:
        self.b1, self.b2 = Node(), Node()
        one, two = (f"{HOST}:{node.port}" for node in self.nodes)
        routes = ROUTES.format(forgetful=FORGETFUL, search=SEARCH, one=one, two=two)
        self.stack = Stack(
            folder,
            [],
            listeners=[RELAY],
            auth_url=None,
            policy={"routes.yaml": routes},
            **bent(folder, SMTPGATE_TEST_WAIT=f"{WAIT:g}"),  # type: ignore[arg-type]
        )

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.b1, self.b2

    def heal(self) -> None:
        for node in self.nodes:
            node.up()

    def close(self) -> None:
        self.stack.stop()
        for node in self.nodes:
            node.down()

    def show(self) -> str:
        return self.stack.show()


def _away(world: Backends) -> None:
    world.b1.down()


def _does(act: Act, phase: Phase) -> Callable[[Backends], None]:
    return lambda world: world.b1.act(**{STEP[phase]: act})


def _cell(
    row: str,
    phase: Phase,
    injected: str,
    inject: Callable[[Backends], None],
    expected: Expected,
    *,
    pool: str = "one",
    padding: int = 0,
    differs: str = "",
) -> Cell:
    def run(world: Backends) -> Seen:
        scene = Scene(phase, world.stack, world.b1, sender(), f"b@{pool}.example", padding=padding)
        return play(scene, lambda: inject(world), world.heal, world.nodes)

    return Cell(row, phase, injected, "backends", run, expected, differs)


# What the client is told in each phase, where there is no other backend. In the first two it gives up by itself.
NOBODY: Final = Expected("250, 451 4.4.1", outcome="reset", event="backend_failed")
LOST: Final = Expected("451 4.4.2, 451 4.4.2", outcome="reset", event="backend_failed")
LOST_IN_TEXT: Final = Expected("451 4.4.2", outcome="refused", event="backend_lost")
UNKNOWN: Final = Expected("451 4.4.2", outcome="unknown", event="backend_lost")
# And where there is: it takes the session before MAIL, and all that was accepted afterwards.
TAKEN_OVER: Final = Expected("250, 250, 354, 250", committed=1, outcome="delivered", event="backend_failed")
SAID_AGAIN: Final = Expected("250, 354, 250", committed=1, outcome="delivered", event="backend_failed")

PHASES: Final[Mapping[Phase, Expected]] = {
    Phase.BEFORE: NOBODY,
    Phase.AFTER: LOST,
    Phase.TEXT: LOST_IN_TEXT,
    Phase.DOT: UNKNOWN,
}


def _everywhere(
    row: str,
    fault: str,
    act: Act,
    phases: Mapping[Phase, Expected] = PHASES,
    *,
    differs: Mapping[Phase, str] | None = None,
) -> Iterator[Cell]:
    """The same misdeed in every phase; with a second backend where the matrix speaks of a next node."""
    for phase, expected in phases.items():
        reason = (differs or {}).get(phase, "")
        yield _cell(row, phase, fault, _does(act, phase), expected, differs=reason)
    before = _does(act, Phase.BEFORE)
    yield _cell(row, Phase.BEFORE, f"{fault}; another is there", before, TAKEN_OVER, pool="pair")


def cells() -> Iterator[Cell]:
    row = "backend refuses / RST / EOF"
    yield _cell(row, Phase.BEFORE, "connection refused", _away, NOBODY)
    yield _cell(row, Phase.BEFORE, "connection refused; another is there", _away, TAKEN_OVER, pool="pair")
    for fault, act in (("RST", Act(then="reset")), ("EOF", Act(then="close"))):
        yield from _everywhere(row, fault, act)
        yield _cell(
            row,
            Phase.AFTER,
            f"{fault}; another is there",
            _does(act, Phase.AFTER),
            SAID_AGAIN,
            pool="pair",
            differs="said again",
        )

    row = "backend stalls"
    # A backend that reads a text and says nothing to it is one that is silent after the dot.
    silent: Mapping[Phase, Expected] = {
        phase: expected for phase, expected in PHASES.items() if phase is not Phase.TEXT
    }
    yield from _everywhere(row, "says nothing", Act(then="hang"), silent)
    reads_not = _does(Act(delay=3 * WAIT), Phase.TEXT)
    yield _cell(row, Phase.TEXT, "does not read", reads_not, LOST_IN_TEXT, padding=FILL)

    row = "backend says 421"
    unavailable = {Phase.BEFORE: "unavailable"}
    # In the place of an answer to the message it is one: the message was not taken.
    answered = {**PHASES, Phase.DOT: Expected("451 4.4.2", outcome="refused", event="backend_lost")}
    for fault, act in (
        ("421", Act(b"421 4.3.2 going down\r\n", "close")),
        ("421, and stays", Act(b"421 4.3.2 going down\r\n")),
    ):
        yield from _everywhere(row, fault, act, answered, differs=unavailable)

    row = "backend 5xx greeting"
    refused = Act(b"554 5.7.1 not you\r\n")
    greeting = _does(refused, Phase.BEFORE)
    yield _cell(row, Phase.BEFORE, "554", greeting, NOBODY)
    yield _cell(row, Phase.BEFORE, "554; another is there", greeting, TAKEN_OVER, pool="pair")
    own = Expected("554 5.7.1", outcome="refused")
    yield _cell(row, Phase.DOT, "554 is the answer to the message", _does(refused, Phase.DOT), own)

    row = "backend answers early"
    for fault, act, told in (
        ("552", Act(b"552 5.3.4 enough\r\n"), "552 5.3.4"),
        ("554 and EOF", Act(b"554 5.6.0 not this\r\n", "close"), "554 5.6.0"),
        ("451", Act(b"451 4.3.1 disk full\r\n"), "451 4.3.1"),
        ("250, which is a lie", Act(b"250 2.0.0 queued\r\n"), "451 4.3.0"),
    ):
        expected = Expected(told, outcome="refused", event="backend_lost")
        yield _cell(row, Phase.TEXT, fault, _does(act, Phase.TEXT), expected)

    row = "backend garbage / extra replies"
    codes = {Phase.BEFORE: "unavailable"}
    nonsense: Mapping[Phase, Expected] = {
        Phase.BEFORE: NOBODY,
        Phase.AFTER: replace(LOST, told="451 4.3.0, 451 4.3.0"),
        Phase.TEXT: replace(LOST_IN_TEXT, told="451 4.3.0"),
        Phase.DOT: replace(UNKNOWN, told="451 4.3.0"),
    }
    yield from _everywhere(row, "garbage", Act(b"\x16\x03\x01\x02\x00\xff\r\n"), nonsense, differs=codes)
    # The recorder takes what it has begun to say 250 to: a message that is there, and nobody was told.
    half = {**PHASES, Phase.DOT: Expected("451 4.4.2", committed=1, outcome="unknown", event="backend_lost")}
    yield from _everywhere(row, "half a reply, then EOF", Act(b"250-half\r\n250", "close"), half, differs=codes)
    extra = b"250 2.0.0 extra\r\n"
    after = Expected("250, 451 4.3.0", outcome="reset", event="backend_failed")
    doubled = Act(b"250 2.1.5 ok\r\n" + extra)
    yield _cell(row, Phase.AFTER, "two replies to RCPT", _does(doubled, Phase.AFTER), after)
    done = Expected("250", committed=1, outcome="delivered")
    yield _cell(row, Phase.DOT, "two replies to the end", _does(Act(b"250 2.0.0 done\r\n" + extra), Phase.DOT), done)
