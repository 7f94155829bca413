"""A document -> a validated pydantic model, every fault with its mark and in our words.

Owns how pydantic's errors are told to an operator. Knows nothing of YAML.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from smtpgate.document.reader import parse
from smtpgate.document.tree import Document, DocumentError, Path, Problem
from smtpgate.units import ABSENT, InvalidValue

M = TypeVar("M", bound=BaseModel)

_NO_MAPPING: Final = ("is not a mapping", "keys with values")
# Error type -> what is wrong with the value, what would fit; {…} are pydantic's own context.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "string_type": ("is not text", "text, in quotes if it looks like a number"),
    "int_type": ("is not a whole number", "e.g. 10"),
    "float_type": ("is not a number", "e.g. 10 or 0.5"),
    "bool_type": ("is not a boolean", "true or false"),
    "list_type": ("is not a list", "e.g. [a, b]"),
    "dict_type": _NO_MAPPING,
    "model_type": _NO_MAPPING,
    "greater_than": ("is too small", "more than {gt}"),
    "greater_than_equal": ("is too small", "at least {ge}"),
    "less_than": ("is too big", "less than {lt}"),
    "less_than_equal": ("is too big", "at most {le}"),
    "too_short": ("has too few items", "at least {min_length}"),
    "too_long": ("has too many items", "at most {max_length}"),
    "string_too_short": ("is too short", "at least {min_length} characters"),
    "string_too_long": ("is too long", "at most {max_length} characters"),
}


def validate(document: Document, model: type[M], *, context: Mapping[str, Any] | None = None) -> M:
    """The document as a `model` (a units.StrictModel). context: pydantic's, for validators that need more.

    Raises DocumentError with every fault at its mark.
    """
    instance, problems = check(document, model, context=context)
    if problems or instance is None:
        raise DocumentError(problems)
    return instance


def read(
    text: bytes,
    model: type[M],
    *,
    source: str,
    environ: Mapping[str, str] | None = None,
    context: Mapping[str, Any] | None = None,
) -> tuple[Document, M]:
    """`load` and `validate`, the faults of both told at once. Raises DocumentError."""
    document, problems = parse(text, source, environ)
    instance, more = check(document, model, context=context, known=problems)
    if problems or more or instance is None:
        raise DocumentError([*problems, *more])
    return document, instance


def check(
    document: Document,
    model: type[M],
    *,
    context: Mapping[str, Any] | None = None,
    known: Sequence[Problem] = (),
) -> tuple[M | None, list[Problem]]:
    """`validate` without the raise. known: problems already told; what they cause is not told again."""
    told = {problem.path for problem in known}
    empty = [path for path in _nulls(document.value) if path not in told]
    problems = [document.problem(path, "has no value", "a value, or no key") for path in empty]
    told.update(empty)
    instance = None
    try:
        instance = model.model_validate(document.value, context=dict(context or {}))
    except ValidationError as error:
        found: dict[Path, Problem] = {}
        for detail in error.errors(include_url=False, include_input=False):
            problem = _explain(document, model, detail)
            if problem.path in told:
                continue
            # Two errors at one place are the alternatives of a union.
            first = found.get(problem.path)
            if first is not None:
                problem = replace(first, expected=f"{first.expected} or {problem.expected}")
            found[problem.path] = problem
        problems += found.values()
    return instance, problems


def _explain(document: Document, model: type[BaseModel], detail: ErrorDetails) -> Problem:
    """One of pydantic's errors as a Problem."""
    kind, location, context = detail["type"], detail["loc"], detail.get("ctx", {})
    path, value = _resolve(document.value, location)
    if kind == "missing":
        known = _fields_at(model, location[:-1]).get(str(location[-1]))
        description = known.description if known is not None and known.description else ""
        return document.problem((*path, location[-1]), "is missing", description)
    if kind == "extra_forbidden":
        keys = list(_fields_at(model, location[:-1]))
        near = difflib.get_close_matches(str(location[-1]), keys, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        return document.problem(path, f"unknown key{hint}", f"one of {', '.join(keys)}")
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", "")
        return document.problem(path, f"{document.show(path, value)} is not one of the choices", choices)
    if kind in _WORDS:
        message, expected = _WORDS[kind]
        if _WORDS[kind] is _NO_MAPPING:
            # `secret: hunter2`, `users: {ann: hunter2}`: what stands in the place of keys may be one's secret.
            return document.problem(path, message, expected)
        return document.problem(path, f"{document.show(path, value)} {message}", expected.format(**context))
    fault = context.get("error")
    if isinstance(fault, InvalidValue):
        path = (*path, *fault.path)
        subject = "" if fault.value is ABSENT else f"{document.show(path, fault.value)} "
        return document.problem(path, f"{subject}{fault.message}", fault.expected)
    return document.problem(path, str(fault) if isinstance(fault, Exception) else detail["msg"])


def _resolve(value: Any, location: Sequence[str | int]) -> tuple[Path, Any]:
    """The path and value that pydantic's `location` means; it also names union members, which are no keys."""
    path: Path = ()
    for part in location:
        known = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if known:
            path, value = (*path, part), value[part]
    return path, value


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> dict[str, FieldInfo]:
    """The keys known at a location: those of the model there, of all alternatives if it is a union."""
    here = list(_members(model))
    for part in location:
        below = [inner for member in here for inner in _below(member, part)]
        here = below or here
    return {
        field.alias or name: field
        for member in here
        if isinstance(member, type) and issubclass(member, BaseModel)
        for name, field in member.model_fields.items()
    }


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    """The types that a key or an index of `annotation` may have."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if (field.alias or name) == part:
                yield from _members(field.annotation)
    elif get_origin(annotation) is dict:
        yield from _members(get_args(annotation)[1])
    elif get_origin(annotation) is list and isinstance(part, int):
        yield from _members(get_args(annotation)[0])


def _members(annotation: Any) -> Iterator[Any]:
    """`annotation` without Annotated, or each member of a union."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _nulls(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where a value is missing after its key. The depth is bounded by the reader."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _nulls(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nulls(item, (*path, index))
