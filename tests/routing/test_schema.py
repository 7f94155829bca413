"""The shape of routes and pools."""

from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from smtpgate.routing.model import UNAVAILABLE, BreakerSpec, Failover, HealthSpec, QueueSpec, ReuseSpec
from smtpgate.routing.schema import LoginKeys, PoolKeys, RouteKeys, RoutingKeys, TlsKeys
from smtpgate.units import HostPort, StrictModel


class AnyMatch(StrictModel):
    user: str = "*"


BACKEND = {"name": "mta1", "addr": "[::1]:25"}


def pool(**keys: Any) -> PoolKeys:
    return PoolKeys.model_validate({"backends": [BACKEND], **keys})


def test_defaults_are_those_of_the_model() -> None:
    keys = pool()
    assert keys.model_fields_set == {"backends"}
    assert (keys.balance, keys.hash_key, keys.slow_start) == ("round_robin", "client", 0.0)
    assert HealthSpec(**dict(keys.health)) == HealthSpec()
    assert BreakerSpec(**dict(keys.breaker)) == BreakerSpec()
    assert Failover(**dict(keys.failover)) == Failover()
    assert ReuseSpec(**dict(keys.reuse)) == ReuseSpec()
    assert QueueSpec(**dict(keys.queue)) == QueueSpec()
    assert keys.unavailable.reply == UNAVAILABLE
    backend = keys.backends[0]
    assert (backend.addr, backend.weight, backend.state, backend.backup) == (HostPort("::1", 25), 1, "active", False)


def test_a_route_has_the_match_that_it_is_made_for() -> None:
    keys = RoutingKeys[AnyMatch].model_validate({"routes": [{"name": "a", "match": {"user": "b"}, "pool": "p"}]})
    assert keys.routes == [RouteKeys[AnyMatch](name="a", match=AnyMatch(user="b"), pool="p")]


@pytest.mark.parametrize(
    ("value", "expected"), [("on", True), ("off", False), (True, True), (False, False), ("yes", None), (1, None)]
)
def test_switches(value: Any, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(ValidationError, match="is not a switch; expected on, off, true or false") as caught:
            pool(smtp_auth=value, pass_error_message=value)
        assert caught.value.error_count() == 2
    else:
        keys = pool(smtp_auth=value, pass_error_message=value)
        assert (keys.smtp_auth, keys.pass_error_message) == (expected, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("off", "off"),
        (False, "off"),
        ("starttls", "starttls"),
        ("implicit", "implicit"),
        ({"mode": "required"}, TlsKeys(mode="required")),
        (
            {
                "mode": "required",
                "verify": "off",
                "server_name": "mta.example",
                "ca": "ca.pem",
                "cert": "a",
                "key": "b",
            },
            TlsKeys(mode="required", verify=False, server_name="mta.example", ca="ca.pem", cert="a", key="b"),
        ),
    ],
)
def test_both_forms_of_tls(value: Any, expected: str | TlsKeys) -> None:
    assert pool(tls=value).tls == expected


def test_a_login_hides_its_password() -> None:
    keys = pool(smtp_auth={"user": "relay", "password": "hunter2"})
    assert keys.smtp_auth == LoginKeys(user="relay", password="hunter2")
    assert "hunter2" not in repr(keys)


@pytest.mark.parametrize("text", ["", "a\0b", "x" * 256, "é" * 128])
def test_what_auth_plain_cannot_say(text: str) -> None:
    with pytest.raises(ValidationError, match="text of 1 to 255 octets"):
        pool(smtp_auth={"user": "relay", "password": text})


@pytest.mark.parametrize(("text", "part"), [("0%", 0.0), ("7%", 0.07), ("50%", 0.5), ("100%", 1.0)])
def test_percent(text: str, part: float) -> None:
    assert pool(breaker={"max_open": text}).breaker.max_open == part


@pytest.mark.parametrize("value", ["101%", "-1%", "1.5%", "050%", "50", "%", "５0%", 50, 0.5, True])
def test_no_percent(value: Any) -> None:
    with pytest.raises(ValidationError, match="is not a part of a pool; expected 0% to 100%"):
        pool(breaker={"max_open": value})


# --- the JSON Schema ------------------------------------------------------------------------------------------------

SCHEMA = RoutingKeys[AnyMatch].model_json_schema()
EVERY_KEY = {
    "balance": "hash",
    "hash_key": "user",
    "xclient": "on",
    "proxy_protocol": "v2",
    "smtp_auth": {"user": "relay", "password_file": "relay.txt"},
    "pass_error_message": True,
    "tls": {
        "mode": "required",
        "verify": "on",
        "server_name": "mta",
        "ca": "ca.pem",
        "cert": "c.pem",
        "key": "k.pem",
    },
    "backends": [{**BACKEND, "weight": 10, "max_conns": 200, "state": "drain", "backup": False}],
    "health": {"probe": "connect", "every": "5s", "timeout": "2s", "rise": 2, "fall": 3},
    "breaker": {"connect": 3, "session": 5, "min_clients": 2, "open": "30s", "max_open": "50%"},
    "slow_start": "30s",
    "failover": {"until": "buffered", "attempts": 2, "deadline": "20s", "buffer": "1MiB"},
    "reuse": {"idle": "20s", "messages": 50, "max_idle": 20, "age": "5m"},
    "queue": {"wait": "2s", "max": 500},
    "unavailable": {"reply": "451 4.4.1 later"},
}


def schema_faults(pool: dict[str, Any]) -> list[str]:
    document = {"pools": {"core": pool}, "routes": [{"name": "all", "match": {}, "pool": "core"}]}
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)]


def test_the_schema_takes_what_the_models_take() -> None:
    assert set(EVERY_KEY) == set(PoolKeys.model_fields)
    PoolKeys.model_validate(EVERY_KEY)
    assert schema_faults(EVERY_KEY) == []
    short = {"backends": [BACKEND], "tls": "required", "smtp_auth": "on", "failover": {"buffer": 4096}}
    PoolKeys.model_validate(short)
    assert schema_faults(short) == []


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("balance", "leastconn", "balance"),
        ("tls", "on", "tls"),
        ("tls", {"ca": "x"}, "tls"),
        ("smtp_auth", "yes", "smtp_auth"),
        ("breaker", {"max_open": 0.5}, "breaker.max_open"),
        ("slow_start", 30, "slow_start"),
        ("backends", [], "backends"),
        ("unknown", 1, ""),
    ],
)
def test_the_schema_refuses_what_the_models_refuse(key: str, value: Any, path: str) -> None:
    with pytest.raises(ValidationError):
        PoolKeys.model_validate({**EVERY_KEY, key: value})
    assert schema_faults({**EVERY_KEY, key: value}) == [f"$.pools.core.{path}".rstrip(".")]
