"""How a line is spelt; drivers/test_journal.py tests the same through the whole of it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from smtpgate.drivers.logline import MAX_VALUE, Stamps, style

FIELDS: dict[str, Any] = {"user": None, "n": 7, "text": 'a "b"\n', "f": 0.25, "list": ["x", None], "on": True}


def test_the_two_forms() -> None:
    spelt = [style(name).line("T", "info", "e", style(name).fields(FIELDS)) for name in ("json", "text")]
    assert json.loads(spelt[0]) == {"timestamp": "T", "level": "info", "event": "e", **FIELDS}
    assert spelt[1] == r'T info e n=7 text="a \"b\"\n" f=0.25 list=["x", null] on=true'


def test_fields_stand_behind_each_other() -> None:
    for name in ("json", "text"):
        one = style(name)
        assert one.fields({"a": 1}) + one.fields({"b": "x"}) == one.fields({"a": 1, "b": "x"})


@pytest.mark.parametrize("name", ["json", "text"])
@pytest.mark.parametrize(
    "value", [None, "x", 'a "b"\n', "x" * (MAX_VALUE + 1), 7, True, ["x", None], ("x",), {"a": 1}]
)
def test_a_row_is_what_its_fields_are(name: str, value: object) -> None:
    one = style(name)
    row = one.row(one.frame("info", "e", ', "pid": 7', ["first", "x"]), "T", (1, value), one.fields({"more": "y"}))
    assert row == one.line("T", "info", "e", ', "pid": 7' + one.fields({"first": 1, "x": value, "more": "y"}))


@pytest.mark.parametrize(("value", "spelt"), [(0.0, "0.000"), (0.0006, "0.001"), (1.5, "1.500"), (-2.0, "-2.000")])
def test_a_float_in_a_row_has_three_digits(value: float, spelt: str) -> None:
    for name in ("json", "text"):
        one = style(name)
        row = one.row(one.frame("info", "e", "", ["x"]), "T", (value,), "")
        assert row == one.line("T", "info", "e", one.fields({"x": 1.0}).replace("1.0", spelt))


@pytest.mark.parametrize(("value", "spelt"), [(math.inf, "Infinity"), (math.nan, "NaN"), (-math.inf, "-Infinity")])
def test_numbers_that_are_none_are_spelt_as_json_dumps_does(value: float, spelt: str) -> None:
    assert style("json").fields({"x": value}) == f', "x": {spelt}'


def test_what_is_just_short_enough_is_whole() -> None:
    for name in ("json", "text"):
        assert MAX_VALUE * "x" + '"' in style(name).fields({"x": MAX_VALUE * "x"})
        assert MAX_VALUE * "x" + '..."' in style(name).fields({"x": (MAX_VALUE + 1) * "x"})


@pytest.mark.parametrize("now", [0.0, 1.5, 1795384179.999999, 1795384180.000001, 1795384180.25])
def test_a_stamp_is_rfc_3339(now: float) -> None:
    stamps = Stamps()
    for moment in (now, now, now + 61.5, now):
        read = datetime.fromisoformat(stamps.of(moment).replace("Z", "+00:00"))
        assert read.tzinfo == UTC
        assert abs(read.timestamp() - moment) < 2e-6
