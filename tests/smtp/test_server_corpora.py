"""The corpora of hostile input (reference/security.md), run whole against the protocol and a permissive flow.

They are kept in tests/corpora as they came; every case names its source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smtpgate.smtp.events import Address, Closed
from smtpgate.smtp.server import ServerSettings

CORPORA = Path(__file__).parents[1] / "corpora"


def cases(name: str) -> list[dict[str, Any]]:
    return list(json.loads((CORPORA / name).read_text("utf-8"))["cases"])


def octets(text: str) -> bytes:
    """The corpora's spelling: Python escapes, one character an octet."""
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def expand(text: str) -> bytes:
    """hostile_commands.json: <<'unit'*N>> is unit, itself escaped, N times."""
    return re.sub(
        rb"<<'(.*?)'\*([0-9]+)>>",
        lambda match: octets(match[1].decode("latin-1")) * int(match[2]),
        octets(text),
        flags=re.DOTALL,
    )


STAGES = {
    "pre_helo": b"",
    "pre_auth": b"EHLO t.test\r\n",
    "auth_wait": b"EHLO t.test\r\nAUTH LOGIN\r\n",
    "post_auth": b"EHLO t.test\r\nAUTH PLAIN AHUAcA==\r\n",
}
STAGES["mail"] = STAGES["post_auth"] + b"MAIL FROM:<a@a.test>\r\n"
STAGES["rcpt"] = STAGES["mail"] + b"RCPT TO:<r1@x.test>\r\n"
STAGES["data"] = STAGES["rcpt"] + b"DATA\r\n"

AUTHED = ServerSettings(
    "mx.test",
    capabilities=("SIZE 10485760", "PIPELINING", "8BITMIME", "DSN"),
    mechanisms=("PLAIN", "LOGIN", "CRAM-MD5"),
)
LISTENERS = {
    "plain": AUTHED,
    "rich": replace(
        AUTHED,
        capabilities=("SIZE 10485760", "CHUNKING", "SMTPUTF8"),
        mechanisms=("PLAIN", "LOGIN", "CRAM-MD5", "EXTERNAL"),
        helo_required=True,
    ),
}


@pytest.mark.parametrize(
    "case",
    [case for case in cases("hostile_commands.json") if case["stage"] != "scripted"],
    ids=lambda case: str(case["name"]),
)
def test_hostile_commands(case: dict[str, Any], play: Any) -> None:
    for settings in LISTENERS.values():
        check_hostile(case, settings, play)


def check_hostile(case: dict[str, Any], settings: ServerSettings, play: Any) -> None:
    before = STAGES[case["stage"]]
    prelude = play(settings, [before])
    assert prelude.ended is None
    played = play(settings, [before, expand(case["send"])])
    new = played.out[len(prelude.out) :]
    lines = new.split(b"\r\n")[:-1]
    codes = [line[:3].decode() for line in lines if line[3:4] == b" "]
    classes = set()
    if codes:
        classes |= {f"{codes[-1][0]}xx", f"{codes[-1][0]}xx+close" if played.closing else ""}
    else:
        classes |= {"none"}
    if played.closing:
        classes |= {"close"}
    assert classes & set(case["expect_reply_class"].split("|")), (codes, played.closing)
    assert all(re.fullmatch(rb"[2-5][0-9]{2}[ -][ -~]*", line) for line in lines)
    if case.get("one_reply"):
        assert len(codes) == 1
    if "no_line_starting" in case:
        assert not any(line.startswith(case["no_line_starting"].encode()) for line in lines)
    if case.get("must_not_deliver"):
        assert not played.messages


SMUGGLER = Address("smug", "attacker.test")


def wire(case: dict[str, Any]) -> bytes:
    """smuggling_cases.json: `pad` octets are put in at `pad_at`."""
    said = octets(case["wire"])
    if "pad" not in case:
        return said
    pad = case["pad"]
    lines = case.get("pad_kind") == "lines"
    filling = (b"a" * 68 + b"\r\n") * (pad // 70) + b"a" * (pad % 70) if lines else b"a" * pad
    at = case["pad_at"]
    return said[:at] + filling + said[at:]


def one_by_one(said: bytes) -> list[bytes]:
    """Octet by octet; of a long case only its end, where it happens."""
    start = max(0, len(said) - 2000)
    return [said[:start], *(said[i : i + 1] for i in range(start, len(said)))]


def before_the_dot(said: bytes) -> list[bytes]:
    dot = re.search(rb"(?<=[\r\n])\.", said)
    at = dot.start() if dot else 0
    return [said[:at], said[at:]]


SEGMENTATIONS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda said: [said],
    "octets": one_by_one,
    "at CR, LF and dot": lambda said: re.findall(rb"[^\r\n.]*[\r\n.]|[^\r\n.]+", said),
    "before the dot": before_the_dot,
}


@pytest.mark.parametrize("case", cases("smuggling_cases.json"), ids=lambda case: str(case["name"]))
def test_smuggling(case: dict[str, Any], play: Any) -> None:
    said = wire(case)
    for segment in SEGMENTATIONS.values():
        pieces = segment(said)
        assert b"".join(pieces) == said
        check_smuggling(case, pieces, play)


def check_smuggling(case: dict[str, Any], pieces: list[bytes], play: Any) -> None:
    bdat = case["group"] == "bdat"
    before = STAGES["rcpt" if bdat else "data"]
    settings = LISTENERS["rich"]
    prelude = play(settings, [before])
    closes = case["expect"] == "no_message_on_close"
    played = play(settings, [before, *pieces], eof=closes)
    codes = played.codes[len(prelude.codes) :]
    smuggled = [message for message in played.messages if message[0] == SMUGGLER]

    expected = case["expect"]
    if expected == "one_message|reject":
        expected = "one_message" if played.messages else "reject"
    if expected == "one_message":
        assert len(played.messages) == 1
        assert set(codes) == {250}
        assert len(codes) == 1 or bdat
    elif expected == "reject":
        assert not played.messages
        assert codes[-1:] in ([550], [554], [503])
        assert len(codes) == 1 or bdat
    elif expected == "reject_first":
        assert codes[0] == 550
        assert [str(sender) for sender, _, _ in played.messages] == ["smug@attacker.test"]
        assert codes[1:] == [250, 250, 354, 250]  # a new transaction, authorised on its own
        smuggled = []
    elif expected == "two_or_reject_second":
        assert codes == [250, 250, 250, 354, 250]
        smuggled = []
    elif expected == "reject_or_close":
        assert not played.messages
        assert played.closing
        assert codes[-1] >= 500
    else:
        assert expected == "no_message_on_close"
        assert not played.messages
        assert played.ended == Closed(True, "client closed the connection")
    assert not smuggled
    for _, _, text in played.messages:
        assert b"\r\n.\r\n" not in text or bdat
        assert text.replace(b"\r\n", b"").count(b"\r") + text.replace(b"\r\n", b"").count(b"\n") == 0
    if "delivered_tail" in case:
        unstuffed = re.sub(rb"(?<=\r\n)\.", b"", played.messages[0][2])
        assert unstuffed.endswith(octets(case["delivered_tail"]))


@pytest.mark.parametrize(
    "case",
    [case for case in cases("smuggling_cases.json") if case["group"] == "bdat"],
    ids=lambda case: str(case["name"]),
)
def test_bdat_that_is_not_offered_delivers_nothing(case: dict[str, Any], play: Any) -> None:
    played = play(LISTENERS["plain"], [STAGES["rcpt"], wire(case)])
    assert played.codes[-1] == 502
    assert played.closing
    assert not played.messages
