"""The table of fields: where each is known, and how absence is told from ignorance."""

import pytest

from smtpgate.policy.fields import (
    CANONICAL,
    FIELDS,
    METHODS,
    Kind,
    canonical_address,
    canonical_domain,
    domain_of,
    known_at,
)
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.schema import MatchKeys


def test_what_each_event_knows() -> None:
    connection = ("client", "ip", "net", "listener", "tls", "time")
    user = ("auth", "user", "user_domain", "plan")
    mail = (*connection, "login", "method", *user, "helo", "sender", "sender_domain", "size")
    proof = ("login", "method", "known_user", "known_net")
    assert known_at(Event.CONNECT) == connection
    assert known_at(Event.AUTH_FAIL) == ("client", "ip", "net", "tls", "time", "protocol", *proof)
    assert known_at(Event.AUTH) == (*connection, "protocol", *proof, *user)
    assert known_at(Event.MAIL) == known_at(Event.DATA) == known_at(Event.EOD) == mail
    assert known_at(Event.RCPT) == (*mail, "rcpt", "rcpt_domain")


def test_every_field_can_be_written_in_a_match() -> None:
    assert set(MatchKeys.model_fields) == set(FIELDS)
    for name, field in FIELDS.items():
        assert (MatchKeys.model_fields[name].annotation is bool) == (field.kind is Kind.SWITCH)


BEFORE = Facts("192.0.2.1")
LOGGED_IN = Facts("192.0.2.1", login="Ann", method="plain", user="ann@example.com")
ANONYMOUS = Facts("192.0.2.1", method="none", helo="h", sender="", sender_domain="")
LAST = Facts("192.0.2.1", user="ann", plan="gold", sender="a@b", sender_domain="b", rcpt="Postmaster", rcpt_domain="")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("client", ("192.0.2.1",) * 4),
        ("listener", (None, None, None, None)),
        ("tls", (None, None, None, None)),
        ("time", (None, None, None, None)),
        ("protocol", ("smtp",) * 4),
        ("known_user", (None, None, None, None)),
        ("size", (None, None, "", "")),
        ("login", (None, "Ann", "", "")),
        ("method", (None, "plain", "none", "")),
        ("auth", (None, True, False, True)),
        ("user", (None, "ann@example.com", "", "ann")),
        ("user_domain", (None, "example.com", "", "<>")),
        ("plan", (None, "", "", "gold")),
        ("helo", (None, None, "h", "")),
        ("sender", (None, None, "<>", "a@b")),
        ("sender_domain", (None, None, "<>", "b")),
        ("rcpt", (None, None, None, "Postmaster")),
        ("rcpt_domain", (None, None, None, "<>")),
    ],
)
def test_readings_along_a_session(name: str, values: tuple[object, ...]) -> None:
    assert tuple(FIELDS[name].read(facts) for facts in (BEFORE, LOGGED_IN, ANONYMOUS, LAST)) == values


def test_the_real_size_counts_more_than_the_announced_one() -> None:
    read = FIELDS["size"].read
    assert read(Facts("192.0.2.1", sender="", size=5)) == 5
    assert read(Facts("192.0.2.1", sender="", size=5, octets=7)) == 7
    assert read(Facts("192.0.2.1", sender="", octets=0)) == 0


def test_each_method_is_written_as_it_is_compared() -> None:
    assert METHODS == ("plain", "apop", "cram-md5", "external", "xoauth2", "oauthbearer", "none")
    typed = ("PLAIN", "APOP", "CRAM-MD5", "External", "XOAuth2", "OAUTHBEARER", "None")
    assert tuple(map(CANONICAL[Kind.METHOD], typed)) == METHODS


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("Example.COM", "example.com"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("ü" * 300 + ".example", "ü" * 300 + ".example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("\udcff.example", "\udcff.example"),
    ],
)
def test_canonical_domain(domain: str, expected: str) -> None:
    assert canonical_domain(domain) == expected


def test_canonical_address() -> None:
    assert canonical_address("Ann@Example.COM") == "ann@example.com"
    assert canonical_address("Änn@BÜCHER.example") == "änn@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("address", "expected"),
    [("ann@example.com", "example.com"), ('"a@b"@example.com', "example.com"), ("ann", "<>"), ("", "<>")],
)
def test_domain_of(address: str, expected: str) -> None:
    assert domain_of(address) == expected


def test_what_is_too_long_for_a_domain_is_not_encoded() -> None:
    """IDNA takes 12 ms for 4 KiB, and a login may be as long as a line."""
    long = "Ü." * 150
    assert canonical_domain(long) == long.lower()
    assert canonical_address(f"Ann@{long}") == f"ann@{long.lower()}"
    assert canonical_domain("Ü." * 120).startswith("xn--tda.xn--tda.")
