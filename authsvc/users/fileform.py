"""What a form of users' files is to those who read, watch and change such files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from authsvc.users.model import User


@dataclass(frozen=True, slots=True)
class FileForm:
    """Pure functions of a text and, for messages, the file's name.

    limit: octets of a file. parse: the users by name; raises DocumentError with every problem. put, remove: the
    text with one user added or replaced, or without it, all else as it was; raise NotWritableError where that
    cannot be done. Whoever uses these two parses the result and compares.
    """

    limit: int
    parse: Callable[[bytes, str], Mapping[str, User]]
    put: Callable[[bytes, str, User], bytes]
    remove: Callable[[bytes, str, str], bytes]
