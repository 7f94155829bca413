"""Which matches are never the first."""

from typing import Any

import pytest
from callcount import calls
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.policy.covers import MAX_COMPARED, covered, covers
from smtpgate.policy.fields import FIELDS
from smtpgate.policy.match import Matcher, compile_match
from smtpgate.policy.model import Facts
from smtpgate.policy.sets import Directory, named_set

SETS = {
    "vip": named_set("user", ["ann@a.example", "*@vip.example"]),
    "office": named_set("cidr", ["192.0.2.0/24"]),
}


def match(spec: dict[str, Any]) -> Matcher:
    written = {name: [value] if isinstance(value, str) else value for name, value in spec.items()}
    matcher, faults = compile_match(written, tuple(FIELDS), SETS, "a route")
    assert faults == []
    return matcher


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ({}, {"user": "ann"}, True),
        ({"user": "ann"}, {}, False),
        ({"user": "ann"}, {"user": "Ann"}, True),
        ({"user": "ann"}, {"user": "ann", "tls": True}, True),
        ({"user": "ann", "tls": True}, {"user": "ann"}, False),
        ({"user": ["ann", "bob"]}, {"user": "bob"}, True),
        ({"user": "ann"}, {"user": ["ann", "bob"]}, False),
        ({"user": "*@a.example"}, {"user": "ann@a.example"}, True),
        ({"user": "*.example"}, {"user": ["*@a.example", "x@b.example"]}, True),
        ({"user": "*@a.example"}, {"user": "*.example"}, False),
        ({"user": "a*"}, {"user": "ab*c"}, True),
        ({"user": "a*"}, {"user": "*a"}, False),
        ({"user": "*"}, {"user": "!ann"}, False),
        # sets
        ({"user": "@vip"}, {"user": "@vip"}, True),
        ({"user": "@vip"}, {"user": ["ann@a.example", "x@vip.example"]}, True),
        ({"user": "@vip"}, {"user": "bob@a.example"}, False),
        ({"user": "ann@a.example"}, {"user": "@vip"}, False),
        # what is excluded
        ({"user": "!ann"}, {"user": "!ann"}, True),
        ({"user": "!ann"}, {"user": ["!ann", "!bob"]}, True),
        ({"user": ["!ann", "!bob"]}, {"user": "!ann"}, False),
        ({"user": "!ann"}, {"user": "!*"}, True),
        ({"user": "!ann"}, {"user": "bob"}, True),
        ({"user": "!ann"}, {"user": "ann"}, False),
        ({"user": ["*@x", "!ann@x"]}, {"user": ["bob@x", "cat@x"]}, True),
        ({"user": ["*@x", "!ann@x"]}, {"user": ["*@x"]}, False),
        ({"user": ["*@x", "!ann@x"]}, {"user": ["*@x", "!*@x"]}, True),
        # addresses
        ({"client": "192.0.2.0/24"}, {"client": ["192.0.2.7", "192.0.2.128/25"]}, True),
        ({"client": "192.0.2.0/24"}, {"client": "192.0.0.0/16"}, False),
        ({"client": "::/0"}, {"client": "192.0.2.7"}, False),
        ({"client": "@office"}, {"client": "@office"}, True),
        ({"client": "unix:"}, {"client": "unix:"}, True),
        ({"client": "192.0.2.0/24"}, {"client": "unix:"}, False),
        # what is compared as it is written
        ({"time": "22:00-06:00"}, {"time": "22:00-06:00"}, True),
        ({"time": "22:00-06:00"}, {"time": "23:00-05:00"}, False),
        ({"size": ">= 1MiB"}, {"size": ">= 1MiB"}, True),
        ({"tls": True}, {"tls": True}, True),
        ({"tls": True}, {"tls": False}, False),
        ({"user": "ann"}, {"rcpt": "ann"}, False),
    ],
)
def test_covers(wide: dict[str, Any], narrow: dict[str, Any], expected: bool) -> None:
    assert covers(match(wide), match(narrow)) is expected
    matchers = [match(wide), match(narrow)]
    if wide:
        assert covered(matchers, Directory(SETS)) == [None, 0 if expected else None]


PATTERNS = {
    "user": ["ann@a.example", "*@a.example", "*.example", "@vip", "a*", "!ann@a.example", "!*.example", "!@vip"],
    "client": ["192.0.2.0/24", "192.0.2.7", "192.0.0.0/16", "@office", "!192.0.2.7", "!192.0.2.0/24", "unix:"],
}
SPECS = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.lists(st.sampled_from(known), min_size=1, max_size=3) for name, known in PATTERNS.items()},
        "auth": st.booleans(),
    },
)
FACTS = st.builds(
    Facts,
    client=st.sampled_from(["192.0.2.7", "192.0.2.8", "192.0.3.1", "198.51.100.1", "unix:"]),
    user=st.sampled_from([None, "ann@a.example", "bob@a.example", "x@vip.example", "ann"]),
    sender=st.just(""),
)


@given(st.lists(SPECS, max_size=12), FACTS)
def test_what_is_covered_is_never_the_first(specs: list[dict[str, Any]], facts: Facts) -> None:
    matchers = [match(spec) for spec in specs]
    by = covered(matchers, Directory(SETS))
    first = next((at for at, matcher in enumerate(matchers) if matcher(facts)), None)
    assert first is None or by[first] is None
    for position, earlier in enumerate(by):
        assert earlier is None or (earlier < position and covers(matchers[earlier], matchers[position]))


def test_the_first_that_covers_is_told() -> None:
    specs = [{"user": "x"}, {"user": "*@a"}, {"user": "ann@a"}, {"auth": True}, {"user": "bob@a", "auth": True}]
    assert covered([match(spec) for spec in specs], Directory({})) == [None, None, 1, None, 1]


@pytest.mark.parametrize("more", [{}, {"auth": True}, {"rcpt_domain": "example.com"}])
def test_checking_many_is_no_square(more: dict[str, Any]) -> None:
    def compared(count: int) -> int:
        matchers = [match({"user": f"u{at}", **more}) for at in range(count)]
        return calls(covered, matchers, Directory({}))

    assert compared(2000) < compared(200) * 11


def test_those_without_a_pattern_are_compared_with_a_bounded_number() -> None:
    assert MAX_COMPARED == 100
    matchers = [match({"user": f"!u{at}"}) for at in range(MAX_COMPARED + 1)]
    assert covered([*matchers, matchers[0], matchers[-1]], Directory({}))[-2:] == [0, None]
