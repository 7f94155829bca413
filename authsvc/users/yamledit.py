"""Changes to the text of a users' file in YAML that leave every other line as it is: comments, order, spaces.

Owns where a user's lines begin and end, and how a user is written. It works on block style, the style of
conf/users.yaml: a key's lines are its own and those below it that are indented further. Text in another style is
refused. Whoever uses this parses the result and compares (`fileusers`): what is written here is never believed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from authsvc.users.model import NotWritableError, User
from authsvc.users.userrecord import cram_form, plain_forms
from smtpgate import document
from smtpgate.document import Document, Mark

# A key or a name that means itself without quotes.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.@+-]*")
_TYPED: Final = frozenset({"true", "false", "null"})
_EMPTY_USERS = re.compile(r"users:[ ]*\{[ ]*\}(?P<rest>[ ]*(?:#.*)?)")
_USERS = re.compile(r"users:(?P<rest>[ ]*(?:#.*)?)")
_INDENT: Final = 2


@dataclass(frozen=True, slots=True)
class _Span:
    """Lines from `start` to before `end`, counted from 0."""

    start: int
    end: int


class _Text:
    """A text as lines that can be replaced. Line breaks stay what they are."""

    def __init__(self, text: bytes, source: str) -> None:
        decoded = text.decode("utf-8")
        self.source = source
        self.end = "\r\n" if "\r\n" in decoded else "\n"
        self.lines = decoded.replace("\r\n", "\n").split("\n")

    def replace(self, span: _Span, lines: list[str]) -> None:
        self.lines[span.start : span.end] = lines

    def span(self, mark: Mark) -> _Span:
        """The lines of the key at `mark`, those of its value included. Raises NotWritableError for flow style."""
        start, indent = mark.line - 1, mark.column - 1
        if self.lines[start][:indent].strip(" \ufeff"):
            raise NotWritableError(
                f"{self.source}:{mark.line}: this line holds several keys in {{…}}; expected a line for each"
            )
        end = start + 1
        for number in range(start + 1, len(self.lines)):
            line = self.lines[number]
            if not line.strip(" "):
                continue
            if len(line) - len(line.lstrip(" ")) <= indent:
                if line.lstrip(" ").startswith("#"):
                    continue
                break
            end = number + 1
        return _Span(start, end)

    def octets(self) -> bytes:
        return self.end.join(self.lines).encode("utf-8")


def put(text: bytes, source: str, user: User) -> bytes:
    """The text with the user changed, or added behind the last. Raises NotWritableError, DocumentError."""
    tree = document.load(text, source=source)
    edited = _Text(text, source)
    users = tree.value["users"]
    if user.name in users:
        _change(edited, tree, user)
    else:
        _add(edited, tree, user)
    return edited.octets()


def remove(text: bytes, source: str, name: str) -> bytes:
    """The text without the user's lines; comments above them stay. Raises NotWritableError, DocumentError."""
    tree = document.load(text, source=source)
    edited = _Text(text, source)
    edited.replace(edited.span(tree.locate(("users", name))), [])
    if len(tree.value["users"]) == 1:
        line = tree.locate(("users",)).line - 1
        edited.lines[line] = _matched(_USERS, edited, line, "users: {{}}{}")
    return edited.octets()


def _add(edited: _Text, tree: Document, user: User) -> None:
    names = list(tree.value["users"])
    if names:
        last = tree.locate(("users", names[-1]))
        at, indent = edited.span(last).end, last.column - 1
    else:
        mark = tree.locate(("users",))
        edited.lines[mark.line - 1] = _matched(_EMPTY_USERS, edited, mark.line - 1, "users:{}")
        at, indent = mark.line, mark.column - 1 + _INDENT
    edited.replace(_Span(at, at), _entry(user, indent))
    if at == len(edited.lines) - 1 or edited.lines[-1]:
        edited.lines.append("")


def _change(edited: _Text, tree: Document, user: User) -> None:
    path = ("users", user.name)
    entry: Mapping[str, Any] = tree.value["users"][user.name]
    mark = tree.locate(path)
    span = edited.span(mark)
    marks = {key: tree.locate((*path, key)) for key in entry}
    wanted = _fields(user)
    if wanted["enabled"] is None and "enabled" in entry:
        wanted["enabled"] = True
    nothing_kept = not entry or all(value is None for value in wanted.values())
    if nothing_kept or any(place.line == mark.line for place in marks.values()):
        # A name alone would be refused; and of {…} behind a name no line can be kept.
        edited.replace(span, _entry(user, mark.column - 1))
        return
    changes = _changes(edited, entry, marks, wanted)
    # From the end, so that what is above keeps its place; of several at one place the last field first.
    for _, (place, lines) in sorted(enumerate(changes), key=lambda item: (item[1][0].start, item[0]), reverse=True):
        edited.replace(place, lines)


def _changes(
    edited: _Text, entry: Mapping[str, Any], marks: Mapping[str, Mark], wanted: Mapping[str, Any]
) -> list[tuple[_Span, list[str]]]:
    """The lines of a user's keys to replace, and by what; new keys stand below all others."""
    spans = {key: edited.span(place) for key, place in marks.items()}
    indent = min(place.column for place in marks.values()) - 1
    below = max(span.end for span in spans.values())
    changes = []
    for key, value in wanted.items():
        lines = [] if value is None else _field(key, value, indent)
        if key not in entry:
            changes.append((_Span(below, below), lines))
        elif _listed(entry[key]) != _listed(value):
            changes.append((spans[key], lines))
    return changes


def _listed(value: Any) -> Any:
    """`password: X` and `password: [X]` say the same."""
    return value if isinstance(value, list) else [value]


def _matched(pattern: re.Pattern[str], edited: _Text, line: int, template: str) -> str:
    match = pattern.fullmatch(edited.lines[line].removeprefix("\ufeff"))
    if match is None:
        raise NotWritableError(f"{edited.source}:{line + 1}: this line is not understood; expected users: alone")
    return template.format(match["rest"])


# --- writing ------------------------------------------------------------------------------------------------


def _fields(user: User) -> dict[str, Any]:
    """The keys of a user, None for those that need not stand there."""
    forms = plain_forms(user)
    return {
        "password": forms[0] if len(forms) == 1 else (forms or None),
        "cram_md5": cram_form(user),
        "plan": user.plan,
        "pool": user.pool,
        "enabled": None if user.enabled else False,
    }


def _entry(user: User, indent: int) -> list[str]:
    lines = [
        line
        for key, value in _fields(user).items()
        if value is not None
        for line in _field(key, value, indent + _INDENT)
    ]
    head = f"{' ' * indent}{_scalar(user.name)}:"
    return [head, *lines] if lines else [f"{head} {{}}"]


def _field(key: str, value: Any, indent: int) -> list[str]:
    margin = " " * indent
    if isinstance(value, list):
        return [f"{margin}{key}:", *(f"{margin}{' ' * _INDENT}- {_scalar(item)}" for item in value)]
    return [f"{margin}{key}: {_scalar(value)}"]


def _scalar(value: str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if _PLAIN.fullmatch(value) and value not in _TYPED:
        return value
    # JSON's strings are YAML's double-quoted ones.
    return json.dumps(value, ensure_ascii=False)
