"""The keys of conf/proxy.yaml and conf/authsvc.yaml as their models have them, and as a page of the documentation has
them: tables of key, default and meaning, each below a heading that names the keys' place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from markdown_it import MarkdownIt
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

NEEDED: Final = "needed"
NOTHING: Final = "none"


@dataclass(frozen=True, slots=True)
class Told:
    """A row. default: as it stands there."""

    key: str
    default: str
    meaning: str


def models(top: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Place -> model, each model at the first place it has: "" is the file's own. Where one of several forms may
    stand, the second is at that place and the name of its first key.
    """
    found: dict[str, type[BaseModel]] = {}
    waiting = [("", top)]
    while waiting:
        place, model = waiting.pop(0)
        if model in found.values():
            continue
        found[f"{place}.{next(iter(model.model_fields))}" if place in found else place] = model
        for name, info in model.model_fields.items():
            below = f"{place}.{name}" if place else name
            waiting += [(below, inner) for inner in _models_in(info.annotation)]
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def told(page: Path) -> dict[str, dict[str, list[Told]]]:
    """File -> place -> rows. A heading `proxy.yaml` begins a file, the one below it, in backquotes, a place; a place
    without a name is the file's own.
    """
    found: dict[str, dict[str, list[Told]]] = {}
    file, place, level = "", "", ""
    row: list[str] = []
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        if token.type == "heading_open":
            level = token.tag
        elif token.type == "heading_close":
            level = ""
        elif token.type == "tr_open":
            row = []
        elif token.type == "inline" and level == "h2":
            file, place = token.content, ""
        elif token.type == "inline" and level == "h3":
            place = token.content.strip("`")
        elif token.type == "inline" and not level:
            row.append(token.content)
        elif token.type == "tr_close" and row[0] != "key":
            key, default, meaning = row
            found.setdefault(file, {}).setdefault(place, []).append(Told(key.strip("`"), default.strip("`"), meaning))
    return found


def is_default(info: FieldInfo, default: str, folder: Path) -> bool:
    """Whether `default`, as a page has it, is what this field is where it is left out."""
    if info.is_required() or default == NEEDED:
        return info.is_required() and default == NEEDED
    usual = info.get_default(call_default_factory=True)
    assert usual is not PydanticUndefined
    if usual is None or default == NOTHING:
        return usual is None and default == NOTHING
    shown = yaml.safe_load(default)  # noqa: TID251 - one value, which the field then reads strictly
    if isinstance(usual, BaseModel):
        return bool(shown == {})
    adapter: TypeAdapter[Any] = TypeAdapter(info.rebuild_annotation())
    # `off` is a word to our reader, and no truth value.
    return any(_read(adapter, value, folder) == usual for value in (default, shown))


def _read(adapter: TypeAdapter[Any], value: object, folder: Path) -> Any:
    try:
        return adapter.validate_python(value, strict=True, context={"folder": folder})
    except ValidationError:
        return None
