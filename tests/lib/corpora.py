"""The corpora of hostile input in tests/corpora, which are kept as they came, read into octets.

smuggling_cases.json: texts that somebody may read as two messages. hostile_commands.json: what else a client may
say. Every case names its source; `meta` in the files tells their spelling, which is followed here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "corpora"
_MACRO: Final = re.compile(rb"<<'(.*?)'\*([0-9]+)>>", re.DOTALL)

Case = dict[str, Any]


def cases(name: str) -> list[Case]:
    """Of the file with that name; without those that need a script of their own."""
    found: list[Case] = json.loads((FOLDER / name).read_text("utf-8"))["cases"]
    return [case for case in found if case.get("stage") != "scripted"]


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
