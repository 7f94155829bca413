"""Which of a list of matches can never be the first that is true, because an earlier one is true whenever it is.

Owns the plain cases: the same fields, with the same or wider patterns. What it calls covered is covered; what it
does not may be covered all the same (`a*` and `*b` together, a set whose members another glob takes one by one).
Refuses to know routes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from smtpgate.policy.addresses import UNIX
from smtpgate.policy.fields import Kind
from smtpgate.policy.index import FieldIndex, assign
from smtpgate.policy.match import Matcher, PatternTest, SwitchTest
from smtpgate.policy.patterns import Glob
from smtpgate.policy.sets import Directory

# Earlier matches without a plain pattern that each later one is compared with: a check of 10,000 routes must not
# take a square of it.
MAX_COMPARED: Final = 100

_CLIENTS: Final = (Kind.CLIENT, Kind.NET)
_TEXTS: Final = (Kind.NAME, Kind.METHOD, Kind.ADDRESS, Kind.DOMAIN)


def covered(matchers: Sequence[Matcher], directory: Directory) -> list[int | None]:
    """For each match the position of an earlier one that covers it, None where there is none.

    directory: of the sets that the matches name.
    """
    filed = assign(matchers)
    indexes = {name: FieldIndex(tests, directory) for name, tests in filed.items()}
    positions = {position for tests in filed.values() for position, _ in tests}
    unfiled = [position for position in range(len(matchers)) if position not in positions][:MAX_COMPARED]
    found: list[int | None] = []
    for position, matcher in enumerate(matchers):
        candidates = set(unfiled)
        for test in matcher.tests:
            if isinstance(test, PatternTest) and test.words and test.field.name in indexes:
                candidates.update(indexes[test.field.name].holding(_probe(test.field.kind, test.words[0])))
        earlier = sorted(one for one in candidates if one < position)
        found.append(next((one for one in earlier if covers(matchers[one], matcher)), None))
    return found


def covers(wide: Matcher, narrow: Matcher) -> bool:
    """Whether `wide` is true of all facts of which `narrow` is. False also where that is not plain to see."""
    fields = {test.field.name: test for test in narrow.tests}
    return all(_test_covers(test, fields.get(test.field.name)) for test in wide.tests)


def _test_covers(wide: SwitchTest | PatternTest, narrow: SwitchTest | PatternTest | None) -> bool:
    if isinstance(wide, SwitchTest) or not isinstance(narrow, PatternTest):
        return wide == narrow
    if narrow.words and all(_is_value(narrow.field.kind, word) for word in narrow.words):
        return all(_takes(wide, word) for word in narrow.words)
    kind = wide.field.kind
    if wide.words and not (narrow.words and _all_covered(kind, narrow.words, wide.words)):
        return False
    return _all_covered(kind, wide.barred, narrow.barred)


def _takes(test: PatternTest, value: str) -> bool:
    return (not test.plain or any(one(value) for one in test.plain)) and not any(one(value) for one in test.excluded)


def _all_covered(kind: Kind, narrow: Sequence[str], wide: Sequence[str]) -> bool:
    return all(any(_word_covers(kind, one, word) for one in wide) for word in narrow)


def _word_covers(kind: Kind, wide: str, narrow: str) -> bool:
    if wide == narrow:
        return True
    if wide.startswith("@") or narrow.startswith("@") or UNIX in (wide, narrow):
        return False
    if kind in _CLIENTS:
        one, other = ipaddress.ip_network(wide), ipaddress.ip_network(narrow)
        return one.version == other.version and (
            int(other.network_address) >> _shift(one) == int(one.network_address) >> _shift(one)
            and other.prefixlen >= one.prefixlen
        )
    # A glob that takes another glob's text takes all that this may stand for: no piece of it holds a "*".
    return kind in _TEXTS and Glob(wide)(narrow) if "*" in wide else False


def _shift(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> int:
    return network.max_prefixlen - network.prefixlen


def _is_value(kind: Kind, word: str) -> bool:
    """Whether the pattern fits one value only, and looks like it."""
    return kind in _TEXTS and "*" not in word and not word.startswith("@")


def _probe(kind: Kind, word: str) -> str:
    """A value, or something that is looked up as one, that every covering pattern takes."""
    if kind in _CLIENTS and word != UNIX and not word.startswith("@"):
        return str(ipaddress.ip_network(word).network_address)
    return word
