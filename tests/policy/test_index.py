"""The index answers as the matches themselves do, and asks only those that can fit."""

from typing import Any

import pytest
from callcount import calls
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.policy.fields import FIELDS
from smtpgate.policy.index import MIN_INDEXED, Index, assign
from smtpgate.policy.match import Matcher, compile_match
from smtpgate.policy.model import Facts
from smtpgate.policy.sets import Directory, named_set

SETS = {
    "vip": named_set("user", ["ann@a.example", "*@vip.example"]),
    "bulk": named_set("user", ["news@a.example"]),
    "office": named_set("cidr", ["192.0.2.0/24"]),
    "ours": named_set("domain", ["a.example", "*.a.example"]),
}


def match(spec: dict[str, Any]) -> Matcher:
    matcher, faults = compile_match(spec, tuple(FIELDS), SETS, "mail")
    assert faults == []
    return matcher


def index_of(specs: list[dict[str, Any]]) -> Index[int]:
    return Index([(match(spec), at) for at, spec in enumerate(specs)], Directory(SETS))


USERS = ["ann@a.example", "bob@a.example", "news@a.example", "x@vip.example", "ann"]
PATTERNS = {
    "user": [*USERS, "*@a.example", "*.example", "@vip", "@bulk", "a*", "!ann@a.example", "!@vip"],
    "rcpt_domain": ["a.example", "*.a.example", "@ours", "b.example", "!@ours", "<>"],
    "client": ["192.0.2.0/24", "192.0.2.7", "@office", "unix:", "!192.0.2.7", "2001:db8::/32"],
    "listener": ["mx", "submission"],
    "size": [">= 1kB"],
}
SPECS = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.lists(st.sampled_from(p), min_size=1, max_size=3) for name, p in PATTERNS.items()},
        "auth": st.booleans(),
    },
)
FACTS = st.builds(
    Facts,
    client=st.sampled_from(["192.0.2.7", "192.0.2.8", "198.51.100.1", "2001:db8::1", "unix:"]),
    listener=st.sampled_from([None, "mx", "other"]),
    user=st.sampled_from([None, *USERS]),
    sender=st.sampled_from([None, ""]),
    size=st.sampled_from([None, 10, 10_000]),
    rcpt=st.sampled_from([None, "x"]),
    rcpt_domain=st.sampled_from(["", "a.example", "b.a.example", "b.example"]),
)


def test_equal_matches_that_follow_each_other_are_tried_once() -> None:
    one, many = (index_of([{"auth": True}] * count) for count in (1, 7))
    facts = Facts("192.0.2.1", user="ann")
    assert many.matching(facts) == list(range(7))
    # One append for each.
    assert calls(many.matching, facts) == calls(one.matching, facts) + 6


@given(st.lists(SPECS, max_size=30), FACTS)
def test_it_finds_what_asking_each_finds(specs: list[dict[str, Any]], facts: Facts) -> None:
    matchers = [match(spec) for spec in specs]
    index = index_of(specs)
    asked = [matcher(facts) for matcher in matchers]
    assert index.matching(facts) == [at for at, answer in enumerate(asked) if answer is True]
    # The first True, and whether anything before it is undecided: all that a route needs.
    answers = list(index.answers(facts))
    assert [(at, asked[at]) for at, _ in answers] == answers
    assert [at for at, _ in answers] == sorted({at for at, _ in answers})
    first = next((at for at, answer in enumerate(asked) if answer), len(asked))
    assert next((at for at, answer in answers if answer), len(asked)) == first
    assert any(answer is None for at, answer in answers if at < first) == (None in asked[:first])


def test_few_are_asked_one_by_one() -> None:
    index = index_of([{"user": ["ann"]}] * (MIN_INDEXED - 1))
    assert len(index) == len(list(index)) == MIN_INDEXED - 1
    assert index.matching(Facts("192.0.2.1", user="ann")) == list(range(MIN_INDEXED - 1))


def test_each_match_is_filed_under_its_rarest_pattern() -> None:
    specs: list[dict[str, Any]] = [{"listener": "mx", "user": f"u{i}"} for i in range(3)]
    specs += [{"listener": ["other"], "user": ["u0", "u1"]}, {"auth": True}, {"user": "!ann"}]
    filed = {name: [at for at, _ in tests] for name, tests in assign([match(s) for s in _lists(specs)]).items()}
    assert filed == {"user": [0, 1, 2], "listener": [3]}


def _lists(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: [v] if isinstance(v, str) else v for name, v in spec.items()} for spec in specs]


def _asked(count: int, facts: Facts, **more: Any) -> int:
    """Calls for `count` matches, of which the four of user u7 fit."""
    specs = _lists([{"user": f"u{at // 4 + 6}", **more} for at in range(count)])
    index = index_of(specs)
    assert len(index.matching(facts)) == 4
    return calls(index.matching, facts)


@pytest.mark.parametrize("more", [{}, {"listener": "mx"}, {"auth": True, "rcpt_domain": "@ours"}])
def test_a_thousand_cost_what_ten_cost(more: dict[str, Any]) -> None:
    facts = Facts("192.0.2.1", listener="mx", user="u7", rcpt="x", rcpt_domain="a.example")
    assert _asked(1000, facts, **more) == _asked(10, facts, **more)


@pytest.mark.parametrize("user", ["u4@example.com", None])
def test_ten_thousand_answers_cost_what_ten_cost(user: str | None) -> None:
    def asked(count: int) -> int:
        specs = [{"user": [f"u{at}@example.com"]} for at in range(count)]
        index = index_of([*specs, {}])
        facts = Facts("192.0.2.1", user=user)
        first = next(at for at, answer in index.answers(facts) if answer)
        assert first == (4 if user else count)
        return calls(lambda: next(at for at, answer in index.answers(facts) if answer))

    assert asked(10_000) == asked(10)
