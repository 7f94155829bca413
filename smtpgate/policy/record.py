"""What the engine was asked and what it answered, as JSON-able records, and back.

Owns the form of the log's lines "decision", "refund" and "release" (`log.decisions`), from which
`gatectl policy simulate` can tell what another policy would have done. Only what is set is written, numbers as they
were, so that a replay counts what the run counted. Two things are not: of `password_mac` only a beginning, which
tells passwords of one login apart and is of no other use; and of a text longer than MAX_TEXT (no name or address
of mail is, RFC 5321 section 4.5.3.1) its middle, whose digest stands there instead.

Refuses to know where records go, and what is done with them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from smtpgate.policy.model import Decision, Event, Facts, Paid, Slot
from smtpgate.units import InvalidValue

DECISION: Final = "decision"
REFUND: Final = "refund"
RELEASE: Final = "release"
KINDS: Final = (DECISION, REFUND, RELEASE)

# Characters of one text, as of one value of the log (reference/security.md G1).
MAX_TEXT: Final = 256
_HEAD: Final = 96
_TAIL: Final = 96  # a domain stays readable, and a `*.suffix` still fits
_DIGEST_OCTETS: Final = 16
# Of a MAC that is keyed and cut already: two wrong passwords of one login look alike once in 2**32 times.
MAC_CHARACTERS: Final = 8

_DEFAULTS: Final[Mapping[str, object]] = {name: Facts._field_defaults.get(name) for name in Facts._fields}
_EVENTS: Final[Mapping[str, Event]] = {event.value: event for event in Event}
_NUMBERS: Final = frozenset({"size", "octets", "messages", "recipients"})
_SWITCHES: Final = frozenset({"tls", "known_user", "known_net"})

# How the engine is asked where nobody says otherwise.
_AS_USUAL: Final[Mapping[str, object]] = {
    "debit": True,
    "count": True,
    "turn": False,
    "patience": None,
    "places": True,
}

Record = dict[str, object]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and its answer. at: Unix seconds. debit to places: how it was asked, see `decision`. limit: what
    refused, None where nothing did. hold: seconds for which the session could wait. shadow: limits that would have
    refused. paid: (key, cost) of each bucket, slots: holders.
    """

    at: float
    event: Event
    facts: Facts
    debit: bool = True
    count: bool = True
    turn: bool = False
    patience: float | None = None
    places: bool = True
    limit: str | None = None
    subject: str | None = None
    hold: float = 0.0
    shadow: tuple[str, ...] = ()
    paid: tuple[tuple[str, float], ...] = ()
    slots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refunded:
    """What was given back. at: Unix seconds. ours: it was our fault that the message did not arrive."""

    at: float
    paid: tuple[tuple[str, float], ...]
    ours: bool


@dataclass(frozen=True, slots=True)
class Released:
    """Places that were left. at: Unix seconds. slots: holders."""

    at: float
    slots: tuple[str, ...]


# --- to a record --------------------------------------------------------------------------------------------


def decision(
    at: float,
    event: Event,
    facts: Facts,
    answer: Decision,
    *,
    debit: bool = True,
    count: bool = True,
    turn: bool = False,
    patience: float | None = None,
    places: bool = True,
) -> Record:
    """The record of `Engine.decide`, answered at Unix seconds `at`; the rest is what it was called with (patience is
    its `hold`, places its `slots`).
    """
    record: Record = {"at": at, "asked": event.value, "facts": _facts(facts), "allowed": answer.allowed}
    asked = {"debit": debit, "count": count, "turn": turn, "patience": patience, "places": places}
    record |= {name: value for name, value in asked.items() if value != _AS_USUAL[name]}
    denial = answer.denial
    if denial is not None:
        record |= {"limit": denial.limit, "subject": denial.subject, "rule": denial.source}
        # JSON has no infinity: a wait that never ends is left out.
        record |= {"wait": round(denial.wait, 3)} if math.isfinite(denial.wait) else {}
        record |= {"hold": denial.hold} if denial.hold else {}
    if answer.shadow:
        record["shadow"] = [one.limit for one in answer.shadow]
    if answer.paid:
        record["paid"] = _paid(answer.paid)
    if answer.slots:
        record["slots"] = [slot.holder for slot in answer.slots]
    return record


def refund(at: float, paid: Sequence[Paid], *, ours: bool) -> Record:
    """The record of `Engine.refund(paid, ours=ours)`."""
    return {"at": at, "paid": _paid(paid), "ours": ours}


def release(at: float, slots: Sequence[Slot]) -> Record:
    """The record of `Engine.release(slots)`."""
    return {"at": at, "slots": [slot.holder for slot in slots]}


def _paid(paid: Sequence[Paid]) -> list[list[str | float]]:
    return [[_cut(one.key), one.cost] for one in paid]


def _facts(facts: Facts) -> Record:
    written: Record = {}
    for name, default in _DEFAULTS.items():
        value = getattr(facts, name)
        if value == default:
            continue
        if name == "password_mac":
            value = value[:MAC_CHARACTERS]
        written[name] = _cut(value) if isinstance(value, str) else value
    return written


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    octets = text.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(octets, digest_size=_DIGEST_OCTETS).hexdigest()
    return f"{text[:_HEAD]}~{digest}~{text[-_TAIL:]}"


# --- and back -----------------------------------------------------------------------------------------------


def read(kind: str, record: Mapping[str, Any]) -> Asked | Refunded | Released:
    """kind: one of KINDS. Keys that are not known are ignored: the log adds its own.

    Raises InvalidValue, whose `path` leads to what does not fit.
    """
    at = float(_typed(record, "at", (int, float), "Unix seconds"))
    if not math.isfinite(at):
        raise InvalidValue("is no time", "Unix seconds", path=("at",))
    if kind == DECISION:
        return _asked(at, record)
    if kind == REFUND:
        return Refunded(at, _costs(record), bool(_typed(record, "ours", bool, "true or false")))
    return Released(at, _texts(record, "slots"))


def _asked(at: float, record: Mapping[str, Any]) -> Asked:
    asked = _typed(record, "asked", str, "an event")
    if asked not in _EVENTS:
        raise InvalidValue("is not an event", ", ".join(_EVENTS), value=asked, path=("asked",))
    return Asked(
        at=at,
        event=_EVENTS[asked],
        facts=_read_facts(record),
        debit=bool(_typed(record, "debit", bool, "true or false", True)),
        count=bool(_typed(record, "count", bool, "true or false", True)),
        turn=bool(_typed(record, "turn", bool, "true or false", False)),
        patience=_typed(record, "patience", (int, float, type(None)), "seconds", None),
        places=bool(_typed(record, "places", bool, "true or false", True)),
        limit=_typed(record, "limit", (str, type(None)), "a limit's name", None),
        subject=_typed(record, "subject", (str, type(None)), "a subject", None),
        hold=float(_typed(record, "hold", (int, float), "seconds", 0.0)),
        shadow=_texts(record, "shadow"),
        paid=_costs(record),
        slots=_texts(record, "slots"),
    )


def _read_facts(record: Mapping[str, Any]) -> Facts:
    facts = _typed(record, "facts", dict, "a mapping")
    for name, value in facts.items():
        path = ("facts", name)
        if name not in _DEFAULTS:
            raise InvalidValue("is not a fact", ", ".join(_DEFAULTS), path=path)
        wanted: type | tuple[type, ...] = str
        if name in _SWITCHES:
            wanted = bool
        elif name in _NUMBERS:
            wanted = int
        elif name == "time":
            wanted = (int, float)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise InvalidValue("is not of the type that this fact has", "what log.decisions wrote", path=path)
    if "client" not in facts:
        raise InvalidValue("is missing", "an address", path=("facts", "client"))
    return Facts(**facts)


def _costs(record: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    pairs = _typed(record, "paid", list, "a list", ())
    try:
        return tuple((str(key), float(cost)) for key, cost in pairs)
    except (TypeError, ValueError):
        raise InvalidValue("is not a list of keys and costs", '[["limit:subject", 1.0]]', path=("paid",)) from None


def _texts(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = _typed(record, name, list, "a list", ())
    if not all(isinstance(one, str) for one in found):
        raise InvalidValue("is not a list of texts", '["a"]', path=(name,))
    return tuple(found)


_NEEDED: Final = object()


def _typed(
    record: Mapping[str, Any], name: str, kind: type | tuple[type, ...], expected: str, default: object = _NEEDED
) -> Any:
    value = record.get(name, default)
    if value is _NEEDED:
        raise InvalidValue("is missing", expected, path=(name,))
    if value is not default and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise InvalidValue("is not what it should be", expected, path=(name,))
    return value
