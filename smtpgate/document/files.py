"""Reading a configuration file, with the operating system's refusals told like every other problem of it.

Owns the one read of a file that a person names. The rest of this package works on bytes.
"""

from __future__ import annotations

from pathlib import Path

from smtpgate.document.reader import MAX_TEXT
from smtpgate.document.tree import DocumentError, Problem


def read_file(path: Path, limit: int = MAX_TEXT) -> bytes:
    """The file's octets, at most one more than `limit`, by default what the loader takes: enough for it to refuse a
    file without end. Raises DocumentError.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror or type(error).__name__}"
        raise DocumentError([Problem(str(path), 1, 1, (), message, "a file that this user may read")]) from None
