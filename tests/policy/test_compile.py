"""Validated files -> policy: defaults, names over files, every fault at once."""

import math
from typing import Any

import pytest

from smtpgate.policy.compile import (
    Fault,
    Source,
    compile_policy,
    compile_reply,
    default_burst,
)
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.rules import Limit, Policy, ReplyTemplate
from smtpgate.policy.schema import PolicyKeys
from smtpgate.units import MAX_AMOUNT, MAX_HOSTNAME, MAX_NAME, InvalidValue, parse_rate

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


def only_limit(**keys: Any) -> Limit:
    (limits,) = compiled({"limits": {"x": {**LIMIT, **keys}}}).limits.values()
    (limit,) = limits
    return limit


@pytest.mark.parametrize(
    ("rate", "burst"),
    [
        ("30/1m", 30.0),
        ("2000/1d", 2000 / 1440),
        ("20/1h", 1.0),
        ("60/1s", 60.0),
        ("600/10m", 60.0),
        ("1/1d", 1.0),
    ],
)
def test_default_burst(rate: str, burst: float) -> None:
    assert default_burst(parse_rate(rate)) == pytest.approx(burst)
    assert only_limit(rate=rate).burst == pytest.approx(burst)


def test_a_limit() -> None:
    limit = only_limit(burst=5, deny={"reply": SLOW, "delay": "2s", "max_delay": "15s"}, match={"auth": True})
    assert (limit.name, limit.event, limit.rate, limit.burst) == ("x", Event.MAIL, 0.5, 5.0)
    assert (limit.rate_text, limit.source) == ("30/1m", "f0.yaml:limits.x")
    assert (limit.reply, limit.close) == (ReplyTemplate(450, "4.7.1", "slow down"), False)
    assert (limit.delay, limit.max_delay) == (2.0, 15.0)
    assert limit.match(Facts("192.0.2.1", user="ann")) is True
    assert only_limit().max_delay is None


def test_421_closes() -> None:
    assert only_limit(deny={"reply": "421 4.7.0 too many connections"}).close
    assert only_limit(deny={"reply": SLOW, "close": True}).close


def test_prefixes_of_net() -> None:
    policy = compiled({"ip_prefix": {"v4": 24, "v6": 48}, "limits": {"x": {**LIMIT, "key": "{net}"}}})
    key = policy.limits[Event.MAIL][0].key
    assert key.subject(Facts("192.0.2.7")) == "192.0.2.0/24"
    assert key.subject(Facts("2001:db8:1:2::3")) == "2001:db8:1::/48"


def test_keys_may_be_spread_over_files() -> None:
    policy = compiled(
        {"limits": {"b": {**LIMIT, "deny": {"reply": "slow"}, "match": {"user": "@vip"}}}},
        {"replies": {"slow": "450 4.7.1 {limit}"}, "limiter": {"local_share": 0.25}},
        {"limits": {"a": LIMIT}, "sets": {"vip": {"user": "ann"}}},
    )
    assert [limit.name for limit in policy.limits[Event.MAIL]] == ["b", "a"]
    assert policy.limits[Event.MAIL][0].reply == ReplyTemplate(450, "4.7.1", "{limit}")
    assert policy.limits[Event.MAIL][0].match(Facts("192.0.2.1", user="ann")) is True
    assert policy.local_share == 0.25


def test_one_file_that_tells_the_version_is_enough() -> None:
    files = [_source(0, {"limits": {"x": LIMIT}}), _source(1, {"version": 1})]
    policy, faults = compile_policy(files)
    assert ([limit.name for limit in policy.limits[Event.MAIL]], faults) == (["x"], [])
    _, faults = compile_policy(files[:1])
    message = "no file says which version of the policy language this is"
    assert faults == [Fault(0, (), message, "version: 1")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("450 4.7.1 slow down", ReplyTemplate(450, "4.7.1", "slow down")),
        (
            "550 5.7.1 {host}: {limit} ({rate}) {retry}s",
            ReplyTemplate(550, "5.7.1", "{host}: {limit} ({rate}) {retry}s"),
        ),
        ("421 4.7.28 x", ReplyTemplate(421, "4.7.28", "x")),
    ],
)
def test_replies(text: str, expected: ReplyTemplate) -> None:
    assert compile_reply(text) == expected


LITERAL = 'expected code, enhanced code and text, e.g. "450 4.7.1 rate limit {limit}, retry in {retry}s"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("250 2.0.0 fine", f'"250 2.0.0 fine" is not a 4xx or 5xx reply; {LITERAL}'),
        ("450 slow down", f'"450 slow down" is not a 4xx or 5xx reply; {LITERAL}'),
        ("450 4.7.1", f'"450 4.7.1" is not a 4xx or 5xx reply; {LITERAL}'),
        ("450 4.7.1 a\r\n250 ok", f'"450 4.7.1 a\\r\\n250 ok" is not a 4xx or 5xx reply; {LITERAL}'),
        (
            "450 4.7.1 zu schnell für uns",
            f'"450 4.7.1 zu schnell für uns" is not a 4xx or 5xx reply; {LITERAL}',
        ),
        ("٤50 4.7.1 x", f'"٤50 4.7.1 x" is not a 4xx or 5xx reply; {LITERAL}'),
        (
            "450 5.7.1 x",
            '"450 5.7.1 x" has 5.7.1 after 450; expected an enhanced code that begins with 4 (RFC 3463)',
        ),
        (
            "450 4.7.1 {user}",
            '"450 4.7.1 {user}" has the unknown placeholder {user}; expected {limit} {retry} {rate} {host}',
        ),
        (
            "450 4.7.1 {limit!r}",
            '"450 4.7.1 {limit!r}" has the unknown placeholder {limit!r}; expected {limit} {retry} {rate} {host}',
        ),
        (
            "450 4.7.1 {{x",
            '"450 4.7.1 {{x" has a brace that is no placeholder; expected {limit} {retry} {rate} {host}',
        ),
        (
            "450 4.7.1 {host} {host}",
            '"450 4.7.1 {host} {host}" has {host} twice; expected each placeholder once',
        ),
        ("450 4.7.1 " + "x" * 201, None),
    ],
)
def test_bad_replies(text: str, message: str | None) -> None:
    with pytest.raises(InvalidValue) as caught:
        compile_reply(text)
    if message is None:
        assert str(caught.value).endswith(" is too long; expected at most 200 characters of text")
    else:
        assert str(caught.value) == message


def test_a_reply_filled_in_with_the_longest_of_everything_is_a_line_of_smtp() -> None:
    """512 octets with CRLF; the hundred and fortieth x is the last that fits."""
    fits = "450 4.7.1 {host} {limit} {retry} {rate} " + "x" * 140
    template = compile_reply(fits)
    filled = template.render(
        limit="l" * MAX_NAME, retry=math.inf, rate=f"{MAX_AMOUNT}/315359999999ms", host="h" * MAX_HOSTNAME
    )
    assert len(f"{filled.code} {filled.enhanced} {filled.text}\r\n") == 512
    with pytest.raises(InvalidValue, match="may become a line of 513 octets; expected at most 512"):
        compile_reply(fits + "x")


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
        (1, "sets.s", "has 2 types", "exactly one of user, domain, cidr"),
        (1, "sets.t", "has 0 types", "exactly one of user, domain, cidr"),
        (
            0,
            "replies.slow",
            '"250 2.0.0 x" is not a 4xx or 5xx reply',
            'code, enhanced code and text, e.g. "450 4.7.1 rate limit {limit}, retry in {retry}s"',
        ),
        (
            0,
            "limits.a.key",
            "{nobody} is not a placeholder of a key at mail",
            "one of {net} {client} {listener} {login} {user} {sender_domain}",
        ),
        (
            0,
            "limits.a.match.rcpt",
            "is not known at mail",
            "one of client, listener, tls, login, method, auth, user, user_domain, plan, helo, sender, sender_domain",
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


@pytest.mark.parametrize("key", ["ip_prefix", "limiter"])
def test_a_setting_is_set_once(key: str) -> None:
    assert _faults({key: {}}, {}, {key: {}}) == [(2, key, "is set a second time", f"it once, as at f0.yaml:{key}")]


def test_max_delay_from_delay_on() -> None:
    deny = {"reply": SLOW, "delay": "5s", "max_delay": "2s"}
    assert _faults({"limits": {"x": {**LIMIT, "deny": deny}}}) == [
        (0, "limits.x.deny.max_delay", "is below delay", "delay or more")
    ]


def test_a_name_of_a_reply_is_not_taken_for_a_literal() -> None:
    assert _faults({"replies": {"4xx": SLOW}}) == [
        (0, "replies.4xx", '"4xx" is not a name of a reply', "a name that begins with a letter")
    ]
