"""Files and folders that conf/proxy.yaml names, as pydantic fields.

A relative path is relative to the file that names it, whatever the working directory. Owns that they are there; what
they hold is for the key that names them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator, ValidationInfo

from smtpgate.units import InvalidValue


def _file(value: Any, info: ValidationInfo) -> Path:
    path = _below_folder(value, info)
    if not looked_at(path.is_file, value):
        raise InvalidValue(f"is not a file ({path})", "a PEM file", value=value)
    return path


def _directory(value: Any, info: ValidationInfo) -> Path:
    path = _below_folder(value, info)
    if not looked_at(path.is_dir, value):
        raise InvalidValue(f"is not a folder ({path})", "a folder of *.yaml files", value=value)
    return path


def _state(value: Any, info: ValidationInfo) -> Path:
    path = _below_folder(value, info)
    # What is not there is made when something is first written; a file in its way could never be.
    there = next(one for one in (path, *path.parents) if os.path.exists(one) or one == one.parent)
    if not there.is_dir():
        raise InvalidValue(f"cannot be a folder: {there} is a file", "a folder, or a path to one", value=value)
    return path


def looked_at(question: Callable[[], bool], value: Any) -> bool:
    """A question to the file system. Raises InvalidValue where it gives no answer: a folder on the way may not be
    entered, a name is too long.
    """
    try:
        return question()
    except OSError as error:
        raise InvalidValue(f"cannot be looked at: {error.strerror}", "a path that may be read", value=value) from None


def _below_folder(value: Any, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidValue("is not a path", "e.g. ../policies/", value=value)
    folder: Path = info.context["folder"] if info.context else Path()
    return folder / value


FileField = Annotated[Path, PlainValidator(_file)]
DirectoryField = Annotated[Path, PlainValidator(_directory)]
StateField = Annotated[Path, PlainValidator(_state)]
