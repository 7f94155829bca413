"""Who may speak to the console: the address, and the name that the request is for."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

import pytest

from authsvc.console.gate import misplaced
from authsvc.console.settings import LOOPBACK, Console
from smtpgate.units import HostPort

ADDRESS = "the address is not among clients"
HOST = "the Host header is not among hosts"


@pytest.fixture
def open_to_some(stored: Mapping[str, str]) -> Console:
    clients = (*LOOPBACK, ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    return Console(HostPort("::", 18081), stored, hosts=("console.example.com",), clients=clients)


@pytest.mark.parametrize(
    ("peer", "fault"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("192.0.2.7", None),
        ("2001:db8::7", None),
        ("::ffff:127.0.0.1", None),  # as a socket for both families tells an IPv4 client
        ("::ffff:192.0.2.7", None),
        ("::ffff:7f00:1", None),
        ("192.0.3.7", ADDRESS),
        ("::ffff:192.0.3.7", ADDRESS),
        ("::127.0.0.1", ADDRESS),  # the deprecated form says nothing of where it comes from
        ("2001:db9::7", ADDRESS),
        (None, ADDRESS),
        ("", "the peer has no address"),
        ("localhost", "the peer has no address"),
    ],
)
def test_where_a_request_may_come_from(open_to_some: Console, peer: str | None, fault: str | None) -> None:
    assert misplaced(open_to_some, peer, "127.0.0.1:18081") == fault


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("localhost:18081", None),
        ("[::1]:18081", None),
        ("[::ffff:127.0.0.1]:18081", None),
        ("console.example.com", None),
        ("CONSOLE.example.com:18081", None),
        ("evil.example.com", HOST),
        ("127.0.0.1.evil.example.com", HOST),
        ("[::ffff:192.0.2.1]:18081", HOST),
        ("192.0.2.1", HOST),
        ("[::1", HOST),
        ("", HOST),
    ],
)
def test_for_which_name_it_may_be(open_to_some: Console, host: str, fault: str | None) -> None:
    assert misplaced(open_to_some, "127.0.0.1", host) == fault
