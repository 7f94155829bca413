"""The limits of logins over the real thing: two gunicorn workers on one Redis, asked as nginx asks."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from peers.process import HOST, Process, free_port, pause, wait_until
from peers.redis import Redis
from stack import GATHERED

pytestmark = pytest.mark.peer("redis-server")

ROOT = Path(__file__).parents[2]
POLICIES = """
version: 1
replies:
  auth: "454 4.7.0 too many failed logins"
  slow: "450 4.7.1 too many logins"
  gone: "554 5.7.1 go away"
limits:
  pair:
    event: auth_fail
    rate: 3/1h
    burst: 3
    key: "{net}|{login}"
    distinct: "{password_mac}"
    deny: {reply: auth, delay: 2s, max_delay: 15s}
  net:
    event: auth_fail
    rate: 8/1h
    burst: 8
    key: "{net}"
    distinct: "{login}"
    deny: {reply: auth, ban: 1h}
  spray:
    event: auth_fail
    rate: 1/1h
    burst: 1
    key: "{net}"
    match: {login: "*@spray.example"}
    deny: {reply: auth, after: {denials: 2, within: 1h, then: {reply: gone, close: true}}}
  foreign:
    event: auth_fail
    rate: 1/1h
    burst: 1
    key: "{net}"
    match: {known_net: false, login: ann}
    deny: {reply: auth}
  logins: {event: auth, rate: 1/2s, burst: 2, key: "{user}", match: {user: busy}, deny: {reply: slow, hold: 3s}}
  places: {event: auth, concurrency: 1, key: "{user}", deny: {reply: slow}}
  mail: {event: auth_fail, rate: 1/1h, burst: 1, key: "{net}", match: {protocol: imap}, deny: {reply: slow}}
routes: [{name: all, match: {}, pool: core}]
pools: {core: {backends: [{name: a, addr: "127.0.0.1:10025"}]}}
"""
USERS = "users:\n" + "".join(f'  {name}: {{password: "{{PLAIN}}1234"}}\n' for name in ("test", "ann", "busy"))


UNKNOWN = (f"198.51.100.{last}" for last in range(1, 255))
"""Addresses that no worker has heard of and no bucket counts, also where a test runs once more."""


class Service:
    """Two workers, and what each of them logged."""

    def __init__(self, folder: Path, store: str) -> None:
        self.port = free_port()
        (folder / "policies").mkdir()
        (folder / "policies/policies.yaml").write_text(POLICIES)
        (folder / "users.yaml").write_text(USERS)
        (folder / "authsvc.yaml").write_text(
            f"bind: {HOST}:{self.port}\npolicies: policies\nusers: {{file: users.yaml}}\nstore: {store}\nworkers: 2\n"
            "plain_passwords: true\nargon2id: {memory: 64KiB, passes: 1, lanes: 1}\n"
        )
        argv = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "authsvc.wsgi:app"]
        environ = {"SMTPGATE_AUTHSVC_CONF": str(folder / "authsvc.yaml"), "PYTHONPATH": str(ROOT)}
        self.process = Process("authsvc", argv, folder, environ)
        self.process.wait_for_port(self.port)
        wait_until(lambda: len(self.log("policies_loaded")) == 2, "both workers are there")

    def log(self, event: str) -> list[dict[str, object]]:
        pause(GATHERED)
        lines = [json.loads(line) for line in self.process.output().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def log_of(self, ip: str, lines: int, **fields: str) -> list[dict[str, object]]:
        """The logins of one client with these fields, once there are so many: two workers write in any order."""

        def found() -> list[dict[str, object]]:
            return [line for line in self.log("auth") if {**line, **fields, "client": ip} == line]

        wait_until(lambda: len(found()) >= lines, f"{lines} logins of {ip} in the log")
        return found()

    def ask(self, user: str, password: str, ip: str, *, more: str = "", protocol: str = "smtp") -> dict[str, str]:
        """The Auth- headers of one answer, without Auth-, on a connection of its own, as nginx does."""
        request = (
            f"GET /auth HTTP/1.0\r\nHost: x\r\nAuth-Method: plain\r\nAuth-User: {user}\r\nAuth-Pass: {password}\r\n"
            f"Auth-Protocol: {protocol}\r\nAuth-Login-Attempt: 1\r\nClient-IP: {ip}\r\n{more}\r\n"
        )
        with socket.create_connection((HOST, self.port), timeout=20) as connection:
            connection.sendall(request.encode())
            block = b""
            while received := connection.recv(65536):
                block += received
        pairs = [line.split(": ", 1) for line in block.decode().split("\r\n") if line.startswith("Auth-")]
        return {name.removeprefix("Auth-"): value for name, value in pairs}

    def code(self, user: str, password: str, ip: str) -> str:
        answer = self.ask(user, password, ip)
        return answer.get("Error-Code", answer["Status"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One for the module: each try of a test has client addresses of its own."""
    started = Redis(tmp_path_factory.mktemp("redis"))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, server: Redis) -> Iterator[Service]:
    started = Service(tmp_path_factory.mktemp("authsvc"), server.uri)
    yield started
    started.process.stop()


@pytest.fixture
def client(server: Redis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.uri, decode_responses=True) as client:
        yield client


@pytest.fixture
def ip() -> str:
    """A client that has not been here."""
    return next(UNKNOWN)


def test_guesses_at_once_on_both_workers_are_counted_as_one(service: Service, ip: str, client: redis.Redis) -> None:
    with ThreadPoolExecutor(16) as threads:
        codes = Counter(threads.map(lambda n: service.code("test", f"guess{n}", ip), range(40)))
    assert codes == {"535 5.7.8": 3, "454 4.7.0": 37}
    assert len({line["pid"] for line in service.log_of(ip, 40)}) == 2
    bucket = client.hgetall(f"smtpgate:tb:{{rl}}:pair:{ip}|test")
    assert float(bucket["tokens"]) < 0.1
    # The reply is held back for longer, the longer the bucket needs: here as long as may be.
    assert service.ask("test", "1234", ip)["Wait"] == "15"
    assert service.code("test", "1234", next(UNKNOWN)) == "OK"


def test_the_same_wrong_password_again_costs_nothing(service: Service, ip: str, client: redis.Redis) -> None:
    """The owner's old device, on whichever worker. Who guesses meets the limit all the same."""
    with ThreadPoolExecutor(4) as threads:
        codes = set(threads.map(lambda _: service.code("test", "last-years", ip), range(12)))
    assert codes == {"535 5.7.8"}
    assert float(client.hget(f"smtpgate:tb:{{rl}}:pair:{ip}|test", "tokens")) == pytest.approx(2.0, abs=0.1)
    assert [service.code("test", f"guess{n}", ip) for n in range(4)] == ["535 5.7.8"] * 2 + ["454 4.7.0"] * 2
    assert service.code("test", "last-years", ip) == "535 5.7.8"
    [key] = client.keys(f"smtpgate:ds:{{rl}}:pair:{ip}|test")
    members = client.zrange(key, 0, -1)
    # Neither the password nor anything that it could be found from without the service's key.
    assert [len(member) for member in members] == [16] * 3
    assert client.ttl(key) > 0


def test_a_network_that_tries_many_names_is_banned_before_any_proof(
    service: Service, ip: str, client: redis.Redis
) -> None:
    codes = [service.code(f"user{n}", "x", ip) for n in range(10)]
    assert codes == ["535 5.7.8"] * 8 + ["454 4.7.0"] * 2
    assert 0 < client.ttl(f"smtpgate:ban:{{rl}}:{ip}") <= 3600
    assert client.get(f"smtpgate:ban:{{rl}}:{ip}").startswith("net ")
    banned = service.log_of(ip, 2, result="throttled")
    assert [(line["limit"], line["subject"]) for line in banned] == [("net", ip)] * 2
    # Whoever is banned is told at once, and may try again: nginx keeps a session for an Auth-Wait above 0 alone.
    assert service.ask("test", "1234", ip)["Wait"] == "1"
    assert service.code("test", "1234", next(UNKNOWN)) == "OK"


def test_who_goes_on_is_told_something_else(service: Service, ip: str) -> None:
    answers = [service.ask(f"user{n}@spray.example", "x", ip) for n in range(5)]
    codes = [answer["Error-Code"] for answer in answers]
    assert codes == ["535 5.7.8", "454 4.7.0", "454 4.7.0", "554 5.7.1", "554 5.7.1"]
    assert ["Wait" in answer for answer in answers] == [True, True, True, False, False]


def test_a_network_of_the_login_is_spared(service: Service, ip: str, client: redis.Redis) -> None:
    """`foreign` slows who guesses at ann from elsewhere; where she has been, it does not count."""
    client.delete("smtpgate:net:{rl}:ann")
    assert service.code("ann", "1234", ip) == "OK"
    assert client.zrange("smtpgate:net:{rl}:ann", 0, -1) == [ip]
    assert client.ttl("smtpgate:net:{rl}:ann") == pytest.approx(30 * 86400, abs=60)
    elsewhere = next(UNKNOWN)
    assert [service.code("ann", f"guess{n}", ip) for n in range(3)] == ["535 5.7.8"] * 3
    assert [service.code("ann", f"guess{n}", elsewhere) for n in range(3)] == ["535 5.7.8", "454 4.7.0", "454 4.7.0"]


def test_a_protocol_can_have_limits_of_its_own(service: Service, ip: str) -> None:
    for protocol, expected in (("smtp", "535 5.7.8"), ("imap", "450 4.7.1")):
        codes = [service.ask("x", "x", ip, protocol=protocol)["Error-Code"] for _ in range(2)]
        assert codes == ["535 5.7.8", expected]


def test_logins_of_nginx_wait_for_tokens_and_those_of_our_proxy_do_not(
    service: Service, ip: str, client: redis.Redis
) -> None:
    """2 at once, then 1 in 2 s. `places`, a limit of concurrency, counts nobody."""
    client.delete("smtpgate:tb:{rl}:logins:busy")
    answers = [service.ask("busy", "1234", ip) for _ in range(3)]
    assert [answer["Status"] for answer in answers] == ["OK", "OK", "WAIT"]
    wait = int(answers[2]["Wait"])
    assert wait in (1, 2)
    assert service.ask("busy", "1234", ip, more="Auth-Gate: smtpgate\r\n")["Status"] == "OK"
    time.sleep(wait)
    assert service.ask("busy", "1234", ip)["Status"] == "OK"
    # A wrong password is not told apart by waiting.
    assert service.ask("busy", "x", ip)["Error-Code"] == "535 5.7.8"


def test_without_redis_logins_go_on(service: Service, ip: str, server: Redis) -> None:
    server.pause()
    try:
        assert [service.code("test", "1234", ip) for _ in range(4)] == ["OK"] * 4
        # Each worker counts for itself, at half of the rates: of three guesses one. Whom we reach the kernel decides.
        codes = Counter(service.code("test", f"guess{n}", ip) for n in range(8))
        assert codes.keys() == {"535 5.7.8", "454 4.7.0"}
        assert codes["535 5.7.8"] <= 2
    finally:
        server.resume()
    wait_until(lambda: service.code("test", "1234", next(UNKNOWN)) == "OK", "it is back")
    assert "Traceback" not in service.process.output()
