"""A document as a value, and what is told of its faults.

Owns Mark, Problem, DocumentError and Document. Knows neither YAML nor pydantic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from smtpgate.units import show

# Shown of one document; a log line for each of 100,000 duplicate keys helps nobody.
MAX_SHOWN_PROBLEMS: Final = 50

Path = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line and column count from 1, the column in characters."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. `str()` is one line: file:line:column: path: message; expected …"""

    file: str
    line: int
    column: int
    path: Path
    message: str
    expected: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: "
        path = f"{render(self.path)}: " if self.path else ""
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{where}{path}{self.message}{expected}"


class DocumentError(Exception):
    """A document that is refused. `problems` are in file order; `str()` is one line each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column)))
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN_PROBLEMS]]
        if len(self.problems) > len(lines):
            lines.append(f"and {len(self.problems) - len(lines)} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML document's value (dict, list, str, int, float, bool, None) and where each part of it stands.

    substituted: for a value that `${…}` changed, the text as written, which is shown in its stead: the
    environment holds secrets. The value is not in the repr for the same reason.
    """

    source: str
    value: dict[str, Any] = field(repr=False)
    marks: Mapping[Path, Mark] = field(repr=False)
    substituted: Mapping[Path, str] = field(repr=False)

    def locate(self, path: Path) -> Mark:
        """Where the key or list item of `path` stands, else its nearest parent that is there."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path, Mark(self.source, 1, 1))

    def problem(self, path: Path, message: str, expected: str = "") -> Problem:
        """A fault at `path`, for checks beyond `validate`; raise it in a DocumentError."""
        mark = self.locate(path)
        return Problem(mark.file, mark.line, mark.column, path, message, expected)

    def show(self, path: Path, value: object) -> str:
        """`value`, found at `path`, for a message: as written in the file, never what a variable holds."""
        return show(self.substituted.get(path, value))


def render(path: Path) -> str:
    """("limits", "a.b", 0, "rate") -> limits[a.b][0].rate"""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{show(part)[1:-1]}]"
    return text
