"""Clients as numbers, and the networks that hold them."""

import pytest

from smtpgate.policy.addresses import WHOLE_ADDRESS, Prefixes, client_set, net_of, parse_client, parse_networks
from smtpgate.units import InvalidValue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.7", (4, 0xC0000207)),
        ("::ffff:192.0.2.7", (4, 0xC0000207)),
        ("::1", (6, 1)),
        ("fe80::1%eth0", (6, 0xFE80 << 112 | 1)),
        *((text, None) for text in ("", "mx.example.com", "192.0.2.256", "1", "192.0.2.1/32", "unix:")),
    ],
)
def test_parse_client(text: str, expected: tuple[int, int] | None) -> None:
    assert parse_client(text) == expected


@pytest.mark.parametrize(
    ("client", "prefixes", "expected"),
    [
        ("192.0.2.7", Prefixes(), "192.0.2.7"),
        ("192.0.2.7", Prefixes(v4=24), "192.0.2.0/24"),
        ("::ffff:192.0.2.7", Prefixes(v4=24), "192.0.2.0/24"),
        ("2001:DB8::1:2:3:4", Prefixes(), "2001:db8::/64"),
        ("2001:db8::1", WHOLE_ADDRESS, "2001:db8::1"),
        ("fe80::1%eth0", Prefixes(), "fe80::/64"),
        ("unix:", Prefixes(), "unix:"),
        ("unix:/run/x", Prefixes(), "unix:"),
        ("no address: {}", Prefixes(), None),
    ],
)
def test_net(client: str, prefixes: Prefixes, expected: str | None) -> None:
    assert net_of(client, prefixes) == expected


@pytest.mark.parametrize(
    ("patterns", "client", "expected"),
    [
        (["192.0.2.0/24"], "192.0.2.7", True),
        (["192.0.2.0/24"], "192.0.3.7", False),
        (["192.0.2.0/24", "198.51.100.1"], "198.51.100.1", True),
        (["::ffff:192.0.2.0/120"], "192.0.2.7", True),
        (["::/0"], "192.0.2.7", False),
        (["unix:"], "unix:/run/x", True),
        (["0.0.0.0/0"], "unix:", False),
    ],
)
def test_client_sets(patterns: list[str], client: str, expected: bool) -> None:
    assert client_set(patterns)(client) is expected


def test_a_fault_names_its_pattern() -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_networks(["unix:", "192.0.2.0/24", "192.0.2.1/24"])
    expected = '"192.0.2.1/24" has address bits beyond its prefix; expected 192.0.2.0/24, unix:'
    assert (caught.value.path, str(caught.value)) == ((2,), expected)
