"""`gatectl trace`: the lines of one session out of the proxy's log, in order, as people read them.

Owns what belongs to a session: the lines that name it, or those that name one transaction; and how a log that is
written and rotated is followed, by its name as `tail -F` does. The log is read as JSON or as text, as `log.format`
has it; a line that is neither is passed over. Holds one line at a time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import click
from rich.console import Console
from rich.text import Text

from .logs import MAX_LINE, opened
from .outcomes import NO
from .tables import visible

# Seconds between two looks at a file that is being written.
LOOK: Final = 0.2
# Seconds for which a file that was renamed is still read: whoever writes it looks for the new one once a second
# (drivers.logoutput.LOOK_INTERVAL).
FAREWELL: Final = 2.0
# What an id may be of; the event of the same name is the last that there is of it.
_KINDS: Final = ("session", "transaction")
_STYLES: Final = {"warning": "yellow", "error": "bold red"}
# What the first columns tell already, and what is the same in each line.
_HEAD: Final = ("timestamp", "level", "event", "session")


@click.command(short_help="Show one session's lines of the log.")
@click.argument("session", metavar="SESSION|TRANSACTION")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    default=Path("-"),
    help="The proxy's log; *.gz is unpacked.  [default: standard input]",
)
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until the session has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print its lines as they are, for programs.")
def trace(session: str, log: Path, follow: bool, as_json: bool) -> None:
    """What the log says of one session, or of one transaction (message), line by line.

    The ids are those of the log and of `gatectl sessions`. A log that is a pipe is followed anyway:

        journalctl -u smtpgate -o cat -f | gatectl trace 1f2e3d4c5b6a7988

    The exit status is 1 where the log has no such line.
    """
    console = Console(highlight=False, soft_wrap=True)
    found = 0
    with opened(log) as file:
        lines = _following(log, file) if follow and str(log) != "-" else iter(lambda: file.readline(MAX_LINE), b"")
        for line in _of(session, lines):
            found += 1
            if as_json:
                click.echo(line.text)
            else:
                console.print(line.shown(colour=sys.stdout.isatty()))
            if line.last:
                break
    if not found:
        click.echo(f"{log}: has no line of {visible(session)}; expected the id of a session or transaction", err=True)
        raise click.exceptions.Exit(NO)


class _Line:
    """One line of the log. text: as it is; fields: where it is JSON. last: the event that ends what is traced."""

    def __init__(self, text: str, fields: dict[str, Any] | None, last: str) -> None:
        self.text = text
        self._fields = fields
        _, _, event, *_ = [*text.split(" ", 3), "", "", ""] if fields is None else ("", "", fields.get("event"))
        self.last = event == last

    def shown(self, *, colour: bool) -> Text:
        if self._fields is None:
            return Text(visible(self.text))
        fields = self._fields
        stamp, level, event = (visible(str(fields.get(key, ""))) for key in _HEAD[:3])
        rest = [
            (visible(key), value if isinstance(value, str) else json.dumps(value))
            for key, value in fields.items()
            if key not in _HEAD and value is not None
        ]
        line = Text()
        line.append(f"{stamp} ", style="dim")
        line.append(f"{event:<16}", style=_STYLES.get(level, "bold green"))
        for key, value in rest:
            line.append(f" {key}=", style="cyan")
            line.append(visible(value))
        return line if colour else Text(line.plain)


def _of(wanted: str, lines: Iterable[bytes]) -> Iterator[_Line]:
    """The lines that name `wanted` as their session or transaction."""
    needle = wanted.encode()
    for octets in lines:
        if needle not in octets:
            continue
        text = octets.decode("utf-8", "replace").rstrip("\r\n")
        fields = _fields(text)
        if fields is not None:
            for kind in _KINDS:
                if fields.get(kind) == wanted:
                    yield _Line(text, fields, kind)
                    break
        else:
            for kind in _KINDS:
                if f'{kind}="{wanted}"' in text:
                    yield _Line(text, None, kind)
                    break


def _fields(text: str) -> dict[str, Any] | None:
    """Of a line of JSON, whatever stands in front of it (a container's name, say)."""
    begin = text.find("{")
    if begin < 0:
        return None
    try:
        value = json.loads(text[begin:])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _following(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Line by line for ever, of the file that has the name; half of a line is waited for. file: the first one, and
    the caller's. An archive is not rotated.
    """
    first, part, parting = file, b"", 0.0
    try:
        while True:
            part += file.readline(MAX_LINE)
            if part.endswith(b"\n") or len(part) >= MAX_LINE:
                yield part
                part = b""
                continue
            if path.suffix == ".gz" or not _is_another(path, file):
                parting = 0.0  # or renamed, and not made anew yet
            elif not parting:
                parting = time.monotonic() + FAREWELL
            elif time.monotonic() >= parting:
                later = path.open("rb")
                if file is not first:
                    file.close()
                file, part, parting = later, b"", 0.0
                continue
            time.sleep(LOOK)
    finally:
        if file is not first:
            file.close()


def _is_another(path: Path, file: IO[bytes]) -> bool:
    """Whether the name is another file's by now. One that was cut off (copytruncate) is read
    from its beginning.
    """
    old = os.fstat(file.fileno())
    if old.st_size < file.tell():
        file.seek(0)
    try:
        there = path.stat()
    except OSError:
        return False  # not made yet
    return (there.st_dev, there.st_ino) != (old.st_dev, old.st_ino)
