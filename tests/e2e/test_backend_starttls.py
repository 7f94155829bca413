"""STARTTLS to a real Postfix: verified, refused where it cannot be, and the same connection for two clients."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from peers.fixtures import StartPostfix
from peers.postfix import Postfix
from peers.process import HOST
from rawclient import RawClient
from stack import RELAY, Stack

NOBODY = b"451 4.4.1 no mail server available, try again later\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def mta(postfix: StartPostfix, authority: Authority) -> Postfix:
    """Offers STARTTLS, with a certificate for mail.example."""
    cert, key = authority.issue("mail.example")
    main = {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_chain_files": f"{key}, {cert}",
        "smtpd_tls_received_header": "yes",
        "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
    }
    [one] = postfix(main=main)
    return one


def starting(start_stack: Callable[..., Stack], mta: Postfix, tls: Any) -> Stack:
    pool = {"tls": tls, "health": {"probe": "off"}, "failover": {"attempts": 0, "deadline": "5s"}}
    return start_stack([(HOST, mta.port)], listeners=[RELAY], auth_url=None, pool=pool)


def deliver(stack: Stack, source: str) -> None:
    with RawClient(stack.proxy, source=source) as client:
        assert client.greeted().deliver().startswith(b"250 2.0.0 Ok: queued as ")
        assert client.ask(b"QUIT").startswith(b"221 ")


@pytest.mark.parametrize("mode", ["starttls", "required"])
def test_two_clients_over_one_verified_connection(
    mode: str, start_stack: Callable[..., Stack], mta: Postfix, authority: Authority
) -> None:
    stack = starting(start_stack, mta, {"mode": mode, "ca": str(authority.ca), "server_name": "mail.example"})
    before = mta.log().count(": connect from")
    for source in ("127.0.3.1", "127.0.3.2"):
        deliver(stack, source)
    received = {one.trace["received"] for one in mta.wait_for(2)}
    assert {re.search(r"\[([0-9.]+)\]", one)[1] for one in received} == {"127.0.3.1", "127.0.3.2"}  # type: ignore[index]
    assert all("(using TLSv1.3 with cipher TLS_" in one for one in received)
    assert mta.log().count(": connect from") == before + 1


@pytest.mark.parametrize(
    ("name", "stranger", "why"),
    [
        ("other.example", False, "Hostname mismatch"),
        ("mail.example", True, "unable to get local issuer certificate"),
    ],
    ids=["another name", "another authority"],
)
@pytest.mark.parametrize("mode", ["starttls", "required"])
def test_a_certificate_that_does_not_fit_is_no_reason_for_clear_text(
    mode: str,
    name: str,
    stranger: bool,
    why: str,
    start_stack: Callable[..., Stack],
    mta: Postfix,
    authority: Authority,
    tmp_path: Path,
) -> None:
    ca = str((Authority(tmp_path / "stranger", "another authority") if stranger else authority).ca)
    stack = starting(start_stack, mta, {"mode": mode, "server_name": name, "ca": ca})
    with RawClient(stack.proxy) as client:
        client.greeted()
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
        assert client.ask(b"RCPT TO:<b@example.com>") == NOBODY
    assert why in stack.log_events("backend_failed")[0]["reason"]
    assert mta.count() == 0


@pytest.mark.parametrize(("mode", "taken"), [("starttls", True), ("required", False)])
def test_a_backend_that_offers_no_tls(
    mode: str, taken: bool, postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    [mta] = postfix()
    stack = starting(start_stack, mta, mode)
    with RawClient(stack.proxy) as client:
        client.greeted()
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
        answer = client.ask(b"RCPT TO:<b@example.com>")
        assert answer.startswith(b"250 ") if taken else answer == NOBODY
