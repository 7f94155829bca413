"""Changes to the users of a file, as gatectl makes them, and the service when a password deserves a better form.

Owns one change from reading to renaming, and its proof: the new text is parsed, and holds the one change and nothing
else, or the file stays as it was. Each call reads the file anew; who asks often uses `userfile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from authsvc.users.fileform import FileForm
from authsvc.users.files import edit_file
from authsvc.users.model import NotWritableError, StoreDownError, User
from smtpgate.clock import Clock
from smtpgate.document import DocumentError, read_file


class FileUsers:
    """A WritableStore over one file. A file that cannot be read, or is not valid, gives no answer."""

    def __init__(self, path: Path, form: FileForm, clock: Clock) -> None:
        self._path = path
        self._form = form
        self._clock = clock

    def find(self, login: str) -> User | None:
        """See UserStore.find."""
        return self._read().get(login)

    def names(self) -> Iterator[str]:
        """See WritableStore.names; in the file's order."""
        yield from self._read()

    def put(self, user: User) -> None:
        """See WritableStore.put."""
        self._edit(lambda text, users: self._with(text, users, user))

    def upgrade(self, before: User, after: User) -> bool:
        """See UpgradableStore.upgrade."""
        done = False

        def change(text: bytes, users: Mapping[str, User]) -> bytes:
            nonlocal done
            done = users.get(before.name) == before
            return self._with(text, users, after) if done else text

        self._edit(change)
        return done

    def remove(self, name: str) -> bool:
        """See WritableStore.remove."""
        found = False

        def change(text: bytes, users: Mapping[str, User]) -> bytes:
            nonlocal found
            found = name in users
            if not found:
                return text
            new = self._form.remove(text, str(self._path), name)
            return self._proven(new, {other: user for other, user in users.items() if other != name})

        self._edit(change)
        return found

    def _with(self, text: bytes, users: Mapping[str, User], user: User) -> bytes:
        return self._proven(self._form.put(text, str(self._path), user), {**users, user.name: user})

    def _proven(self, new: bytes, wanted: Mapping[str, User]) -> bytes:
        try:
            users = self._form.parse(new, str(self._path))
        except DocumentError as error:
            problem = error.problems[0]
            what = f"{problem.message}; expected {problem.expected}" if problem.expected else problem.message
            raise NotWritableError(f"{self._path}: with this change the file would not be valid: {what}") from None
        if _comparable(users) != _comparable(wanted):
            raise NotWritableError(f"{self._path}: cannot make this change in the way the file is written; edit it")
        return new

    def _read(self) -> Mapping[str, User]:
        try:
            return self._form.parse(read_file(self._path, self._form.limit), str(self._path))
        except DocumentError as error:
            raise StoreDownError(str(error)) from None

    def _edit(self, change: Callable[[bytes, Mapping[str, User]], bytes]) -> None:
        try:
            edit_file(
                self._path,
                lambda text: change(text, self._form.parse(text, str(self._path))),
                self._clock,
                self._form.limit,
            )
        except DocumentError as error:
            raise StoreDownError(str(error)) from None
        except OSError as error:
            raise NotWritableError(f"{self._path}: cannot be written: {error.strerror or error}") from None


def _comparable(users: Mapping[str, User]) -> dict[str, tuple[object, ...]]:
    """A file may keep the forms of a password in another order."""
    return {name: (sorted(user.passwords), user.plan, user.pool, user.enabled) for name, user in users.items()}
