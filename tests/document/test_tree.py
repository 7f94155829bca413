"""How a fault is written."""

from __future__ import annotations

import pytest

from smtpgate.document import Document, DocumentError, Mark, Problem, render


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("listeners", 0, "timeout"), "listeners[0].timeout"),
        (("limits", "user.msgs.min", "rate"), "limits[user.msgs.min].rate"),
        (("a b",), "[a b]"),
        (("x\ny", "z"), "[x\\ny].z"),
        (("x" * 100,), "[" + "x" * 60 + "…]"),
    ],
)
def test_render(path, text):
    assert render(path) == text


def test_a_problem_is_one_line():
    problem = Problem("conf/proxy.yaml", 12, 5, ("a", 0), '"x" is not a duration', "e.g. 10s")
    assert str(problem) == 'conf/proxy.yaml:12:5: a[0]: "x" is not a duration; expected e.g. 10s'
    assert str(Problem("f", 1, 1, (), "the file is empty")) == "f:1:1: the file is empty"


def test_problems_are_told_in_file_order():
    late, early = Problem("f", 10, 1, (), "late"), Problem("f", 9, 2, (), "early")
    error = DocumentError([late, early])
    assert error.problems == (early, late)
    assert str(error) == "f:9:2: early\nf:10:1: late"


def test_a_flood_of_problems_is_cut():
    error = DocumentError(Problem("f", line, 1, (), "no") for line in range(1, 61))
    assert len(error.problems) == 60
    assert str(error).splitlines()[49:] == ["f:50:1: no", "and 10 more"]


def test_locate_falls_back_to_the_nearest_parent():
    marks = {(): Mark("f", 1, 1), ("a",): Mark("f", 2, 1), ("a", "b"): Mark("f", 3, 3)}
    document = Document("f", {"a": {"b": 1}}, marks, {})
    assert document.locate(("a", "b")) == Mark("f", 3, 3)
    assert document.locate(("a", "b", 0, "c")) == Mark("f", 3, 3)
    assert document.locate(("a", "x")) == Mark("f", 2, 1)
    assert document.locate(("x",)) == Mark("f", 1, 1)
    assert document.problem(("a", "x"), "is missing", "a word") == Problem(
        "f", 2, 1, ("a", "x"), "is missing", "a word"
    )


def test_values_stay_out_of_the_repr():
    assert "secret" not in repr(Document("f", {"password": "secret"}, {}, {}))
