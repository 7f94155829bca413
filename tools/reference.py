"""What the documentation has to say, told by the source: gatectl's commands, the metrics, the log's events.

Commands are asked for their own help. Metrics and events are read from the syntax tree: those that only a fault or a
certain configuration brings forth are there too. Owns no word of prose.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from smtpgate.policy import record
from tools.commands.gatectl import gatectl

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ("smtpgate", "authsvc")
HELP_WIDTH: Final = 100

# --- commands -----------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """(name, help) of every command of gatectl, depth first, in the order of the help."""
    yield from _commands(gatectl, click.Context(gatectl, **_CONTEXT))


# With the command's own settings: click keeps the option for help of whoever asks first.
_CONTEXT: Final = {"info_name": "gatectl", "max_content_width": HELP_WIDTH, **gatectl.context_settings}


def _commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    context.terminal_width = HELP_WIDTH
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            yield from _commands(below, click.Context(below, info_name=name, parent=context))


def commands_page() -> str:
    return "\n".join(f"## {name}\n\n```text\n{text}\n```\n" for name, text in commands())


# --- metrics ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetricFacts:
    """name, kind ("counter", "gauge", "histogram"), help: as Prometheus gets them. labels: their names."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


def metrics() -> list[MetricFacts]:
    """Every family that the proxy or the auth service may tell, by name."""
    found = {}
    for call in _calls():
        name = _text(call.args[0]) if call.args else None
        if name is None or not name.startswith("smtpgate_"):
            continue
        kind = call.func.attr if isinstance(call.func, ast.Attribute) else _text(call.args[-1])
        texts = [text for text in map(_text, call.args) if text is not None]
        labels = texts[2:]
        if kind == "gauge" and isinstance(call.func, ast.Attribute):
            labels = labels[1:]  # how workers' values are put together
        elif not isinstance(call.func, ast.Attribute):
            labels = []
        if kind in ("counter", "gauge", "histogram"):
            found[name] = MetricFacts(name, kind, texts[1], tuple(labels))
    return [found[name] for name in sorted(found)]


def metrics_page() -> str:
    rows = ["| metric | type | labels | what |", "|---|---|---|---|"]
    for one in metrics():
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append(f"| `{one.name}` | {one.kind} | {labels} | {one.help} |")
    return "\n".join(rows) + "\n"


# --- events -------------------------------------------------------------------------------------------------

_LEVELS: Final = frozenset({"info", "warning", "error"})
# Functions that write an event that they are given.
_WRITERS: Final = frozenset({"_warn", "_tell_once", "write", "log"})
# What every line begins with.
_HEAD: Final = frozenset({"timestamp", "level", "event"})
_DECISIONS: Final = {
    "record.DECISION": record.DECISION,
    "record.REFUND": record.REFUND,
    "record.RELEASE": record.RELEASE,
}


def events() -> dict[str, set[str]]:
    """Event -> the fields that the source names where it is written. Those that come as a mapping are not seen."""
    found: dict[str, set[str]] = {}
    for tree in _trees():
        texts = _texts(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for event in _events_of(node, texts):
                    fields = found.setdefault(event, set())
                    fields.update(one.arg for one in node.keywords if one.arg is not None)
                if isinstance(node.func, ast.Attribute) and node.func.attr == "rows" and len(node.args) == 3:
                    event_text, names = _text(node.args[0]), _constants(tree).get(ast.unparse(node.args[1]))
                    if event_text is not None and names is not None:
                        found.setdefault(event_text, set()).update(names)
            elif isinstance(node, ast.Dict):  # a line that is made without a journal
                line = {
                    _text(key): value for key, value in zip(node.keys, node.values, strict=True) if key is not None
                }
                event_text = _text(line["event"]) if "event" in line else None
                if event_text is not None:
                    found.setdefault(event_text, set()).update({name for name in line if name} - _HEAD)
    return found


def field_names() -> set[str]:
    """Every word of the source that may be a field: keywords of calls, and texts."""
    words = {one.arg for call in _calls() for one in call.keywords if one.arg is not None}
    for tree in _trees():
        words |= {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        words |= {
            node.target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
    return words


def _events_of(call: ast.Call, texts: dict[str, list[str]]) -> list[str]:
    if not call.args or not _writes(call):
        return []
    first = call.args[1 if _is_leveled(call) else 0]
    return _options(first) or texts.get(ast.unparse(first), [])


def _is_leveled(call: ast.Call) -> bool:
    """`journal.write(level, event, …)`."""
    return ast.unparse(call.func).endswith("journal.write") and len(call.args) > 1


def _texts(tree: ast.Module) -> dict[str, list[str]]:
    """What a name may stand for: `event = "one" if … else "other"`."""
    found = {name: [text] for name, text in _DECISIONS.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _options(node.value):
            found[node.targets[0].id] = _options(node.value)
    return found


def _constants(tree: ast.Module) -> dict[str, list[str]]:
    """The texts of the module's tuples, by name: the fields of rows. Those of another tuple in it are not seen."""
    return {
        ast.unparse(node.target): [text for text in map(_text, node.value.elts) if text is not None]
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Tuple)
    }


def _options(node: ast.expr) -> list[str]:
    """The texts that an expression may be: one, or those of an `if`."""
    options = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return [text for text in map(_text, options) if text is not None]


def _writes(call: ast.Call) -> bool:
    """Whether this is a call of a journal, or of a function that hands on to one."""
    if isinstance(call.func, ast.Name):
        return call.func.id in _WRITERS and bool(call.keywords)
    if not isinstance(call.func, ast.Attribute):
        return False
    if call.func.attr in _LEVELS:
        return ast.unparse(call.func.value).endswith("journal")
    return call.func.attr in _WRITERS and (bool(call.keywords) or _is_leveled(call))


# --- the source ---------------------------------------------------------------------------------------------


def _trees() -> Iterator[ast.Module]:
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield ast.parse(path.read_text(), str(path))


def _calls() -> Iterator[ast.Call]:
    for tree in _trees():
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
