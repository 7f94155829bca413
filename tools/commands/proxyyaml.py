"""Settings -> the text of conf/proxy.yaml, in the order and the look of the one that we ship."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from .importnginx import Imported

# Keys that are blocks of their own; all others are one line.
_BLOCKS = ("auth_http", "backend")


def render(imported: Imported, source: str) -> str:
    """source: the name of the file that was imported, for the first line."""
    lines = [f"# Imported from {source}. `python proxy.py -c THIS_FILE --check` tells whether it can be used."]
    if imported.remarks:
        lines += ["# What to know, and what to do:", *(f"#   {remark}" for remark in imported.remarks)]
    lines.append("")
    for key, value in imported.top.items():
        lines += _entry(key, value, "")
    lines.append("listeners:")
    for listener in imported.listeners:
        first = True
        for key, value in listener.items():
            for line in _entry(key, value, "    "):
                lines.append(f"  - {line[4:]}" if first else line)
                first = False
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, indent: str) -> Iterator[str]:
    if key in _BLOCKS and isinstance(value, dict):
        yield f"{indent}{key}:"
        for name, one in value.items():
            yield f"{indent}  {name}: {_flow(one)}"
    else:
        yield f"{indent}{key}: {_flow(value)}"


def _flow(value: Any) -> str:
    """One line of YAML that YAML 1.2's scalars read back as what it was."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return _text(str(value))


def _text(text: str) -> str:
    """Bare where that is safe in a flow, in double quotes elsewhere. "${" would be a variable of ours."""
    bare = text.replace("-", "").replace(".", "").replace("/", "").replace("_", "")
    if bare.isalnum() and bare.isascii() and text[0] not in "-." and not bare.isdigit():
        return text
    literal = text.replace("${", "$${")
    quoted: str = yaml.safe_dump(literal, default_style='"', width=10**6, allow_unicode=False).strip()
    return quoted
