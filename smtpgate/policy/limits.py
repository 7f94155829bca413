"""One of `limits`, or what an override says of one -> its compiled form, or everything that is wrong with it.

Owns which keys go together: what counts at which event, what a key must name there, which numbers could never pass.
A fault's path begins below the limit. Refuses to know files, and which other limits there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from smtpgate.policy.addresses import Prefixes
from smtpgate.policy.fields import known_at
from smtpgate.policy.keys import KeyTemplate, compile_key
from smtpgate.policy.match import Matcher, compile_match
from smtpgate.policy.model import Event
from smtpgate.policy.replies import find_reply
from smtpgate.policy.rules import Cost, Escalation, Kind, Limit, OnError, ReplyTemplate
from smtpgate.policy.schema import ChangeKeys, DenyTermKeys, LimitKeys, MatchKeys, TermKeys
from smtpgate.policy.select import BAN_EVENTS, Rule
from smtpgate.policy.sets import NamedSet
from smtpgate.policy.terms import Terms, merged, settled
from smtpgate.units import InvalidValue

# Whose bucket it is while too many new subjects appear: networks that one customer of a provider has, and seldom many
# of (RFC 6177: a site gets a /48 to a /56 of IPv6).
DEFAULT_OVERFLOW_KEY: Final = "{ip/24/48}"

_EVENTS: Final[Mapping[Kind, tuple[Event, ...]]] = {
    Kind.RATE: (Event.CONNECT, Event.AUTH, Event.AUTH_FAIL, Event.MAIL, Event.RCPT, Event.EOD),
    # A place is given back when the session ends, of mail when the transaction does.
    Kind.CONCURRENCY: (Event.CONNECT, Event.AUTH, Event.MAIL),
    Kind.MAX: (Event.MAIL, Event.RCPT, Event.EOD),
    Kind.SHAPE: (Event.DATA,),
}
# What the facts themselves count, without a store.
_MAX_KEYS: Final = {Event.MAIL: "{session}", Event.RCPT: "{transaction}", Event.EOD: "{transaction}"}
# Keys that each kind takes beside event, key, match, shadow and its own.
_TAKES: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.RATE: frozenset({"burst", "cost", "overflow_key", "distinct", "refund", "on_error", "deny"}),
    Kind.CONCURRENCY: frozenset({"overflow_key", "on_error", "deny"}),
    Kind.MAX: frozenset({"cost", "deny"}),
    Kind.SHAPE: frozenset({"burst", "overflow_key", "on_error"}),
}
_OPTIONAL: Final = ("burst", "cost", "overflow_key", "distinct", "refund", "on_error", "deny")
_KINDS: Final = tuple(kind.value for kind in Kind)
# What a mail server may refuse after we let it pass.
_REFUNDED: Final = (Event.MAIL, Event.RCPT, Event.EOD)


@dataclass(frozen=True, slots=True)
class Names:
    """What limits may refer to, and what they get where they say nothing."""

    sets: Mapping[str, NamedSet]
    replies: Mapping[str, ReplyTemplate]
    prefixes: Prefixes
    on_error: OnError
    shadow: bool


def compile_limit(name: str, source: str, keys: LimitKeys, names: Names) -> tuple[Rule | None, list[InvalidValue]]:
    """The rule, None if there is a fault, and every fault."""
    kinds = [kind for kind in _KINDS if kind in keys.model_fields_set]
    if len(kinds) != 1:
        had = f"has {' and '.join(kinds)}" if kinds else "says not what it counts"
        return None, [InvalidValue(had, f"exactly one of {', '.join(_KINDS)}")]
    compiler = _LimitCompiler(name, source, keys, names, Kind(kinds[0]))
    rule = compiler.run()
    return (None if compiler.faults else rule), compiler.faults


def compile_change(rule: Rule, keys: ChangeKeys, names: Names) -> tuple[Terms, list[InvalidValue]]:
    """What an override changes of a limit, and every fault."""
    kind = rule.limit.kind
    faults = list(_misplaced(kind, keys, (kind.value, *_TAKES[kind])))
    terms, more = _terms(keys, names)
    faults += more
    if not faults:
        whole = merged(rule.terms, [terms])
        faults = list(_unfit(rule.limit, whole, keys.model_fields_set))
        if not faults:
            faults = list(_impossible(settled(rule.limit, whole, shadow=False), whole, keys.model_fields_set))
    return terms, faults


class _LimitCompiler:
    """One limit; faults gather as it goes."""

    def __init__(self, name: str, source: str, keys: LimitKeys, names: Names, kind: Kind) -> None:
        self._name = name
        self._source = source
        self._keys = keys
        self._names = names
        self._kind = kind
        self._event = Event(keys.event)
        self.faults: list[InvalidValue] = []

    def run(self) -> Rule | None:
        keys, kind = self._keys, self._kind
        if self._event not in _EVENTS[kind]:
            expected = f"one of {_listed(_EVENTS[kind])}"
            self.faults.append(InvalidValue(f"{kind.value} does not go with {keys.event}", expected, path=("event",)))
            return None
        self.faults += _misplaced(kind, keys, (kind.value, *_TAKES[kind]))
        if kind is not Kind.SHAPE and "deny" not in keys.model_fields_set:
            self.faults.append(InvalidValue("is missing", 'e.g. {reply: "450 4.7.1 text"}', path=("deny",)))
        matcher = self._match(keys.match)
        key = self._key()
        limit = Limit(
            name=self._name,
            event=self._event,
            kind=kind,
            source=self._source,
            key=None if kind is Kind.MAX else key,
            deny=None,
            refund_rejected=self._refund_rejected(),
            distinct=self._template("distinct", keys.distinct, distinct=True),
            overflow_key=self._overflow_key(key),
            on_error=self._names.on_error,
        )
        terms, faults = _terms(keys, self._names)
        self.faults += faults
        if not self.faults:
            self.faults += _unfit(limit, terms, keys.model_fields_set)
        if self.faults or (key is None and kind is not Kind.MAX):
            return None
        settled_limit = settled(limit, terms, shadow=self._names.shadow)
        self.faults += _impossible(settled_limit, terms, keys.model_fields_set)
        return Rule(settled_limit, matcher, terms)

    def _match(self, keys: MatchKeys) -> Matcher:
        known, where = known_at(self._event), self._event.value
        matcher, faults = compile_match(keys.spec(), known, self._names.sets, where, self._names.prefixes)
        for fault in faults:
            fault.path = ("match", *fault.path)
        self.faults += faults
        return matcher

    def _key(self) -> KeyTemplate | None:
        if self._kind is not Kind.MAX:
            return self._template("key", self._keys.key)
        expected = _MAX_KEYS[self._event]
        if self._keys.key != expected:
            message = f"is not what max counts at {self._event.value}"
            self.faults.append(InvalidValue(message, f'"{expected}"', value=self._keys.key, path=("key",)))
        return None

    def _overflow_key(self, key: KeyTemplate | None) -> KeyTemplate | None:
        if "overflow_key" in self._keys.model_fields_set:
            return self._template("overflow_key", self._keys.overflow_key)
        if key is None or not key.unbounded:
            return None
        return compile_key(DEFAULT_OVERFLOW_KEY, self._event, self._names.prefixes)

    def _template(self, name: str, text: str, *, distinct: bool = False) -> KeyTemplate | None:
        if name not in self._keys.model_fields_set:
            return None
        try:
            return compile_key(text, self._event, self._names.prefixes, distinct=distinct)
        except InvalidValue as error:
            error.path = (name, *error.path)
            self.faults.append(error)
            return None

    def _refund_rejected(self) -> bool:
        if self._keys.refund == "never":
            return False
        if self._event not in _REFUNDED:
            expected = f"it at one of {_listed(_REFUNDED)}"
            message = f"no mail server refuses anything at {self._event.value}"
            self.faults.append(InvalidValue(message, expected, path=("refund",)))
        elif self._kind is Kind.RATE and "distinct" in self._keys.model_fields_set:
            # What was given back would still be remembered, and free from then on.
            message = "does not go with distinct: a value that comes again costs nothing"
            self.faults.append(InvalidValue(message, "one of the two", path=("refund",)))
        return True


# --- what is written ----------------------------------------------------------------------------------------


def _misplaced(kind: Kind, keys: TermKeys, takes: Collection[str]) -> Iterator[InvalidValue]:
    """Keys that do not go with what the limit counts."""
    for name in (*_KINDS, *_OPTIONAL):
        if name in keys.model_fields_set and name not in takes:
            yield InvalidValue(f"does not go with {kind.value}", "a limit without it", path=(name,))


def _terms(keys: TermKeys, names: Names) -> tuple[Terms, list[InvalidValue]]:
    """What is written, with the replies that it names."""
    named = keys.model_fields_set
    faults: list[InvalidValue] = []
    terms = Terms(
        rate=keys.rate if "rate" in named else None,
        burst=keys.burst if "burst" in named else None,
        concurrency=keys.concurrency if "concurrency" in named else None,
        max=keys.max if "max" in named else None,
        shape=keys.shape if "shape" in named else None,
        cost=keys.cost if "cost" in named else None,
        shadow=keys.shadow if "shadow" in named else None,
        on_error=OnError(keys.on_error) if "on_error" in named else None,
    )
    if isinstance(keys, LimitKeys | ChangeKeys) and "deny" in named:
        reply = None
        if "reply" in keys.deny.model_fields_set:
            reply = _reply(keys.deny.reply, names, ("deny", "reply"), faults)
        terms = replace(_with_deny(terms, keys.deny, names, faults), reply=reply)
    return terms, faults


def _with_deny(terms: Terms, deny: DenyTermKeys, names: Names, faults: list[InvalidValue]) -> Terms:
    named = deny.model_fields_set
    after = None
    if "after" in named:
        then = deny.after.then
        reply = _reply(then.reply, names, ("deny", "after", "then", "reply"), faults)
        if reply is not None:
            close = then.close or reply.code == 421
            after = Escalation(deny.after.denials, deny.after.within, reply, close, then.ban)
    return replace(
        terms,
        close=deny.close if "close" in named else None,
        delay=deny.delay if "delay" in named else None,
        max_delay=deny.max_delay if "max_delay" in named else None,
        hold=deny.hold if "hold" in named else None,
        ban=deny.ban if "ban" in named else None,
        after=after,
    )


def _reply(text: str, names: Names, path: tuple[str, ...], faults: list[InvalidValue]) -> ReplyTemplate | None:
    try:
        return find_reply(text, names.replies)
    except InvalidValue as error:
        error.path = path
        faults.append(error)
        return None


def _listed(events: Collection[Event]) -> str:
    return ", ".join(event.value for event in events)


# --- what goes together -------------------------------------------------------------------------------------


def _unfit(limit: Limit, terms: Terms, named: Collection[str]) -> Iterator[InvalidValue]:
    """Values that do not fit the limit's event, or each other. named: the keys that faults may point at."""
    cost_faults = list(_unfit_cost(limit, terms))
    yield from cost_faults or _unfit_units(limit, terms, named)
    if limit.kind is Kind.SHAPE and terms.on_error is OnError.TEMPFAIL:
        message = "a shape denies nothing"
        yield InvalidValue(message, "local, or allow", path=("on_error",))
    if terms.max_delay is not None and terms.max_delay < (terms.delay or 0.0):
        yield InvalidValue("is below delay", "delay or more", path=("deny", "max_delay"))
    if terms.hold and (limit.kind is Kind.MAX or limit.event is Event.AUTH_FAIL):
        why = "waiting changes nothing" if limit.kind is Kind.MAX else "the password has failed already"
        expected = "no hold" if limit.kind is Kind.MAX else "delay"
        yield InvalidValue(f"makes no sense here: {why}", expected, path=("deny", "hold"))
    if terms.after and limit.kind is Kind.MAX:
        message = "max has nothing to count denials with: the next message or session begins anew"
        yield InvalidValue(message, "a rate or concurrency with after", path=("deny", "after"))
    for path, seconds in (
        (("deny", "ban"), terms.ban),
        (("deny", "after", "then", "ban"), terms.after.ban if terms.after else None),
    ):
        if seconds and (limit.key is None or not limit.key.outlives or not limit.key.events & set(BAN_EVENTS)):
            expected = f"placeholders known at one of {_listed(BAN_EVENTS)}, e.g. {{net}}, {{user}}"
            yield InvalidValue("the key names nobody who could be turned away later", expected, path=path)


def _unfit_cost(limit: Limit, terms: Terms) -> Iterator[InvalidValue]:
    cost = terms.cost
    if isinstance(cost, Cost) and limit.event is not Event.EOD:
        expected = "a number, or event: eod"
        yield InvalidValue(f"is not known at {limit.event.value}", expected, value=cost.value, path=("cost",))
    elif isinstance(cost, Cost) and limit.distinct is not None:
        yield InvalidValue("does not go with distinct", "a number", value=cost.value, path=("cost",))
    if limit.kind is not Kind.MAX:
        return
    if limit.event is Event.EOD and not isinstance(cost, Cost):
        yield InvalidValue("says not what max counts", "cost: bytes, or cost: recipients", path=("cost",))
    elif limit.event is not Event.EOD and cost is not None:
        yield InvalidValue(f"does not go with max at {limit.event.value}", "max alone", path=("cost",))


def _unfit_units(limit: Limit, terms: Terms, named: Collection[str]) -> Iterator[InvalidValue]:
    """Sizes stand where octets are counted, and nowhere else."""
    in_bytes = limit.kind is Kind.SHAPE or terms.cost is Cost.BYTES
    what = "the shape" if limit.kind is Kind.SHAPE else "cost: bytes"
    for name, rate in (("rate", terms.rate), ("shape", terms.shape)):
        if rate is not None and rate.in_bytes and not in_bytes:
            where = name if name in named else "cost"
            yield InvalidValue("counts bytes", "a count, e.g. 60/1m, or cost: bytes", value=str(rate), path=(where,))
        elif rate is not None and in_bytes and not rate.in_bytes:
            where = name if name in named else "cost"
            yield InvalidValue(f"counts no bytes, as {what} does", "e.g. 2GiB/1d", value=str(rate), path=(where,))
    for name, amount in (("burst", terms.burst), ("max", terms.max)):
        if amount is not None and amount.in_bytes and not in_bytes:
            where = name if name in named else "cost"
            message = "is a size, and nothing here counts bytes"
            yield InvalidValue(message, "a whole number from 1 on", value=str(amount), path=(where,))


def _impossible(limit: Limit, terms: Terms, named: Collection[str]) -> Iterator[InvalidValue]:
    """A known cost that no bucket of this size could ever pay."""
    if limit.kind is Kind.RATE and isinstance(limit.cost, float) and limit.cost > limit.burst:
        where = next((name for name in ("cost", "burst") if name in named), "rate")
        message = f"could never pass: a cost of {limit.cost:g} and a burst of {limit.burst:g}"
        yield InvalidValue(message, "a burst of at least the cost", path=(where,))
