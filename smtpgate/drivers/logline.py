"""One line of the log: how an event and its fields are spelt.

Owns the two forms, json and text, and the escaping: client text reaches it as it is and leaves it with control,
bidirectional and non-ASCII characters escaped, cut at MAX_VALUE characters (reference/security.md G1).

A message is two lines of thirty and fourteen fields, whose names are always the same: rows, made in one pass over
their values. Both take 8 us, 4 compiled; through the formatters of `logging` or structlog it is 30, and orjson leaves
what is not ASCII as it is.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from json import JSONEncoder
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final

MAX_VALUE: Final = 256  # characters of one logged value (reference/security.md G1)
MAX_TRACEBACK: Final = 8192  # of a bug's traceback, whose end tells what happened


class Style(ABC):
    """How lines are spelt. A line has no end of line in it, and is ASCII."""

    @abstractmethod
    def fields(self, fields: Mapping[str, Any]) -> str:
        """Fields as they stand in a line behind others."""

    @abstractmethod
    def line(self, stamp: str, level: str, event: str, fields: str) -> str:
        """Time, level and event come first: that is where eyes and grep look."""

    @abstractmethod
    def frame(self, level: str, event: str, bound: str, names: Sequence[str]) -> Frame:
        """What lines have in common that always have the same fields. bound: fields before those, spelt."""

    @abstractmethod
    def row(self, frame: Frame, stamp: str, values: tuple[Any, ...], more: str) -> str:
        """What `line` and `fields` make of the same, but a float has three digits behind its point. values: one for
        each name. more: fields behind them, spelt.
        """


class Frame:
    """What stands around the values of a row, as one Style spells it. head: before the time; middle: behind it."""

    __slots__ = ("head", "middle", "names", "tail")

    def __init__(self, head: str, middle: str, names: list[str], tail: str) -> None:
        self.head = head
        self.middle = middle
        self.names = names
        self.tail = tail


class Json(Style):
    """An object a line."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # as they stand in a line; they are those of our own code, so it is bounded

    def fields(self, fields: Mapping[str, Any]) -> str:
        names = self._names
        parts: list[str] = []
        for key, value in fields.items():
            try:
                name = names[key]
            except KeyError:
                name = names[key] = f", {_quoted(key)}: "
            kind = type(value)
            if kind is str and len(value) <= MAX_VALUE:
                text = _quoted(value)
            elif value is None:
                text = "null"
            elif kind is int:
                text = str(value)
            else:
                text = _encoded(key, value)
            parts += (name, text)
        return "".join(parts)

    def line(self, stamp: str, level: str, event: str, fields: str) -> str:
        return f'{{"timestamp": "{stamp}", "level": "{level}", "event": {_quoted(event)}{fields}}}'

    def frame(self, level: str, event: str, bound: str, names: Sequence[str]) -> Frame:
        middle = f'", "level": "{level}", "event": {_quoted(event)}{bound}'
        return Frame('{"timestamp": "', middle, [f", {_quoted(name)}: " for name in names], "}")

    def row(self, frame: Frame, stamp: str, values: tuple[Any, ...], more: str) -> str:
        parts = [frame.head, stamp, frame.middle]
        for name, value in zip(frame.names, values):  # noqa: B905 - `strict` takes as long as the rest of the loop
            parts.append(name)
            if value is None:
                parts.append("null")
            elif isinstance(value, str):
                parts.append(_quoted(value) if len(value) <= MAX_VALUE else _encoded("", value))
            elif isinstance(value, float):
                parts.append("0.000" if value == 0.0 else "%.3f" % value)  # noqa: UP031 - an f-string takes longer
            elif type(value) is int:
                parts.append(str(value))
            else:
                parts.append(_encoded("", value))
        parts.append(more)
        parts.append(frame.tail)
        return "".join(parts)


class Text(Style):
    """For eyes: name=value, and what is not known is left out."""

    def fields(self, fields: Mapping[str, Any]) -> str:
        return "".join([f" {key}={_encoded(key, value)}" for key, value in fields.items() if value is not None])

    def line(self, stamp: str, level: str, event: str, fields: str) -> str:
        return f"{stamp} {level} {event}{fields}"

    def frame(self, level: str, event: str, bound: str, names: Sequence[str]) -> Frame:
        return Frame("", f" {level} {event}{bound}", [f" {name}=" for name in names], "")

    def row(self, frame: Frame, stamp: str, values: tuple[Any, ...], more: str) -> str:
        told = [(name, value) for name, value in zip(frame.names, values, strict=True) if value is not None]
        spelt = [f"{name}{value:.3f}" if type(value) is float else name + _encoded("", value) for name, value in told]
        return "".join([stamp, frame.middle, *spelt, more])


def style(name: str) -> Style:
    """name: "json" or "text"."""
    return Json() if name == "json" else Text()


class Stamps:
    """RFC 3339, in UTC, to the microsecond. Most lines share their second with the one before."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def of(self, now: float) -> str:
        """now: Unix seconds."""
        second = int(now)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{str(1_000_000 + int((now - second) * 1e6))[1:]}Z"  # a format takes three times as long


def _encoded(key: str, value: Any) -> str:
    """What json.dumps makes of a value; what it has no form for, as str() has it. Long ones are cut."""
    kind = type(value)
    if kind is str:
        # Everything beyond printable ASCII is escaped, lone surrogates included.
        return _quoted(value if len(value) <= MAX_VALUE else _cut(key, value))
    if value is None:
        return "null"
    if kind is int or (kind is float and value - value == 0.0):  # no infinity, no NaN
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join([_encoded("", item) for item in value]) + "]"
    if isinstance(value, str):  # of an enum, say
        return _encoded(key, str.__str__(value))
    return _OTHERS.encode(value)


_OTHERS: Final = JSONEncoder(ensure_ascii=True, default=str)


def _cut(key: str, value: str) -> str:
    return value[-MAX_TRACEBACK:] if key == "traceback" else value[:MAX_VALUE] + "..."
