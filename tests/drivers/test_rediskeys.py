"""The names of keys: what is written behind them is in test_redisstore.py."""

from __future__ import annotations

import re

import pytest

from smtpgate.drivers import rediskeys
from smtpgate.policy.store import AFTER

NAMESPACES = (
    rediskeys.BUCKETS,
    rediskeys.SLOTS,
    rediskeys.DISTINCT,
    rediskeys.BANS,
    rediskeys.NETWORKS,
)


def test_all_keys_lie_in_one_slot_of_a_cluster() -> None:
    """One hash tag, the first pair of braces (Redis cluster specification, "Hash tags")."""
    assert {re.findall(r"\{([^}]+)\}", namespace)[0] for namespace in NAMESPACES} == {"rl"}
    assert len(set(NAMESPACES)) == len(NAMESPACES)


@pytest.mark.parametrize(
    ("limit", "subject"),
    [
        ("user.msgs.min", "ann@example.com"),
        ("ip.conns", "2001:db8::/64"),
        ("auth.fail.pair", "2001:db8::/64|ann"),
        (f"user.msgs.min{AFTER}", "unix:"),
        ("a", ""),
    ],
)
def test_a_name_is_split_where_it_was_joined(limit: str, subject: str) -> None:
    assert rediskeys.split(rediskeys.name(limit, subject)) == (limit, subject)
