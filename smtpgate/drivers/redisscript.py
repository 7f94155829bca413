"""What take.lua is asked and what it answers, in both directions.

Owns the wire form: one JSON text for all questions of a call, and one text for all answers, because a number or an
answer costs redis-py and Redis' parser less there than as an item of its own. A key that several questions name is
sent once. Refuses to know connections.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final, Generic, TypeVar

from smtpgate.drivers.rediskeys import BANS, BUCKETS, DISTINCT, NETWORKS, SLOTS
from smtpgate.policy.model import Slot
from smtpgate.policy.store import LEASE, Ban, BanCheck, Charge, Claim, Penalty, Taken

SCRIPT: Final = files(__package__).joinpath("take.lua").read_bytes()
# Between the answers. No text in them has a control character.
SEPARATOR: Final = "\x1d"
# Triples of numbers that are remembered as JSON: three for each limit and cost, and floats are slow to write.
NUMBERS_CACHE: Final = 1024

_LOOK, _COUNT, _DEBIT = 0, 1, 2

Answer = TypeVar("Answer")
# (namespace, name) -> the number under which the script finds the key.
KeyNumber = Callable[[str, str], int]

_json: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Question(Generic[Answer]):
    """words: what the script is sent, as JSON. read: its answer."""

    __slots__ = ("read", "words")

    def __init__(self, words: Callable[[KeyNumber], str], read: Callable[[str], Answer]) -> None:
        self.words = words
        self.read = read


def encode(questions: Sequence[Question[Any]], prefix: str) -> tuple[list[str], list[str]]:
    """KEYS and ARGV of take.lua. prefix: of every key."""
    numbers: dict[str, int] = {}

    def number(namespace: str, name: str) -> int:
        return numbers.setdefault(namespace + name, len(numbers) + 1)

    asked = ",".join([question.words(number) for question in questions])
    return [prefix + key for key in numbers], [f"[{asked}]"]


def decode(questions: Sequence[Question[Any]], reply: bytes | str) -> list[Any]:
    """The answers, in order."""
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    return [question.read(answer) for question, answer in zip(questions, text.split(SEPARATOR), strict=True)]


# --- take ---


def take(
    charges: Sequence[Charge], *, debit: bool, count: bool, claims: Sequence[Claim], bans: Sequence[BanCheck]
) -> Question[Taken]:
    mode = _DEBIT if debit else _COUNT if count else _LOOK

    def words(number: KeyNumber) -> str:
        asked = ",".join([_charge(charge, number) for charge in charges])
        claimed = checked = "[]"
        if claims:
            claimed = _json([_claim(claim, number) for claim in claims])
        if bans:
            checked = _json([[number(BANS, check.subject), check.limits] for check in bans])
        return f'["take",{mode},[{asked}],{claimed},{checked}]'

    return Question(words, lambda text: _taken(text, charges, claims, bans))


def _charge(charge: Charge, number: KeyNumber) -> str:
    bucket = f"[{number(BUCKETS, charge.key)},{_numbers(charge.rate, charge.burst, charge.cost)}"
    terms = _terms(charge, number)
    if charge.member is not None:
        terms["member"] = [number(DISTINCT, charge.key), charge.member]
    return f"{bucket},{_json(terms)}]" if terms else f"{bucket}]"


@functools.lru_cache(maxsize=NUMBERS_CACHE)
def _numbers(rate: float, burst: float, cost: float) -> str:
    return _json([rate, burst, cost])[1:-1]


def _claim(claim: Claim, number: KeyNumber) -> list[Any]:
    return [number(SLOTS, claim.key), claim.amount, claim.holder, LEASE, _terms(claim, number)]


def _terms(item: Charge | Claim, number: KeyNumber) -> dict[str, Any]:
    terms: dict[str, Any] = {}
    if item.shadow:
        terms["shadow"] = 1
    if item.hold:
        terms["hold"] = item.hold
    if item.queued:
        terms["queued"] = 1
    if item.penalty is not None:
        terms["penalty"] = _penalty(item.penalty, number)
    return terms


def _penalty(penalty: Penalty, number: KeyNumber) -> list[Any]:
    return [
        number(BANS, penalty.subject),
        _text(penalty.note),
        penalty.ban,
        number(BUCKETS, penalty.after) if penalty.after else 0,
        penalty.denials,
        penalty.within,
        penalty.after_ban,
        _text(penalty.after_note),
    ]


def _text(note: str) -> str:
    """A file's name may be no UTF-8; Redis would refuse the whole call for it."""
    return note.encode(errors="replace").decode()


def _taken(text: str, charges: Sequence[Charge], claims: Sequence[Claim], bans: Sequence[BanCheck]) -> Taken:
    head, _, particulars = text.partition("\n")
    numbers = head.split(" ")
    end = 1 + 2 * len(charges)
    costs = [charge.cost for charge in charges]
    found: list[Ban | None] = [None] * len(bans)
    escalated = []
    if particulars:
        items: tuple[Charge | Claim, ...] = (*charges, *claims)
        for particular in particulars.split("\n"):
            kind, index, *rest = particular.split(" ", 3)
            if kind == "m":
                costs[int(index)] = 0.0
            elif kind == "e":
                escalated.append(items[int(index)].key)
            else:
                found[int(index)] = Ban(float(rest[0]), rest[1])
    return Taken(
        numbers[0] == "1",
        tuple(map(float, numbers[1:end:2])),
        tuple(map(float, numbers[2:end:2])),
        tuple(costs),
        tuple(map(int, numbers[end:])),
        tuple(found),
        tuple(escalated),
    )


# --- the rest ---


def give(charges: Sequence[Charge]) -> Question[None]:
    return Question(
        lambda number: f'["give",[{",".join([_charge(charge, number) for charge in charges])}]]', _nothing
    )


def release(slots: Sequence[Slot]) -> Question[None]:
    return Question(lambda number: _json(["release", _slots(slots, number)]), _nothing)


def renew(slots: Sequence[Slot], lease: float) -> Question[None]:
    return Question(lambda number: _json(["renew", lease, _slots(slots, number)]), _nothing)


def note(key: str, member: str, ttl: float, keep: int) -> Question[None]:
    return Question(lambda number: _json(["note", number(NETWORKS, key), member, ttl, keep]), _nothing)


def seen(key: str, member: str) -> Question[bool]:
    return Question(lambda number: _json(["seen", number(NETWORKS, key), member]), lambda text: text == "1")


def _slots(slots: Sequence[Slot], number: KeyNumber) -> list[Any]:
    return [[number(SLOTS, slot.key), slot.holder] for slot in slots]


def _nothing(text: str) -> None:
    return None
