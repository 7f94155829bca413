"""One limit: what it becomes, and which keys go together. Each fault has a fixture in tests/bad/policies."""

from typing import Any

import pytest

from smtpgate.policy.addresses import Prefixes
from smtpgate.policy.limits import Names, compile_change, compile_limit
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.rules import Cost, Escalation, Kind, OnError, ReplyTemplate
from smtpgate.policy.schema import ChangeKeys, LimitKeys
from smtpgate.policy.select import Rule
from smtpgate.policy.terms import Amount, Terms
from smtpgate.units import parse_rate

SLOW = ReplyTemplate(450, "4.7.1", "slow down")
NAMES = Names({}, {"slow": SLOW}, Prefixes(), OnError.LOCAL, shadow=False)
RATE = {"event": "mail", "rate": "30/1m", "key": "{user}", "deny": {"reply": "slow"}}
SHAPE = {"event": "data", "shape": "1MiB/1s", "key": "{user}"}
CAP = {"event": "rcpt", "max": 100, "key": "{transaction}", "deny": {"reply": "slow"}}
EIGHT = Amount(8 * 1024 * 1024, in_bytes=True)
PLACES = {"event": "connect", "concurrency": 20, "key": "{net}", "deny": {"reply": "slow"}}


def rule(keys: dict[str, Any], names: Names = NAMES) -> Rule:
    compiled, faults = compile_limit("x", "f:1", LimitKeys.model_validate(keys), names)
    assert [str(fault) for fault in faults] == []
    assert compiled is not None
    return compiled


def faults_of(keys: dict[str, Any]) -> list[tuple[Any, ...]]:
    compiled, faults = compile_limit("x", "f:1", LimitKeys.model_validate(keys), NAMES)
    assert (compiled is None) == bool(faults)
    return [fault.path for fault in faults]


def test_a_rate() -> None:
    keys = {**RATE, "burst": 5, "match": {"auth": True}, "distinct": "{sender_domain}"}
    compiled = rule(keys)
    limit = compiled.limit
    assert (limit.name, limit.event, limit.kind, limit.source) == ("x", Event.MAIL, Kind.RATE, "f:1")
    assert (limit.rate, limit.burst, limit.rate_text, limit.cost) == (0.5, 5.0, "30/1m", 1.0)
    assert not limit.refund_rejected
    assert rule({**RATE, "refund": "rejected"}).limit.refund_rejected
    assert limit.key is not None
    assert limit.key.text == "{user}"
    assert limit.distinct is not None
    assert limit.distinct.text == "{sender_domain}"
    assert compiled.match(Facts("192.0.2.1", user="ann")) is True
    assert compiled.terms == Terms(rate=parse_rate("30/1m"), burst=Amount(5), reply=SLOW)


def test_places() -> None:
    limit = rule(PLACES).limit
    assert (limit.kind, limit.amount, limit.rate_text) == (Kind.CONCURRENCY, 20, "20")


@pytest.mark.parametrize(
    ("keys", "amount", "cost"),
    [
        (CAP, 100, 1.0),
        ({**CAP, "event": "mail", "key": "{session}"}, 100, 1.0),
        ({**CAP, "event": "eod", "cost": "bytes", "max": "10MiB"}, 10 * 1024 * 1024, Cost.BYTES),
        ({**CAP, "event": "eod", "cost": "bytes", "max": 1000}, 1000, Cost.BYTES),
        ({**CAP, "event": "eod", "cost": "recipients"}, 100, Cost.RECIPIENTS),
    ],
)
def test_caps_have_no_key(keys: dict[str, Any], amount: int, cost: float | Cost) -> None:
    limit = rule(keys).limit
    assert (limit.kind, limit.key, limit.amount, limit.cost) == (Kind.MAX, None, amount, cost)


def test_a_shape() -> None:
    limit = rule({**SHAPE, "burst": "4MiB"}).limit
    assert (limit.kind, limit.rate, limit.burst, limit.deny) == (Kind.SHAPE, 1048576.0, 4194304.0, None)


def test_deny() -> None:
    after = {"denials": 50, "within": "10m", "then": {"reply": "421 4.7.0 bye", "ban": "15m"}}
    deny = {"reply": "slow", "hold": "5s", "delay": "1s", "ban": "1m", "after": after}
    compiled = rule({**RATE, "deny": deny}).limit.deny
    assert compiled is not None
    assert (compiled.reply, compiled.hold, compiled.delay, compiled.ban) == (SLOW, 5.0, 1.0, 60.0)
    # 421 closes here too.
    assert compiled.after == Escalation(50, 600.0, ReplyTemplate(421, "4.7.0", "bye"), True, 900.0)


@pytest.mark.parametrize(
    ("key", "written", "expected"),
    [
        ("{user}", None, None),
        ("{user}|{plan}", None, None),
        ("{listener}", None, None),
        ("{net}", None, "{ip/24/48}"),
        ("{net}|{user}", None, "{ip/24/48}"),
        ("{login}", None, "{ip/24/48}"),
        ("{sender_domain}", None, "{ip/24/48}"),
        ("{net}", "{ip/16/32}", "{ip/16/32}"),
        ("{user}", "{user_domain}", "{user_domain}"),
    ],
)
def test_whose_bucket_it_is_when_too_many_are_new(key: str, written: str | None, expected: str | None) -> None:
    overflow = rule({**RATE, "key": key, **({"overflow_key": written} if written else {})}).limit.overflow_key
    assert (None if overflow is None else overflow.text) == expected


def test_what_limits_get_where_they_say_nothing() -> None:
    names = Names({}, NAMES.replies, Prefixes(24, 48), OnError.TEMPFAIL, shadow=True)
    limit = rule({**RATE, "key": "{net}"}, names).limit
    assert (limit.on_error, limit.shadow) == (OnError.TEMPFAIL, True)
    assert limit.key is not None
    assert limit.key.subject(Facts("192.0.2.7")) == "192.0.2.0/24"
    assert rule({**RATE, "on_error": "allow"}, names).limit.on_error is OnError.ALLOW


EVENTS = ("connect", "auth", "auth_fail", "mail", "rcpt", "data", "eod")


@pytest.mark.parametrize(
    ("counts", "events"),
    [
        ({"rate": "3/1m"}, {"connect", "auth", "auth_fail", "mail", "rcpt", "eod"}),
        ({"concurrency": 5}, {"connect", "auth", "mail"}),
        ({"max": 5}, {"mail", "rcpt", "eod"}),
        ({"shape": "1MiB/1s"}, {"data"}),
    ],
)
def test_what_counts_at_which_event(counts: dict[str, Any], events: set[str]) -> None:
    rest = {"key": "{net}", "deny": {"reply": "slow"}}
    passed = {event for event in EVENTS if ("event",) not in faults_of({**rest, **counts, "event": event})}
    assert passed == events


@pytest.mark.parametrize(
    ("key", "value", "takes"),
    [
        ("burst", 5, {"rate", "shape"}),
        ("cost", 1, {"rate"}),
        ("overflow_key", "{net}", {"rate", "concurrency", "shape"}),
        ("distinct", "{sender_domain}", {"rate"}),
        ("refund", "rejected", {"rate"}),
        ("on_error", "allow", {"rate", "concurrency", "shape"}),
        ("shadow", True, {"rate", "concurrency", "max", "shape"}),
        ("deny", {"reply": "slow"}, {"rate", "concurrency", "max"}),
        ("hold", None, {"rate", "concurrency"}),
    ],
)
def test_which_keys_go_together(key: str, value: Any, takes: set[str]) -> None:
    forms = {"rate": RATE, "concurrency": {**PLACES, "event": "mail"}, "max": CAP, "shape": SHAPE}
    more = {"deny": {"reply": "slow", "hold": "1s"}} if key == "hold" else {key: value}
    assert {kind for kind, form in forms.items() if not faults_of({**form, **more})} == takes


@pytest.mark.parametrize(
    ("key", "event", "banned"),
    [
        ("{net}", "rcpt", True),
        ("{user}", "rcpt", True),
        ("{net}|{login}", "auth_fail", True),
        ("{net}|{transaction}", "rcpt", False),
        ("{net}|{session}", "mail", False),
        ("{rcpt_domain}", "rcpt", False),
    ],
)
def test_who_can_be_banned(key: str, event: str, banned: bool) -> None:
    keys = {**RATE, "event": event, "key": key, "deny": {"reply": "slow", "ban": "1m"}}
    assert (faults_of(keys) == []) is banned


# --- overrides ----------------------------------------------------------------------------------------------


def change(form: dict[str, Any], keys: dict[str, Any]) -> tuple[Terms, list[tuple[Any, ...]]]:
    terms, faults = compile_change(rule(form), ChangeKeys.model_validate(keys), NAMES)
    return terms, [fault.path for fault in faults]


@pytest.mark.parametrize(
    ("form", "keys", "terms"),
    [
        (RATE, {"rate": "60/1m"}, Terms(rate=parse_rate("60/1m"))),
        (RATE, {"burst": 9, "cost": 3, "shadow": True}, Terms(burst=Amount(9), cost=3.0, shadow=True)),
        (RATE, {"deny": {"hold": "2s", "close": True}}, Terms(hold=2.0, close=True)),
        (RATE, {"deny": {"hold": "0s", "ban": "0s"}}, Terms(hold=0.0, ban=0.0)),
        (RATE, {"deny": {"reply": "slow"}, "on_error": "allow"}, Terms(reply=SLOW, on_error=OnError.ALLOW)),
        (PLACES, {"concurrency": 100}, Terms(concurrency=100)),
        (CAP, {"max": 500}, Terms(max=Amount(500))),
        (
            SHAPE,
            {"shape": "8MiB/1s", "burst": "8MiB"},
            Terms(shape=parse_rate("8MiB/1s"), burst=EIGHT),
        ),
    ],
)
def test_only_what_is_named_changes(form: dict[str, Any], keys: dict[str, Any], terms: Terms) -> None:
    assert change(form, keys) == (terms, [])


@pytest.mark.parametrize(
    ("form", "keys", "paths"),
    [
        (RATE, {"concurrency": 5, "max": 3, "shape": "1MiB/1s"}, [("concurrency",), ("max",), ("shape",)]),
        (PLACES, {"rate": "3/1m", "burst": 3, "cost": 3}, [("rate",), ("burst",), ("cost",)]),
        (SHAPE, {"deny": {"close": True}, "on_error": "tempfail"}, [("deny",)]),
        (SHAPE, {"on_error": "tempfail"}, [("on_error",)]),
        (SHAPE, {"shape": "100/1s"}, [("shape",)]),
        (RATE, {"rate": "1MiB/1m"}, [("rate",)]),
        (RATE, {"cost": "bytes"}, [("cost",)]),
        ({**RATE, "burst": 5}, {"cost": 6}, [("cost",)]),
        ({**RATE, "cost": 5}, {"burst": 4}, [("burst",)]),
        ({**RATE, "cost": 5}, {"rate": "4/1m"}, [("rate",)]),
        (CAP, {"max": "1MiB"}, [("max",)]),
        (CAP, {"deny": {"hold": "1s"}}, [("deny", "hold")]),
        ({**RATE, "deny": {"reply": "slow", "delay": "9s"}}, {"deny": {"max_delay": "5s"}}, [("deny", "max_delay")]),
        (RATE, {"deny": {"reply": "nix"}}, [("deny", "reply")]),
        (
            RATE,
            {"deny": {"after": {"denials": 1, "within": "1m", "then": {"reply": "nix"}}}},
            [("deny", "after", "then", "reply")],
        ),
    ],
)
def test_what_a_change_cannot_say(form: dict[str, Any], keys: dict[str, Any], paths: list[tuple[str, ...]]) -> None:
    assert sorted(change(form, keys)[1]) == sorted(paths)
