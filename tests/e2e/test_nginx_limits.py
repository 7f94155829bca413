"""A stock nginx under the limits of the auth service: what its clients see, and how long it takes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from peers.nginx import Nginx
from peers.process import HOST, Process, free_port, pause
from rawclient import RawClient
from recorder import Recorder
from stack import GATHERED

pytestmark = pytest.mark.peer("libnginx-mod-mail")

ROOT = Path(__file__).parents[2]
POLICIES = """\
version: 1
replies:
  auth: "454 4.7.0 too many failed logins"
  slow: "450 4.7.1 too many logins"
limits:
  pair:
    event: auth_fail
    rate: 1/4s
    burst: 1
    key: "{{net}}|{{login}}"
    match: {{client: 127.0.3.0/24}}
    deny: {{reply: auth, max_delay: 15s}}
  same:
    event: auth_fail
    rate: 1/1h
    burst: 1
    key: "{{net}}"
    distinct: "{{password_mac}}"
    match: {{client: 127.0.4.0/24}}
    deny: {{reply: auth}}
  spray:
    event: auth_fail
    rate: 1/1h
    burst: 1
    key: "{{net}}"
    match: {{client: 127.0.5.0/24}}
    deny: {{reply: auth, close: true, ban: 1h}}
  logins:
    event: auth
    rate: 1/3s
    burst: 1
    key: "{{user}}"
    match: {{client: 127.0.6.0/24}}
    deny: {{reply: slow, hold: 5s}}
routes: [{{name: all, match: {{}}, pool: core}}]
pools: {{core: {{backends: [{{name: core, addr: "{host}:{backend}"}}]}}}}
"""
USERS = """\
users:
  test: {password: "{PLAIN}1234"}
"""
AUTHSVC = """\
bind: {host}:{port}
policies: policies
users: {{file: users.yaml}}
plain_passwords: true
argon2id: {{memory: 64KiB, passes: 1, lanes: 1}}
"""
MAIL = """\
server_name mail.example.com;
auth_http {host}:{auth}/auth;
xclient off;
server {{ listen {host}:{smtp}; protocol smtp; smtp_auth plain cram-md5; }}
"""


@dataclass(frozen=True, slots=True)
class Front:
    """nginx on `smtp`, our service behind it, and a recorder behind both."""

    smtp: int
    backend: Recorder
    service: Process

    def log(self, client: str) -> list[tuple[Any, ...]]:
        """result, limit and wait of each question about a client."""
        pause(GATHERED)
        lines = [json.loads(line) for line in self.service.output().splitlines() if line.startswith("{")]
        asked = [line for line in lines if line["event"] == "auth" and line["client"] == client]
        return [(line["result"], line.get("limit"), line.get("wait")) for line in asked]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    smtp, auth = free_port(), free_port()
    backend = Recorder(HOST, free_port())
    (folder / "policies").mkdir()
    (folder / "policies/policies.yaml").write_text(POLICIES.format(host=HOST, backend=backend.address[1]))
    (folder / "users.yaml").write_text(USERS)
    (folder / "authsvc.yaml").write_text(AUTHSVC.format(host=HOST, port=auth))
    argv = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "authsvc.wsgi:app"]
    environ = {"SMTPGATE_AUTHSVC_CONF": str(folder / "authsvc.yaml"), "PYTHONPATH": str(ROOT)}
    service = Process("authsvc", argv, folder, environ)
    nginx: Nginx | None = None
    try:
        service.wait_for_port(auth)
        nginx = Nginx(folder, MAIL.format(host=HOST, auth=auth, smtp=smtp), smtp)
        yield Front(smtp, backend, service)
    finally:
        if nginx is not None:
            nginx.stop()
        service.stop()
        backend.stop()


def login(client: RawClient, password: str) -> tuple[bytes, float]:
    """The reply to AUTH PLAIN of test, and the seconds that it took."""
    began = time.monotonic()
    reply = client.ask(b"AUTH PLAIN " + base64.b64encode(f"\0test\0{password}".encode()))
    return reply, time.monotonic() - began


WRONG = b"535 5.7.8 Authentication credentials invalid\r\n"
TOO_MANY = b"454 4.7.0 too many failed logins\r\n"


def connect(front: Front, source: str) -> RawClient:
    return RawClient((HOST, front.smtp), source=source).greeted()


def test_the_reply_is_held_back_for_as_long_as_the_bucket_needs(front: Front) -> None:
    """A wrong password is told after a second; then the limit speaks, when its bucket can pay again."""
    with connect(front, "127.0.3.1") as client:
        replies = [login(client, f"guess{n}") for n in range(3)]
    assert [reply for reply, _ in replies] == [WRONG, TOO_MANY, WRONG]
    first, second, third = front.log("127.0.3.1")
    assert (first, second[:2], third) == (("wrong", None, 1), ("throttled", "pair"), ("wrong", None, 1))
    # 4 s from the first, of which one or two have gone by.
    assert second[2] in (2, 3)
    for (_, seconds), (_, _, wait) in zip(replies, (first, second, third), strict=True):
        assert seconds > wait - 0.1


def test_the_same_wrong_password_is_spared(front: Front) -> None:
    with connect(front, "127.0.4.1") as client:
        assert [login(client, "last-years")[0] for _ in range(3)] == [WRONG] * 3
        assert login(client, "another")[0] == TOO_MANY
        assert login(client, "1234")[0] == TOO_MANY
        assert login(client, "last-years")[0] == WRONG


def test_a_ban_refuses_the_right_password_and_ends_the_session(front: Front) -> None:
    with connect(front, "127.0.5.1") as client:
        assert login(client, "guess0")[0] == WRONG
        assert login(client, "guess1")[0] == TOO_MANY
        assert client.reply() == b""
    with connect(front, "127.0.5.1") as client:
        assert login(client, "1234")[0] == TOO_MANY
        assert client.reply() == b""
    assert front.log("127.0.5.1")[-1] == ("throttled", "spray", 0)
    with connect(front, "127.0.5.2") as client:
        assert login(client, "1234")[0].startswith(b"235 ")


def test_logins_wait_for_their_turn_and_pass(front: Front) -> None:
    """1 in 3 s: the second is held by nginx, without a word to its client, and then goes on to the backend."""
    with connect(front, "127.0.6.1") as first, connect(front, "127.0.6.1") as second:
        assert login(first, "1234")[0].startswith(b"235 ")
        reply, seconds = login(second, "1234")
        assert reply.startswith(b"235 ")
        assert second.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
    granted, held, again = front.log("127.0.6.1")
    assert (granted, held[:2], again) == (("granted", None, None), ("held", "logins"), ("granted", None, None))
    assert seconds > held[2] - 0.1


def test_a_digest_is_refused_where_a_password_would_wait(front: Front) -> None:
    """nginx forgets it at WAIT: the right password would be a wrong one when it asks again."""
    codes = []
    for _ in range(2):
        with connect(front, "127.0.6.2") as client:
            challenge = base64.b64decode(client.ask(b"AUTH CRAM-MD5")[4:])
            digest = hmac.new(b"1234", challenge, hashlib.md5).hexdigest()
            codes.append(client.ask(base64.b64encode(f"test {digest}".encode()))[:9])
    assert codes[-1] == b"450 4.7.1"
    assert front.log("127.0.6.2")[-1] == ("throttled", "logins", 1)
