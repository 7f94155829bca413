"""The cases of the hostile corpus that are steps in words: each has a script here, and its answer in answers.json.

A case without a script fails, and so does a script without a case. The proxy is proxy.py with two of its waits
shortened (hastyproxy.py).
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from certificates import Certificates, make_certificates
from corpora import Case, answers, scripted
from hostile import classes, preferred, spelled
from peers.process import HOST, free_port, wait_until
from rawclient import RawClient, plain
from recorder import Recorder
from stack import RELAY, SUBMISSION, UNSHARED, Stack

BACKEND: Final = free_port()
CASES: Final = scripted("hostile_commands.json")
ANSWERS: Final = answers()
HASTY: Final = str(Path(__file__).with_name("hastyproxy.py"))
GRACE: Final = 1.0  # seconds that a text may take however small it is; 180 in earnest
HANDSHAKE: Final = 1.0  # seconds for a TLS handshake; 30 in earnest
SECOND: Final = 1.0  # `timeout` of the listener that has no patience
BUSY: Final = 10.0  # seconds that a busy machine may add
BIG: Final = 2048  # octets that the policy refuses at the end of a text

POLICY: Final = {
    "limits.yaml": f"""\
version: 1
limits:
  big:
    event: eod
    cost: bytes
    rate: {BIG}B/1h
    burst: {BIG}B
    key: "{{client}}"
    deny: {{reply: "554 5.7.1 too much today"}}
"""
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack], certificates: Certificates) -> Iterator[Stack]:
    cert, key = map(str, certificates.server)
    tls: dict[str, Any] = {"certificate": [{"cert": cert, "key": key}], "helo_required": True}
    stack = start_module_stack(
        [(HOST, BACKEND)],
        listeners=[
            RELAY,
            {**tls, "name": "starttls", "auth": ["none"], "tls": "starttls"},
            {**tls, "name": "implicit", "auth": ["none"], "tls": "implicit"},
            {**SUBMISSION, **tls, "name": "required", "tls": "required"},
            {"name": "brief", "auth": ["none"], "timeout": f"{SECOND:g}s", "max_junk": 100_000},
        ],
        policy=POLICY,
        pool=UNSHARED,
        command=[sys.executable, HASTY, "-c", "proxy.yaml"],
        env={"SMTPGATE_TEST_GRACE": f"{GRACE}", "SMTPGATE_TEST_HANDSHAKE": f"{HANDSHAKE}"},
    )
    yield stack
    assert "Traceback" not in stack.show()
    assert stack.log_events("bug") == []


@dataclass(frozen=True, slots=True)
class World:
    """What a script has: the proxy, its backend, and whom to trust."""

    stack: Stack
    backend: Recorder
    trust: ssl.SSLContext
    ca: Path

    def client(self, listener: str, rcvbuf: int | None = None) -> RawClient:
        return RawClient(self.stack.listeners[listener], rcvbuf=rcvbuf)

    def secured(self, client: RawClient) -> RawClient:
        """Behind the 220 to STARTTLS: TLS is up."""
        client.sock = self.trust.wrap_socket(client.sock, server_hostname=HOST)
        return client


@pytest.fixture
def world(stack: Stack, certificates: Certificates) -> Iterator[World]:
    trust = ssl.create_default_context(cafile=str(certificates.ca))
    with Recorder(HOST, BACKEND) as backend:
        yield World(stack, backend, trust, certificates.ca)


Said = tuple[bytes, bool]
"""All that the case's last step was answered, and whether the proxy ended the connection."""


def last(client: RawClient, quiet: float = 0.5) -> Said:
    """What it hears until nothing comes any more, or the end."""
    first = client.reply(BUSY)
    return b"".join([first, *client.replies(quiet)]), client.ended


def ended(client: RawClient) -> Said:
    """The other side closes without a word in clear; an alert of TLS is none."""
    assert not client.reply(BUSY)[:1].isdigit()
    return b"", client.ended


# --- TLS --------------------------------------------------------------------------------------------------------


def inject_partial(world: World) -> Said:
    with world.client("starttls") as client:
        client.greeted().send(b"STARTTLS\r\nMAIL FR")
        assert client.reply() == b"220 2.0.0 Start TLS\r\n"
        world.secured(client).send(b"OM:<a@a.test>\r\n")
        return last(client)


def no_ehlo_after(world: World) -> Said:
    with world.client("starttls") as client:
        assert client.greeted().ask(b"STARTTLS") == b"220 2.0.0 Start TLS\r\n"
        world.secured(client).send(b"MAIL FROM:<a@a.test>\r\n")
        return last(client)


def plain_after_220(world: World) -> Said:
    with world.client("starttls") as client:
        assert client.greeted().ask(b"STARTTLS") == b"220 2.0.0 Start TLS\r\n"
        client.send(b"EHLO t.test\r\n")
        return ended(client)


def stall(world: World) -> Said:
    with world.client("starttls") as client:
        assert client.greeted().ask(b"STARTTLS") == b"220 2.0.0 Start TLS\r\n"
        since = time.monotonic()
        said = ended(client)
        assert HANDSHAKE * 0.9 < time.monotonic() - since < HANDSHAKE + BUSY
        return said


def plain_client(world: World) -> Said:
    with world.client("implicit") as client:
        client.send(b"EHLO t.test\r\n")
        return ended(client)


def renegotiate(world: World) -> Said:
    """openssl's client asks for it with an R: the first time is its last, with the alert no_renegotiation."""
    host, port = world.stack.listeners["implicit"]
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2", "-CAfile", str(world.ca)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        while (line := client.stdout.readline()) and not line.startswith(b"220 "):
            pass
        client.stdin.write(b"R\n")
        client.stdin.flush()
        said, _ = client.communicate(timeout=BUSY)  # else it is killed by Popen's end: the connection would be left
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said
    return b"", client.returncode == 1


def auth_in_clear(world: World) -> Said:
    with world.client("required") as client:
        client.greeted().send(b"AUTH PLAIN " + plain("test", "1234") + b"\r\n")
        return last(client)


# --- texts ------------------------------------------------------------------------------------------------------


def reject_then_second(world: World) -> Said:
    with world.client("relay") as client:
        refused = client.greeted().envelope().opened().end(b"Subject: x\r\n\r\n" + b"x" * BIG + b"\r\n")
        assert refused == b"554 5.7.1 too much today\r\n"
        client.send(b"RCPT TO:<r2@x.test>\r\n")
        said = last(client)
    wait_until(lambda: world.backend.open == 0, "the proxy has left its backend", BUSY)
    assert world.backend.messages == []
    assert b"RCPT TO:<r2@x.test>" not in [line for one in world.backend.conversations for line in one.commands]
    return said


def drip(world: World) -> Said:
    """An octet each tenth of the time that a text has, where the case has one each ninth."""
    with world.client("relay") as client:
        client.greeted().envelope().opened()
        since = time.monotonic()
        reply = b""
        while not reply and not client.ended and time.monotonic() - since < GRACE + BUSY:
            client.send(b"x")
            reply = client.reply(GRACE / 10)
        assert time.monotonic() - since > GRACE * 0.9
        heard, closed = last(client)
    wait_until(lambda: world.backend.open == 0, "the proxy has left its backend", BUSY)
    assert world.backend.messages == []
    return reply + heard, closed


def fin_after_dot(world: World) -> Said:
    with world.client("relay") as client:
        client.greeted().envelope().opened().send(b"Subject: x\r\n\r\nx\r\n.\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        said = last(client)
    assert [message.text for message in world.backend.messages] == [b"Subject: x\r\n\r\nx\r\n"]
    return said


# --- replies ----------------------------------------------------------------------------------------------------


def never_read(world: World) -> Said:
    """It is a write that waits too long which ends the session, not the number of its commands. EHLO's reply is the
    longest: fewer fill what the kernel holds.
    """
    with world.client("brief", rcvbuf=4096) as client:
        client.send(b"NOOP\r\n" * 1000 + b"EHLO t.test\r\n" * 80_000)
        [told] = world.stack.wait_for_event("session", listener="brief")
        assert told["end"] == "client timed out", told
        with pytest.raises(ConnectionError):
            flood(client)
    return b"", True


def flood(client: RawClient) -> None:
    """Until the other side's kernel says that nobody is there: the first to arrive is answered by a reset."""
    for _ in range(1000):
        client.send(b"NOOP\r\n" * 1000)


def early(world: World) -> Said:
    with world.client("relay") as client:
        client.send(b"EHLO t.test\r\n")
        assert client.reply().startswith(b"220 ")
        return last(client)


SCRIPTS: Final[dict[str, Callable[[World], Said]]] = {
    "starttls_inject_partial": inject_partial,
    "starttls_no_ehlo_after": no_ehlo_after,
    "starttls_plain_after_220": plain_after_220,
    "starttls_stall": stall,
    "implicit_tls_plain_client": plain_client,
    "tls_renegotiate": renegotiate,
    "auth_clear_on_tls_required": auth_in_clear,
    "reject_then_second_txn": reject_then_second,
    "slow_drip_data": drip,
    "never_read_replies": never_read,
    "fin_after_dot": fin_after_dot,
    "early_talker": early,
}


def test_every_case_has_its_script() -> None:
    assert [case["name"] for case in CASES] == list(SCRIPTS)
    assert len(CASES) == 12


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_a_script(case: Case, world: World) -> None:
    answer = spelled(*SCRIPTS[case["name"]](world))
    assert answer == ANSWERS[case["name"]].rich
    assert classes(answer) & set(case["expect_reply_class"].split("|"))
    assert preferred(case, answer)
