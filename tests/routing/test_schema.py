"""The shape of routes and pools."""

from typing import Any

import pytest
from pydantic import ValidationError

from smtpgate.routing.schema import PoolKeys, RouteKeys, RoutingKeys
from smtpgate.units import HostPort, StrictModel


class AnyMatch(StrictModel):
    user: str = "*"


BACKEND = {"name": "mta1", "addr": "[::1]:25"}


def test_defaults() -> None:
    pool = PoolKeys.model_validate({"backends": [BACKEND]})
    assert (pool.balance, pool.failover.attempts, pool.failover.deadline) == ("round_robin", 2, 20.0)
    assert pool.unavailable.reply == "451 4.4.1 no mail server available, try again later"
    assert pool.backends[0].addr == HostPort("::1", 25)
    assert pool.backends[0].weight == 1
    assert pool.model_fields_set == {"backends"}


def test_a_route_has_the_match_that_it_is_made_for() -> None:
    keys = RoutingKeys[AnyMatch].model_validate({"routes": [{"name": "a", "match": {"user": "b"}, "pool": "p"}]})
    assert keys.routes == [RouteKeys[AnyMatch](name="a", match=AnyMatch(user="b"), pool="p")]


@pytest.mark.parametrize(
    ("value", "expected"), [("on", True), ("off", False), (True, True), (False, False), ("yes", None), (1, None)]
)
def test_switches(value: Any, expected: bool | None) -> None:
    keys = {"backends": [BACKEND], "smtp_auth": value, "pass_error_message": value}
    if expected is None:
        with pytest.raises(ValidationError, match="is not a switch; expected on, off, true or false"):
            PoolKeys.model_validate(keys)
    else:
        pool = PoolKeys.model_validate(keys)
        assert (pool.smtp_auth, pool.pass_error_message) == (expected, expected)


# What policy.md promises and this version does not do yet: refused, never ignored.
@pytest.mark.parametrize(
    "key", ["proxy_protocol", "tls", "health", "breaker", "slow_start", "reuse", "queue", "hash_key"]
)
def test_unknown_keys_of_a_pool(key: str) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        PoolKeys.model_validate({"backends": [BACKEND], key: {}})


@pytest.mark.parametrize("key", ["state", "backup"])
def test_unknown_keys_of_a_backend(key: str) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        PoolKeys.model_validate({"backends": [{**BACKEND, key: True}]})
