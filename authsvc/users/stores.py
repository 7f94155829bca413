"""Sources of conf/authsvc.yaml -> the stores that are asked, watched and changed.

Owns what stands before each kind: a file is read as it changes and asked in memory; Redis and SQL are asked through
a breaker and a cache. Imported by workers and commands, after gevent has patched, never by gunicorn's first process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authsvc.config import Config
from authsvc.users.fileusers import FileUsers
from authsvc.users.forms import form_of
from authsvc.users.model import UpgradableStore, User, WritableStore
from authsvc.users.redisusers import RedisUsers
from authsvc.users.sources import PasswdFile, RedisSource, Source, SqlSource, YamlFile
from authsvc.users.sqlusers import SqlUsers
from authsvc.users.storeguard import GuardedUsers
from authsvc.users.usercache import CachedUsers
from authsvc.users.userchain import UserChain
from authsvc.users.userfile import UserFile
from smtpgate.clock import Clock
from smtpgate.document import DocumentError
from smtpgate.journal import Journal

NO_USERS: Final[Mapping[str, User]] = {}


@dataclass(frozen=True, slots=True)
class LiveUsers:
    """An UpgradableStore over a file: asked in memory, changed on disk; the file's next reading tells of it."""

    file: UserFile
    editor: FileUsers

    def find(self, login: str) -> User | None:
        """See UserStore.find."""
        return self.file.find(login)

    def upgrade(self, before: User, after: User) -> bool:
        """See UpgradableStore.upgrade."""
        return self.editor.upgrade(before, after)


@dataclass(frozen=True, slots=True)
class OpenStores:
    """users: all stores as one. ready: whether each file is valid and each other store answers; may wait for them.
    watchers: what has to run for ever beside, each in a thread of its own. close: ends connections that rest.
    """

    users: UpgradableStore
    ready: Callable[[], bool]
    watchers: tuple[Callable[[Clock], None], ...]
    close: Callable[[], None]


def open_stores(
    config: Config, users: Mapping[Path, Mapping[str, User]], clock: Clock, journal: Journal
) -> OpenStores:
    """Read the files, and prepare the other stores without asking them.

    users: of each file, by an earlier reading, for a start while the file is broken. Raises ValueError for a URL
    that is not readable.
    """
    stores: list[UpgradableStore] = []
    checks: list[Callable[[], bool]] = []
    watchers: list[Callable[[Clock], None]] = []
    remotes: list[RedisUsers | SqlUsers] = []
    for source in config.users:
        if isinstance(source, YamlFile | PasswdFile):
            live = _live(source, config, users.get(source.path, NO_USERS), clock, journal)
            stores.append(live)
            checks.append(lambda file=live.file: file.valid)  # type: ignore[misc] # bound now
            watchers.append(live.file.run)
        else:
            remote = _remote(source, clock)
            remotes.append(remote)
            guarded = GuardedUsers(remote, str(source), clock, journal)
            stores.append(CachedUsers(guarded, clock, config.cache))
            checks.append(guarded.reachable)

    def close() -> None:
        for remote in remotes:
            remote.close()

    return OpenStores(UserChain(stores), lambda: all(check() for check in checks), tuple(watchers), close)


def open_writable(source: Source, clock: Clock, *, plain: bool) -> WritableStore:
    """The bare store, for commands. Raises ValueError for a URL that is not readable."""
    if isinstance(source, YamlFile | PasswdFile):
        return FileUsers(source.path, form_of(source, plain=plain), clock)
    return _remote(source, clock)


def _remote(source: RedisSource | SqlSource, clock: Clock) -> RedisUsers | SqlUsers:
    return RedisUsers(source) if isinstance(source, RedisSource) else SqlUsers(source, clock)


def _live(
    source: YamlFile | PasswdFile, config: Config, users: Mapping[str, User], clock: Clock, journal: Journal
) -> LiveUsers:
    form = form_of(source, plain=config.methods.plain_passwords)

    def failed(error: DocumentError) -> None:
        journal.error("users_rejected", problems=[str(problem) for problem in error.problems])

    file = UserFile(
        source.path,
        form,
        loaded=lambda count: journal.info("users_loaded", file=str(source), users=count),
        failed=failed,
        users=users,
    )
    try:
        file.load()
    except DocumentError as error:
        failed(error)
    return LiveUsers(file, FileUsers(source.path, form, clock))
