"""Users in one file of any form, edited live.

Owns the reading anew. An edit that is not valid changes nothing: the users of before stay, and each distinct fault
is reported once. The whole file is read and compared every time, which finds each edit whatever the file system
tells of its times, and is cheap at the forms' bounds. A change is taken when two looks in a row see the same, so
that a file half-written is not taken for the whole. Refuses to know what the lines mean (`fileform`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from authsvc.users.fileform import FileForm
from authsvc.users.model import User
from smtpgate.clock import Clock
from smtpgate.document import DocumentError, read_file

# Seconds, as for the policies: an edit is in force well within 2 s.
POLL_INTERVAL: Final = 0.5


class UserFile:
    """A UserStore over one file.

    loaded: told how many users the file gave, each time that it is taken over. failed: told what is wrong with
    an edit that is not. users: those of an earlier reading, for a start while the file is broken.
    """

    def __init__(
        self,
        path: Path,
        form: FileForm,
        *,
        loaded: Callable[[int], None],
        failed: Callable[[DocumentError], None],
        users: Mapping[str, User] | None = None,
    ) -> None:
        self._path = path
        self._form = form
        self._loaded = loaded
        self._failed = failed
        self._users: Mapping[str, User] = users or {}
        # What is behind us, in force or refused; and what one look saw that is neither.
        self._done: bytes | None = None
        self._settling: bytes | None = None
        self._fault: str | None = None

    @property
    def valid(self) -> bool:
        """Whether the file, as it was when last looked at, is in force."""
        return self._fault is None

    def find(self, login: str) -> User | None:
        """By the exact name: `Test` is not `test`."""
        return self._users.get(login)

    def load(self) -> None:
        """Read the file for the first time. Raises DocumentError, and keeps the users that it was made with."""
        try:
            self._take(read_file(self._path, self._form.limit))
        except DocumentError as error:
            self._fault = str(error)
            raise

    def poll(self) -> None:
        """Look at the file; take a valid edit over, report a fault that was not reported before."""
        try:
            text = read_file(self._path, self._form.limit)
        except DocumentError as error:
            # When it is back, it is read anew, and told of even if it is the same.
            self._done = self._settling = None
            self._tell(error)
            return
        if text == self._done:
            return
        if text != self._settling:
            self._settling = text
            return
        try:
            self._take(text)
        except DocumentError as error:
            self._tell(error)

    def run(self, clock: Clock) -> None:
        """Poll for ever."""
        while True:
            clock.sleep(POLL_INTERVAL)
            self.poll()

    def _take(self, text: bytes) -> None:
        self._done = text
        self._users = self._form.parse(text, str(self._path))
        self._fault = None
        self._loaded(len(self._users))

    def _tell(self, error: DocumentError) -> None:
        if str(error) != self._fault:
            self._fault = str(error)
            self._failed(error)
