"""YAML text -> plain values with marks, by libyaml's events.

Owns the YAML that is taken: 1.2 scalars, one document with a mapping at its top, no duplicate key, no alias, no
tag, `${NAME}` from a mapping that is handed in, and the bounds. Knows nothing of what keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import yaml

from smtpgate.document.tree import Document, DocumentError, Mark, Path, Problem

# security.md F11; also the most that `${NAME}` may expand to in all, since it works like an alias.
MAX_TEXT: Final = 1024 * 1024
# Kubernetes' decoder stops at 10,000 levels, our formats need 8. Without a bound libyaml itself takes minutes
# for a megabyte of "[".
MAX_DEPTH: Final = 32
# Every key, list, mapping and value counts. A folder of 20,000 named users needs about half of it.
MAX_NODES: Final = 100_000
# YAML 1.2 core schema (section 10.3.2), narrowed to JSON's forms: 010, 1_0, +5, 0x1F, .inf, on, Yes are text.
_NULL: Final = frozenset({"", "~", "null"})
_BOOL: Final = {"true": True, "false": False}
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?(?:[eE][-+]?[0-9]{1,2})?")
# YAML 1.2 section 5.1 c-printable, less NEL, LS and PS: libyaml takes these for line breaks, editors do not.
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
# $${ is a literal ${; the shell's ${NAME:-default} takes the default when NAME is unset or empty.
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


def load(text: bytes, *, source: str, environ: Mapping[str, str] | None = None) -> Document:
    """Parse one YAML document, a mapping at its top. source: the file's name, for marks.

    With `environ`, `${NAME}` and `${NAME:-default}` in values are replaced before a plain value gets its type, so
    a variable may give a number; without, they are text. Raises DocumentError.
    """
    document, problems = parse(text, source, environ)
    if problems:
        raise DocumentError(problems)
    return document


def parse(text: bytes, source: str, environ: Mapping[str, str] | None) -> tuple[Document, list[Problem]]:
    """The document and the faults that parsing can go on after; raises DocumentError for the others."""
    reader = _Reader(source, environ)
    try:
        value = reader.read(text)
    except _Unreadable as error:
        raise DocumentError([*reader.problems, error.problem]) from None
    return Document(source, value, reader.marks, reader.substituted), reader.problems


class _Unreadable(Exception):
    """The text cannot be read further."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Reader:
    """One pass over libyaml's events. Builds values as it goes, so the bounds hold before anything is walked."""

    def __init__(self, source: str, environ: Mapping[str, str] | None) -> None:
        self._source = source
        self._environ = environ
        self._nodes = 0
        self._expanded = 0
        self.marks: dict[Path, Mark] = {}
        self.substituted: dict[Path, str] = {}
        self.problems: list[Problem] = []

    def read(self, octets: bytes) -> dict[str, Any]:
        text = self._decode(octets)
        # libyaml is driven lazily: the depth bound stops it before its time grows with the square.
        events = iter(yaml.parse(text, Loader=yaml.CSafeLoader))
        try:
            next(events)  # the stream's start
            if isinstance(next(events), yaml.StreamEndEvent):
                self._stop(Mark(self._source, 1, 1), (), "the file is empty", "keys with values")
            root = next(events)
            self.marks[()] = self._mark(root)
            if not isinstance(root, yaml.MappingStartEvent):
                self._stop(self._mark(root), (), "the file is not a mapping", "keys with values")
            value: dict[str, Any] = self._node(root, events, ())
            next(events)  # the document's end
            extra = next(events)
            if not isinstance(extra, yaml.StreamEndEvent):
                self._stop(self._mark(extra), (), "a second document begins", "one document in a file")
        except yaml.MarkedYAMLError as error:
            self._stop_at_syntax(text, error)
        return value

    def _decode(self, octets: bytes) -> str:
        start = Mark(self._source, 1, 1)
        if len(octets) > MAX_TEXT:
            self._stop(start, (), f"the file has {len(octets)} octets", f"at most {MAX_TEXT}")
        try:
            text = octets.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            before = octets[: error.start].decode("utf-8")
            self._stop(self._place(before), (), f"octet 0x{octets[error.start]:02x} is not UTF-8", "UTF-8")
        bad = _UNPRINTABLE.search(text)
        if bad is not None:
            message = f"character U+{ord(bad[0]):04X} may not stand in a file"
            self._stop(self._place(text[: bad.start()]), (), message, "an escape in double quotes")
        return text

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(self._mark(event), path, "the file has too many values", f"at most {MAX_NODES}")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._tell(event, path, "anchors and aliases are not supported", "the value written out")
        if getattr(event, "tag", None) is not None:
            self._tell(event, path, "tags are not supported", "the value without a tag")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.AliasEvent):
            return None
        if len(path) >= MAX_DEPTH:
            self._stop(self._mark(event), path, "the file nests too deeply", f"at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, path)
        return self._mapping(events, path)

    def _sequence(self, events: Iterator[yaml.Event], path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self.marks.setdefault(here, self._mark(event))
            items.append(self._node(event, events, here))
        return items

    def _mapping(self, events: Iterator[yaml.Event], path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._key(event, path)
            here = (*path, key)
            if key in values:
                first = self.marks[here]
                self._tell(event, here, f"duplicate key, first in line {first.line}")
                self._node(next(events), events, here)  # the first one's marks stay
                continue
            self.marks.setdefault(here, self._mark(event))
            values[key] = self._node(next(events), events, here)
        return values

    def _key(self, event: yaml.Event, path: Path) -> str:
        self._nodes += 1
        if not isinstance(event, yaml.ScalarEvent):
            self._stop(self._mark(event), path, "a key is not text", "text before the colon")
        key: str = event.value
        if event.anchor is not None or event.tag is not None:
            self._tell(event, (*path, key), "anchors and tags are not supported", "a plain key")
        if event.implicit[0] and key == "<<":
            self._tell(event, (*path, key), "merge keys are not supported", "the keys written out")
        elif event.implicit[0] and not isinstance(_typed(key), str):
            self._tell(event, (*path, key), f"the key {key} is not text", f'quotes: "{key}"')
        return key

    def _scalar(self, event: yaml.ScalarEvent, path: Path) -> Any:
        text: str = event.value
        if self._environ is not None and "${" in text:
            written = text
            text = _VARIABLE.sub(lambda match: self._variable(match, event, path), text)
            self.substituted.setdefault(path, written)
        return _typed(text) if event.implicit[0] else text

    def _variable(self, match: re.Match[str], event: yaml.Event, path: Path) -> str:
        name, default = match[1], match[2]
        if match[0] == "$${":
            return "${"
        if name is None or self._environ is None:
            self._tell(event, path, "a variable is malformed", "${NAME}, ${NAME:-default}, or $${ for text")
            return ""
        value = self._environ.get(name)
        if default is not None and not value:
            return default
        if value is None:
            self._tell(event, path, f"the environment has no {name}", f"it set, or ${{{name}:-default}}")
            return ""
        # os.environ keeps undecodable octets as lone surrogates.
        if any("\ud800" <= character <= "\udfff" for character in value):
            self._tell(event, path, f"the value of {name} in the environment is not UTF-8", "UTF-8")
            return ""
        # Counted at each use, not at the end of a value: a megabyte of ${HOME} must not be built first.
        self._expanded += len(value)
        if self._expanded > MAX_TEXT:
            self._stop(self._mark(event), path, "variables expand too far", f"at most {MAX_TEXT} in all")
        return value

    def _stop_at_syntax(self, text: str, error: yaml.MarkedYAMLError) -> NoReturn:
        spot = error.problem_mark or error.context_mark
        mark = Mark(self._source, spot.line + 1, spot.column + 1) if spot else Mark(self._source, 1, 1)
        lines = text.split("\n")
        line = lines[mark.line - 1] if mark.line <= len(lines) else ""
        message = f"{error.context}: {error.problem}" if error.context else str(error.problem)
        expected = ""
        if line[mark.column - 1 : mark.column] == "\t":
            message, expected = "a tab may not indent", "spaces"
        elif "${" in line:
            expected = 'quotes around a variable inside [] or {}: "${NAME}"'
        self._stop(mark, (), message, expected)

    def _tell(self, event: yaml.Event, path: Path, message: str, expected: str = "") -> None:
        mark = self._mark(event)
        self.problems.append(Problem(mark.file, mark.line, mark.column, path, message, expected))

    def _stop(self, mark: Mark, path: Path, message: str, expected: str = "") -> NoReturn:
        raise _Unreadable(Problem(mark.file, mark.line, mark.column, path, message, expected))

    def _mark(self, event: yaml.Event) -> Mark:
        spot = event.start_mark
        return Mark(self._source, spot.line + 1, spot.column + 1) if spot else Mark(self._source, 1, 1)

    def _place(self, before: str) -> Mark:
        return Mark(self._source, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _typed(text: str) -> str | int | float | bool | None:
    """A plain scalar by the core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
