"""Pydantic's errors in our words, at their marks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, PlainValidator, ValidationInfo, model_validator

from smtpgate.document import DocumentError, load, read, validate
from smtpgate.units import DurationField, InvalidValue, OneOrMany, StrictModel


def _seen(value: Any, info: ValidationInfo) -> str:
    assert info.context is not None
    return f"{info.context['prefix']}{value}"


def _broken(value: Any) -> str:
    raise ValueError("a plain ValueError")


class Inner(StrictModel):
    name: Annotated[str, Field(description="a word", min_length=2, max_length=4)]
    timeout: DurationField = 1.0
    burst: Annotated[int, Field(ge=1, le=9)] = 1
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _together(self) -> Inner:
        if self.burst == 7:
            raise InvalidValue("burst is unlucky", "another", path=("burst",))
        return self


class Root(StrictModel):
    items: Annotated[list[Inner], Field(max_length=2)] = Field(default_factory=list)
    table: dict[str, Inner] = Field(default_factory=dict)
    mode: Literal["off", "on", "auto"] = "off"
    flag: bool = False
    waits: OneOrMany[DurationField] = Field(default_factory=list)
    either: Inner | Literal["none"] = "none"
    maybe: Inner | None = None
    seen: Annotated[str, PlainValidator(_seen)] = ""
    broken: Annotated[str, PlainValidator(_broken)] = ""


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        read(text.encode(), Root, source="f", environ=environ)
    return [str(problem) for problem in caught.value.problems]


def test_a_valid_document_becomes_a_model():
    document = load(b"items: [{name: ab, timeout: 5m}]\nmode: on\nwaits: 2s\n", source="f")
    root = validate(document, Root)
    assert root.items == [Inner(name="ab", timeout="5m")]  # type: ignore[arg-type]
    assert root.items[0].timeout == 300.0
    assert root.mode == "on"
    assert root.waits == [2.0]


def test_context_reaches_validators():
    assert validate(load(b"seen: x\n", source="f"), Root, context={"prefix": "a/"}).seen == "a/x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("items: {a: 1}\n", "f:1:1: items: a mapping is not a list; expected e.g. [a, b]"),
        ("items: [x]\n", "f:1:9: items[0]: is not a mapping; expected keys with values"),
        ("table: [x]\n", "f:1:1: table: is not a mapping; expected keys with values"),
        ("items: [{}]\n", "f:1:9: items[0].name: is missing; expected a word"),
        ("table: {a.b: {}}\n", "f:1:9: table[a.b].name: is missing; expected a word"),
        (
            "items: [{name: 5}]\n",
            "f:1:10: items[0].name: 5 is not text; expected text, in quotes if it looks like a number",
        ),
        ("items: [{name: a}]\n", 'f:1:10: items[0].name: "a" is too short; expected at least 2 characters'),
        ("items: [{name: abcde}]\n", 'f:1:10: items[0].name: "abcde" is too long; expected at most 4 characters'),
        ("table: {a: {name: ab, burst: x}}\n", 'f:1:23: table.a.burst: "x" is not a whole number; expected e.g. 10'),
        ("table: {a: {name: ab, burst: 0}}\n", "f:1:23: table.a.burst: 0 is too small; expected at least 1"),
        ("table: {a: {name: ab, burst: 10}}\n", "f:1:23: table.a.burst: 10 is too big; expected at most 9"),
        ("table: {a: {name: ab, share: 0}}\n", "f:1:23: table.a.share: 0 is too small; expected more than 0.0"),
        ("table: {a: {name: ab, share: 1}}\n", "f:1:23: table.a.share: 1 is too big; expected less than 1.0"),
        ("table: {a: {name: ab, share: x}}\n", 'f:1:23: table.a.share: "x" is not a number; expected e.g. 10 or 0.5'),
        ("flag: on\n", 'f:1:1: flag: "on" is not a boolean; expected true or false'),
        ("mode: of\n", 'f:1:1: mode: "of" is not one of the choices; expected off, on or auto'),
        ("mode: false\n", "f:1:1: mode: false is not one of the choices; expected off, on or auto"),
        (
            "waits: [1s, 2]\n",
            "f:1:13: waits[1]: 2 is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d",
        ),
        ("waits: 2\n", "f:1:1: waits: 2 is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d"),
        ("items: [{name: ab, burst: 7}]\n", "f:1:20: items[0].burst: burst is unlucky; expected another"),
        (
            "items: [{name: ab}, {name: cd}, {name: ef}]\n",
            "f:1:1: items: a list has too many items; expected at most 2",
        ),
        (
            "items: [{name: ab, brust: 1}]\n",
            "f:1:20: items[0].brust: unknown key, did you mean burst?; expected one of name, timeout, burst, share",
        ),
        (
            "table: {a: {name: ab, zz: 1}}\n",
            "f:1:23: table.a.zz: unknown key; expected one of name, timeout, burst, share",
        ),
        (
            "maybe: {name: ab, brust: 1}\n",
            "f:1:19: maybe.brust: unknown key, did you mean burst?; expected one of name, timeout, burst, share",
        ),
        ("mode:\n", "f:1:1: mode: has no value; expected a value, or no key"),
        ("maybe:\n", "f:1:1: maybe: has no value; expected a value, or no key"),
        ("waits: [1s, ~]\n", "f:1:13: waits[1]: has no value; expected a value, or no key"),
        ("broken: 1\n", "f:1:1: broken: a plain ValueError"),
        (
            "either: nome\n",
            "f:1:1: either: is not a mapping; expected keys with values or none",
        ),
    ],
)
def test_one_fault(text, expected):
    assert problems(text) == [expected]


def test_all_faults_in_file_order():
    assert problems(
        """\
mode: of
mode: on
waits: [1, 2s, 3 parsecs]
items:
  - name: ab
    timeout: 5
  - timeout: ${NO}
    burts: 3
flag:
colour: red
""",
        {},
    ) == [
        "f:2:1: mode: duplicate key, first in line 1",
        "f:3:9: waits[0]: 1 is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d",
        'f:3:16: waits[2]: "3 parsecs" is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d',
        "f:6:5: items[0].timeout: 5 is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d",
        "f:7:5: items[1].name: is missing; expected a word",
        "f:7:14: items[1].timeout: the environment has no NO; expected it set, or ${NO:-default}",
        "f:8:5: items[1].burts: unknown key, did you mean burst?; expected one of name, timeout, burst, share",
        "f:9:1: flag: has no value; expected a value, or no key",
        "f:10:1: colour: unknown key; expected one of items, table, mode, flag, waits, either, maybe, seen, broken",
    ]


def test_what_a_variable_holds_is_not_shown():
    assert problems("mode: ${M}\nwaits: x${M}\nflag: ${E}\n", {"M": "hunter2", "E": ""}) == [
        'f:1:1: mode: "${M}" is not one of the choices; expected off, on or auto',
        'f:2:1: waits: "x${M}" is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d',
        "f:3:1: flag: has no value; expected a value, or no key",
    ]


def test_load_and_validate_apart_tell_the_same():
    text = b"mode: of\n"
    with pytest.raises(DocumentError) as caught:
        validate(load(text, source="f"), Root)
    assert [str(problem) for problem in caught.value.problems] == problems(text.decode())
