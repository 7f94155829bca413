"""Facts grow: a new object each time, with all that was known before."""

from __future__ import annotations

import pytest

from smtpgate.policy.model import Facts, grown


def test_growing_is_replacing() -> None:
    values = {name: f"value of {name}" for name in Facts._fields}
    facts = Facts(**values)
    for name in values:
        assert grown(facts, **{name: None}) == facts._replace(**{name: None})
    assert grown(facts) == facts
    assert facts == Facts(**values)


def test_a_field_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="no fact is called 'recipient'; expected one of client, "):
        grown(Facts("192.0.2.7"), recipient="a@a.example")
