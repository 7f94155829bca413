"""Whose a process is, and what it may still do; each in a process of its own, because there is no way back.

The real programs are tests/e2e/test_privileges.py's.
"""

import os
import subprocess
import sys

import pytest

from smtpgate.drivers import privileges

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

DROP = """
import os, resource, sys
from smtpgate.drivers import privileges
start, uid, gid = map(int, sys.argv[1:])
if start:
    os.setresuid(start, start, start)
privileges.drop(uid, gid)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(os.getresuid(), os.getresgid(), os.getgroups())
print(resource.getrlimit(resource.RLIMIT_CORE), status["NoNewPrivs"].strip(), status["Umask"].strip())
for back in (os.setuid, os.setgid):
    try:
        back(0)
        print("has come back")
    except PermissionError:
        print("no way back")
"""
ALWAYS = "(0, 0) 1 0077"


def run(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()


@root_only
def test_root_becomes_the_user_for_good():
    who, always, *back = run(DROP, 0, 54321, 54322)
    assert who == "(54321, 54321, 54321) (54322, 54322, 54322) [54322]"  # none of root's groups, and it has no name
    assert always == ALWAYS
    assert back == ["no way back", "no way back"]


@root_only
def test_who_is_somebody_already_stays_so():
    who, always, *back = run(DROP, 54321, 1, 1)
    assert who.startswith("(54321, 54321, 54321) ")
    assert always == ALWAYS
    assert back[0] == "no way back"


@root_only
def test_root_stays_root_where_nobody_is_named():
    who, always, *_ = run(DROP, 0, 0, 0)
    assert who.startswith("(0, 0, 0) (0, 0, 0) ")
    assert always == ALWAYS


@pytest.mark.parametrize(
    ("me", "uid", "advice"),
    [
        (0, None, "workers are root; name a user for them"),
        (0, 0, "workers are root; name a user for them"),
        (0, 990, None),
        (990, None, None),
        (990, 990, None),
        (990, 991, "only root can become another user; workers stay who started them"),
    ],
)
def test_what_an_operator_is_told(monkeypatch, me, uid, advice):
    monkeypatch.setattr(os, "geteuid", lambda: me)
    assert privileges.advice(uid) == advice


@root_only
def test_a_folder_is_made_for_the_user_and_none_is_taken(tmp_path):
    folder = tmp_path / "state"
    privileges.give_folder(folder, 54321, 54322)
    found = folder.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (54321, 54322, 0o700)
    privileges.give_folder(folder, 1, 1)
    assert folder.stat().st_uid == 54321
    with pytest.raises(FileNotFoundError):
        privileges.give_folder(tmp_path / "no" / "state", 1, 1)


@root_only
def test_a_log_is_made_for_the_user_and_none_is_taken(tmp_path):
    path, other = tmp_path / "gate.log", tmp_path / "other"
    privileges.give_log(str(path), 54321, 54322)
    privileges.give_log(str(path), 1, 1)
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (54321, 54322, 0o640)
    other.touch()
    (tmp_path / "link").symlink_to(other)
    privileges.give_log(str(tmp_path / "link"), 54321, 54322)
    assert other.stat().st_uid == 0
    with pytest.raises(FileNotFoundError):
        privileges.give_log(str(tmp_path / "no" / "gate.log"), 1, 1)
