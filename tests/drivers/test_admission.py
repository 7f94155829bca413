"""Connections are counted by address and by network, refused at the bound, and forgotten when they have gone."""

import pytest

from smtpgate.drivers.admission import (
    MAX_BANNED,
    PER_ADDRESS,
    PER_NETWORK,
    AddressLimits,
    Crowd,
    Refusal,
    Stress,
)


def entered(crowd, *hosts, now=0.0):
    return [crowd.enter(host, now) for host in hosts]


def test_an_address_has_so_many():
    crowd = Crowd(AddressLimits(per_address=2))
    assert entered(crowd, *["192.0.2.1"] * 3, "192.0.2.2") == [None, None, Refusal.ADDRESS, None]
    crowd.leave("192.0.2.1")
    assert entered(crowd, "192.0.2.1", "192.0.2.1") == [None, Refusal.ADDRESS]


def test_a_ban_is_known_for_a_while():
    crowd = Crowd(AddressLimits())
    crowd.ban("192.0.2.1", 2.0, b"454 4.7.0 go away\r\n", 100.0)
    assert entered(crowd, "192.0.2.1", "192.0.2.2", now=101.9) == [Refusal.BANNED, None]
    assert (crowd.words("192.0.2.1"), crowd.words("192.0.2.2")) == (b"454 4.7.0 go away\r\n", b"")
    assert len(crowd) == 1  # it was not counted
    assert entered(crowd, "192.0.2.1", now=102.0) == [None]
    assert crowd.words("192.0.2.1") == b""


def test_bans_that_are_known_are_bounded_and_the_oldest_go_first():
    crowd = Crowd(AddressLimits())
    hosts = [f"2001:db8::{number:x}" for number in range(MAX_BANNED)]
    for host in hosts:
        crowd.ban(host, 5.0, b"x", 0.0)
    crowd.ban(hosts[0], 5.0, b"y", 1.0)  # now it is the youngest
    crowd.ban("192.0.2.1", 5.0, b"x", 1.0)
    expected = [Refusal.BANNED, None, Refusal.BANNED]
    assert entered(crowd, hosts[0], hosts[1], "192.0.2.1", now=1.0) == expected
    assert crowd.words(hosts[0]) == b"y"


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (["192.0.2.1", "192.0.2.2", "192.0.2.255"], "192.0.3.1"),
        (["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::"], "2001:db8:0:2::1"),
    ],
)
def test_a_network_has_so_many(inside, outside):
    crowd = Crowd(AddressLimits(per_network=2))
    assert entered(crowd, *inside, outside) == [None, None, Refusal.NETWORK, None]
    crowd.leave(inside[0])
    assert entered(crowd, inside[2]) == [None]


def test_who_is_refused_is_not_counted():
    crowd = Crowd(AddressLimits(per_address=1, per_network=2))
    assert entered(crowd, "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2") == [
        None,
        Refusal.ADDRESS,
        Refusal.ADDRESS,
        None,
    ]


@pytest.mark.parametrize(
    ("limits", "host", "most"),
    [
        (AddressLimits(), "192.0.2.1", PER_ADDRESS),
        (AddressLimits(), "2001:db8::1", PER_ADDRESS),
        (AddressLimits(), "127.0.0.1", None),
        (AddressLimits(), "::1", None),
        (AddressLimits(), "unix:", None),
        (AddressLimits(3, 9), "127.0.0.1", 3),
        (AddressLimits(3, 9), "::1", 3),
        (AddressLimits(3, 9), "unix:", None),
        (AddressLimits(None, 9), "127.0.0.1", 9),
        (AddressLimits(0, None), "192.0.2.1", PER_NETWORK),
        (AddressLimits(0, 0), "192.0.2.1", None),
    ],
)
def test_who_is_limited(limits, host, most):
    crowd = Crowd(limits)
    tries = 2 * PER_NETWORK
    admitted = entered(crowd, *[host] * tries).count(None)
    assert admitted == (tries if most is None else most)


def test_what_has_gone_leaves_nothing():
    crowd = Crowd(AddressLimits())
    hosts = [f"192.0.{one}.{two}" for one in range(4) for two in range(100)]
    assert entered(crowd, *hosts, *hosts) == [None] * 800
    assert len(crowd) == 400
    for host in hosts * 2:
        crowd.leave(host)
    assert len(crowd) == 0
    assert crowd._networks == {}


def test_stress_begins_above_nine_tenths_and_ends_at_eight():
    stress = Stress(100)
    assert [(count, stress.taken(count), stress.on) for count in (90, 91, 100, 90, 81, 80, 90, 91)] == [
        (90, False, False),
        (91, True, True),
        (100, False, True),
        (90, False, True),
        (81, False, True),
        (80, True, False),
        (90, False, False),
        (91, True, True),
    ]
