"""`sets`: named values, and which of them hold a value.

Owns the form of set files: one value a line, `#` begins a comment. Reads no file: texts are handed in. Refuses to
know which match names a set.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from smtpgate.policy.addresses import UNIX, ClientSet, parse_client, parse_networks, place_of
from smtpgate.policy.fields import Kind
from smtpgate.policy.patterns import Glob, Test, TextSet, canonical_patterns, suffix_of, suffixes_in
from smtpgate.units import InvalidValue

L = TypeVar("L")

SET_TYPES: Final[Mapping[str, frozenset[Kind]]] = {
    "user": frozenset({Kind.ADDRESS}),
    "domain": frozenset({Kind.DOMAIN}),
    "cidr": frozenset({Kind.CLIENT, Kind.NET}),
    "time": frozenset({Kind.TIME}),
}
# Types whose members may stand in a file.
FILE_TYPES: Final = ("user", "domain", "cidr")
# Members of one set file: some 150 MB of memory. Beyond it a directory of users says it better (`plan`).
MAX_MEMBERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A compiled set; `type` is a key of SET_TYPES. One object serves every match that names it.

    words: the members in canonical form, in the order of the file; none for windows of time. BROKEN_SET stands for
    one that has a fault of its own: naming it is not a second fault.
    """

    type: str
    test: Test
    words: tuple[str, ...] = field(default=(), repr=False)


BROKEN_SET: Final = NamedSet("", lambda value: False)


def named_set(type_: str, patterns: Sequence[str]) -> NamedSet:
    """A set of a type of FILE_TYPES. Raises InvalidValue with the pattern's index as path."""
    if type_ == "cidr":
        networks = parse_networks(patterns)
        unix = UNIX in patterns
        words = [*map(str, networks), *([UNIX] if unix else [])]
        return NamedSet(type_, ClientSet(networks, unix=unix), tuple(words))
    words = canonical_patterns(Kind.ADDRESS if type_ == "user" else Kind.DOMAIN, patterns)
    return NamedSet(type_, TextSet(words), tuple(words))


def read_members(text: bytes) -> tuple[list[str], list[int]]:
    """A set file's values, and the line of each. Raises InvalidValue, with the line as path where there is one."""
    try:
        lines = text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InvalidValue(f"octet 0x{text[error.start]:02x} is not UTF-8", "UTF-8", path=(line,)) from None
    values, places = [], []
    for number, line_ in enumerate(lines, 1):
        value = line_.partition("#")[0].strip()
        if value:
            values.append(value)
            places.append(number)
    if len(values) > MAX_MEMBERS:
        raise InvalidValue(f"holds {len(values)} values", f"at most {MAX_MEMBERS}", path=(places[MAX_MEMBERS],))
    return values, places


# --- which of many ------------------------------------------------------------------------------------------


class TextFinder(Generic[L]):
    """Patterns on text, each with a label: the labels of those that a value fits, looked up as TextSet does."""

    __slots__ = ("_exact", "_globs", "_longest", "_suffixes")

    def __init__(self, labelled: Iterable[tuple[str, L]]) -> None:
        self._exact: dict[str, tuple[L, ...]] = {}
        self._suffixes: dict[str, tuple[L, ...]] = {}
        self._globs: list[tuple[Glob, L]] = []
        single: tuple[L, ...] = ()
        for word, label in labelled:
            if not single or single[0] is not label:
                single = (label,)  # one tuple for all members of a set
            suffix = suffix_of(word)
            if "*" in word and suffix is None:
                self._globs.append((Glob(word), label))
                continue
            table, key = (self._exact, word) if suffix is None else (self._suffixes, suffix)
            found = table.get(key)
            table[key] = single if found is None else (*found, label)
        self._longest = max(map(len, self._suffixes), default=0)

    def find(self, value: str) -> list[L]:
        """A label may come more than once."""
        labels = list(self._exact.get(value, ()))
        if self._suffixes:
            for suffix in suffixes_in(value, self._longest):
                labels += self._suffixes.get(suffix, ())
        labels += [label for glob, label in self._globs if glob(value)]
        return labels


class ClientFinder(Generic[L]):
    """The same for networks and `unix:`, as ClientSet looks them up."""

    __slots__ = ("_by_prefix", "_unix")

    def __init__(self, labelled: Iterable[tuple[str, L]]) -> None:
        self._by_prefix: dict[tuple[int, int], dict[int, tuple[L, ...]]] = {}
        self._unix: list[L] = []
        for word, label in labelled:
            if word == UNIX:
                self._unix.append(label)
                continue
            version, shift, number = place_of(ipaddress.ip_network(word))
            table = self._by_prefix.setdefault((version, shift), {})
            table[number] = (*table.get(number, ()), label)

    def find(self, value: str) -> list[L]:
        """A label may come more than once."""
        parsed = parse_client(value)
        if parsed is None:
            return list(self._unix) if value.startswith(UNIX) else []
        family, number = parsed
        labels: list[L] = []
        for (version, shift), table in self._by_prefix.items():
            if version == family:
                labels += table.get(number >> shift, ())
        return labels


Finder = TextFinder[L] | ClientFinder[L]


def finder(kind: Kind, labelled: Iterable[tuple[str, L]]) -> Finder[L]:
    return ClientFinder(labelled) if kind in (Kind.CLIENT, Kind.NET) else TextFinder(labelled)


class Directory:
    """All sets of a policy: which of them hold a value, at a cost that does not grow with members or sets.

    A kind of field that somebody is going to ask about has to be announced: tables of sets that no match names would
    be built for nothing.
    """

    __slots__ = ("_finders", "_sets")

    def __init__(self, sets: Mapping[str, NamedSet]) -> None:
        self._sets = sets
        self._finders: dict[str, Finder[str]] = {}

    def announce(self, kind: Kind) -> None:
        """`holding` will be asked for values of this kind."""
        for type_ in FILE_TYPES:
            if kind in SET_TYPES[type_] and type_ not in self._finders:
                held = [(word, name) for name, one in self._sets.items() if one.type == type_ for word in one.words]
                self._finders[type_] = finder(kind, held)

    def holding(self, kind: Kind, value: str) -> list[str]:
        """Names of sets that hold a value in canonical form; a name may come more than once."""
        for type_, found in self._finders.items():
            if kind in SET_TYPES[type_]:
                return found.find(value)
        return []
