"""Exim, OpenSMTPD and Postfix as backends: TLS that is verified where they have it, and all three together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority
from peers.fixtures import StartExim, StartPostfix
from peers.opensmtpd import OpenSMTPD
from peers.process import HOST, wait_until
from rawclient import RawClient
from stack import RELAY, Stack

TEXT = b"Subject: hello\r\n\r\n..a dot that was stuffed\r\nand the end\r\n"
CONTENT = b"\n\n.a dot that was stuffed\nand the end\n"

Backend = tuple[int, Callable[[], list[bytes]]]
"""The port, and what was delivered."""


@pytest.fixture
def authority(open_folder: Path) -> Authority:
    return Authority(open_folder / "pki")


@pytest.fixture
def serve(exim: StartExim, postfix: StartPostfix, authority: Authority) -> Callable[[str], Backend]:
    """`serve(name)`: Exim or Postfix with a certificate for <name>.test, and STARTTLS."""

    def start(name: str) -> Backend:
        cert, key = authority.issue(f"{name}.test")
        if name == "exim":
            server = exim((cert, key))
            return server.port, server.messages
        tls = {"smtpd_tls_cert_file": cert, "smtpd_tls_key_file": key, "smtpd_tls_security_level": "may"}
        (mta,) = postfix(1, tls)
        return mta.port, lambda: [one.content for one in mta.messages()]

    return start


def send(stack: Stack) -> bytes:
    with RawClient(stack.proxy) as client:
        return client.greeted().deliver(TEXT)


@pytest.mark.parametrize("name", ["exim", "postfix"])
def test_a_message_arrives_inside_tls_that_is_verified(
    name: str, serve: Callable[[str], Backend], authority: Authority, start_stack: Callable[..., Stack]
) -> None:
    port, messages = serve(name)
    tls = {"mode": "required", "verify": "on", "ca": str(authority.ca), "server_name": f"{name}.test"}
    health = {"probe": "ehlo", "every": "300ms", "rise": 1, "fall": 1}
    pool = {"tls": tls, "health": health}
    stack = start_stack([(HOST, port)], pool=pool, auth_url=None, listeners=[RELAY])
    assert send(stack).startswith(b"250 ")
    wait_until(lambda: len(messages()) == 1, "it is delivered")
    (text,) = messages()
    assert text.endswith(CONTENT)
    assert stack.log_events("backend_failed") == []
    wrong = {"tls": {**tls, "server_name": "other.test"}, "health": health}
    stack = start_stack([(HOST, port)], pool=wrong, auth_url=None, listeners=[RELAY])
    (down,) = stack.wait_for_event("backend_down")
    assert "certificate not believed: Hostname mismatch" in down["reason"]
    with RawClient(stack.proxy) as client:
        client.greeted().ask(b"MAIL FROM:<a@example.com>")
        assert client.ask(b"RCPT TO:<b@example.com>").startswith(b"451 4.4.1 ")
    assert len(messages()) == 1


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_postfix_believes_the_header_of_a_session_and_of_a_probe(
    version: str, postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    (mta,) = postfix(1, {"smtpd_upstream_proxy_protocol": "haproxy"})
    health = {"probe": "ehlo", "every": "100ms", "rise": 1, "fall": 1}
    pool = {"proxy_protocol": version, "xclient": "off", "health": health}
    stack = start_stack([(HOST, mta.port)], pool=pool, auth_url=None, listeners=[RELAY])
    for source in ("127.0.0.8", "127.0.0.9"):  # never over the first one's connection
        with RawClient(stack.proxy, source) as client:
            assert client.greeted().deliver(TEXT).startswith(b"250 ")
    received = sorted(one.trace["received"] for one in mta.wait_for(2))
    assert [f"[127.0.0.{n}]" in one for n, one in zip((8, 9), received, strict=True)] == [True, True]
    assert stack.log_events("backend_down") == []


def test_a_pool_of_three_kinds_offers_what_all_take(
    serve: Callable[[str], Backend], opensmtpd: OpenSMTPD, start_stack: Callable[..., Stack]
) -> None:
    servers = [serve("exim"), serve("postfix"), (opensmtpd.port, opensmtpd.messages)]
    health = {"probe": "ehlo", "every": "300ms"}
    stack = start_stack(
        [(HOST, port) for port, _ in servers],
        pool={"health": health},
        auth_url=None,
        listeners=[{**RELAY, "capabilities": "auto"}],
    )

    def offered() -> list[bytes]:
        with RawClient(stack.proxy) as client:
            client.reply()
            return [line[4:] for line in client.ask(b"EHLO client.example").splitlines()[1:]]

    wait_until(lambda: offered() == [b"PIPELINING", b"SIZE 10240000", b"8BITMIME", b"DSN"], "all three were asked")
    for _ in range(6):
        assert send(stack).startswith(b"250 ")
    for _, messages in servers:
        wait_until(lambda messages=messages: len(messages()) == 2, "each has two")  # type: ignore[misc]
        assert all(text.endswith(CONTENT) for text in messages())
