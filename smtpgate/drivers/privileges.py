"""What a process may still do: whose it is, what it can become, what it leaves behind.

Owns the way from root to a user, which has no way back, and what is forbidden to every worker. gunicorn's own `user`
and `group` keep root's other groups, and with `initgroups` root's group; they are set beside this for the one thing
that they do well, a heartbeat file that the worker owns. Refuses to know where the user's name stands.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
from pathlib import Path
from typing import Final

from smtpgate.drivers.logoutput import FILE_MODE

UMASK: Final = 0o077
# prctl(2), <linux/prctl.h>.
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38


def protect() -> None:
    """No files that others may read, and no core dumps: there are keys and passwords in memory. For every process."""
    os.umask(UMASK)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def drop(uid: int, gid: int) -> None:
    """For a worker. Become this user for good, where we are root and it is not; and whoever we are, no program that
    we run gets more than we have.

    Raises OSError where it cannot be done: the worker must not go on then.
    """
    protect()
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if os.geteuid() != 0 or uid == 0:
        return
    os.setgroups(_groups(uid, gid))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # The kernel does it at a change of user; said again, because /proc/PID/mem depends on it.
    _prctl(PR_SET_DUMPABLE, 0)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PermissionError(f"user {uid} and group {gid} could not be taken on")


def advice(uid: int | None) -> str | None:
    """What to tell an operator whose workers are to be this user, None where it needs no word."""
    if os.geteuid() == 0:
        return "workers are root; name a user for them" if uid in (None, 0) else None
    if uid not in (None, os.geteuid()):
        return "only root can become another user; workers stay who started them"
    return None


def give_folder(path: Path, uid: int, gid: int) -> None:
    """Make a folder, where there is none, that belongs to who the workers will be. Raises OSError, also where the
    folder above is missing: it would be closed to them.
    """
    if os.geteuid() != 0 or path.exists():
        return
    path.mkdir(mode=0o700)
    hand_over(path, uid, gid)


def hand_over(path: Path, uid: int, gid: int) -> None:
    """What is ours alone belongs to who the workers will be. Raises OSError."""
    if os.geteuid() == 0:
        os.chown(path, uid, gid)


def give_log(path: str, uid: int, gid: int) -> None:
    """Make a log file, where there is none, that belongs to who the workers will be, in the mode that they would give
    it: they open it themselves. One that is there stays as it is. Raises OSError.
    """
    if os.geteuid() != 0:
        return
    try:
        # No file of another's is given away: its folder may be the workers' own.
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        return
    try:
        os.fchown(made, uid, gid)
        os.fchmod(made, FILE_MODE)  # whatever our umask leaves of it
    finally:
        os.close(made)


def _groups(uid: int, gid: int) -> list[int]:
    """As initgroups(3): the user's groups and this one; of a user without a name this one alone."""
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
