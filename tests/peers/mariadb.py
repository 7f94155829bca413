"""A MariaDB server of our own, in its own folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from peers.postgres import as_user
from peers.process import HOST, Process, free_port, require

CONF = """\
[mariadbd]
datadir = {folder}/data
socket = {folder}/mariadb.sock
pid-file = {folder}/mariadb.pid
bind-address = {host}
port = {port}
innodb_buffer_pool_size = 16M
innodb_flush_log_at_trx_commit = 0
innodb_use_native_aio = 0
performance_schema = off
skip-name-resolve
# The default of Debian's package, which is not exact: test, TEST and tést are one name.
character-set-server = utf8mb4
collation-server = utf8mb4_general_ci
init-file = {folder}/init.sql
"""
# Nobody reaches this address but this test process.
INIT = """\
CREATE DATABASE IF NOT EXISTS mail;
CREATE USER IF NOT EXISTS mail@'%' IDENTIFIED BY 'hunter2';
GRANT ALL ON mail.* TO mail@'%';
"""


class MariaDB:
    """`url` is what `sql:` takes, for the database `mail`; its password is `password`."""

    password = "hunter2"

    def __init__(self) -> None:
        self._server = require("mariadb-server")
        self.port = free_port()
        self.url = f"mysql+pymysql://mail@{HOST}:{self.port}/mail"
        self.folder = Path(tempfile.mkdtemp(prefix="smtpgate-mariadb-"))
        self._conf = self.folder / "my.cnf"
        self._conf.write_text(CONF.format(folder=self.folder, host=HOST, port=self.port))
        (self.folder / "init.sql").write_text(INIT)
        self.folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "mysql", "mysql")
        install = shutil.which("mariadb-install-db")
        if install is None:
            pytest.fail("mariadb-install-db, of the same package, is not there")
        subprocess.run(
            [*as_user("mysql"), install, f"--defaults-file={self._conf}", "--auth-root-authentication-method=normal"],
            cwd=self.folder,
            check=True,
            capture_output=True,
            timeout=60,
        )
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The running server."""
        if self._process is None:
            pytest.fail("MariaDB is not running")
        return self._process

    def pause(self) -> None:
        """SIGSTOP: a server that hangs."""
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def start(self) -> None:
        """Returns when it takes connections."""
        argv = [*as_user("mysql"), self._server, f"--defaults-file={self._conf}"]
        self._process = Process("mariadb", argv, self.folder)
        self._process.wait_for_port(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def remove(self) -> None:
        """Stop, and delete the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
