"""What looks wrong says at its line why it is right: a check that is switched off, an exception caught whole."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
FILES: Final = sorted(
    [
        *(path for room in ("smtpgate", "authsvc", "conf", "tools") for path in (ROOT / room).rglob("*.py")),
        *ROOT.glob("*.py"),
    ]
)
# A directive, and behind it what it is for.
SWITCHED_OFF = re.compile(r"# (?:noqa|type: ignore|pragma)\b")
WITH_REASON = re.compile(r"# (?:noqa: [A-Z0-9]+(?:, [A-Z0-9]+)* - |type: ignore\[[a-z-]+(?:, [a-z-]+)*\] # )\S")
MARKED = re.compile(r"except BaseException:\s+# \S")


def without_reason(text: str) -> list[int]:
    """Numbers of the lines."""
    lines = text.splitlines()
    found = [number for number, line in enumerate(lines, 1) if SWITCHED_OFF.search(line)]
    found = [number for number in found if not WITH_REASON.search(lines[number - 1])]
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.ExceptHandler)
            and isinstance(node.type, ast.Name)
            and node.type.id == "BaseException"
        ):
            last = node.body[-1]
            raised_again = isinstance(last, ast.Raise) and last.exc is None
            if not raised_again or not MARKED.search(lines[node.lineno - 1]):
                found.append(node.lineno)
    return sorted(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_has_its_reason(path: Path) -> None:
    assert without_reason(path.read_text()) == []


def test_one_without_is_found() -> None:
    text = """\
import os  # noqa
import re  # noqa: F401
import io  # noqa: F401 - why
x = 1  # type: ignore[misc]
y = 1  # type: ignore[misc, arg-type] # why
try:
    x = 2
except BaseException:
    raise
try:
    x = 2
except BaseException:  # why
    x = 3
try:
    x = 2
except BaseException:  # why
    x = 3
    raise
"""
    assert without_reason(text) == [1, 2, 4, 8, 12]
