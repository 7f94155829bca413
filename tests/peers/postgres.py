"""A PostgreSQL server of our own, in its own folder. It may be stopped, killed, paused and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from peers.process import HOST, Process, free_port, require, wait_until

# No durability, no background writers that matter: a start takes half a second.
CONF = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
fsync = off
full_page_writes = off
synchronous_commit = off
shared_buffers = 16MB
max_connections = 50
"""


def as_user(user: str) -> list[str]:
    """What makes a command run as `user`: servers of databases refuse to be root. exec's, so that pids are theirs."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if os.geteuid() == 0 else []


class Postgres:
    """`url` is what `sql:` takes; everybody from loopback is the superuser `postgres`, without a password."""

    def __init__(self) -> None:
        programs = Path(require("postgresql")).resolve().parent
        self._server = str(programs / "postgres")
        self.port = free_port()
        self.url = f"postgresql+psycopg://postgres@{HOST}:{self.port}/postgres"
        # Not pytest's own tmp_path, which its owner alone may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="smtpgate-postgres-"))
        self._data = self.folder / "data"
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        argv = [str(programs / "initdb"), "-D", str(self._data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "-N"]
        subprocess.run(
            [*as_user("postgres"), *argv, "--locale=C"], cwd=self.folder, check=True, capture_output=True, timeout=60
        )
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(CONF.format(host=HOST, port=self.port))
        with (self._data / "pg_hba.conf").open("a") as hba:
            hba.write(f"host all all {HOST}/32 trust\n")
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The running postmaster."""
        if self._process is None:
            pytest.fail("PostgreSQL is not running")
        return self._process

    def pause(self) -> None:
        """SIGSTOP to the postmaster, so that it forks no more, and then to all its children."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # Each backend leads a session of its own, so that they are not found by the postmaster's.
        self.process.signal(number)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in map(int, children.split()):
            os.kill(pid, number)

    def start(self) -> None:
        """Returns when it takes connections."""
        self._process = Process("postgres", [*as_user("postgres"), self._server, "-D", str(self._data)], self.folder)
        self._process.wait_for_port(self.port)
        # It listens while it still reads its log.
        ready = [str(Path(self._server).with_name("pg_isready")), "-q", "-h", HOST, "-p", str(self.port)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL is ready")

    def stop(self) -> None:
        """As `pg_ctl stop -m fast`: sessions are cut."""
        if self._process is not None:
            self.resume()
            self._process.signal(signal.SIGINT)
            self._process.stop()
            self._process = None

    def remove(self) -> None:
        """Stop, and delete the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
