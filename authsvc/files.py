"""Reading a configuration file, with the operating system's refusals told like every other problem of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from smtpgate.document import DocumentError, Problem
from smtpgate.document.reader import MAX_TEXT

# One octet more than the loader takes: enough to be told that it is too long, whatever was put there.
_READ: Final = MAX_TEXT + 1


def read_file(path: Path) -> bytes:
    """The file's octets, at most as many as the loader refuses. Raises DocumentError."""
    try:
        with path.open("rb") as file:
            return file.read(_READ)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problem = Problem(str(path), 1, 1, (), f"cannot be read: {reason}", "a file that this user may read")
        raise DocumentError([problem]) from None
