"""Single patterns and many of them, and what a hostile value costs."""

import pytest
from callcount import calls

from smtpgate.policy.fields import Kind
from smtpgate.policy.patterns import AtLeast, Glob, TextSet, canonical_patterns, size_test, suffix_of, suffixes_in
from smtpgate.units import InvalidValue


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("a*b*c", "aXbYbZc", True),
        ("a*b*c", "acb", False),
        ("*", "", True),
        ("bulk-*", "bulk-7", True),
        ("bulk-*", "abulk-7", False),
        ("aa*aa", "aaa", False),  # the two ends must not share a letter
    ],
)
def test_globs(pattern: str, value: str, expected: bool) -> None:
    assert Glob(pattern)(value) is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*.example.com", ".example.com"), ("*@x", "@x"), ("*x", None), ("*.x*", None), ("x", None)],
)
def test_suffix_of(pattern: str, expected: str | None) -> None:
    assert suffix_of(pattern) == expected


def test_suffixes_in() -> None:
    assert list(suffixes_in("ann@a.b", 99)) == ["@a.b", ".b"]
    assert list(suffixes_in("ann@a.b", 2)) == [".b"]


def test_a_set_of_all_kinds() -> None:
    tested = TextSet(["ann@example.com", "*.example.org", "*@lists.example.com", "bulk-*"])
    yes = ["ann@example.com", "x@a.example.org", "x@lists.example.com", "bulk-1"]
    no = ["bob@example.com", "x@example.org", "lists.example.com", "a.bulk-1"]
    assert [value for value in yes + no if tested(value)] == yes


def test_a_hostile_value_costs_one_walk() -> None:
    glob = Glob("*a*a*a*a*a*a*a*a*a*b")
    assert glob("a" * 100_000) is False
    assert TextSet(["*.example.com"])("." * 100_000) is False
    # 12 suffixes at most are as long as the longest pattern
    assert calls(TextSet(["*.example.com"]), "." * 100_000) < 60


def test_patterns_are_written_as_values_are_compared() -> None:
    patterns = ["Ann@Example.COM", "*@bücher.example"]
    assert canonical_patterns(Kind.ADDRESS, patterns) == ["ann@example.com", "*@xn--bcher-kva.example"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [([">= 10MiB"], AtLeast(10 * 1024 * 1024)), ([">=1000", ">= 5kB"], AtLeast(1000))],
)
def test_sizes(patterns: list[str], expected: AtLeast) -> None:
    assert size_test(patterns) == expected


def test_a_size_is_met_by_itself() -> None:
    assert [AtLeast(5)(value) for value in (4, 5, 6)] == [False, True, True]


@pytest.mark.parametrize(
    "pattern", ["10MiB", "> 10MiB", ">= ten", ">= 10 MiB", ">= -1", "", ">= 99999999999999999999"]
)
def test_bad_sizes(pattern: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        size_test([">= 1", pattern])
    assert caught.value.path == (1,)
    assert caught.value.message == "is not a bound of a size"
