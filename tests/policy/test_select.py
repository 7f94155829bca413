"""Which limits apply: matches, exemptions, overrides, shadow; bans; and what it costs to ask."""

from typing import Any

import pytest
from callcount import calls

from smtpgate.policy.compile import Source, compile_policy
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.rules import Kind, Limit, Limiter
from smtpgate.policy.schema import PolicyKeys
from smtpgate.policy.select import MIN_CACHE, Policy, Rule, bans, exempting, overriding, select

DENY = {"reply": "450 4.7.1 slow down"}
NOW = 1_790_000_000.0


def policy(limits: dict[str, dict[str, Any]], **keys: Any) -> Policy:
    written = {
        name: {"event": "mail", "key": "{user}", "deny": DENY, **({} if "max" in one else {"rate": "30/1m"}), **one}
        for name, one in limits.items()
    }
    model = PolicyKeys.model_validate({"version": 1, "limits": written, **keys})
    compiled, faults = compile_policy([Source(model, lambda path: ".".join(map(str, path)))])
    assert faults == []
    return compiled


def user(name: str, **known: Any) -> Facts:
    return Facts("192.0.2.7", user=name, sender="", time=NOW, **known)


def selected(compiled: Policy, facts: Facts, event: Event = Event.MAIL) -> list[str]:
    return [limit.name for limit in select(compiled, event, facts)]


def test_nothing_by_default() -> None:
    assert select(Policy(), Event.MAIL, user("ann")) == ()
    assert bans(Policy(), Event.CONNECT, user("ann")) == ()
    assert Policy().limiter == Limiter()


def test_the_events_at_which_there_is_anything_to_ask() -> None:
    compiled = policy({"x": {"event": "rcpt", "key": "{net}", "deny": {**DENY, "ban": "1h"}}})
    assert compiled.asked == {Event.RCPT, Event.CONNECT, Event.AUTH, Event.AUTH_FAIL, Event.MAIL}
    assert policy({"x": {}}).asked == {Event.MAIL}
    assert Policy().asked == frozenset()


def test_all_that_match_apply_in_file_order() -> None:
    compiled = policy(
        {"b": {}, "a": {"match": {"user": "ann"}}, "c": {"match": {"plan": "gold"}}, "d": {"event": "rcpt"}}
    )
    assert selected(compiled, user("ann")) == ["b", "a"]
    assert selected(compiled, user("bob", plan="gold")) == ["b", "c"]
    assert selected(compiled, user("ann"), Event.RCPT) == ["d"]
    assert [limit.name for limit in compiled.limits[Event.MAIL]] == ["b", "a", "c"]


def test_what_hangs_on_a_fact_still_to_come_does_not_apply() -> None:
    compiled = policy(
        {"x": {"event": "auth", "match": {"tls": True}}, "y": {"event": "auth", "match": {"tls": False}}}
    )
    assert selected(compiled, Facts("192.0.2.7", user="ann"), Event.AUTH) == []


def test_hand_made_limits_need_no_file() -> None:
    limit = Limit("x", Event.MAIL, Kind.RATE, "f:1", None, None, rate=1.0, burst=1.0)
    assert select(Policy(rules={Event.MAIL: (Rule(limit),)}), Event.MAIL, user("ann")) == [limit]


# --- exempt -------------------------------------------------------------------------------------------------


def test_an_exemption_takes_away_what_it_names() -> None:
    exempt = [
        {"match": {"user": "ann"}, "limits": ["user.*", "day"]},
        {"match": {"client": "198.51.100.0/24"}, "limits": "*"},
    ]
    compiled = policy({"user.a": {}, "user.b": {}, "day": {}, "net": {"key": "{net}"}}, exempt=exempt)
    assert selected(compiled, user("bob")) == ["user.a", "user.b", "day", "net"]
    assert selected(compiled, user("ann")) == ["net"]
    assert selected(compiled, Facts("198.51.100.1", user="bob", sender="")) == []
    assert compiled.exemptions[0].limits == {"user.a", "user.b", "day"}
    assert [one.source for one in exempting(compiled, compiled.rules[Event.MAIL][0], user("ann"))] == ["exempt.0"]
    assert exempting(compiled, compiled.rules[Event.MAIL][3], user("ann")) == []


# --- overrides ----------------------------------------------------------------------------------------------


def only(compiled: Policy, facts: Facts) -> Limit:
    (limit,) = select(compiled, Event.MAIL, facts)
    return limit


def override(match: dict[str, Any], change: Any, **more: Any) -> dict[str, Any]:
    return {"match": match, "set": {"x": change}, **more}


def test_only_the_named_fields_change() -> None:
    limit = {"burst": 10, "deny": {**DENY, "hold": "5s", "delay": "1s"}}
    overrides = [override({"user": "ann"}, {"rate": "60/1m", "deny": {"hold": "9s"}})]
    compiled = policy({"x": limit}, overrides=overrides)
    assert only(compiled, user("bob")) is compiled.limits[Event.MAIL][0]
    changed = only(compiled, user("ann"))
    assert (changed.rate, changed.rate_text, changed.burst) == (1.0, "60/1m", 10.0)
    assert changed.deny is not None
    assert (changed.deny.hold, changed.deny.delay, changed.source) == (9.0, 1.0, "limits.x")


def test_later_wins() -> None:
    overrides = [
        override({"user": "*@example.com"}, {"rate": "60/1m", "burst": 5}),
        override({"user": "ann@example.com"}, {"rate": "90/1m"}),
    ]
    compiled = policy({"x": {"burst": 10}}, overrides=overrides)
    found = [only(compiled, user(f"{name}@example.com")) for name in ("ann", "bob")]
    assert [(limit.rate, limit.burst) for limit in found] == [(1.5, 5.0), (1.0, 5.0)]
    named = overriding(compiled, compiled.rules[Event.MAIL][0], user("ann@example.com"))
    assert [one.source for one in named] == ["overrides.0", "overrides.1"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["off"], None),
        ([{"burst": 5}, "off"], None),
        # A later line brings the limit back, and what stood before "off" is forgotten with it.
        (["off", {"rate": "60/1m"}], (1.0, 10.0)),
        ([{"burst": 5}, "off", {"rate": "60/1m"}], (1.0, 10.0)),
    ],
)
def test_off(changes: list[Any], expected: tuple[float, float] | None) -> None:
    overrides = [override({"user": "ann"}, change) for change in changes]
    compiled = policy({"x": {"burst": 10}}, overrides=overrides)
    found = [(limit.rate, limit.burst) for limit in select(compiled, Event.MAIL, user("ann"))]
    assert found == ([] if expected is None else [expected])
    assert selected(compiled, user("bob")) == ["x"]


@pytest.mark.parametrize(
    ("time", "expected"),
    [(1_796_083_199.0, []), (1_796_083_200.0, ["x"]), (2e9, ["x"]), (None, ["x"])],
)
def test_an_override_ends(time: float | None, expected: list[str]) -> None:
    compiled = policy({"x": {}}, overrides=[override({"user": "ann"}, "off", until="2026-12-01T00:00:00Z")])
    assert selected(compiled, Facts("192.0.2.7", user="ann", sender="", time=time)) == expected


def test_what_is_worked_in_is_remembered_and_bounded() -> None:
    count = 9
    overrides = [override({"user": f"*{digit}*"}, {"burst": 100 + digit}) for digit in range(1, count + 1)]
    compiled = policy({"x": {}}, overrides=overrides)
    assert only(compiled, user("12")) is only(compiled, user("21"))
    assert only(compiled, user("12")).burst == 102.0
    # 511 combinations of nine overrides, of which MIN_CACHE are kept.
    for number in range(1, 2**count):
        name = "".join(str(digit) for digit in range(1, count + 1) if number >> (digit - 1) & 1)
        assert only(compiled, user(name)).burst == 100.0 + int(name[-1])
        assert len(compiled._merged) <= MIN_CACHE


# --- shadow -------------------------------------------------------------------------------------------------


def test_a_policy_that_only_watches() -> None:
    overrides = [override({"user": "ann"}, {"shadow": False})]
    compiled = policy({"x": {}, "y": {"shadow": True}}, mode="shadow", overrides=overrides)
    assert [limit.shadow for limit in select(compiled, Event.MAIL, user("ann"))] == [True, True]
    enforced = policy({"x": {}, "y": {"shadow": True}}, overrides=[override({"user": "ann"}, {"shadow": True})])
    assert [limit.shadow for limit in select(enforced, Event.MAIL, user("ann"))] == [True, True]
    assert [limit.shadow for limit in select(enforced, Event.MAIL, user("bob"))] == [False, True]


# --- bans ---------------------------------------------------------------------------------------------------

BAN = {"deny": {**DENY, "ban": "15m"}}
AFTER = {"denials": 3, "within": "1m", "then": {**DENY, "ban": "15m"}}
GUESSING = {
    "fail.net": {"event": "auth_fail", "key": "{net}", "match": {"known_user": False}, **BAN},
    "fail.pair": {"event": "auth_fail", "key": "{net}|{login}", **BAN},
    "user": {"event": "rcpt", "deny": {**DENY, "after": AFTER}},
    "mx": {"event": "rcpt", "key": "{net}", "match": {"listener": "mx", "rcpt": "trap@example.com"}, **BAN},
    "none": {"key": "{net}"},
}


@pytest.mark.parametrize(
    ("event", "facts", "expected"),
    [
        # Of a match only what the door knows counts: who came by another listener is not turned away.
        (Event.CONNECT, Facts("192.0.2.7", listener="mx"), ["fail.net", "mx"]),
        (Event.CONNECT, Facts("192.0.2.7", listener="submission"), ["fail.net"]),
        (Event.CONNECT, Facts("192.0.2.7"), ["fail.net"]),
        (Event.AUTH_FAIL, Facts("192.0.2.7", login="ann", known_user=True), ["fail.net", "fail.pair"]),
        (Event.AUTH, Facts("192.0.2.7", listener="mx", user="ann"), ["fail.net", "fail.pair", "user", "mx"]),
        (Event.MAIL, user("ann", listener="mx"), ["fail.net", "fail.pair", "user", "mx"]),
        (Event.RCPT, user("ann", listener="mx"), []),
        (Event.CONNECT, Facts("198.51.100.1", listener="mx"), ["mx"]),
    ],
)
def test_bans_are_asked_where_their_subject_can_be_read(event: Event, facts: Facts, expected: list[str]) -> None:
    exempt = [{"match": {"client": "198.51.100.0/24"}, "limits": ["fail.*"]}]
    compiled = policy(GUESSING, exempt=exempt)
    assert sorted(limit.name for limit in bans(compiled, event, facts)) == sorted(expected)


def test_an_override_may_bring_a_ban() -> None:
    compiled = policy({"x": {}}, overrides=[override({"user": "ann"}, {"deny": {"ban": "1m"}})])
    assert [limit.name for limit in bans(compiled, Event.AUTH, user("ann"))] == ["x"]
    assert bans(compiled, Event.AUTH, user("bob")) == []


# --- cost ---------------------------------------------------------------------------------------------------


def _cost(compiled: Policy, facts: Facts, expected: int) -> int:
    assert len(select(compiled, Event.MAIL, facts)) == expected
    return calls(select, compiled, Event.MAIL, facts)


def test_a_thousand_limits_of_which_four_match_cost_what_ten_cost() -> None:
    costs = []
    for count in (10, 1000):
        limits = {f"l{at}": {"match": {"auth": True, "user": f"u{at // 4 + 7}"}} for at in range(count)}
        costs.append(_cost(policy(limits), user("u7"), 4))
    assert costs[0] == costs[1]


def test_a_hundred_thousand_users_in_a_set_cost_what_ten_cost() -> None:
    costs = []
    for count in (10, 100_000):
        sets = {"vip": {"user": [f"u{at}@example.com" for at in range(count)]}}
        limits = {f"l{at}": {"match": {"user": "@vip"}} for at in range(10)}
        costs.append(_cost(policy(limits, sets=sets), user("u7@example.com"), 10))
    assert costs[0] == costs[1]


def test_a_thousand_overrides_and_exemptions_cost_what_ten_cost() -> None:
    costs = []
    for count in (10, 1000):
        overrides = [override({"user": f"u{at}"}, {"burst": 100 + at}) for at in range(count)]
        exempt = [{"match": {"user": f"v{at}"}, "limits": "x"} for at in range(count)]
        costs.append(_cost(policy({"x": {}}, overrides=overrides, exempt=exempt), user("u7"), 1))
    assert costs[0] == costs[1]
