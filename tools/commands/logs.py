"""The proxy's log as a file, compressed or not, or standard input; with progress on a terminal."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from rich.console import Console
from rich.progress import wrap_file

from .outcomes import Configuration

# Octets of one line. A record has some 30 texts of at most 256 characters, six octets each where they are escaped.
MAX_LINE: Final = 256 * 1024


@contextmanager
def opened(path: Path, *, task: str = "") -> Iterator[IO[bytes]]:
    """The log's octets; "-" is standard input. task: what is done with it, shown with how much is done, where
    somebody watches. A file that cannot be read ends the command with status 2.
    """
    try:
        if str(path) == "-":
            yield sys.stdin.buffer
            return
        with path.open("rb") as file:
            if not task or not sys.stderr.isatty():
                yield _unpacked(path, file)
                return
            size = path.stat().st_size
            console = Console(stderr=True)
            with wrap_file(file, size, description=task, console=console, transient=True) as counted:
                yield _unpacked(path, counted)
    except BrokenPipeError:
        raise  # of who reads what the command writes, and not of the log
    except (OSError, EOFError, zlib.error) as error:
        told = (error.strerror if isinstance(error, OSError) else None) or error
        raise Configuration(f"{path}: cannot be read: {told}") from None


def _unpacked(path: Path, file: IO[bytes]) -> IO[bytes]:
    # GzipFile reads as any other.
    return cast(IO[bytes], gzip.open(file)) if path.suffix == ".gz" else file
