"""The peers as fixtures. What a test started is stopped at its end, also when it failed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from peers.dovecot import Dovecot
from peers.exim import Exim
from peers.haproxy import HAProxy
from peers.mariadb import MariaDB
from peers.nginx import Nginx
from peers.opensmtpd import OpenSMTPD
from peers.postfix import Postfix
from peers.postgres import Postgres
from peers.process import require
from peers.redis import Redis
from peers.smtptools import SmtpSink


class StartPostfix(Protocol):
    def __call__(self, n: int = 1, main: Mapping[str, str] | None = None) -> list[Postfix]: ...


class StartExim(Protocol):
    def __call__(self, tls: tuple[str, str] | None = None) -> Exim: ...


class StartNginx(Protocol):
    def __call__(self, mail: str, port: int, http: str = "") -> Nginx: ...


class StartHAProxy(Protocol):
    def __call__(self, conf: str, port: int) -> HAProxy: ...


class StartSink(Protocol):
    def __call__(self, *options: str, backlog: int = 1000) -> SmtpSink: ...


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.peer("swaks")`: the test needs that Debian package's program."""
    for mark in item.iter_markers("peer"):
        require(mark.args[0])


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    """An empty Redis for this test alone."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Redis(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; its making takes seconds, so that a module's tests share it, and leave it running."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    """A running MariaDB, shared in the same way."""
    server = MariaDB()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    """A running Dovecot with the mailboxes of test / 1234 and test2 / password, shared in the same way."""
    server = Dovecot({"test": "1234", "test2": "password"})
    yield server
    server.remove()


@pytest.fixture
def postfix() -> Iterator[StartPostfix]:
    """`postfix(2)`: that many new instances, running. Called again it starts more."""
    with ExitStack() as stack:
        started: list[Postfix] = []

        def start(n: int = 1, main: Mapping[str, str] | None = None) -> list[Postfix]:
            new = []
            for _ in range(n):
                instance = Postfix(f"mta{len(started) + 1}", main)
                stack.callback(instance.remove)
                started.append(instance)
                new.append(instance)
                instance.start()
            return new

        yield start


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all users may enter, unlike tmp_path: mail servers run as several of them."""
    folder = Path(tempfile.mkdtemp(prefix="smtpgate-peer-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def exim(open_folder: Path) -> Iterator[StartExim]:
    """`exim(tls)`: a running Exim."""
    with ExitStack() as stack:

        def start(tls: tuple[str, str] | None = None) -> Exim:
            folder = open_folder / "exim"
            folder.mkdir()
            server = Exim(folder, tls)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def opensmtpd(open_folder: Path) -> Iterator[OpenSMTPD]:
    """A running OpenSMTPD."""
    folder = open_folder / "opensmtpd"
    folder.mkdir()
    server = OpenSMTPD(folder)
    yield server
    server.stop()


@pytest.fixture
def nginx_mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartNginx]:
    """`nginx_mail(mail, port, http)`: an nginx with those insides of `mail {}` and `http {}`."""
    with ExitStack() as stack:

        def start(mail: str, port: int, http: str = "") -> Nginx:
            server = Nginx(tmp_path_factory.mktemp("nginx"), mail, port, http)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartHAProxy]:
    """`haproxy(conf, port)`: an HAProxy with those sections."""
    with ExitStack() as stack:

        def start(conf: str, port: int) -> HAProxy:
            server = HAProxy(tmp_path_factory.mktemp("haproxy"), conf, port)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def smtp_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartSink]:
    """`smtp_sink("-f", "RCPT")`: a server that accepts and forgets, or misbehaves as told."""
    with ExitStack() as stack:

        def start(*options: str, backlog: int = 1000) -> SmtpSink:
            server = SmtpSink(tmp_path_factory.mktemp("sink"), *options, backlog=backlog)
            stack.callback(server.stop)
            return server

        yield start
