"""Which of many matches can fit at all: an inverted index, from the values of one field of each to the matches.

Asking costs what the facts fit, not what is there: 1,000 limits of which 4 match are as cheap as 10. Each match is
filed under the one of its fields whose patterns it shares with the fewest others, and tried in full when the facts
have such a value. What names no pattern (`{}`, `auth: true`, only `!` patterns) is always tried.

Owns no meaning: the answers are the matchers' own, in the order in which the entries were given.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

from smtpgate.policy.fields import ABSENT, CANONICAL, Field, Kind
from smtpgate.policy.match import Matcher, PatternTest
from smtpgate.policy.model import Facts
from smtpgate.policy.sets import Directory, Finder, finder

T = TypeVar("T")

# Below it, trying each costs less than finding which to try.
MIN_INDEXED: Final = 8
_TEXT: Final = frozenset({Kind.NAME, Kind.METHOD, Kind.ADDRESS, Kind.DOMAIN, Kind.CLIENT, Kind.NET})

Positions = tuple[int, ...]


class Index(Generic[T]):
    """Entries of a matcher and what it is for. directory: of the sets that the matchers name."""

    __slots__ = ("_always", "_entries", "_fields")

    def __init__(self, entries: Sequence[tuple[Matcher, T]], directory: Directory) -> None:
        self._entries = tuple(_shared(entries))
        indexed = assign([matcher for matcher, _ in entries]) if len(entries) >= MIN_INDEXED else {}
        filed = {position for tests in indexed.values() for position, _ in tests}
        self._always = tuple(position for position in range(len(entries)) if position not in filed)
        self._fields = tuple(FieldIndex(tests, directory) for tests in indexed.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        return (item for _, item in self._entries)

    def matching(self, facts: Facts) -> list[T]:
        """Those whose match is certainly true, in order."""
        entries = self._entries
        positions: Sequence[int] = self._always
        if self._fields:
            found = [*positions]
            for field in self._fields:
                found += field.find(facts) or ()
            positions = sorted(set(found))
        matched = []
        asked, fits = None, False
        for position in positions:
            matcher, item = entries[position]
            if matcher is not asked:
                asked, fits = matcher, matcher(facts) is True
            if fits:
                matched.append(item)
        return matched

    def answers(self, facts: Facts) -> Iterator[tuple[T, bool | None]]:
        """(item, answer) in order, without those that are certainly false.

        Of those that wait for a fact which their field lacks, only the first is told: a second None changes nothing
        for whoever looks for the first True.
        """
        if not self._fields:  # a few: all of them are asked
            for matcher, item in self._entries:
                answer = matcher(facts)
                if answer is not False:
                    yield item, answer
            return
        sure, waiting = self._split(facts)
        undecided = heapq.merge(*waiting)
        pending = next(undecided, None)
        for position in (*sure, len(self._entries)):
            while pending is not None and pending < position:
                matcher, item = self._entries[pending]
                answer = matcher(facts)
                pending = next(undecided, None) if answer is False else None
                if answer is not False:
                    yield item, answer
            if position < len(self._entries):
                matcher, item = self._entries[position]
                answer = matcher(facts)
                if answer is not False:
                    yield item, answer

    def _split(self, facts: Facts) -> tuple[list[int], list[Positions]]:
        """Positions whose field is known and fits, and those whose field is not known yet."""
        sure = set(self._always)
        waiting = []
        for field in self._fields:
            found = field.find(facts)
            if found is None:
                waiting.append(field.positions)
            else:
                sure.update(found)
        return sorted(sure), waiting


def _shared(entries: Sequence[tuple[Matcher, T]]) -> Iterator[tuple[Matcher, T]]:
    """Equal matches that follow each other, as `auth: true` of many limits, become one object, and are tried once."""
    last = None
    for matcher, item in entries:
        if last is None or matcher != last:
            last = matcher
        yield last, item


class FieldIndex:
    """The entries that are filed under one field."""

    __slots__ = ("_directory", "_field", "_finder", "_named", "positions")

    def __init__(self, tests: Sequence[tuple[int, PatternTest]], directory: Directory) -> None:
        self._field: Field = tests[0][1].field
        self._directory = directory
        self.positions: Positions = tuple(position for position, _ in tests)
        literal: list[tuple[str, int]] = []
        named: dict[str, list[int]] = {}
        for position, test in tests:
            for word in test.words:
                if word.startswith("@"):
                    named.setdefault(word[1:], []).append(position)
                else:
                    literal.append((word, position))
        self._finder: Finder[int] = finder(self._field.kind, literal)
        self._named = named
        if named:
            directory.announce(self._field.kind)

    def find(self, facts: Facts) -> list[int] | None:
        """Positions that may match, some perhaps twice; None while the field is not known."""
        value = self._field.read(facts)
        if value is None:
            return None
        return [] if value == ABSENT else self.holding(CANONICAL[self._field.kind](value))

    def holding(self, text: str) -> list[int]:
        """The same for a value in canonical form, or for "@name" of a set."""
        if text.startswith("@"):
            return list(self._named.get(text[1:], ()))
        found = self._finder.find(text)
        if self._named:
            for name in self._directory.holding(self._field.kind, text):
                found += self._named.get(name, ())
        return found


def assign(matchers: Sequence[Matcher]) -> dict[str, list[tuple[int, PatternTest]]]:
    """Field -> (position, test) of the matches to file under it.

    Each goes to that of its fields whose commonest pattern is rarest; one without a plain pattern to none.
    """
    common: Counter[tuple[str, str]] = Counter()
    for matcher in matchers:
        common.update((test.field.name, word) for test in _candidates(matcher) for word in test.words)
    assigned: dict[str, list[tuple[int, PatternTest]]] = {}
    for position, matcher in enumerate(matchers):
        candidates = _candidates(matcher)
        if candidates:
            rarest = min(candidates, key=lambda test: max(common[test.field.name, word] for word in test.words))
            assigned.setdefault(rarest.field.name, []).append((position, rarest))
    return assigned


def _candidates(matcher: Matcher) -> list[PatternTest]:
    return [
        test for test in matcher.tests if isinstance(test, PatternTest) and test.words and test.field.kind in _TEXT
    ]
