"""`gatectl policy …`: is a policies folder valid, what does it change, what does it mean for somebody.

Owns `check`, `diff` and `schema`; `explain` and `simulate` have modules of their own. Exit status: 0 valid, or the
same, 1 different, 2 the command, a configuration or a folder is broken, 3 the store gave no answer.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from smtpgate.document import DocumentError, Problem, render
from smtpgate.drivers import policytext
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.explain.difference import Change, Members, Side, differences, read_side
from smtpgate.snapshot import Snapshot, json_schema

from .outcomes import NO, WRONG, Configuration
from .policyexplain import explain
from .policysimulate import simulate
from .proxyconf import conf_option, json_option, policies_of, read_conf
from .tables import print_json

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "moved": ">"}

folder_type = click.Path(path_type=Path)


@click.group()
def policy() -> None:
    """Policies: limits, routes and pools. They are only read: what is edited in the folder is live within 2 s."""


policy.add_command(explain)
policy.add_command(simulate)


@policy.command(short_help="Is a folder valid?")
@click.argument("folder", type=folder_type, required=False)
@conf_option
@json_option
def check(folder: Path | None, conf: Path, as_json: bool) -> None:
    """Is FOLDER valid? Without one, the folder that the proxy's configuration names.

    Every problem is a line: file:line:column: key: what is wrong; what was expected. The exit status is 0 for a
    valid folder, 2 for a broken one.
    """
    backend = None
    if folder is None:
        loaded = read_conf(conf)
        folder, backend = policies_of(loaded, conf), loaded.backend.settings
    try:
        snapshot = PolicyFolder.check(folder, backend=backend)
    except DocumentError as error:
        if as_json:
            print_json({"valid": False, "problems": [_problem(problem) for problem in error.problems]})
            raise click.exceptions.Exit(WRONG) from None
        raise Configuration.of(error) from None
    counts = _counts(snapshot)
    if as_json:
        print_json({"valid": True, "version": snapshot.version_hash, "problems": [], **counts})
        return
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    click.echo(f"{folder}: valid, version {snapshot.version_hash}: {told}")


@policy.command(short_help="What one folder says that another does not.")
@click.argument("old", type=folder_type)
@click.argument("new", type=folder_type)
@json_option
def diff(old: Path, new: Path, as_json: bool) -> None:
    """What the folder NEW says that OLD does not, entry by entry, with whom it concerns.

    + is added, - is removed, ~ is changed, > has another place in an order that counts. Values are compared as they
    are meant: 60s is 1m. The exit status is 0 where nothing differs, 1 where something does, 2 where one is broken.
    """
    first, second = _sides(old, new)
    changes = differences(first, second)
    if as_json:
        print_json(
            {
                "old": first.snapshot.version_hash,
                "new": second.snapshot.version_hash,
                "same": not changes,
                "changes": [dataclasses.asdict(change) for change in changes],
            }
        )
    else:
        for line in _lines(changes):
            click.echo(line)
    if changes:
        raise click.exceptions.Exit(NO)


@policy.command(short_help="The JSON Schema of the language, for editors.")
def schema() -> None:
    """The JSON Schema of the language, for editors: what policies/schema.json holds."""
    print_json(json_schema())


def _sides(old: Path, new: Path) -> tuple[Side, Side]:
    """Both folders; the problems of both at once where they are broken."""
    sides: list[Side] = []
    problems: list[Problem] = []
    for folder in (old, new):
        try:
            text = policytext.read(folder)
            sides.append(read_side(text.files, text.set_files, os.environ, folder))
        except DocumentError as error:
            problems += error.problems
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            problems.append(Problem(str(error.filename or folder), 1, 1, (), message))
    if problems:
        raise Configuration.of(DocumentError(problems))
    return sides[0], sides[1]


def _problem(problem: Problem) -> dict[str, Any]:
    return {**dataclasses.asdict(problem), "path": render(problem.path)}


def _counts(snapshot: Snapshot) -> dict[str, int]:
    policy = snapshot.policy
    return {
        "limits": sum(map(len, policy.limits.values())),
        "sets": len(policy.sets),
        "exempt": len(policy.exemptions),
        "overrides": len(policy.overrides),
        "routes": len(snapshot.routes),
        "pools": len(snapshot.pools),
    }


# --- a difference as text -----------------------------------------------------------------------------------


def _lines(changes: Sequence[Change]) -> list[str]:
    lines: list[str] = []
    section = ""
    for change in changes:
        if change.section != section:
            section = change.section
            lines.append(section)
        lines += _change(change)
    return lines or ["no difference"]


def _change(change: Change) -> list[str]:
    about = f" ({change.about})" if change.about else ""
    lines = [f"  {_SIGNS[change.kind]} {change.name or change.section}{about}  {change.where}"]
    for field in change.fields:
        if change.kind == "changed":
            old, new = field.old or "not written", field.new or "not written"
            lines.append(f"      {field.path + ': ' if field.path else ''}{old} -> {new}")
        elif not field.path.startswith(("match", "event")):  # told above
            lines.append(f"      {field.path + ': ' if field.path else ''}{field.new or field.old}")
    if change.members is not None:
        lines += _members(change.members)
    return lines


def _members(members: Members) -> list[str]:
    lines = [f"      {members.added} members added, {members.removed} removed"]
    for sign, first, count in (
        ("+", members.first_added, members.added),
        ("-", members.first_removed, members.removed),
    ):
        lines += [f"      {sign} {member}" for member in first]
        if count > len(first):
            lines.append(f"      {sign} and {count - len(first)} more")
    return lines
