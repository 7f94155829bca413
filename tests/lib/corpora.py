"""The corpora of hostile input in tests/corpora, read into octets.

smuggling_cases.json: texts that somebody may read as two messages. hostile_commands.json: what else a client may
say. They are kept as they came; more_smuggling.json and more_hostile.json are ours, of what these do not hold. Every
case names its source; `meta` in the files tells their spelling, which is followed here. answers.json is what we say
to each hostile command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "corpora"
_MACRO: Final = re.compile(rb"<<'(.*?)'\*([0-9]+)>>", re.DOTALL)
_TIMES: Final = re.compile(r" x([0-9]+)$")

Case = dict[str, Any]


def _load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text("utf-8"))


def cases(name: str) -> list[Case]:
    """Of the file with that name, those that are octets."""
    return [case for case in _load(name)["cases"] if case.get("stage") != "scripted"]


def scripted(name: str) -> list[Case]:
    """Of the file with that name, those that are steps in words: each needs a script of its own."""
    return [case for case in _load(name)["cases"] if case.get("stage") == "scripted"]


@dataclass(frozen=True, slots=True)
class Answers:
    """What is said to a hostile command, spelled as `hostile.spelled` does.

    rich: by a listener that needs no login and offers every extension. others: by listeners that say something else.
    heard: what a backend hears of it beyond the stage, by listener; "" is every listener.
    """

    rich: str
    others: Mapping[str, str]
    heard: Mapping[str, Sequence[bytes]]

    def on(self, listener: str) -> str:
        return self.others.get(listener, self.rich)

    def heard_on(self, listener: str) -> list[bytes]:
        """MAIL, RCPT and DATA."""
        return list(self.heard.get(listener, self.heard.get("", ())))


def answers() -> dict[str, Answers]:
    """By the name of the case."""
    found = {}
    for name, told in _load("answers.json")["cases"].items():
        if isinstance(told, str):
            found[name] = Answers(told, {}, {})
            continue
        said = {key: value for key, value in told.items() if key not in ("answer", "heard")}
        heard = told.get("heard", {})
        lines = heard if isinstance(heard, dict) else {"": heard}
        found[name] = Answers(told["answer"], said, {key: _repeated(value) for key, value in lines.items()})
    return found


def _repeated(lines: Sequence[str]) -> list[bytes]:
    """`line x3` is three of them."""
    parts = [(_TIMES.sub("", line), _TIMES.search(line)) for line in lines]
    return [line.encode() for line, times in parts for _ in range(int(times[1]) if times else 1)]


def octets(text: str) -> bytes:
    """The corpora's spelling: Python escapes, one character an octet."""
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def expand(text: str) -> bytes:
    """hostile_commands.json: <<'unit'*N>> is unit, itself escaped, N times."""
    return _MACRO.sub(lambda found: octets(found[1].decode("latin-1")) * int(found[2]), octets(text))


def wire(case: Case) -> bytes:
    """smuggling_cases.json: `pad` octets are put in at `pad_at`."""
    said = octets(case["wire"])
    if "pad" not in case:
        return said
    pad, at = int(case["pad"]), int(case["pad_at"])
    lines = case.get("pad_kind") == "lines"
    filling = (b"a" * 68 + b"\r\n") * (pad // 70) + b"a" * (pad % 70) if lines else b"a" * pad
    return said[:at] + filling + said[at:]
