"""The service with real stores behind it that are changed, slow, stopped and back, asked as a proxy asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from authservice import AuthService
from peers.mariadb import MariaDB
from peers.postgres import Postgres
from peers.process import wait_until
from peers.redis import Redis

from authsvc.users.sqlusers import DEADLINE

pytestmark = pytest.mark.programs

WRONG, DEFERRED = "535 5.7.8", "454 4.7.0"
CACHE = "cache: {found: 1s, unknown: 1s}\nremember: 5m\n"

Start = Callable[..., AuthService]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(users)`: a service of these stores; sql: its tables are made first."""
    started: list[AuthService] = []

    def start(users: str, *, sql: bool = False) -> AuthService:
        (tmp_path / "users.yaml").write_text("users: {}\n")
        (tmp_path / "users.passwd").touch()
        service = AuthService(tmp_path, users, CACHE)
        started.append(service)
        if sql:
            assert service.gatectl("init").returncode == 0
        service.start()
        return service

    yield start
    for service in started:
        service.stop()


def source_of(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "redis":
        server: Redis = request.getfixturevalue("redis_server")
        return f'{{redis: "{server.uri}"}}'
    if kind == "postgresql":
        return f'{{sql: "{request.getfixturevalue("postgres").url}"}}'
    if kind == "mariadb":
        maria: MariaDB = request.getfixturevalue("mariadb")
        return f'{{sql: "{maria.url}", password: {maria.password}}}'
    return {
        "sqlite": '{sql: "sqlite:///users.db"}',
        "file": "{file: users.yaml}",
        "passwd": "{passwd_file: users.passwd}",
    }[kind]


@pytest.mark.parametrize("kind", ["file", "passwd", "redis", "sqlite", "postgresql", "mariadb"])
def test_an_operators_change_is_in_force_within_the_time_of_the_cache(
    kind: str, request: pytest.FixtureRequest, start: Start
) -> None:
    service = start(source_of(kind, request), sql=kind not in ("file", "passwd", "redis"))
    assert service.code("jürgen", "1234") == WRONG
    assert service.gatectl("add", "jürgen", "--plan", "gold", given="1234\n").returncode == 0
    wait_until(lambda: service.code("jürgen", "1234") == "OK", "the new user logs in")
    assert service.login("jürgen", "1234")["Auth-Plan"] == "gold"
    assert service.code("jürgen", "12345") == WRONG
    assert service.gatectl("disable", "jürgen").returncode == 0
    wait_until(lambda: service.code("jürgen", "1234") == WRONG, "the disabled user is out")


def test_postgresql_stopped_in_the_middle_defers_and_recovers_by_itself(postgres: Postgres, start: Start) -> None:
    service = start(f'[{{sql: "{postgres.url}"}}, {{file: users.yaml}}]', sql=True)
    service.gatectl("add", "there", given="1234\n")
    service.gatectl("--store", "2", "add", "behind", given="1234\n")
    wait_until(lambda: service.code("behind", "1234") == "OK", "the file is read")
    assert service.code("there", "1234") == "OK"
    assert service.get("/readyz") == (200, b'{"policies":true,"users":true}\n')
    postgres.stop()
    try:
        # What was found a moment ago holds; then nothing is known of anybody, in the next store neither.
        wait_until(lambda: service.code("there", "1234") == DEFERRED, "the cache is over")
        for user in ("there", "behind", "nobody"):
            answer = service.login(user, "1234")
            assert (answer["Auth-Error-Code"], answer["Auth-Status"], answer["Auth-Wait"]) == (
                DEFERRED,
                "Temporary authentication failure",
                "1",
            )
        assert service.get("/readyz") == (503, b'{"policies":true,"users":false}\n')
    finally:
        postgres.start()
    wait_until(lambda: service.code("there", "1234") == "OK", "the store is in use again")
    assert service.code("behind", "1234") == "OK"
    assert service.code("nobody", "1234") == WRONG
    assert service.get("/readyz")[0] == 200
    events = [line["event"] for line in service.log()]
    assert (events.count("user_store_down"), events.count("user_store_up")) == (1, 1)
    assert "internal_error" not in events


class Clients:
    """One client after the other that logs in as `user`, and how long the longest waited, until stopped."""

    def __init__(self, service: AuthService, user: str) -> None:
        self.codes: set[str] = set()
        self.longest = 0.0
        self._service, self._user = service, user
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            began = time.monotonic()
            self.codes.add(self._service.code(self._user, "1234"))
            self.longest = max(self.longest, time.monotonic() - began)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "redis"])
def test_a_store_that_hangs_holds_up_nobody_who_does_not_need_it(
    kind: str, request: pytest.FixtureRequest, start: Start
) -> None:
    service = start(f"[{{file: users.yaml}}, {source_of(kind, request)}]", sql=kind != "redis")
    service.gatectl("--store", "1", "add", "quick", given="1234\n")
    service.gatectl("--store", "2", "add", "slow", given="1234\n")
    wait_until(lambda: service.code("quick", "1234") == "OK", "the file is read")
    assert service.code("slow", "1234") == "OK"
    server = request.getfixturevalue({"postgresql": "postgres", "redis": "redis_server"}.get(kind, kind))
    server.pause()
    clients = Clients(service, "quick")
    try:
        time.sleep(1.0)  # what was found of `slow` is over
        with ThreadPoolExecutor(12) as pool:
            began = time.monotonic()
            codes = list(pool.map(lambda number: service.code(f"slow{number % 3}", "1234"), range(12)))
            took = time.monotonic() - began
        assert set(codes) == {DEFERRED}
        # All who waited together waited as long as one may, not one after the other.
        assert took < 4 * DEADLINE
    finally:
        server.resume()
        clients.stop()
    assert clients.codes == {"OK"}
    assert clients.longest < DEADLINE
    wait_until(lambda: service.code("slow", "1234") == "OK", "the store is in use again")
