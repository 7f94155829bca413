"""Real programs as children of a test: found, started on a loopback address of this process, stopped by pid.

Owns what is the same for every peer. A child leads a session of its own, so that all it forks can be found,
paused and ended without touching anybody else's processes.
"""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import Signals

import pytest
from peers import unpacked

START_TIMEOUT = 30.0
"""Seconds for a peer to answer. Postfix takes under one; a loaded machine is slower, and nobody waits to the end."""

LATE = 15.0
"""Seconds that a loaded machine may add to what was promised. What is broken comes later than that, or never."""

STOP_TIMEOUT = 10.0
"""Seconds between asking a peer to end and killing it."""

PROGRAMS = {
    "chromium": "chromium",
    "chromium-driver": "chromedriver",
    "dovecot-core": "dovecot",
    "dovecot-imapd": "/usr/lib/dovecot/imap",
    "dovecot-pop3d": "/usr/lib/dovecot/pop3",
    "haproxy": "haproxy",
    "libnginx-mod-http-js": "/usr/lib/nginx/modules/ngx_http_js_module.so",
    "libnginx-mod-mail": "/usr/lib/nginx/modules/ngx_mail_module.so",
    "mariadb-server": "mariadbd",
    "nginx": "nginx",
    "postfix": "postfix",
    "postgresql": "/usr/lib/postgresql/*/bin/postgres",
    "prometheus": "prometheus",
    "redis-server": "redis-server",
    "strace": "strace",
    "swaks": "swaks",
}
"""Debian package: the program, or a pattern of the file, that proves it is there (the same list as in tools/test)."""


def _own_address() -> str:
    """A loopback address that only this process uses: 127.64.0.0/10 has room for every pid (22 bits)."""
    pid = os.getpid() % (1 << 22)
    return f"127.{64 + (pid >> 16)}.{pid >> 8 & 255}.{pid & 255}"


HOST = _own_address()
"""Where peers listen. Test processes that run side by side cannot take each other's ports."""

_given: set[int] = set()


def free_port() -> int:
    """A TCP port on HOST that nobody listens on and that this process has not been given before."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def require(package: str) -> str:
    """The program of a Debian package. Without it the test is skipped, or fails where CI=true."""
    proof = PROGRAMS[package]
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = max(glob.glob(proof), default=None) or shutil.which(proof, path=search)
    if found is None:
        _do_without(f"needs {proof} of the Debian package {package}; tools/test installs it when run as root")
    return str(found)


def require_root(why: str) -> None:
    """As `require`, where the tests do not run as root."""
    if os.geteuid() != 0:
        _do_without(f"needs root: {why}")


def require_unpacked(name: str) -> None:
    """As `require`, for a server of peers/unpacked.py. A machine that has no mount namespaces for us cannot be helped
    by installing anything: there the test is skipped.
    """
    if not unpacked.can_run():
        pytest.skip("needs mount namespaces and overlayfs: unshare --mount is not permitted here")
    if unpacked.tree(name) is None:
        _do_without(f"needs {unpacked.FOLDER / name}; python tests/peers/unpacked.py makes it when run as root")


def _do_without(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def wait_until(holds: Callable[[], bool], what: str, timeout: float = START_TIMEOUT, *, every: float = 0.01) -> None:
    """Poll until `holds()`; fails the test with `what` after `timeout` seconds. every: seconds between two looks;
    more where a look is a process.
    """
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s: {what}")
        time.sleep(every)


def pause(seconds: float) -> None:
    """Let something happen that nobody tells of. Who is late here is late there: the more this machine oversleeps,
    the longer we wait.
    """
    began = time.monotonic()
    time.sleep(seconds)
    time.sleep(min(2.0, 10 * (time.monotonic() - began - seconds)))


def answers(port: int, host: str = HOST) -> bool:
    """Whether a connection to the port is accepted now."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


class Process:
    """One running program. What it prints goes to `<folder>/<name>.out`, readable as `output()`."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._output = folder / f"{name}.out"
        with self._output.open("ab") as output:
            self._popen = subprocess.Popen(
                argv,
                cwd=folder,
                env={**os.environ, **env} if env else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for_port(self, port: int, timeout: float = START_TIMEOUT) -> None:
        """Until the port answers; fails at once, with the program's own words, if it ends instead."""

        def up() -> bool:
            if not self.running:
                pytest.fail(f"{self.name} ended with status {self._popen.returncode}:\n{self.output()}")
            return answers(port)

        wait_until(up, f"{self.name} answers on {HOST}:{port}", timeout)

    def signal(self, number: Signals) -> None:
        """To the program itself, not to its children."""
        self._popen.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP to the program and all its children: a peer that hangs."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end, then insist; returns its exit status. Nothing that it started is left behind."""
        if self.running:
            self.resume()
            self._popen.terminate()
            try:
                self._popen.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()
        # Children that the program left to themselves (Postfix's daemons finish what they are at).
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.members() and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL to the program and all its children, without warning: a peer that crashes."""
        self._signal_all(signal.SIGKILL)
        status = self._popen.wait(STOP_TIMEOUT)
        wait_until(lambda: not self.members(), f"all of {self.name} is gone", STOP_TIMEOUT)
        return status

    def members(self) -> list[int]:
        """The pids of the program's session that still run (the dead that nobody has waited for do not)."""
        pids = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text()
            except OSError:  # it ended while we looked
                continue
            # "pid (name) state ppid pgrp session ...": a name may hold spaces and brackets, so cut behind it.
            state, _, _, session = text.rpartition(")")[2].split()[:4]
            if int(session) == self.pid and state not in "ZX":
                pids.append(int(stat.parent.name))
        return pids

    def _signal_all(self, number: Signals) -> None:
        # Again until nobody is new: a child may be forked while we look.
        done: set[int] = set()
        while new := set(self.members()) - done:
            for pid in new:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            done |= new
