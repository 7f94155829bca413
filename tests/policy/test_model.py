"""Facts grow: a new object each time, with all that was known before."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from smtpgate.policy.model import Facts, grown


def test_growing_is_replacing() -> None:
    values = {field.name: f"value of {field.name}" for field in fields(Facts)}
    facts = Facts(**values)
    for name in values:
        assert grown(facts, **{name: None}) == replace(facts, **{name: None})
    assert grown(facts) == facts
    assert facts == Facts(**values)


def test_a_field_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="recipient"):
        grown(Facts("192.0.2.7"), recipient="a@a.example")
