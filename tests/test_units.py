"""Every form of a value: what it gives, what refuses it, and in which words."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from smtpgate import units
from smtpgate.units import (
    CidrField,
    DurationField,
    EndpointField,
    HostnameField,
    HostPort,
    HostPortField,
    InvalidValue,
    NameField,
    OneOrMany,
    Rate,
    RateField,
    SizeField,
    StrictModel,
    UnixPath,
)


def refusal(parse, text) -> str:
    with pytest.raises(InvalidValue) as caught:
        parse(text)
    return str(caught.value)


# --- durations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("0s", 0.0),
        ("10s", 10.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("3650d", 315_360_000.0),
        ("0.001s", 0.001),
    ],
)
def test_duration(text, seconds):
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", 10, 0, True, None, "10 s", " 10s", "10s\n", "-1s", "+1s", "1_0s", "1e3s", ".5s", "5.s"),
        *("10parsecs", "10S", "1h30m", "٣s", "５s", "²s", "9" * 17 + "s", ["10s"], "22:00"),
    ],
)
def test_duration_refused(text):
    assert refusal(units.parse_duration, text).endswith(" is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d")


def test_duration_bound():
    assert refusal(units.parse_duration, "3651d") == '"3651d" is too long; expected at most 3650d'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.25, "250ms"), (1.0, "1s"), (90.0, "90s"), (60.0, "1m"), (7200.0, "2h"), (86400.0, "1d")],
)
def test_format_duration(seconds, text):
    assert units.format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**10))
def test_durations_survive_being_written(milliseconds):
    assert units.parse_duration(units.format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


# --- sizes and rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        (4096, 4096),
        (0, 0),
        ("4096", 4096),
        ("512B", 512),
        ("64KiB", 65536),
        ("10MiB", 10_485_760),
        ("10MB", 10_000_000),
        ("1kB", 1000),
        ("1KB", 1000),
        ("2GiB", 2_147_483_648),
        ("1TiB", 1_099_511_627_776),
    ],
)
def test_size(text, octets):
    assert units.parse_size(text) == octets


@pytest.mark.parametrize("text", ["", "10m", "10k", "10 MiB", "1.5MiB", "-1", -1, 1.5, True, None, "١KiB", "KiB"])
def test_size_refused(text):
    assert refusal(units.parse_size, text).endswith(" is not a size; expected e.g. 4096, 64KiB, 10MiB, 10MB")


def test_size_bound():
    assert units.parse_size("8192TiB") == 2**53
    assert refusal(units.parse_size, "8193TiB") == ('"8193TiB" is too big; expected at most 9007199254740992 octets')


@given(st.integers(min_value=0, max_value=2**53))
def test_sizes_survive_being_written(octets):
    assert units.parse_size(units.format_size(octets)) == octets


@pytest.mark.parametrize(
    ("text", "rate", "written"),
    [
        ("60/1m", Rate(60, 60.0), "60/1m"),
        ("2000/1d", Rate(2000, 86400.0), "2000/1d"),
        ("5/10m", Rate(5, 600.0), "5/10m"),
        ("1/500ms", Rate(1, 0.5), "1/500ms"),
        ("2GiB/1d", Rate(2**31, 86400.0, in_bytes=True), "2GiB/1d"),
        ("4096B/1s", Rate(4096, 1.0, in_bytes=True), "4KiB/1s"),
        ("60/60s", Rate(60, 60.0), "60/1m"),
    ],
)
def test_rate(text, rate, written):
    assert units.parse_rate(text) == rate
    assert str(rate) == written


def test_rate_per_second():
    assert Rate(30, 60.0).per_second == 0.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("60", '"60" is not a rate'),
        (60, "60 is not a rate"),
        ("60/m", '"60/m" is not a rate: its period is not a duration'),
        ("5/5", '"5/5" is not a rate: its period is not a duration'),
        ("x/1m", '"x/1m" is not a rate: its amount is not a size'),
        ("-1/1m", '"-1/1m" is not a rate: its amount is not a size'),
        ("60/1m/2", '"60/1m/2" is not a rate: its period is not a duration'),
        ("0/1m", '"0/1m" is not a rate: amount and period must be above zero'),
        ("60/0s", '"60/0s" is not a rate: amount and period must be above zero'),
        ("60 / 1m", '"60 / 1m" is not a rate: its amount is not a size'),
    ],
)
def test_rate_refused(text, why):
    expected = "; expected an amount and a period, e.g. 60/1m, 2000/1d, 2GiB/1d"
    assert refusal(units.parse_rate, text) == why + expected


# --- networks and addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::/0", "::/0"),
    ],
)
def test_cidr(text, network):
    assert units.parse_cidr(text) == ip_network(network)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/255.0.0.0", "10.0.0/8", "010.0.0.0/8"),
        *("fe80::%eth0/64", "mx.example.com", 5, None, "10.0.0.0/٨", "10.0.0.0 /8", "/8"),
    ],
)
def test_cidr_refused(text):
    assert refusal(units.parse_cidr, text).endswith(
        " is not a network; expected e.g. 192.0.2.0/24, 2001:db8::/32, 192.0.2.1"
    )


def test_cidr_with_host_bits_names_the_network():
    assert refusal(units.parse_cidr, "10.0.0.1/8") == (
        '"10.0.0.1/8" has address bits beyond its prefix; expected 10.0.0.0/8'
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("127.0.0.1:25", HostPort("127.0.0.1", 25)),
        ("[::1]:587", HostPort("::1", 587)),
        ("mx-1.example.com:65535", HostPort("mx-1.example.com", 65535)),
        ("localhost:1", HostPort("localhost", 1)),
    ],
)
def test_hostport(text, value):
    assert units.parse_hostport(text) == value
    assert units.parse_endpoint(text) == value
    assert str(value) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1", "is not an address with a port"),
        (":25", "is not an address with a port"),
        (25, "is not an address with a port"),
        (None, "is not an address with a port"),
        ("::1:25", "has an IPv6 address without brackets"),
        ("[::g]:25", "has no IPv6 address in its brackets"),
        ("[127.0.0.1]:25", "has no IPv6 address in its brackets"),
        ("[fe80::1%eth0]:25", "has no IPv6 address in its brackets"),
        ("*:25", "has no valid host before its port"),
        ("256.0.0.1:25", "has no valid host before its port"),
        ("a..b:25", "has no valid host before its port"),
        ("-a:25", "has no valid host before its port"),
        ("a b:25", "has no valid host before its port"),
        ("a" * 64 + ":25", "has no valid host before its port"),
        ("host:", "has no valid port"),
        ("host:0", "has no valid port"),
        ("host:025", "has no valid port"),
        ("host:65536", "has no valid port"),
        ("host:²5", "has no valid port"),
        ("host:25\n", "has no valid port"),
    ],
)
def test_hostport_refused(text, why):
    message = refusal(units.parse_hostport, text)
    expected = "a port from 1 to 65535" if why == "has no valid port" else units.EXPECTED_HOSTPORT
    assert message == f"{units.show(text)} {why}; expected {expected}"


def test_endpoint_takes_a_unix_socket():
    assert units.parse_endpoint("unix:/run/smtp.sock") == UnixPath("/run/smtp.sock")
    assert str(UnixPath("/run/smtp.sock")) == "unix:/run/smtp.sock"


@pytest.mark.parametrize("text", ["unix:", "unix:smtp.sock", "unix:/a\0b", "unix:/" + "a" * 107])
def test_unix_socket_refused(text):
    assert refusal(units.parse_endpoint, text) == (
        f"{units.show(text)} is not a unix socket; expected unix: and an absolute path of at most 107 octets"
    )


def test_endpoint_refused_tells_of_unix_sockets():
    assert refusal(units.parse_endpoint, "nowhere") == (
        '"nowhere" is not an address with a port; expected e.g. 127.0.0.1:25, [::1]:25, unix:/run/smtpgate.sock'
    )


@pytest.mark.parametrize(
    "text", ["mail.example.com", "localhost", "xn--bcher-kva.example", "a_b.example", "3com.com"]
)
def test_hostname(text):
    assert units.parse_hostname(text) == text


@pytest.mark.parametrize("text", ["", ".", "a.", "192.0.2.1", "a b", "bücher.example", "a" * 254, 5, None, "a\n"])
def test_hostname_refused(text):
    assert refusal(units.parse_hostname, text).endswith(" is not a host name; expected e.g. mail.example.com")


@pytest.mark.parametrize("text", ["a", "user.msgs.min", "mx-1", "9_lives", "a" * 64])
def test_name(text):
    assert units.parse_name(text) == text


@pytest.mark.parametrize("text", ["", ".a", "-a", "a b", "a:b", "{a}", "é", "a" * 65, 5, None, "a\n"])
def test_name_refused(text):
    assert refusal(units.parse_name, text).endswith(
        " is not a name; expected 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
    )


# --- showing, and models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "nothing"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (0.5, "0.5"),
        ("a", '"a"'),
        ("a\r\n\x1b[2J\u202e\u2028", '"a\\r\\n\\x1b[2J\\u202e\\u2028"'),
        ("x" * 61, '"' + "x" * 60 + '…"'),
        ([], "an empty list"),
        ([1], "a list"),
        ({}, "an empty mapping"),
        ({"a": 1}, "a mapping"),
    ],
)
def test_show(value, shown):
    assert units.show(value) == shown


def test_invalid_value_without_a_value_is_a_whole_phrase():
    fault = InvalidValue("burst is below 1", "at least 1", path=("burst",))
    assert str(fault) == "burst is below 1; expected at least 1"
    assert fault.path == ("burst",)
    assert repr(fault.value) == "ABSENT"


class Everything(StrictModel):
    duration: DurationField = 60.0
    size: SizeField
    rate: RateField
    cidr: OneOrMany[CidrField]
    hostport: HostPortField
    endpoint: EndpointField
    hostname: HostnameField
    name: NameField


def test_fields_read_what_the_parsers_read():
    model = Everything.model_validate(
        {
            "size": "64KiB",
            "rate": "60/1m",
            "cidr": "192.0.2.0/24",
            "hostport": "[::1]:25",
            "endpoint": "unix:/run/a",
            "hostname": "mx.example.com",
            "name": "mx",
        }
    )
    assert model.duration == 60.0
    assert model.size == 65536
    assert model.rate == Rate(60, 60.0)
    assert model.cidr == [ip_network("192.0.2.0/24")]
    assert model.hostport == HostPort("::1", 25)
    assert model.endpoint == UnixPath("/run/a")
    with pytest.raises(ValidationError):
        model.name = "other"  # type: ignore[misc]


def test_one_or_many_takes_a_list_too():
    class Model(StrictModel):
        cidr: OneOrMany[CidrField]

    assert Model.model_validate({"cidr": ["::1", "10.0.0.0/8"]}).cidr == [ip_network("::1"), ip_network("10.0.0.0/8")]


def test_peers_are_networks_and_whoever_comes_over_a_unix_socket():
    peers = [units.parse_peers(text) for text in ("10.0.0.0/8", "2001:db8::/32", "unix:")]
    assert peers == [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), "unix:"]
    assert [units.is_among(host, peers) for host in ("10.1.2.3", "2001:db8::1", "unix:")] == [True, True, True]
    assert [units.is_among(host, peers[:1]) for host in ("11.1.2.3", "::ffff:10.1.2.3", "unix:")] == [False] * 3
    assert refusal(units.parse_peers, "unix:/run/mx.sock").endswith("2001:db8::/32, 192.0.2.1, unix:")
