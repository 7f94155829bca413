"""`match`: patterns on fields -> one precompiled test of the facts, three-valued.

A match is an AND of fields. A field's list is an OR of its patterns; `!` in front excludes: a value passes if
it fits any plain pattern (or there is none) and no excluded one. `*` stands for any run of characters, case
does not matter, networks and addresses fit `client`, `@name` is a set.

The answer is True, False, or None where it hangs on a fact that is not known yet (`routing.router` needs to
tell these apart; a limit applies on True alone). The cost does not grow with the number of exact names,
`*.suffix` globs or networks; each other glob costs one linear scan, and none can backtrack (security.md F12).

Owns no file and no line: whoever compiles gets `InvalidValue` with the path below the match.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from smtpgate.policy.fields import (
    ABSENT,
    CANONICAL,
    EMPTY,
    FIELDS,
    METHODS,
    Field,
    Kind,
)
from smtpgate.policy.model import Facts
from smtpgate.units import EXPECTED_CIDR, InvalidValue, Network, parse_cidr

UNIX: Final = "unix:"
# RFC 5321 section 4.5.3.1.3: a path has at most 256 octets; the rest is room for what operators write.
MAX_PATTERN: Final = 512
# A message that lists more is not read.
MAX_NAMES: Final = 20
# Parsed addresses that are remembered: a session asks several times, and clients come back.
ADDRESS_CACHE: Final = 4096

Test = Callable[[str], bool]


# --- client addresses ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=ADDRESS_CACHE)
def parse_client(text: str) -> tuple[int, int] | None:
    """A textual address -> (version, number), None if it is none. v4-mapped is IPv4, a scope id is dropped."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, int(address)


class ClientSet:
    """Networks and `unix:`; one look-up for each prefix length that occurs."""

    __slots__ = ("_by_prefix", "_unix")

    def __init__(self, networks: Iterable[Network], *, unix: bool = False) -> None:
        by_prefix: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            by_prefix.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._by_prefix = tuple((version, shift, frozenset(s)) for (version, shift), s in by_prefix.items())
        self._unix = unix

    def __call__(self, client: str) -> bool:
        parsed = parse_client(client)
        if parsed is None:
            return self._unix and client.startswith(UNIX)
        family, number = parsed
        return any(version == family and number >> shift in numbers for version, shift, numbers in self._by_prefix)


def client_set(patterns: Sequence[str]) -> ClientSet:
    """Raises InvalidValue with the pattern's index as path."""
    networks = []
    for index, pattern in enumerate(patterns):
        if pattern == UNIX:
            continue
        try:
            networks.append(parse_cidr(pattern))
        except InvalidValue as error:
            expected = f"{error.expected or EXPECTED_CIDR}, {UNIX}"
            raise InvalidValue(error.message, expected, value=pattern, path=(index,)) from None
    return ClientSet(networks, unix=UNIX in patterns)


# --- text ---------------------------------------------------------------------------------------------------


class Glob:
    """A pattern with `*` anywhere. The pieces are found from left to right, each at its first place."""

    __slots__ = ("_head", "_least", "_middle", "_tail")

    def __init__(self, pattern: str) -> None:
        self._head, *self._middle, self._tail = pattern.split("*")
        self._least = len(pattern) - pattern.count("*")

    def __call__(self, value: str) -> bool:
        if len(value) < self._least or not value.startswith(self._head) or not value.endswith(self._tail):
            return False
        at, end = len(self._head), len(value) - len(self._tail)
        for piece in self._middle:
            at = value.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True


class TextSet:
    """Exact values, `*.suffix` and `*@suffix` globs found by a walk over the value's labels, other globs."""

    __slots__ = ("_exact", "_globs", "_longest", "_suffixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        exact, suffixes, globs = set(), set(), []
        for pattern in patterns:
            if "*" not in pattern:
                exact.add(pattern)
            elif pattern[:2] in ("*.", "*@") and "*" not in pattern[1:]:
                suffixes.add(pattern[1:])
            else:
                globs.append(Glob(pattern))
        self._exact = frozenset(exact)
        self._suffixes = frozenset(suffixes)
        self._longest = max(map(len, suffixes), default=0)
        self._globs = tuple(globs)

    def __call__(self, value: str) -> bool:
        if value in self._exact:
            return True
        if self._suffixes:
            for at in range(max(0, len(value) - self._longest), len(value)):
                if value[at] in ".@" and value[at:] in self._suffixes:
                    return True
        return any(glob(value) for glob in self._globs)


def text_set(kind: Kind, patterns: Sequence[str]) -> TextSet:
    """Raises InvalidValue with the pattern's index as path."""
    for index, pattern in enumerate(patterns):
        if not pattern or len(pattern) > MAX_PATTERN or not pattern.isprintable() or " " in pattern:
            expected = f"1 to {MAX_PATTERN} printable characters without spaces"
            raise InvalidValue("is not a pattern", expected, value=pattern, path=(index,))
        if kind is Kind.DOMAIN and "@" in pattern:
            expected = f'a domain, e.g. example.com, "*.example.com", "{EMPTY}" for none'
            raise InvalidValue("is not a domain", expected, value=pattern, path=(index,))
        if kind in (Kind.DOMAIN, Kind.ADDRESS) and not all(map(_is_label_pattern, pattern.split("@")[-1].split("."))):
            expected = 'whole labels around "*", e.g. "*.bücher.example", or A-labels, e.g. "*xn--bcher-kva.example"'
            raise InvalidValue('has "*" in a label that is not ASCII', expected, value=pattern, path=(index,))
        if kind is Kind.METHOD and not any(map(TextSet([pattern.lower()]), METHODS)):
            hint = " (LOGIN is plain)" if pattern.lower() == "login" else ""
            raise InvalidValue(f"is not a method{hint}", one_of(METHODS), value=pattern, path=(index,))
    return TextSet(CANONICAL[kind](pattern) for pattern in patterns)


def _is_label_pattern(label: str) -> bool:
    """Whether IDNA can encode the label, or leaves it alone: of "*bücher" it would encode the "*" too."""
    return label.isascii() or "*" not in label


# --- sets ---------------------------------------------------------------------------------------------------

SET_TYPES: Final[Mapping[str, frozenset[Kind]]] = {
    "user": frozenset({Kind.ADDRESS}),
    "domain": frozenset({Kind.DOMAIN}),
    "cidr": frozenset({Kind.CLIENT}),
}


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A compiled set; `type` is a key of SET_TYPES. One object serves every match that names it.

    BROKEN_SET stands for one that has a fault of its own: naming it is not a second fault.
    """

    type: str
    test: Test


BROKEN_SET: Final = NamedSet("", lambda value: False)


def named_set(type_: str, patterns: Sequence[str]) -> NamedSet:
    """Raises InvalidValue with the pattern's index as path."""
    if type_ == "cidr":
        return NamedSet(type_, client_set(patterns))
    return NamedSet(type_, text_set(Kind.ADDRESS if type_ == "user" else Kind.DOMAIN, patterns))


# --- matches ------------------------------------------------------------------------------------------------


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
    """A field that is text: fits one of `plain` (any, if there is none), and none of `excluded`."""

    field: Field
    plain: tuple[Test, ...]
    excluded: tuple[Test, ...]

    def __call__(self, facts: Facts) -> bool | None:
        value = self.field.read(facts)
        if value is None:
            return None
        if value == ABSENT:
            return not self.plain
        text = CANONICAL[self.field.kind](str(value))
        if self.plain and not any(test(text) for test in self.plain):
            return False
        return not any(test(text) for test in self.excluded)


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
    spec: Mapping[str, Sequence[str] | bool], known: Collection[str], sets: Mapping[str, NamedSet], where: str
) -> tuple[Matcher, list[InvalidValue]]:
    """spec: the fields that the operator named. known: those that may be named here. where: for messages.

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
                tests.append(_pattern_test(field, wanted, sets))
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


def _pattern_test(field: Field, patterns: Sequence[str], sets: Mapping[str, NamedSet]) -> PatternTest:
    if not patterns:
        raise InvalidValue("is empty and would never match", "at least one pattern, or no such key")
    sides: dict[bool, tuple[list[Test], list[tuple[int, str]]]] = {True: ([], []), False: ([], [])}
    for index, pattern in enumerate(patterns):
        tests, literal = sides[not pattern.startswith("!")]
        bare = pattern.removeprefix("!")
        if bare.startswith("@"):
            tests.append(_look_up(field, bare[1:], sets, index))
        else:
            literal.append((index, bare))
    for tests, literal in sides.values():
        if literal:
            tests.append(_literal_test(field.kind, literal))
    return PatternTest(field, tuple(sides[True][0]), tuple(sides[False][0]))


def _look_up(field: Field, name: str, sets: Mapping[str, NamedSet], index: int) -> Test:
    found = sets.get(name)
    if found is None:
        raise InvalidValue("is not a set", one_of(sets), value=f"@{name}", path=(index,))
    if found is not BROKEN_SET and field.kind not in SET_TYPES[found.type]:
        expected = " or ".join(t for t, kinds in SET_TYPES.items() if field.kind in kinds)
        expected = f"a set of type {expected}" if expected else "patterns, this field takes no set"
        raise InvalidValue(f"is a set of type {found.type}", expected, value=f"@{name}", path=(index,))
    return found.test


def _literal_test(kind: Kind, literal: Sequence[tuple[int, str]]) -> Test:
    patterns = [pattern for _, pattern in literal]
    try:
        return client_set(patterns) if kind is Kind.CLIENT else text_set(kind, patterns)
    except InvalidValue as error:
        index = literal[int(error.path[0])][0]
        raise InvalidValue(error.message, error.expected, value=error.value, path=(index,)) from None
