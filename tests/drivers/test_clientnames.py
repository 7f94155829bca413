"""drivers.clientnames against a name server on loopback: nginx's table of outcomes, the cache, shared look-ups."""

from __future__ import annotations

import dns.rcode
import gevent
import pytest
from fakes import ManualClock
from nameserver import Table, name_server

from smtpgate.clock import SystemClock
from smtpgate.drivers import clientnames
from smtpgate.drivers.clientnames import TEMPUNAVAIL, UNAVAILABLE, ClientNames
from smtpgate.units import HostPort

PTR = ("1.2.0.192.in-addr.arpa", "PTR")
A = ("mx.example.com", "A")
GOOD: Table = {PTR: ["mx.example.com."], A: ["198.51.100.9", "192.0.2.1"]}
V6_PTR = ("1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa", "PTR")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (GOOD, "mx.example.com"),
        ({}, UNAVAILABLE),
        ({PTR: dns.rcode.SERVFAIL}, TEMPUNAVAIL),
        ({PTR: dns.rcode.REFUSED}, TEMPUNAVAIL),
        ({PTR: []}, TEMPUNAVAIL),
        ({PTR: None}, TEMPUNAVAIL),
        ({PTR: ["mx_1.example.com."]}, TEMPUNAVAIL),
        ({PTR: ["a\\013\\010MAIL.example.com."]}, TEMPUNAVAIL),
        ({PTR: ["."]}, TEMPUNAVAIL),
        ({PTR: ["mx.example.com."]}, UNAVAILABLE),
        ({PTR: ["mx.example.com."], A: dns.rcode.SERVFAIL}, TEMPUNAVAIL),
        ({PTR: ["mx.example.com."], A: None}, TEMPUNAVAIL),
        ({PTR: ["mx.example.com."], A: ["192.0.2.2"]}, UNAVAILABLE),
    ],
)
def test_what_is_said_of_a_client(table: Table, said: str) -> None:
    patience = 0.5 if None in table.values() else 10.0  # who gets no answer waits for so long
    with name_server(table) as server:
        assert ClientNames([HostPort("127.0.0.1", server.port)], patience, SystemClock()).name_of("192.0.2.1") == said


def test_an_ipv6_client() -> None:
    table: Table = {V6_PTR: ["six.example.com."], ("six.example.com", "AAAA"): ["2001:db8::1"]}
    with name_server(table) as server:
        names = ClientNames([HostPort("127.0.0.1", server.port)], 10.0, SystemClock())
        assert names.name_of("2001:db8::1") == "six.example.com"


def test_a_unix_client_is_nobodys_to_look_up() -> None:
    assert ClientNames([HostPort("127.0.0.1", 1)], 0.5, SystemClock()).name_of("unix:") == TEMPUNAVAIL


def test_the_next_server_is_asked_where_one_is_down() -> None:
    with name_server(GOOD) as server:
        names = ClientNames([HostPort(host, server.port) for host in ("127.0.0.99", "127.0.0.1")], 1.0, SystemClock())
        assert names.name_of("192.0.2.1") == "mx.example.com"


@pytest.mark.parametrize(("ttl", "good_for"), [(60, 60), (1, clientnames.MIN_TTL), (999_999, clientnames.MAX_TTL)])
def test_a_name_is_remembered_for_its_ttl(ttl: int, good_for: float) -> None:
    class Clock(ManualClock):
        def now(self) -> float:
            return SystemClock().now()

    clock = Clock()
    with name_server(GOOD, ttl) as server:
        names = ClientNames([HostPort("127.0.0.1", server.port)], 1.0, clock)
        names.name_of("192.0.2.1")
        clock.time += good_for - 2
        names.name_of("192.0.2.1")
        assert server.asked[PTR] == 1
        clock.time += 4
        names.name_of("192.0.2.1")
        assert server.asked[PTR] == 2


def test_sessions_that_wait_share_a_look_up_and_survive_each_other() -> None:
    with name_server(GOOD) as server:
        server.delay = 0.05
        names = ClientNames([HostPort("127.0.0.1", server.port)], 1.0, SystemClock())
        waiting = [gevent.spawn(names.name_of, "192.0.2.1") for _ in range(20)]
        gevent.sleep(0.02)
        waiting[0].kill()
        gevent.joinall(waiting, timeout=5)
        assert [one.value for one in waiting[1:]] == ["mx.example.com"] * 19
        assert server.asked == {PTR: 1, A: 1}


def test_no_more_names_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clientnames, "MAX_NAMES", 2)
    with name_server({}) as server:
        names = ClientNames([HostPort("127.0.0.1", server.port)], 1.0, SystemClock())
        for last in (1, 2, 3, 3, 1):
            names.name_of(f"192.0.2.{last}")
        assert server.asked[PTR] == 2
        assert sum(server.asked.values()) == 4
