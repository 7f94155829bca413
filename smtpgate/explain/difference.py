"""What one policies folder says that another does not, entry by entry and field by field.

Owns the comparison. Values count as they are meant, and are shown as they are written: `60s` is `1m`, and no change.
Members of sets are compared as sets, those of files among them. Knows no terminal: changes are values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel

from smtpgate import document
from smtpgate.document import Document, render
from smtpgate.snapshot import FolderKeys, Snapshot, build

# Members that are told of each set; the count tells of the others.
FIRST_MEMBERS: Final = 10
# Items of a list that are told of one field.
MAX_ITEMS: Final = 20

NAMED: Final = ("sets", "replies", "limits", "pools")
LISTED: Final = ("exempt", "overrides", "routes")
SECTIONS: Final = ("settings", "sets", "exempt", "replies", "limits", "overrides", "routes", "pools")

Where = tuple[str | int, ...]
Kind = Literal["added", "removed", "changed", "moved"]


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One key below an entry; old or new is None where it is not written."""

    path: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Members:
    """What a set lost and gained: how many, and the first of them in order."""

    added: int
    removed: int
    first_added: tuple[str, ...]
    first_removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a section. about: whom it concerns, as written. where: "file:line" in the folder that has it, the
    new one if both do. moved: it stands at another place among others whose order counts.
    """

    section: str
    name: str
    kind: Kind
    about: str
    where: str
    fields: tuple[FieldChange, ...] = ()
    members: Members | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """leaves: path -> (what it means, how it is written)."""

    name: str
    where: str
    about: str
    leaves: Mapping[Where, tuple[object, str]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Side:
    """A folder that is valid: what it means, and its entries by section, in order."""

    snapshot: Snapshot
    entries: Mapping[str, Sequence[Entry]]


def read_side(
    files: Sequence[tuple[str, bytes]], set_files: Mapping[str, bytes], environ: Mapping[str, str], folder: Path
) -> Side:
    """files, set_files, environ, folder: as of snapshot.build. Raises DocumentError."""
    snapshot = build(files, environ, set_files=set_files, folder=str(folder))
    entries: dict[str, list[Entry]] = {section: [] for section in SECTIONS}
    for name, octets in files:
        doc, keys = document.read(octets, FolderKeys, source=name, environ=environ)
        for section, entry in _entries(doc, keys):
            entries[section].append(entry)
    return Side(snapshot, entries)


def differences(old: Side, new: Side) -> list[Change]:
    """In the order of SECTIONS, within each by the new folder's order, what is gone last."""
    changes: list[Change] = []
    for section in SECTIONS:
        if section in ("exempt", "overrides"):
            changes += _unnamed(section, old.entries[section], new.entries[section])
        else:
            changes += _named(section, old, new)
    return changes


# --- entries ------------------------------------------------------------------------------------------------


def _entries(doc: Document, keys: FolderKeys) -> Iterator[tuple[str, Entry]]:
    settings: dict[Where, tuple[object, str]] = {}
    for section in doc.value:
        value = getattr(keys, section)
        if section in NAMED:
            for name in doc.value[section]:
                yield section, _entry(doc, (section, name), name, value[name])
        elif section in LISTED:
            for index, one in enumerate(value):
                name = one.name if section == "routes" else ""
                yield section, _entry(doc, (section, index), name, one)
        else:
            settings.update(_leaves(doc, (section,), doc.value[section], value, (section,)))
    settings.pop(("version",), None)
    for path, leaf in settings.items():
        yield "settings", Entry(render(path), _place(doc, path), "", {(): leaf})


def _entry(doc: Document, path: Where, name: str, value: Any) -> Entry:
    raw: Any = doc.value
    for part in path:
        raw = raw[part]
    leaves = dict(_leaves(doc, path, raw, value, ()))
    about = [leaves[("event",)][1].strip('"')] if ("event",) in leaves else []
    about += [
        f"{render(at[1:])}: {written}" for at, (_, written) in leaves.items() if at[0:1] == ("match",) and at[1:]
    ]
    return Entry(name, _place(doc, path), ", ".join(about), leaves)


def _leaves(
    doc: Document, at: Where, raw: Any, value: Any, path: Where
) -> Iterator[tuple[Where, tuple[object, str]]]:
    """at: in the document. path: below the entry; items of a list that have names go by them."""
    if isinstance(raw, dict) and isinstance(value, BaseModel | dict) and raw:
        for key in raw:
            below = value[key] if isinstance(value, dict) else getattr(value, key)
            yield from _leaves(doc, (*at, key), raw[key], below, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        for index, item in enumerate(value):
            part = getattr(item, "name", index)
            yield from _leaves(doc, (*at, index), raw[index], item, (*path, part))
    elif isinstance(raw, dict):
        yield path, ({}, "{}")
    elif isinstance(raw, list):
        shown = [doc.show((*at, index), item) for index, item in enumerate(raw[:MAX_ITEMS])]
        more = [f"and {len(raw) - MAX_ITEMS} more"] if len(raw) > MAX_ITEMS else []
        yield path, (value, f"[{', '.join([*shown, *more])}]")
    else:
        # `user: ann` and `user: [ann]` are one and the same.
        yield path, (raw if isinstance(raw, str) and isinstance(value, BaseModel) else value, doc.show(at, raw))


def _place(doc: Document, path: Where) -> str:
    mark = doc.locate(path)
    return f"{mark.file}:{mark.line}"


# --- comparing ----------------------------------------------------------------------------------------------


def _named(section: str, old: Side, new: Side) -> Iterator[Change]:
    before = {entry.name: entry for entry in old.entries[section]}
    after = {entry.name: entry for entry in new.entries[section]}
    moved = _moved(list(before), list(after)) if section == "routes" else set()
    for name, entry in after.items():
        if name not in before:
            yield _whole(section, "added", entry, new)
            continue
        fields = _fields(before[name], entry)
        members = _members(name, old.snapshot, new.snapshot) if section == "sets" else None
        if members is not None:
            # Told as members; the list itself may name a hundred thousand.
            fields = tuple(one for one in fields if one.path not in _LISTS_OF_MEMBERS)
        if fields or members is not None:
            about = _about(section, entry, new)
            yield Change(section, name, "changed", about, entry.where, fields, members)
        elif name in moved:
            yield Change(section, name, "moved", _about(section, entry, new), entry.where)
    for name, entry in before.items():
        if name not in after:
            yield _whole(section, "removed", entry, old)


def _whole(section: str, kind: Literal["added", "removed"], entry: Entry, side: Side) -> Change:
    """An entry that only one side has, with all its fields."""
    members = None
    if section == "sets":
        words = sorted(side.snapshot.policy.sets[entry.name].words)
        first = tuple(words[:FIRST_MEMBERS])
        if words:
            members = Members(len(words), 0, first, ()) if kind == "added" else Members(0, len(words), (), first)
    empty = Entry(entry.name, "", "", {})
    fields = _fields(empty, entry) if kind == "added" else _fields(entry, empty)
    if members is not None:
        fields = tuple(one for one in fields if one.path not in _LISTS_OF_MEMBERS)
    return Change(section, entry.name, kind, _about(section, entry, side), entry.where, fields, members)


_LISTS_OF_MEMBERS: Final = ("user", "domain", "cidr")


def _fields(old: Entry, new: Entry) -> tuple[FieldChange, ...]:
    changes = []
    for path in {**new.leaves, **old.leaves}:
        before, after = old.leaves.get(path), new.leaves.get(path)
        if before is None or after is None or before[0] != after[0]:
            changes.append(FieldChange(render(path), before and before[1], after and after[1]))
    return tuple(changes)


def _members(name: str, old: Snapshot, new: Snapshot) -> Members | None:
    before, after = set(old.policy.sets[name].words), set(new.policy.sets[name].words)
    added, removed = sorted(after - before), sorted(before - after)
    if not added and not removed:
        return None
    return Members(len(added), len(removed), tuple(added[:FIRST_MEMBERS]), tuple(removed[:FIRST_MEMBERS]))


def _about(section: str, entry: Entry, side: Side) -> str:
    """Of a set: who names it. Of everything else: whom it matches."""
    if section != "sets":
        return entry.about
    users = [
        f"{other} {one.name or one.where}"
        for other in ("exempt", "limits", "overrides", "routes")
        for one in side.entries[other]
        if f'"@{entry.name}"' in one.about or f'"!@{entry.name}"' in one.about
    ]
    return f"used by {', '.join(users)}" if users else "used by nothing"


def _moved(before: Sequence[str], after: Sequence[str]) -> set[str]:
    """Names that both have, and that do not stand in the same order: those from the first that differs on."""
    common = set(before) & set(after)
    first, second = [[name for name in names if name in common] for names in (before, after)]
    return {one for one, other in zip(second, first, strict=True) if one != other}


def _unnamed(section: str, old: Sequence[Entry], new: Sequence[Entry]) -> Iterator[Change]:
    """Entries without a name are the same when they say the same; of `overrides` the order counts too."""
    nothing = Entry("", "", "", {})
    left: dict[str, list[int]] = {}
    for index, entry in enumerate(old):
        left.setdefault(_meaning(entry), []).append(index)
    kept: list[tuple[int, Entry]] = []
    for entry in new:
        twins = left.get(_meaning(entry))
        if twins:
            kept.append((twins.pop(0), entry))
        else:
            yield Change(section, "", "added", entry.about, entry.where, _fields(nothing, entry))
    for entry in [old[index] for index in sorted(at for twins in left.values() for at in twins)]:
        yield Change(section, "", "removed", entry.about, entry.where, _fields(entry, nothing))
    if section == "overrides":
        for (before, entry), in_order in zip(kept, sorted(index for index, _ in kept), strict=True):
            if before != in_order:
                yield Change(section, "", "moved", entry.about, entry.where)


def _meaning(entry: Entry) -> str:
    return repr(sorted((render(path), repr(meaning)) for path, (meaning, _) in entry.leaves.items()))
