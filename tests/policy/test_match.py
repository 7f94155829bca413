"""Patterns against facts, by table; faults with their paths."""

from typing import Any

import pytest

from smtpgate.policy.addresses import Prefixes
from smtpgate.policy.fields import FIELDS, known_at
from smtpgate.policy.match import Matcher, compile_match
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.sets import NamedSet, named_set
from smtpgate.policy.times import time_set

EVERY_FIELD = tuple(FIELDS)


def match(spec: dict[str, Any], sets: dict[str, Any] | None = None) -> Matcher:
    matcher, faults = compile_match(spec, EVERY_FIELD, sets or {}, "a route")
    assert faults == []
    return matcher


def facts(**known: Any) -> Facts:
    return Facts(**{"client": "192.0.2.7", **known})


MAIL = {"sender": "ann@example.com", "sender_domain": "example.com"}


@pytest.mark.parametrize(
    ("spec", "known", "expected"),
    [
        ({}, {}, True),
        # names, whatever their case
        ({"user": ["ann@example.com"]}, {"user": "Ann@Example.COM"}, True),
        ({"user": ["ann@example.com"]}, {"user": "bob@example.com"}, False),
        ({"user": ["bob", "ann"]}, {"user": "ann"}, True),
        ({"listener": ["mx"]}, {"listener": "mx"}, True),
        ({"plan": ["gold"]}, {"user": "ann", "plan": "Gold"}, True),
        # globs
        ({"user": ["*@example.com"]}, {"user": "ann@example.com"}, True),
        ({"user": ["*@example.com"]}, {"user": "ann@sub.example.com"}, False),
        ({"user": ["*.example.com"]}, {"user": "ann@sub.example.com"}, True),
        ({"user": ["bulk-*"]}, {"user": "bulk-7"}, True),
        ({"user": ["bulk-*"]}, {"user": "abulk-7"}, False),
        ({"user": ["a*b*c"]}, {"user": "aXbYbZc"}, True),
        ({"user": ["a*b*c"]}, {"user": "acb"}, False),
        ({"user": ["*"]}, {"user": "ann"}, True),
        ({"user": ["*"]}, MAIL, False),
        # domains
        (
            {"rcpt_domain": ["*.example.com"]},
            {"rcpt": "x@a.b.Example.com", "rcpt_domain": "a.b.Example.com"},
            True,
        ),
        ({"rcpt_domain": ["*.example.com"]}, {"rcpt": "x@example.com", "rcpt_domain": "example.com"}, False),
        (
            {"rcpt_domain": ["*.example.com"]},
            {"rcpt": "x@anexample.com", "rcpt_domain": "anexample.com"},
            False,
        ),
        ({"rcpt_domain": ["bücher.example"]}, {"rcpt": "x@y", "rcpt_domain": "xn--bcher-kva.example"}, True),
        ({"rcpt_domain": ["xn--bcher-kva.example"]}, {"rcpt": "x@y", "rcpt_domain": "BÜCHER.example"}, True),
        ({"rcpt_domain": ["*.bücher.example"]}, {"rcpt": "x@y", "rcpt_domain": "alt.xn--bcher-kva.example"}, True),
        (
            {"rcpt_domain": ["*xn--bcher-kva.example"]},
            {"rcpt": "x@y", "rcpt_domain": "altxn--bcher-kva.example"},
            True,
        ),
        ({"user": ["*@bücher.example"]}, {"user": "ann@BÜCHER.example"}, True),
        ({"user": ["jü*@b.example"]}, {"user": "Jürgen@b.example"}, True),
        ({"user_domain": ["example.com"]}, {"user": "ann@example.com"}, True),
        # methods
        ({"method": ["PLAIN"]}, {"method": "plain"}, True),
        ({"method": ["!none"]}, {**MAIL, "method": "none"}, False),
        ({"method": ["c*", "external"]}, {"method": "cram-md5"}, True),
        ({"user_domain": ["<>"]}, {"user": "ann"}, True),
        ({"sender_domain": ["<>"]}, {"sender": "", "sender_domain": ""}, True),
        ({"sender": ["<>"]}, {"sender": "", "sender_domain": ""}, True),
        ({"sender": ["<>"]}, MAIL, False),
        # exclusion
        ({"user": ["!ann"]}, {"user": "bob"}, True),
        ({"user": ["!ann"]}, {"user": "ann"}, False),
        ({"user": ["!ann", "!bob"]}, {"user": "ann"}, False),
        ({"user": ["!ann", "!bob"]}, {"user": "cat"}, True),
        ({"user": ["*@x", "!ann@x"]}, {"user": "bob@x"}, True),
        ({"user": ["*@x", "!ann@x"]}, {"user": "ann@x"}, False),
        ({"user": ["*@x", "!ann@x"]}, {"user": "bob@y"}, False),
        # a fact that will never come
        ({"plan": ["gold"]}, {"user": "ann"}, False),
        ({"plan": ["!gold"]}, {"user": "ann"}, True),
        ({"user": ["!ann"]}, MAIL, True),
        # a fact that may still come
        ({"user": ["ann"]}, {}, None),
        ({"user": ["!ann"]}, {}, None),
        ({"rcpt_domain": ["x"]}, {"user": "ann", **MAIL}, None),
        ({"listener": ["mx"]}, {"user": "ann", **MAIL}, None),
        ({"tls": True}, {"user": "ann"}, None),
        # and: False wins over not known, not known over True
        ({"user": ["ann"], "rcpt": ["x@y"]}, {"user": "ann"}, None),
        ({"user": ["bob"], "rcpt": ["x@y"]}, {"user": "ann"}, False),
        ({"rcpt": ["x@y"], "user": ["bob"]}, {"user": "ann"}, False),
        # switches
        ({"auth": True}, {"user": "ann"}, True),
        ({"auth": True}, MAIL, False),
        ({"auth": False}, MAIL, True),
        ({"auth": True}, {}, None),
        ({"tls": False}, {"tls": False}, True),
        # addresses
        ({"client": ["192.0.2.0/24"]}, {}, True),
        ({"client": ["192.0.2.7"]}, {}, True),
        ({"client": ["192.0.2.8", "198.51.100.0/24"]}, {}, False),
        ({"client": ["!192.0.2.0/24"]}, {}, False),
        ({"client": ["0.0.0.0/0", "!192.0.2.7"]}, {}, False),
        ({"client": ["192.0.2.0/24"]}, {"client": "::ffff:192.0.2.7"}, True),
        ({"client": ["::/0"]}, {}, False),
        ({"client": ["2001:db8:10::/48"]}, {"client": "2001:db8:10:ffff::1"}, True),
        ({"client": ["2001:db8:10::/48"]}, {"client": "2001:db8:11::1"}, False),
        ({"client": ["fe80::/10"]}, {"client": "fe80::1%eth0"}, True),
        ({"client": ["unix:"]}, {"client": "unix:"}, True),
        ({"client": ["0.0.0.0/0", "::/0"]}, {"client": "unix:"}, False),
        ({"ip": ["192.0.2.7"]}, {}, True),
        ({"net": ["192.0.2.0/24"]}, {}, True),
        # numbers: times are Unix seconds, of 1970-01-01 here
        ({"time": ["22:00-06:00"]}, {}, None),
        ({"time": ["22:00-06:00"]}, {"time": 3600.0}, True),
        ({"time": ["22:00-06:00"]}, {"time": 12 * 3600.0}, False),
        ({"time": ["!22:00-06:00"]}, {"time": 12 * 3600.0}, True),
        ({"time": ["11:00-13:00", "22:00-06:00"]}, {"time": 12 * 3600.0}, True),
        ({"size": [">= 10kB"]}, {"size": 10_000, **MAIL}, True),
        ({"size": [">= 10kB"]}, {"size": 9_999, **MAIL}, False),
        ({"size": [">= 10kB"]}, MAIL, False),
        ({"size": ["!>= 10kB"]}, MAIL, True),
        ({"size": [">= 10kB"]}, {"size": 1, "octets": 10_000, **MAIL}, True),
        # what the auth service knows
        ({"known_user": False}, {"known_user": False}, True),
        ({"known_net": True}, {"known_net": False}, False),
        ({"known_net": True}, {}, None),
        ({"protocol": ["imap", "pop3"]}, {"protocol": "IMAP"}, True),
        ({"protocol": ["smtp"]}, {}, True),
    ],
)
def test_matches(spec: dict[str, Any], known: dict[str, Any], expected: bool | None) -> None:
    assert match(spec)(facts(**known)) is expected


SETS = {
    "office": named_set("cidr", ["192.0.2.0/24", "2001:db8::/32"]),
    "bulk": named_set("user", ["news@example.com", "*@lists.example.com"]),
    "ours": named_set("domain", ["example.com", "*.example.com"]),
    "night": NamedSet("time", time_set(["22:00-06:00"])),
}


@pytest.mark.parametrize(
    ("spec", "known", "expected"),
    [
        ({"client": ["@office"]}, {}, True),
        ({"client": ["!@office"]}, {}, False),
        ({"client": ["@office", "!192.0.2.7"]}, {}, False),
        ({"time": ["@night"]}, {"time": 0.0}, True),
        ({"time": ["!@night"]}, {"time": 12 * 3600.0}, True),
        ({"user": ["@bulk"]}, {"user": "x@lists.example.com"}, True),
        ({"user": ["ann", "@bulk"]}, {"user": "news@EXAMPLE.com"}, True),
        ({"user": ["!@bulk"]}, {"user": "ann"}, True),
        ({"rcpt_domain": ["@ours"]}, {"rcpt": "a@b.example.com", "rcpt_domain": "b.example.com"}, True),
        ({"rcpt_domain": ["!@ours"]}, {"rcpt": "a@example.com", "rcpt_domain": "example.com"}, False),
    ],
)
def test_sets(spec: dict[str, Any], known: dict[str, Any], expected: bool | None) -> None:
    assert match(spec, SETS)(facts(**known)) is expected


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        (
            {"rcpt": ["a@b"]},
            ("rcpt",),
            "is not known at mail; expected one of client, ip, net, listener, tls, time, login, method, auth, user, "
            "user_domain, plan, helo, sender, sender_domain, size",
        ),
        (
            {"user": []},
            ("user",),
            "is empty and would never match; expected at least one pattern, or no such key",
        ),
        ({"user": ["ann", "!@vip"]}, ("user", 1), '"@vip" is not a set; expected one of office, bulk, ours, night'),
        (
            {"user": ["@office"]},
            ("user", 0),
            '"@office" is a set of type cidr; expected a set of type user',
        ),
        (
            {"plan": ["@bulk"]},
            ("plan", 0),
            '"@bulk" is a set of type user; expected patterns, this field takes no set',
        ),
        (
            {"client": ["!192.0.2.0/24", "mx.example.com"]},
            ("client", 1),
            '"mx.example.com" is not a network; expected e.g. 192.0.2.0/24, 2001:db8::/32, 192.0.2.1, unix:',
        ),
        (
            {"client": ["192.0.2.1/24"]},
            ("client", 0),
            '"192.0.2.1/24" has address bits beyond its prefix; expected 192.0.2.0/24, unix:',
        ),
        (
            {"user": ["ann bob"]},
            ("user", 0),
            '"ann bob" is not a pattern; expected 1 to 512 printable characters without spaces',
        ),
        (
            {"sender_domain": ["!a@b"]},
            ("sender_domain", 0),
            '"a@b" is not a domain; expected a domain, e.g. example.com, "*.example.com", "<>" for none',
        ),
        (
            {"sender_domain": ["!alt*bücher.example"]},
            ("sender_domain", 0),
            '"alt*bücher.example" has "*" in a label that is not ASCII; expected whole labels around "*", '
            'e.g. "*.bücher.example", or A-labels, e.g. "*xn--bcher-kva.example"',
        ),
        (
            {"method": ["plain", "!Login"]},
            ("method", 1),
            '"Login" is not a method (LOGIN is plain); expected one of plain, apop, cram-md5, external, xoauth2, '
            "oauthbearer, none",
        ),
        (
            {"method": ["digest*"]},
            ("method", 0),
            '"digest*" is not a method; expected one of plain, apop, cram-md5, external, xoauth2, oauthbearer, none',
        ),
    ],
)
def test_faults(spec: dict[str, Any], path: tuple[Any, ...], message: str) -> None:
    _, faults = compile_match(spec, known_at(Event.MAIL), SETS, "mail")
    assert [(fault.path, str(fault)) for fault in faults] == [(path, message)]


def test_all_faults_at_once() -> None:
    spec = {"user": ["@no"], "rcpt": ["x"], "client": ["y"], "auth": True}
    _, faults = compile_match(spec, known_at(Event.MAIL), {}, "mail")
    assert [fault.path for fault in faults] == [("user", 0), ("rcpt",), ("client", 0)]


def test_only_an_empty_match_catches_all() -> None:
    assert match({}).catches_all
    assert not match({"user": ["*"]}).catches_all


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["192.0.2.0/24"], True),
        (["192.0.2.7"], "is narrower than {net}: 192.0.2.7/32"),
        (["2001:db8::/48", "2001:db8::/49"], "is narrower than {net}: 2001:db8::/49"),
        (["@office"], "is narrower than {net}: 2001:db8::1/128"),
        (["unix:"], True),
    ],
)
def test_no_pattern_looks_into_a_net(patterns: list[str], expected: bool | str) -> None:
    sets = {"office": named_set("cidr", ["192.0.2.0/24", "2001:db8::1"])}
    _, faults = compile_match({"net": patterns}, EVERY_FIELD, sets, "mail", Prefixes(24, 48))
    if expected is True:
        assert faults == []
    else:
        assert [fault.message for fault in faults] == [expected]
        assert [fault.value for fault in faults] == [patterns[-1]]


def test_patterns_are_kept_for_comparison() -> None:
    (test,) = match({"user": ["Ann@X", "@bulk", "!*@Y", "!@bulk"]}, SETS).tests
    assert (test.words, test.barred) == (("@bulk", "ann@x"), ("@bulk", "*@y"))  # type: ignore[union-attr]
    (client,) = match({"client": ["192.0.2.7", "unix:", "!::/0"]}).tests
    assert (client.words, client.barred) == (("192.0.2.7/32", "unix:"), ("::/0",))  # type: ignore[union-attr]
