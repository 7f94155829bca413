"""`match`: patterns on fields -> one precompiled test of the facts, three-valued.

A match is an AND of fields. A field's list is an OR of its patterns; `!` in front excludes: a value passes if
it fits any plain pattern (or there is none) and no excluded one. `*` stands for any run of characters, case
does not matter, networks and addresses fit `client`, `@name` is a set.

The answer is True, False, or None where it hangs on a fact that is not known yet (`routing.router` needs to
tell these apart; a limit applies on True alone).

Owns no file and no line: whoever compiles gets `InvalidValue` with the path below the match.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from smtpgate.policy.addresses import UNIX, ClientSet, Prefixes, parse_networks
from smtpgate.policy.fields import ABSENT, CANONICAL, FIELDS, Field, Kind
from smtpgate.policy.model import Facts
from smtpgate.policy.patterns import Test, TextSet, canonical_patterns, size_test
from smtpgate.policy.sets import BROKEN_SET, SET_TYPES, NamedSet
from smtpgate.policy.times import time_set
from smtpgate.units import InvalidValue, parse_cidr

# A message that lists more is not read.
MAX_NAMES: Final = 20


@dataclass(frozen=True, slots=True)
class SwitchTest:
    """A field that is true or false."""

    field: Field
    wanted: bool

    def __call__(self, facts: Facts) -> bool | None:
        value = self.field.read(facts)
        return None if value is None else value is self.wanted


@dataclass(frozen=True, slots=True)
class PatternTest:
    """A field that is text or a number: fits one of `plain` (any, if there is none), and none of `excluded`.

    words, barred: the patterns behind the two, in canonical form and with `@name` for a set, for whoever compares
    matches with each other (`index`, `covers`).
    """

    field: Field
    plain: tuple[Test, ...]
    excluded: tuple[Test, ...]
    words: tuple[str, ...] = ()
    barred: tuple[str, ...] = ()

    def __call__(self, facts: Facts) -> bool | None:
        value = self.field.read(facts)
        if value is None:
            return None
        if value == ABSENT:
            return not self.plain
        plain = CANONICAL[self.field.kind](value)
        if self.plain and not any(test(plain) for test in self.plain):
            return False
        return not any(test(plain) for test in self.excluded)


@dataclass(frozen=True, slots=True)
class Matcher:
    """The AND of its tests: False as soon as one says so, else None if one cannot tell, else True."""

    tests: tuple[SwitchTest | PatternTest, ...] = ()

    def __call__(self, facts: Facts) -> bool | None:
        known = True
        for test in self.tests:
            answer = test(facts)
            if answer is False:
                return False
            known = known and answer is not None
        return True if known else None

    @property
    def catches_all(self) -> bool:
        return not self.tests


def compile_match(
    spec: Mapping[str, Sequence[str] | bool],
    known: Collection[str],
    sets: Mapping[str, NamedSet],
    where: str,
    prefixes: Prefixes | None = None,
) -> tuple[Matcher, list[InvalidValue]]:
    """spec: the fields that the operator named. known: those that may be named here. where: for messages. prefixes:
    of `{net}`; a pattern of `net` may not be narrower.

    Returns the matcher and every fault, each with its path below the match. With a fault the matcher is not
    to be used.
    """
    tests: list[SwitchTest | PatternTest] = []
    faults = []
    for name, wanted in spec.items():
        try:
            if name not in known:
                raise InvalidValue(f"is not known at {where}", one_of(known))
            field = FIELDS[name]
            if isinstance(wanted, bool):
                tests.append(SwitchTest(field, wanted))
            else:
                tests.append(_pattern_test(field, wanted, sets, prefixes or Prefixes()))
        except InvalidValue as error:
            error.path = (name, *error.path)
            faults.append(error)
    return Matcher(tuple(tests)), faults


def one_of(names: Collection[str]) -> str:
    """For `expected`: the names that are defined, the first MAX_NAMES of them."""
    if not names:
        return "one that is defined (there is none)"
    shown = ", ".join(list(names)[:MAX_NAMES])
    return f"one of {shown}" if len(names) <= MAX_NAMES else f"one of {shown}, …"


def _pattern_test(
    field: Field, patterns: Sequence[str], sets: Mapping[str, NamedSet], prefixes: Prefixes
) -> PatternTest:
    if not patterns:
        raise InvalidValue("is empty and would never match", "at least one pattern, or no such key")
    plain, excluded = _Side(field.kind, prefixes), _Side(field.kind, prefixes)
    for index, pattern in enumerate(patterns):
        side = excluded if pattern.startswith("!") else plain
        bare = pattern.removeprefix("!")
        if bare.startswith("@"):
            side.add_set(bare, _look_up(field, bare[1:], sets, index), index)
        else:
            side.literals.append((index, bare))
    plain.compile_literals()
    excluded.compile_literals()
    return PatternTest(field, tuple(plain.tests), tuple(excluded.tests), tuple(plain.words), tuple(excluded.words))


def _look_up(field: Field, name: str, sets: Mapping[str, NamedSet], index: int) -> NamedSet:
    found = sets.get(name)
    if found is None:
        raise InvalidValue("is not a set", one_of(sets), value=f"@{name}", path=(index,))
    if found is not BROKEN_SET and field.kind not in SET_TYPES[found.type]:
        expected = " or ".join(t for t, kinds in SET_TYPES.items() if field.kind in kinds)
        expected = f"a set of type {expected}" if expected else "patterns, this field takes no set"
        raise InvalidValue(f"is a set of type {found.type}", expected, value=f"@{name}", path=(index,))
    return found


class _Side:
    """The plain patterns of a field, or the excluded ones."""

    def __init__(self, kind: Kind, prefixes: Prefixes) -> None:
        self._kind = kind
        self._prefixes = prefixes
        self.tests: list[Test] = []
        self.words: list[str] = []
        self.literals: list[tuple[int, str]] = []

    def add_set(self, name: str, named: NamedSet, index: int) -> None:
        self._check_widths(named.words, lambda at: (name, index))
        self.tests.append(named.test)
        self.words.append(name)

    def compile_literals(self) -> None:
        if not self.literals:
            return
        patterns = [pattern for _, pattern in self.literals]
        try:
            test, words = _literal_test(self._kind, patterns)
        except InvalidValue as error:
            index = self.literals[int(error.path[0])][0]
            raise InvalidValue(error.message, error.expected, value=error.value, path=(index,)) from None
        self._check_widths(words, lambda at: (patterns[at], self.literals[at][0]))
        self.tests.append(test)
        self.words += words

    def _check_widths(self, words: Sequence[str], source: Callable[[int], tuple[str, int]]) -> None:
        """A `{net}` has no address of its own, so no pattern may look into it."""
        if self._kind is not Kind.NET:
            return
        for at, word in enumerate(words):
            network = None if word == UNIX else parse_cidr(word)
            if network is None:
                continue
            widest = self._prefixes.v4 if network.version == 4 else self._prefixes.v6
            if network.prefixlen > widest:
                value, index = source(at)
                message = f"is narrower than {{net}}: {word}"
                raise InvalidValue(message, f"/{widest} or wider, or client", value=value, path=(index,))


def _literal_test(kind: Kind, patterns: Sequence[str]) -> tuple[Test, list[str]]:
    """The test, and each pattern as it is compared. Raises InvalidValue with the index as path."""
    if kind in (Kind.CLIENT, Kind.NET):
        networks = iter(parse_networks(patterns))
        words = [pattern if pattern == UNIX else str(next(networks)) for pattern in patterns]
        return ClientSet(map(parse_cidr, (word for word in words if word != UNIX)), unix=UNIX in words), words
    if kind is Kind.TIME:
        return time_set(patterns), list(patterns)
    if kind is Kind.SIZE:
        return size_test(patterns), list(patterns)
    words = canonical_patterns(kind, patterns)
    return TextSet(words), words
