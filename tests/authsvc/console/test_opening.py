"""The console of the real service, two workers behind gunicorn: its port, its logins, a store that is not shared."""

from __future__ import annotations

import http.client
import re
import signal
from collections.abc import Iterator
from http.cookies import SimpleCookie
from urllib.parse import urlencode

import pytest
from consolesite import OPERATOR, PASSWORD, ConsoleSite
from peers.process import HOST, wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleSite]:
    """Its store is memory://, so its reports travel through state_dir."""
    made = ConsoleSite(tmp_path_factory.mktemp("site"), shared=False)
    yield made
    made.stop()


class Visitor:
    """One browser's cookies. Each request is a connection of its own, and so any worker's."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}

    def ask(self, path: str, **form: str) -> tuple[int, str]:
        """POST where there is a form. Status and body; a redirect is not followed."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        body = urlencode(form) if form else None
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            response = connection.getresponse()
            for line in response.headers.get_all("Set-Cookie", []):
                self.cookies |= {name: one.value for name, one in SimpleCookie(line).items()}
            return response.status, response.read().decode()
        finally:
            connection.close()

    def token(self, path: str) -> str:
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.ask(path)[1])
        assert found is not None
        return found[1]

    def log_in(self) -> None:
        token = self.token("/login")
        assert self.ask("/login", operator=OPERATOR, password=PASSWORD, csrf_token=token)[0] == 303


@pytest.fixture
def inside(site: ConsoleSite) -> Visitor:
    visitor = Visitor(site.port)
    visitor.log_in()
    return visitor


def test_each_port_has_its_own_paths(site: ConsoleSite, inside: Visitor) -> None:
    service = Visitor(site.auth_port)
    service.cookies = dict(inside.cookies)
    assert service.ask("/healthz") == (200, "ok\n")
    for path in ("/", "/login", "/pools", "/static/console.css"):
        assert service.ask(path)[0] == 404
        assert inside.ask(path)[0] in {200, 302}
    for path in ("/auth", "/healthz", "/readyz"):
        assert inside.ask(path)[0] == 404


def test_all_workers_know_of_a_login_and_of_its_end(inside: Visitor) -> None:
    assert {inside.ask("/")[0] for _ in range(20)} == {200}
    before = dict(inside.cookies)
    assert inside.ask("/logout", csrf_token=inside.token("/"))[0] == 303
    inside.cookies = before
    assert {inside.ask("/")[0] for _ in range(20)} == {302}


def test_without_a_shared_store(site: ConsoleSite, inside: Visitor) -> None:
    """Reports and orders are there; quotas are each process's own, and the page says so."""
    wait_until(lambda: "mx2" in inside.ask("/")[1], "the reports of both nodes are seen")
    assert "memory://" in inside.ask("/quotas")[1]
    assert inside.ask("/quotas/subject?limit=msgs&subject=ann")[0] == 404
    token = inside.token("/")
    assert inside.ask("/quotas/reset", limit="msgs", subject="ann", csrf_token=token)[0] == 404
    assert "Without balances" in inside.ask("/explain?ip=192.0.2.7&user=ann")[1]
    assert inside.ask("/pools/drain", pool="core", backend="mta1", csrf_token=token)[0] == 303
    assert [one.by for one in site.board.orders()] == [f"{OPERATOR} (console)"]
    assert inside.ask("/pools/undrain", pool="core", backend="mta1", csrf_token=token)[0] == 303
    assert site.board.orders() == []


def test_a_reload_logs_nobody_out(site: ConsoleSite, inside: Visitor) -> None:
    started = len([line for line in site.log() if line["event"] == "console"])
    site.process.signal(signal.SIGHUP)
    wait_until(
        lambda: len([line for line in site.log() if line["event"] == "console"]) >= started + 2, "two workers are new"
    )
    wait_until(lambda: inside.ask("/")[0] == 200, "they answer")
    assert {inside.ask("/")[0] for _ in range(10)} == {200}


def test_what_the_log_says_of_it(site: ConsoleSite, inside: Visitor) -> None:
    (line, *_) = [line for line in site.log() if line["event"] == "console"]
    assert (line["bind"], line["operators"]) == (f"{HOST}:{site.port}", 1)
    logins = [line for line in site.log() if line["event"] == "console_login"]
    assert {(line["operator"], line["peer"]) for line in logins} == {(OPERATOR, "127.0.0.1")}
    assert PASSWORD not in site.process.output()
