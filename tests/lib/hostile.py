"""How the cases of tests/corpora are cut into pieces, and what may become of each: pure, for every kind of test.

`verdict` names what became of a text, `judged` says whether that is right under a listener's `bare_newline`;
`spelled` writes down what was answered to a command.
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

REPLY_LINE: Final = re.compile(rb"([2-5][0-9]{2})([ -])(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?= ))?[ -~]*\r\n")
CLOSE: Final = "close"


def spelled(said: bytes, closed: bool) -> str:
    """Replies as tests/corpora/answers.json spells them: "250 2.0.0 x104, 421 4.7.0, close". Each is its code, and
    its status where it has one; how often it came one behind the other; the end of the connection.

    Raises ValueError for octets that are no replies.
    """
    told: list[tuple[str, int]] = []
    for line in re.findall(rb"[^\n]*\n|[^\n]+", said):
        found = REPLY_LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"no line of a reply: {line[:80]!r}")
        if found[2] == b"-":
            continue
        reply = b" ".join(part for part in (found[1], found[3]) if part).decode()
        again = told.pop()[1] if told and told[-1][0] == reply else 0
        told.append((reply, again + 1))
    words = [reply if times == 1 else f"{reply} x{times}" for reply, times in told]
    return ", ".join([*words, CLOSE] if closed else words)


def replies(answer: str) -> list[str]:
    """The replies of an answer that is spelled, one by one."""
    parts = [part.partition(" x") for part in answer.split(", ") if part not in ("", CLOSE)]
    return [reply for reply, _, times in parts for _ in range(int(times or 1))]


def codes(answer: str) -> str:
    """An answer without the statuses: a server that takes everything chooses its own."""
    told = b"".join(reply[:3].encode() + b" x\r\n" for reply in replies(answer))
    return spelled(told, answer.endswith(CLOSE))


def classes(answer: str) -> set[str]:
    """The classes of an answer, as the corpora name them: the last reply's, and the end's."""
    closed, told = answer.endswith(CLOSE), replies(answer)
    if not told:
        return {"close" if closed else "none"}
    last = f"{told[-1][0]}xx"
    return {last, f"{last}+close", "close"} if closed else {last}


_PREFERRED: Final = re.compile(r"\b([2-5][0-9]{2})(?: ([245]\.[0-9]+\.[0-9]+))?")


def preferred(case: Case, answer: str) -> bool:
    """Whether an answer ends as the corpora's `prefer` wants it: one of its codes, with the status and the end of the
    connection that it names. A case without the word has no wish.
    """
    if "prefer" not in case:
        return True
    wish = re.sub(r"\(.*?\)", "", case["prefer"])  # in brackets: what would do as well
    wishes = _PREFERRED.findall(wish)
    last = (replies(answer) or [""])[-1]
    said = not (wishes and last) or any(last[:3] == code and status in ("", last[4:]) for code, status in wishes)
    said = said or ("serve" in wish and last[0] == "2")
    return said and (CLOSE not in wish or answer.endswith(CLOSE))
