"""Validated files -> policy: names over files, every fault at once."""

from typing import Any

import pytest

from smtpgate.policy.compile import Fault, Source, compile_policy
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.rules import Breaker, Deny, Limiter, OnError, ReplyTemplate
from smtpgate.policy.schema import PolicyKeys
from smtpgate.policy.select import Override, Policy, select
from smtpgate.policy.terms import Terms
from smtpgate.units import InvalidValue, parse_rate

SLOW = "450 4.7.1 slow down"
LIMIT = {"event": "mail", "rate": "30/1m", "key": "{user}", "deny": {"reply": SLOW}}


def compiled(*files: dict[str, Any]) -> Policy:
    policy, faults = compile_policy([_source(i, {"version": 1, **keys}) for i, keys in enumerate(files)])
    assert faults == []
    return policy


def _source(index: int, keys: dict[str, Any]) -> Source:
    def locate(path: tuple[str | int, ...]) -> str:
        return f"f{index}.yaml:{'.'.join(map(str, path))}"

    return Source(PolicyKeys.model_validate(keys), locate)


def test_prefixes_of_net() -> None:
    policy = compiled({"ip_prefix": {"v4": 24, "v6": 48}, "limits": {"x": {**LIMIT, "key": "{net}"}}})
    key = policy.limits[Event.MAIL][0].key
    assert key is not None
    assert key.subject(Facts("192.0.2.7")) == "192.0.2.0/24"
    assert key.subject(Facts("2001:db8:1:2::3")) == "2001:db8:1::/48"


def test_keys_may_be_spread_over_files() -> None:
    policy = compiled(
        {"limits": {"b": {**LIMIT, "deny": {"reply": "slow"}, "match": {"user": "@vip"}}}},
        {"replies": {"slow": "450 4.7.1 {limit}"}, "limiter": {"local_share": 0.25}},
        {"limits": {"a": LIMIT}, "sets": {"vip": {"user": "ann"}}},
    )
    assert [limit.name for limit in policy.limits[Event.MAIL]] == ["b", "a"]
    assert policy.limits[Event.MAIL][0].deny == Deny(ReplyTemplate(450, "4.7.1", "{limit}"))
    assert [limit.name for limit in select(policy, Event.MAIL, Facts("192.0.2.1", user="bob"))] == ["a"]
    assert policy.limiter == Limiter(local_share=0.25)


def test_settings() -> None:
    limiter = {
        "timeout": "20ms",
        "on_error": "allow",
        "local_share": 0.25,
        "breaker": {"errors": 3, "within": "1s", "open": "10s"},
        "new_keys": "600/1m",
    }
    policy = compiled({"limiter": limiter, "mode": "shadow", "mixed_recipients": "first", "limits": {"x": LIMIT}})
    assert policy.limiter == Limiter(0.02, OnError.ALLOW, 0.25, Breaker(3, 1.0, 10.0), 10.0, 600.0)
    assert (policy.shadow, policy.mixed_recipients) == (True, "first")
    (limit,) = policy.limits[Event.MAIL]
    assert (limit.shadow, limit.on_error) == (True, OnError.ALLOW)


def test_defaults() -> None:
    assert compiled({}) == Policy()
    assert Limiter() == Limiter(0.05, OnError.LOCAL, 0.5, Breaker(5, 2.0, 5.0), 2000.0, 2000.0)


def test_exemptions_and_overrides_of_several_files_stand_in_their_order() -> None:
    first = {"exempt": [{"match": {"client": "192.0.2.1"}, "limits": ["a", "b"]}], "limits": {"a": LIMIT, "b": LIMIT}}
    until = "2026-12-01T01:30:00+01:30"
    change = {"a": {"rate": "60/1m"}, "b": "off"}
    second = {
        "overrides": [{"match": {"user": "ann"}, "until": until, "set": change}],
        "exempt": [{"match": {}, "limits": "b*"}],
    }
    policy = compiled(first, second)
    assert [(one.limits, one.source) for one in policy.exemptions] == [
        ({"a", "b"}, "f0.yaml:exempt.0"),
        ({"b"}, "f1.yaml:exempt.0"),
    ]
    (override,) = policy.overrides
    changes = {"a": Terms(rate=parse_rate("60/1m")), "b": None}
    assert override == Override(override.match, 1_796_083_200.0, changes, "f1.yaml:overrides.0")


def test_sets_of_files_and_of_time() -> None:
    sets = {
        "vip": {"file": "vip.txt", "type": "user"},
        "night": {"time": "22:00-06:00", "days": "mon", "tz": "Europe/Berlin"},
    }
    policy, faults = compile_policy([_source(0, {"version": 1, "sets": sets})], {"vip.txt": b"Ann # x\n\nbob"})
    assert faults == []
    assert policy.sets["vip"].words == ("ann", "bob")
    monday = 1_795_469_400.0  # 22:30 in Berlin
    assert [policy.sets["night"].test(monday + days * 86_400) for days in range(7)] == [True] + [False] * 6


def test_a_fault_of_a_set_file_is_told_there_and_once() -> None:
    sets = {"vip": {"file": "vip.txt", "type": "user"}}
    keys = {"version": 1, "sets": sets, "limits": {"x": {**LIMIT, "match": {"user": "@vip"}}}}
    _, faults = compile_policy([_source(0, keys)], {"vip.txt": b"ann\n\na b\n"})
    expected = "1 to 512 printable characters without spaces"
    assert faults == [Fault("vip.txt", (3,), "is not a pattern", expected, "a b")]


def test_one_file_that_tells_the_version_is_enough() -> None:
    files = [_source(0, {"limits": {"x": LIMIT}}), _source(1, {"version": 1})]
    policy, faults = compile_policy(files)
    assert ([limit.name for limit in policy.limits[Event.MAIL]], faults) == (["x"], [])
    _, faults = compile_policy(files[:1])
    message = "no file says which version of the policy language this is"
    assert faults == [Fault(0, (), message, "version: 1")]


def _faults(*files: dict[str, Any]) -> list[tuple[int, str, str, str]]:
    _, faults = compile_policy([_source(i, {"version": 1, **keys}) for i, keys in enumerate(files)])
    return [
        (
            fault.file,
            ".".join(map(str, fault.path)),
            str(InvalidValue(fault.message, value=fault.value)),
            fault.expected,
        )
        for fault in faults
    ]


def test_all_faults_of_all_files_at_once() -> None:
    first = {
        "limits": {
            "a": {**LIMIT, "key": "{nobody}", "match": {"rcpt": "x@y"}, "deny": {"reply": "nix"}},
            "b": {**LIMIT, "event": "auth_fail", "key": "{login}"},
        },
        "replies": {"slow": "250 2.0.0 x"},
    }
    second = {"limits": {"b": LIMIT}, "sets": {"s": {"user": "a", "cidr": "192.0.2.1"}, "t": {}}}
    assert _faults(first, second) == [
        (1, "sets.s", "has 2 types", "exactly one of user, domain, cidr, time, file"),
        (1, "sets.t", "has 0 types", "exactly one of user, domain, cidr, time, file"),
        (
            0,
            "replies.slow",
            '"250 2.0.0 x" is not a 4xx or 5xx reply',
            'code, enhanced code and text, e.g. "450 4.7.1 rate limit {limit}, retry in {retry}s"',
        ),
        (
            0,
            "limits.a.match.rcpt",
            "is not known at mail",
            "one of client, ip, net, listener, tls, time, login, method, auth, user, user_domain, plan, helo, "
            "sender, sender_domain, size",
        ),
        (
            0,
            "limits.a.key",
            "{nobody} is not a placeholder of a key at mail",
            "one of {net} {client} {ip} {ip/NN} {login} {user} {user_domain} {plan} {listener} {sender_domain} "
            "{session} {transaction}",
        ),
        (
            0,
            "limits.a.deny.reply",
            '"nix" is not a reply',
            'a literal, e.g. "450 4.7.1 text", or one of slow',
        ),
        (
            0,
            "limits.b.key",
            '"{login}" names no address: at auth_fail one client could use up what others need',
            'e.g. "{net}", "{net}|{login}"',
        ),
        (1, "limits.b", '"b" is defined a second time', "each name once, as at f0.yaml:limits.b"),
    ]


def test_a_broken_name_is_one_fault_not_two() -> None:
    files = {
        "sets": {"s": {"cidr": "192.0.2.1/8"}},
        "replies": {"slow": "nothing"},
        "limits": {"x": {**LIMIT, "match": {"client": "!@s"}, "deny": {"reply": "slow"}}},
    }
    assert [path for _, path, _, _ in _faults(files)] == ["sets.s.cidr.0", "replies.slow"]


@pytest.mark.parametrize(
    ("key", "value"), [("ip_prefix", {}), ("limiter", {}), ("mode", "shadow"), ("mixed_recipients", "first")]
)
def test_a_setting_is_set_once(key: str, value: Any) -> None:
    assert _faults({key: value}, {}, {key: value}) == [
        (2, key, "is set a second time", f"it once, as at f0.yaml:{key}")
    ]


def test_max_delay_from_delay_on() -> None:
    deny = {"reply": SLOW, "delay": "5s", "max_delay": "2s"}
    assert _faults({"limits": {"x": {**LIMIT, "deny": deny}}}) == [
        (0, "limits.x.deny.max_delay", "is below delay", "delay or more")
    ]


def test_a_name_of_a_reply_is_not_taken_for_a_literal() -> None:
    assert _faults({"replies": {"4xx": SLOW}}) == [
        (0, "replies.4xx", '"4xx" is not a name of a reply', "a name that begins with a letter")
    ]
