"""Started as root: the first process binds and reads keys, its workers are somebody who can do neither.

Needs root, and a user that has nothing: `nobody`. What a worker may not do is tried by a child with the worker's own
ids, which the kernel treats as the worker.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import smtplib
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import Authority
from peers.process import HOST, answers, free_port, wait_until
from rawclient import RawClient
from recorder import Recorder
from stack import Stack

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

NOBODY = pwd.getpwnam("nobody")
LOW_PORT = 587
"""Of a loopback address that is this test process's alone."""

TRY = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDONLY if path.endswith(".key") else os.O_WRONLY))
        print("can", path)
    except PermissionError:
        print("cannot", path)
"""


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    server = Recorder(HOST, free_port())
    yield server
    server.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may enter, and root alone may write; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="smtpgate-"))
    path.chmod(0o755)
    (path / "keys").mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def authority(folder: Path) -> Authority:
    return Authority(folder / "keys")


@pytest.fixture
def start(folder: Path, recorder: Recorder, authority: Authority) -> Iterator[Callable[..., Stack]]:
    started: list[Stack] = []

    def begin(**settings: object) -> Stack:
        issue(authority)
        tls = {"tls": "starttls", "certificate": [{"cert": "keys/mx.crt", "key": "keys/mx.key"}]}
        keys = {"proxy": {"user": "nobody", "state_dir": "state"}, "authsvc": {"user": "nobody"}, **settings}
        started.append(Stack(folder, [recorder.address], listeners=[{"name": "submission", **tls}], **keys))
        return started[-1]

    yield begin
    for stack in started:
        stack.stop()


def issue(authority: Authority) -> int:
    """A certificate, whose key root alone may read; its serial number."""
    pair = authority.sign("mx", "mail.example.com")
    pair.key.chmod(0o600)
    return pair.x509.serial_number


def serial(address: tuple[str, int]) -> int:
    """Of the certificate that is shown there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_OPTIONAL
    context.load_verify_locations(CA.path)
    with smtplib.SMTP(*address, timeout=15) as client:
        client.starttls(context=context)
        assert client.sock is not None
        return int(client.sock.getpeercert()["serialNumber"], 16)


class CA:
    path: Path


@pytest.fixture(autouse=True)
def _trusted(authority: Authority) -> None:
    CA.path = authority.ca


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def core_limit(pid: int) -> list[str]:
    """Soft and hard. prlimit(2) may not look at somebody else."""
    (line,) = [one for one in Path(f"/proc/{pid}/limits").read_text().splitlines() if one.startswith("Max core")]
    return line.split()[4:6]


def test_workers_are_the_user_and_have_no_way_back(start: Callable[..., Stack]) -> None:
    stack = start(workers=2)
    assert stack.auth_process is not None
    auth_workers = [pid for pid in stack.auth_process.members() if pid != stack.auth_process.pid]
    assert len(stack.worker_pids()) == 2
    assert len(auth_workers) == 1
    for pid in [*stack.worker_pids(), *auth_workers]:
        found = status(pid)
        uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
        groups = sorted(os.getgrouplist("nobody", gid))
        assert found["Uid"] == f"{uid} {uid} {uid} {uid}"
        assert found["Gid"] == f"{gid} {gid} {gid} {gid}"
        assert sorted(map(int, found["Groups"].split())) == groups
        assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [0, 0, 0]
        assert (found["NoNewPrivs"], found["Umask"]) == ("1", "0077")
        assert core_limit(pid) == ["0", "0"]
        # Not dumpable: what is in /proc belongs to root, and nobody else's process can attach.
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0
    for first in (stack.process.pid, stack.auth_process.pid):
        assert status(first)["Uid"] == "0 0 0 0"
        assert status(first)["Umask"] == "0077"
    assert stack.log_events("config", about="user") == []


def test_mail_flows_and_the_state_is_kept(start: Callable[..., Stack], recorder: Recorder) -> None:
    stack = start()
    before = len(recorder.messages)
    with RawClient(stack.proxy) as client:
        assert client.greeted().login().deliver().startswith(b"250 ")
    assert len(recorder.messages) == before + 1
    kept = stack.folder / "state" / "policies.last-good.json"
    wait_until(kept.exists, "the last good policies")
    assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (NOBODY.pw_uid, 0o600)
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_a_worker_writes_no_policies_and_reads_no_keys(start: Callable[..., Stack], folder: Path) -> None:
    stack = start()
    (pid,) = stack.worker_pids()
    found = status(pid)
    files = ["keys/mx.key", "keys/mx.crt", "policies/routes.yaml", "proxy.yaml", "users.yaml"]
    tried = subprocess.run(
        ["/usr/bin/python3", "-c", TRY, *(str(folder / one) for one in files)],
        user=int(found["Uid"].split()[0]),
        group=int(found["Gid"].split()[0]),
        extra_groups=[int(one) for one in found["Groups"].split()],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert tried.stdout.splitlines() == [f"cannot {folder / one}" for one in files]
    for one in ("policies", "keys", "."):
        mode = (folder / one).stat()
        assert (mode.st_uid, mode.st_mode & 0o022) == (0, 0)  # nor can it rename a file into place


def test_hup_binds_a_low_port_and_reads_a_new_key(start: Callable[..., Stack], authority: Authority) -> None:
    stack = start()
    first = serial(stack.proxy)
    renewed = issue(authority)
    assert renewed != first
    stack.wait_for_event("certificates_unreadable", listener="submission")
    assert serial(stack.proxy) == first  # until the first process is told
    (listener,) = stack.keys["listeners"]
    stack.write_proxy_conf(listeners=[{**listener, "bind": [listener["bind"], f"{HOST}:{LOW_PORT}"]}])
    old = stack.worker_pids()
    stack.signal(signal.SIGHUP)
    wait_until(lambda: answers(LOW_PORT), "the new listener")
    wait_until(lambda: not set(old) & set(stack.worker_pids()), "the end of the old worker")
    assert [serial(stack.proxy), serial((HOST, LOW_PORT))] == [renewed, renewed]
    (worker,) = stack.worker_pids()
    assert status(worker)["Uid"].startswith(f"{NOBODY.pw_uid} ")
    assert stack.log_events("certificates_rejected") == []


def test_root_without_a_user_is_told(start: Callable[..., Stack]) -> None:
    stack = start(proxy={}, authsvc={})
    (line,) = stack.log_events("config", about="user")
    assert line["advice"] == "workers are root; name a user for them"
    assert [line["message"] for line in stack.auth_log_events("process") if "user" in line["message"]] == [
        "user: workers are root; name a user for them"
    ]
