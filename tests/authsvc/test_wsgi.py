"""The composition root: look-ups with a time limit, what runs beside the requests, a start while DNS is silent."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gevent
import pytest
from peers.process import HOST, Process, free_port, pause
from stack import GATHERED

import authsvc
from authsvc import assembly, startup
from authsvc.answer.addresses import LookupFailedError

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]
NAMES = 18
POLICIES = """
version: 1
replies: {auth: "454 4.7.0 {host}: too many failed logins"}
limits:
  one: {event: auth_fail, rate: 1/1h, burst: 1, key: "{net}", deny: {reply: auth}}
routes: [{name: all, match: {}, pool: core}]
pools:
  core:
    backends:
"""
BACKENDS = "".join(f'      - {{name: m{n}, addr: "mta{n}.silent.invalid:25"}}\n' for n in range(NAMES))
NGINX = {
    "Auth-Method": "plain",
    "Auth-User": "nobody",
    "Auth-Pass": "x",
    "Auth-Protocol": "smtp",
    "Client-IP": "192.0.2.7",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All that the service reads, with backends that have names."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/p.yaml").write_text(POLICIES + BACKENDS)
    (tmp_path / "users.yaml").write_text((ROOT / "conf/users.yaml").read_text())
    port = free_port()
    (tmp_path / "authsvc.yaml").write_text(
        f"bind: {HOST}:{port}\npolicies: policies\nusers: {{file: users.yaml}}\nserver_name: auth.example.com\n"
    )
    return tmp_path


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that were to run beside the requests; none of them runs."""
    started: list[str] = []

    class Thread(threading.Thread):
        def start(self) -> None:
            assert self.daemon
            started.append(self._target.__qualname__)  # type: ignore[attr-defined]

    monkeypatch.setattr(threading, "Thread", Thread)
    return started


@pytest.fixture
def wsgi(folder: Path, beside: list[str], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as a worker has it, from files of its own; nothing runs beside it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv(startup.CONF_VARIABLE, "authsvc.yaml")
    monkeypatch.setattr(startup, "_in_force", None)
    spec = importlib.util.spec_from_file_location("wsgi_under_test", Path(authsvc.__file__).parent / "wsgi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_look_ups_and_both_polls_run_beside_the_requests(wsgi: ModuleType, beside: list[str]) -> None:
    assert beside == ["Destinations.look_up", "PolicyFolder.run", "UserFile.run"]
    assert wsgi.app.test_client().get("/readyz").json == {"policies": True, "users": True}


def test_the_name_in_replies_is_that_of_the_configuration(wsgi: ModuleType) -> None:
    client = wsgi.app.test_client()
    texts = [client.get("/auth", headers=NGINX).headers["Auth-Status"] for _ in range(2)]
    assert texts == ["Authentication credentials invalid", "auth.example.com: too many failed logins"]


@pytest.mark.parametrize(("host", "told"), [pytest.param(HOST, False, id="loopback"), ("0.0.0.0", True)])
def test_a_door_that_is_open_to_all_is_told_of(
    wsgi: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str], host: str, told: bool
) -> None:
    conf = folder / "authsvc.yaml"
    conf.write_text(conf.read_text().replace(HOST, host))
    assembly.build(startup.read(Path("authsvc.yaml"), {}))
    assert ('"event": "open_to_all"' in _written(capsys).out) is told


def test_look_up(wsgi: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0))]
    asked: list[tuple[Any, ...]] = []

    def answer(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        return found

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert assembly.look_up("mta.example.com") == "2001:db8::1"
    assert asked == [(("mta.example.com", None), {"type": socket.SOCK_STREAM})]


def test_a_name_that_is_not_known(wsgi: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(LookupFailedError) as caught:
        assembly.look_up("mta.example.com")
    assert str(caught.value) == "mta.example.com: [Errno -2] Name or service not known"


def test_silent_name_servers_cost_a_bounded_time(wsgi: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: gevent.sleep(60))
    monkeypatch.setattr(assembly, "LOOKUP_TIMEOUT", 0.05)
    began = time.monotonic()
    with pytest.raises(LookupFailedError, match=r"mta\.example\.com: no answer in 0\.05 s"):
        assembly.look_up("mta.example.com")
    assert time.monotonic() - began < 30.0


def _written(capsys: pytest.CaptureFixture[str]) -> Any:
    """What was said until now: lines are gathered, and written by gevent's loop."""
    gevent.sleep(GATHERED)
    return capsys.readouterr()


SILENT = """
import socket, gevent

known = socket.getaddrinfo

def getaddrinfo(host, *args, **options):
    if str(host).endswith(".invalid"):
        gevent.sleep(60)
    return known(host, *args, **options)

socket.getaddrinfo = getaddrinfo
from authsvc.wsgi import app
"""


@pytest.fixture
def silent_service(folder: Path) -> Iterator[tuple[Process, int]]:
    """The whole service, under gunicorn, where no name of a backend is ever answered for. And its port."""
    (folder / "silent.py").write_text(SILENT)
    found = re.search(r":([0-9]+)\n", (folder / "authsvc.yaml").read_text())
    assert found is not None
    port = int(found[1])
    argv = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "silent:app"]
    path = os.pathsep.join([str(folder), str(ROOT)])
    environ = {startup.CONF_VARIABLE: "authsvc.yaml", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    process = Process("authsvc", argv, folder, environ)
    process.wait_for_port(port)
    yield process, port
    process.stop()


def get(port: int, path: str, headers: dict[str, str]) -> tuple[float, Any]:
    """Seconds, and the response's headers."""
    began = time.monotonic()
    with urllib.request.urlopen(
        urllib.request.Request(f"http://{HOST}:{port}{path}", headers=headers), timeout=30
    ) as response:
        return time.monotonic() - began, response.headers


def test_it_serves_at_once_while_no_name_of_a_backend_can_be_looked_up(silent_service: tuple[Process, int]) -> None:
    process, port = silent_service
    # One after the other the names take NAMES x 2 s, more than gunicorn waits for a worker.
    seconds, _ = get(port, "/healthz", {})
    assert seconds < 10.0
    right = {**NGINX, "Auth-User": "test", "Auth-Pass": "1234"}
    seconds, answer = get(port, "/auth", right)
    # Two names are tried for an answer; our proxy waits 10 s.
    assert seconds < 10.0
    assert (answer["Auth-Status"], answer["Auth-Pool"], answer["Auth-Server"]) == ("OK", "core", None)
    pause(GATHERED)
    lines = [json.loads(line) for line in process.output().splitlines()]
    messages = [line["message"] for line in lines if line["event"] == "process"]
    assert f"Listening at: {HOST}:{port} ({process.pid})" in messages
    assert [line["detail"] for line in lines if line["event"] == "auth"] == [
        "no address of the pool could be looked up"
    ]
