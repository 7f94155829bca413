"""How the cases of tests/corpora are cut into pieces, and what may become of each: pure, for every kind of test.

`verdict` names what became of a text, `judged` says whether that is right under a listener's `bare_newline`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal

from corpora import Case

Policy = Literal["reject", "normalize"]
POLICIES: Final[tuple[Policy, ...]] = ("reject", "normalize")

SMUGGLER: Final = "smug"
LONG: Final = 4000  # octets from which a case is cut at its end only


def at_marks(said: bytes) -> list[bytes]:
    """Split behind each CR, LF and dot; of a long case only where it happens, at its end."""
    start = max(0, len(said) - LONG)
    return [said[:start], *re.findall(rb"[^\r\n.]*[\r\n.]|[^\r\n.]+", said[start:])]


def one_by_one(said: bytes) -> list[bytes]:
    start = max(0, len(said) - LONG)
    return [said[:start], *(said[at : at + 1] for at in range(start, len(said)))]


def around_the_dot(said: bytes) -> list[bytes]:
    """The first dot at what may be a line's start alone, and the first octet of its line end."""
    dot = re.search(rb"(?<=[\r\n])\.", said)
    at = dot.start() if dot else 0
    return [said[:at], said[at : at + 1], said[at + 1 : at + 2], said[at + 2 :]]


SEGMENTATIONS: Final[dict[str, Callable[[bytes], list[bytes]]]] = {
    "whole": lambda said: [said],
    "octets": one_by_one,
    "at CR, LF and dot": at_marks,
    "around the dot": around_the_dot,
}


# --- texts -----------------------------------------------------------------------------------------------------


def verdict(codes: Sequence[int], closed: bool, senders: Sequence[str]) -> str:
    """What became of a text: the words of the corpora. senders: of what was committed, in order; closed: the server
    ended the connection.
    """
    smuggled = [sender for sender in senders if SMUGGLER in sender]
    refused = [code for code in codes if code >= 500]
    if smuggled:
        own = list(codes[1:]) == [250, 250, 354, 250]  # answered command by command: a transaction of its own
        if own and codes[0] == 250 and len(senders) == 2:
            return "two"
        return "second" if own and codes[0] >= 500 and len(senders) == 1 else "SMUGGLED"
    if len(senders) == 1:
        if set(codes) == {250}:
            return "one"
        if refused and set(codes) - set(refused) == {250}:
            return "one, then refused" if codes[-1] >= 500 else "one among refused"
        return "CONFUSED"
    if senders:
        return "CONFUSED"
    if codes and codes[-1] >= 500:
        return "refused"
    return "nothing" if closed or not codes else "CONFUSED"


ACCEPTABLE: Final[dict[str, frozenset[str]]] = {
    "one_message": frozenset({"one"}),
    "reject": frozenset({"refused"}),
    "one_message|reject": frozenset({"one", "refused"}),
    "reject_first": frozenset({"second"}),
    "two_or_reject_second": frozenset({"two"}),
    "reject_or_close": frozenset({"refused", "nothing"}),
    "no_message_on_close": frozenset({"nothing"}),
    "one_message_then_refused": frozenset({"one, then refused"}),
    "one_message_among_refused": frozenset({"one among refused"}),
}


def expected(case: Case, policy: Policy) -> str:
    """What must become of a text, in the words of the corpora."""
    return str(case["expect"] if policy == "reject" else case["expect_normalize"])


def judged(case: Case, policy: Policy, codes: Sequence[int], closed: bool, senders: Sequence[str]) -> str | None:
    """What is wrong, None where all is well."""
    found, wanted = verdict(codes, closed, senders), expected(case, policy)
    if found in ACCEPTABLE[wanted] and len(senders) <= case["max_messages"]:
        return None
    return f"{case['name']}: expected {wanted}, found {found}: {list(codes)} {list(senders)}"


def clean(octets: bytes) -> bool:
    """CR and LF only as CRLF, and no NUL: whoever reads it reads the same lines."""
    return not re.search(rb"[\r\n\0]", octets.replace(b"\r\n", b""))


# --- commands --------------------------------------------------------------------------------------------------

REPLY_LINE: Final = re.compile(rb"[2-5][0-9]{2}[ -][ -~]*\r\n")


def classes(codes: Sequence[int], closed: bool) -> set[str]:
    """The classes of the last reply, as the corpora name them."""
    if not codes:
        return {"close" if closed else "none"}
    last = f"{codes[-1] // 100}xx"
    return {last, f"{last}+close", "close"} if closed else {last}


def wanted_classes(case: Case, policy: Policy) -> set[str]:
    wanted = set(case["expect_reply_class"].split("|"))
    # The corpora's `bare`: where a bare LF ends a line, the line is as good as any.
    return wanted | {"2xx", "3xx", "5xx"} if policy == "normalize" and case.get("bare") == "lf" else wanted


def complaints(case: Case, policy: Policy, said: bytes, closed: bool) -> list[str]:
    """What is wrong with the replies to a command, `said` in all."""
    lines = re.findall(rb"[^\n]*\n|[^\n]+", said)
    codes = [int(line[:3]) for line in lines if REPLY_LINE.fullmatch(line) and line[3:4] == b" "]
    wanted = wanted_classes(case, policy)
    wrong = {
        f"expected {sorted(wanted)}": not classes(codes, closed) & wanted,
        "a malformed line": not all(REPLY_LINE.fullmatch(line) for line in lines),
        "more than one reply": case.get("one_reply", False) and len(codes) > 1,
        "a reply that must not come": "no_line_starting" in case
        and any(line.startswith(case["no_line_starting"].encode()) for line in lines),
    }
    name = case["name"]
    return [f"{name}: {what}; heard {codes[-3:]} closed={closed}" for what, holds in wrong.items() if holds]
