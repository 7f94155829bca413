"""The shape of a policies file: defaults, and that what is left out can be told from what is written."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from smtpgate.policy.rules import Cost
from smtpgate.policy.schema import (
    ChangeKeys,
    DenyKeys,
    LimitKeys,
    MatchKeys,
    OffKeys,
    OverrideKeys,
    PolicyKeys,
    SetKeys,
)
from smtpgate.policy.terms import Amount
from smtpgate.units import Rate


def test_defaults() -> None:
    keys = PolicyKeys.model_validate({})
    assert (keys.version, keys.mode, keys.limiter.local_share) == (1, "enforce", 0.5)
    assert (keys.ip_prefix.v4, keys.ip_prefix.v6) == (32, 64)
    assert (keys.sets, keys.replies, keys.limits) == ({}, {}, {})
    assert keys.model_fields_set == set()


def test_a_match_is_what_was_written() -> None:
    keys = MatchKeys.model_validate({"user": "ann", "auth": False, "client": ["192.0.2.1", "unix:"]})
    assert keys.spec() == {"client": ["192.0.2.1", "unix:"], "auth": False, "user": ["ann"]}
    assert MatchKeys().spec() == {}


def test_a_limit() -> None:
    keys = LimitKeys.model_validate(
        {"event": "auth_fail", "rate": "5/10m", "key": "{net}", "deny": {"reply": "auth", "delay": "1.5s"}}
    )
    assert keys.rate == Rate(5, 600.0)
    assert keys.deny == DenyKeys.model_validate({"reply": "auth", "delay": "1.5s"})
    assert keys.deny.delay == 1.5
    assert "burst" not in keys.model_fields_set


@pytest.mark.parametrize(
    ("keys", "types"),
    [
        ({"user": "a"}, ["user"]),
        ({"cidr": [], "user": ["a"]}, ["user", "cidr"]),
        ({"file": "a.txt", "type": "user"}, ["file"]),
        ({"time": "22:00-06:00", "days": ["mon"], "tz": "UTC"}, ["time"]),
        ({}, []),
    ],
)
def test_types_of_a_set(keys: dict[str, Any], types: list[str]) -> None:
    assert SetKeys.model_validate(keys).types() == types


@pytest.mark.parametrize("key", ["override", "routs", "exemptions"])
def test_unknown_top_level_keys(key: str) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        PolicyKeys.model_validate({key: {}})


# A key that is left out has a value all the same: not one that anybody should rely on.
def test_what_is_left_out_can_be_told() -> None:
    keys = LimitKeys.model_validate({"event": "mail", "rate": "1/1s", "key": "{net}", "deny": {"reply": "x"}})
    assert keys.model_fields_set == {"event", "rate", "key", "deny"}
    assert keys.deny.model_fields_set == {"reply"}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rate", "2GiB/1d", Rate(2 << 30, 86_400.0, in_bytes=True)),
        ("shape", "1MiB/1s", Rate(1 << 20, 1.0, in_bytes=True)),
        ("burst", 5, Amount(5)),
        ("burst", "4MiB", Amount(4 << 20, in_bytes=True)),
        ("max", 100, Amount(100)),
        ("concurrency", 20, 20),
        ("cost", 2, 2.0),
        ("cost", 0.5, 0.5),
        ("cost", "bytes", Cost.BYTES),
        ("cost", "recipients", Cost.RECIPIENTS),
    ],
)
def test_terms(key: str, value: Any, expected: Any) -> None:
    assert getattr(ChangeKeys.model_validate({key: value}), key) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("burst", 0),
        ("burst", True),
        ("burst", 1.5),
        ("burst", "0B"),
        ("burst", 2**53 + 1),
        ("concurrency", "20"),
        ("concurrency", 0),
        ("cost", 0),
        ("cost", -1),
        ("cost", True),
        ("cost", "octets"),
        ("cost", math.inf),
        ("cost", math.nan),
        ("rate", "0/1s"),
        ("on_error", "open"),
    ],
)
def test_bad_terms(key: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        ChangeKeys.model_validate({key: value})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-01T00:00:00Z", 1_796_083_200.0),
        ("2026-12-01t00:00:00z", 1_796_083_200.0),
        ("2026-12-01T01:30:00+01:30", 1_796_083_200.0),
        ("2026-12-01T00:00:00.123456789Z", 1_796_083_200.0),
        ("1969-12-31T23:59:59Z", -1.0),
    ],
)
def test_until(text: str, expected: float) -> None:
    assert OverrideKeys.model_validate({"match": {}, "until": text, "set": {"x": "off"}}).until == expected


NO_TIMES = ["2026-12-01", "2026-12-01T00:00:00", "2026-12-01 00:00:00Z", "2026-02-30T00:00:00Z"]


@pytest.mark.parametrize("text", NO_TIMES)
def test_bad_until(text: str) -> None:
    with pytest.raises(ValidationError, match="is not a time"):
        OverrideKeys.model_validate({"match": {}, "until": text, "set": {"x": "off"}})


def test_a_change_is_off_or_fields() -> None:
    keys = OverrideKeys.model_validate({"match": {}, "set": {"x": "off", "y": {"burst": 5}}})
    assert isinstance(keys.set["x"], OffKeys)
    assert keys.set["y"].model_fields_set == {"burst"}
    for wrong in ("on", {}, [], 5, True):
        with pytest.raises(ValidationError, match="is not a change of a limit"):
            OverrideKeys.model_validate({"match": {}, "set": {"x": wrong}})


def test_null_is_not_a_default() -> None:
    for key in PolicyKeys.model_fields:
        with pytest.raises(ValidationError):
            PolicyKeys.model_validate({key: None})
    for key in MatchKeys.model_fields:
        with pytest.raises(ValidationError):
            MatchKeys.model_validate({key: None})
