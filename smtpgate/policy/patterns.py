"""One pattern, or many, on one text: exact values, `*.suffix`, other globs, sizes.

The cost does not grow with the number of exact names and suffixes; each other glob costs one linear scan, and none
can backtrack (security.md F12). Refuses to know fields and facts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from smtpgate.policy.fields import CANONICAL, EMPTY, METHODS, Kind
from smtpgate.units import InvalidValue, parse_size

# RFC 5321 section 4.5.3.1.3: a path has at most 256 octets; the rest is room for what operators write.
MAX_PATTERN: Final = 512
EXPECTED_SIZE_PATTERN: Final = '">= " and a size, e.g. ">= 10MiB"'

# What a value of the field's kind is asked: text, or a number for sizes and times.
Test = Callable[[Any], bool]

_SIZE_PATTERN = re.compile(r">= ?([0-9]+[A-Za-z]*)")


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


def suffix_of(pattern: str) -> str | None:
    """`.suffix` or `@suffix` of `*.suffix` and `*@suffix`, None for every other pattern."""
    return pattern[1:] if pattern[:2] in ("*.", "*@") and "*" not in pattern[1:] else None


def suffixes_in(value: str, longest: int) -> Iterable[str]:
    """What suffix patterns of at most `longest` characters would name of the value, the longest first."""
    for at in range(max(0, len(value) - longest), len(value)):
        if value[at] in ".@":
            yield value[at:]


class TextSet:
    """Exact values, `*.suffix` and `*@suffix` globs found by a walk over the value's labels, other globs."""

    __slots__ = ("_exact", "_globs", "_longest", "_suffixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        exact, suffixes, globs = set(), set(), []
        for pattern in patterns:
            suffix = suffix_of(pattern)
            if "*" not in pattern:
                exact.add(pattern)
            elif suffix is not None:
                suffixes.add(suffix)
            else:
                globs.append(Glob(pattern))
        self._exact = frozenset(exact)
        self._suffixes = frozenset(suffixes)
        self._longest = max(map(len, suffixes), default=0)
        self._globs = tuple(globs)

    def __call__(self, value: str) -> bool:
        if value in self._exact:
            return True
        if self._suffixes and any(suffix in self._suffixes for suffix in suffixes_in(value, self._longest)):
            return True
        return any(glob(value) for glob in self._globs)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """`>= 10MiB`."""

    octets: int

    def __call__(self, value: float) -> bool:
        return value >= self.octets


def canonical_patterns(kind: Kind, patterns: Sequence[str]) -> list[str]:
    """The patterns of a text field as values of it are compared. Raises InvalidValue with the index as path."""
    return [_canonical(kind, pattern, index) for index, pattern in enumerate(patterns)]


def _canonical(kind: Kind, pattern: str, index: int) -> str:
    if not pattern or len(pattern) > MAX_PATTERN or not pattern.isprintable() or " " in pattern:
        expected = f"1 to {MAX_PATTERN} printable characters without spaces"
        raise InvalidValue("is not a pattern", expected, value=pattern, path=(index,))
    if kind is Kind.DOMAIN and "@" in pattern:
        expected = f'a domain, e.g. example.com, "*.example.com", "{EMPTY}" for none'
        raise InvalidValue("is not a domain", expected, value=pattern, path=(index,))
    if not pattern.isascii() and kind in (Kind.DOMAIN, Kind.ADDRESS):
        # IDNA can encode a label or leaves it alone; of "*bücher" it would encode the "*" too.
        labels = pattern.rpartition("@")[2].split(".")
        if any("*" in label and not label.isascii() for label in labels):
            expected = 'whole labels around "*", e.g. "*.bücher.example", or A-labels, e.g. "*xn--bcher-kva.example"'
            raise InvalidValue('has "*" in a label that is not ASCII', expected, value=pattern, path=(index,))
    if kind is Kind.METHOD and not any(map(TextSet([pattern.lower()]), METHODS)):
        hint = " (LOGIN is plain)" if pattern.lower() == "login" else ""
        raise InvalidValue(f"is not a method{hint}", f"one of {', '.join(METHODS)}", value=pattern, path=(index,))
    return str(CANONICAL[kind](pattern))


def size_test(patterns: Sequence[str]) -> AtLeast:
    """The smallest of them. Raises InvalidValue with the index as path."""
    octets = []
    for index, pattern in enumerate(patterns):
        found = _SIZE_PATTERN.fullmatch(pattern)
        try:
            octets.append(parse_size(found[1] if found else None))
        except InvalidValue:
            expected = EXPECTED_SIZE_PATTERN
            raise InvalidValue("is not a bound of a size", expected, value=pattern, path=(index,)) from None
    return AtLeast(min(octets))
