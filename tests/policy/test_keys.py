"""Subjects: what they look like, and that no client can forge another's."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.policy.addresses import Prefixes
from smtpgate.policy.fields import canonical_address
from smtpgate.policy.keys import MAX_PART, compile_key, encode
from smtpgate.policy.model import Event, Facts
from smtpgate.units import InvalidValue

FACTS = Facts(
    "192.0.2.7",
    listener="mx",
    login="Ann: {x}",
    user="Ann@Example.com",
    plan="Gold",
    session="s1",
    transaction="t1",
    sender="",
    sender_domain="",
    rcpt="b@BÜCHER.example",
    rcpt_domain="BÜCHER.example",
)


@pytest.mark.parametrize(
    ("template", "subject"),
    [
        ("{net}", "192.0.2.7"),
        ("{client}", "192.0.2.7"),
        ("{net}|{login}", "192.0.2.7|ann%3A%20%7Bx%7D"),
        ("{user}", "ann@example.com"),
        ("{listener}|{user}", "mx|ann@example.com"),
        ("{sender_domain}", "<>"),
        ("{user}|{rcpt_domain}", "ann@example.com|xn--bcher-kva.example"),
        ("all", "all"),
        ("day/{user}", "day/ann@example.com"),
        ("{ip}", "192.0.2.7"),
        ("{ip/24}", "192.0.2.0/24"),
        ("{ip/48}", "192.0.2.7"),
        ("{ip/16/48}", "192.0.0.0/16"),
        ("{user_domain}|{plan}", "example.com|gold"),
        ("{session}|{transaction}", "s1|t1"),
    ],
)
def test_subjects(template: str, subject: str) -> None:
    assert compile_key(template, Event.RCPT, Prefixes()).subject(FACTS) == subject


@pytest.mark.parametrize(
    "template", ["{user}", "{net}|{user}", "{login}", "{rcpt_domain}", "{listener}", "{plan}", "{session}"]
)
def test_no_subject_without_its_facts(template: str) -> None:
    anonymous = Facts("192.0.2.7", sender="a@b", sender_domain="b")
    assert compile_key(template, Event.RCPT, Prefixes()).subject(anonymous) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@example.com", "ann@example.com"),
        ("a b", "a%20b"),
        ("a|b:c{d}e%f~g", "a%7Cb%3Ac%7Bd%7De%25f%7Eg"),
        ("a\r\nb\0", "a%0D%0Ab%00"),
        ("*?[x]", "%2A%3F%5Bx%5D"),
        ("ü", "%C3%BC"),
        ("\udcff", "%ED%B3%BF"),
        ("<>", "%3C%3E"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "x" * 95 + "~" + "b9ee96f69e8210c624fee55d71d5a54f"),
    ],
)
def test_encode(text: str, expected: str) -> None:
    assert encode(text) == expected


ANY_TEXT = st.text(st.characters(), max_size=200)


@given(ANY_TEXT)
def test_encoded_parts_are_safe_and_bounded(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9@._+=/%~-]*", encode(text))
    assert len(encode(text)) <= MAX_PART


@given(ANY_TEXT, ANY_TEXT)
def test_two_values_never_share_a_part(one: str, other: str) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_two_pairs_never_share_a_subject(a: str, b: str, c: str, d: str) -> None:
    key = compile_key("{user}|{login}", Event.MAIL, Prefixes())
    one = key.subject(Facts("192.0.2.1", user=a or "-", login=b or "-"))
    other = key.subject(Facts("192.0.2.1", user=c or "-", login=d or "-"))
    same = [canonical_address(x or "-") == canonical_address(y or "-") for x, y in ((a, c), (b, d))]
    assert (one == other) == all(same)


@pytest.mark.parametrize("name", ["ann@bücher.example", "Ann@Bücher.Example", "ANN@XN--BCHER-KVA.EXAMPLE"])
def test_a_name_is_counted_as_it_is_compared(name: str) -> None:
    """Whoever varies how the name is written gets no second bucket."""
    key = compile_key("{net}|{login}", Event.AUTH_FAIL, Prefixes())
    assert key.subject(Facts("192.0.2.1", login=name)) == "192.0.2.1|ann@xn--bcher-kva.example"


EXAMPLE = 'expected placeholders and plain text, e.g. "{net}", "{net}|{login}"'


@pytest.mark.parametrize(
    ("template", "event", "message"),
    [
        ("", Event.MAIL, f'"" is not a key; {EXAMPLE}'),
        ("{user", Event.MAIL, f'"{{user" is not a key; {EXAMPLE}'),
        ("{net} {user}", Event.MAIL, f'"{{net}} {{user}}" is not a key; {EXAMPLE}'),
        (
            "{host}",
            Event.CONNECT,
            "{host} is not a placeholder of a key at connect; "
            "expected one of {net} {client} {ip} {ip/NN} {listener} {session}",
        ),
        (
            "{user}",
            Event.CONNECT,
            "{user} is not known at connect; expected one of {net} {client} {ip} {ip/NN} {listener} {session}",
        ),
        (
            "{listener}",
            Event.AUTH_FAIL,
            "{listener} is not known at auth_fail; expected one of {net} {client} {ip} {ip/NN} {login}",
        ),
        (
            "{net}|{password_mac}",
            Event.AUTH_FAIL,
            "{password_mac} is not a placeholder of a key at auth_fail; "
            "expected one of {net} {client} {ip} {ip/NN} {login}",
        ),
        (
            "{rcpt_domain}",
            Event.MAIL,
            "{rcpt_domain} is not known at mail; expected one of {net} {client} {ip} {ip/NN} {login} {user} "
            "{user_domain} {plan} {listener} {sender_domain} {session} {transaction}",
        ),
        (
            "{ip/33/64}",
            Event.MAIL,
            "{ip/33/64} is too wide or too narrow; expected IPv4 from /8 to /32, IPv6 from /16 to /128",
        ),
        ("{ip/}", Event.MAIL, "{ip/} is not a prefix of an address; expected e.g. {ip/24}, {ip/24/48}"),
        (
            "{login}",
            Event.AUTH_FAIL,
            '"{login}" names no address: at auth_fail one client could use up what others need; '
            'expected e.g. "{net}", "{net}|{login}"',
        ),
        (
            "all",
            Event.CONNECT,
            '"all" names no address: at connect one client could use up what others need; '
            'expected e.g. "{net}", "{net}|{login}"',
        ),
        (
            "{user}-{sender_domain}",
            Event.MAIL,
            '"{user}-{sender_domain}" has no | before {sender_domain}; expected e.g. "{net}|{login}"',
        ),
    ],
)
def test_faults(template: str, event: Event, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        compile_key(template, event, Prefixes())
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("client", "subject"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2::3", "2001:db8:1::/48"), ("unix:", "unix:")],
)
def test_an_ipv4_address_under_a_prefix_of_ipv6_is_whole(client: str, subject: str) -> None:
    assert compile_key("{ip/48}", Event.CONNECT, Prefixes()).subject(Facts(client)) == subject


def test_what_is_no_address_is_encoded() -> None:
    assert compile_key("{net}", Event.CONNECT, Prefixes()).subject(Facts("no: {}")) == "no%3A%20%7B%7D"


def test_a_password_tells_tries_apart_and_nothing_else() -> None:
    distinct = compile_key("{password_mac}", Event.AUTH_FAIL, Prefixes(), distinct=True)
    assert distinct.subject(Facts("192.0.2.1", password_mac="a1 b2")) == "a1%20b2"
    assert distinct.subject(Facts("192.0.2.1")) is None


@pytest.mark.parametrize(
    ("template", "events", "unbounded", "outlives"),
    [
        ("{net}", set(Event), True, True),
        ("{ip/24/48}", set(Event), True, True),
        ("{user}", set(Event) - {Event.CONNECT, Event.AUTH_FAIL}, False, True),
        ("{user}|{listener}", set(Event) - {Event.CONNECT, Event.AUTH_FAIL}, False, True),
        ("{net}|{login}", set(Event) - {Event.CONNECT}, True, True),
        ("{rcpt_domain}", {Event.RCPT}, True, True),
        ("{session}", set(Event) - {Event.AUTH_FAIL}, True, False),
        ("all", set(Event), False, True),
    ],
)
def test_what_a_key_tells_of_itself(template: str, events: set[Event], unbounded: bool, outlives: bool) -> None:
    key = compile_key(template, Event.RCPT, Prefixes())
    assert (key.text, key.events, key.unbounded, key.outlives) == (template, events, unbounded, outlives)
