"""Named sets, their files, and which of many sets hold a value."""

from typing import Any

import pytest
from callcount import calls

from smtpgate.policy import sets as module
from smtpgate.policy.fields import Kind
from smtpgate.policy.sets import ClientFinder, Directory, NamedSet, TextFinder, named_set, read_members
from smtpgate.policy.times import time_set
from smtpgate.units import InvalidValue


def test_members_in_canonical_form() -> None:
    assert named_set("user", ["Ann@Example.com", "*@B.example"]).words == ("ann@example.com", "*@b.example")
    assert named_set("domain", ["BÜCHER.example"]).words == ("xn--bcher-kva.example",)
    assert named_set("cidr", ["unix:", "::ffff:192.0.2.0/120"]).words == ("192.0.2.0/24", "unix:")


def test_a_file_is_one_value_a_line() -> None:
    text = b"\xef\xbb\xbf# customers\r\nann@example.com\r\n\r\n  bob@example.com  # since 2024\n#\nlast"
    assert read_members(text) == (["ann@example.com", "bob@example.com", "last"], [2, 4, 6])
    assert read_members(b"") == ([], [])


def test_a_file_that_is_not_text() -> None:
    with pytest.raises(InvalidValue) as caught:
        read_members(b"ann\nb\xfc\n")
    assert (caught.value.path, str(caught.value)) == ((2,), "octet 0xfc is not UTF-8; expected UTF-8")


def test_a_file_of_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 2)
    assert read_members(b"a\nb\n")[0] == ["a", "b"]
    with pytest.raises(InvalidValue) as caught:
        read_members(b"a\nb\n\nc\nd\n")
    assert (caught.value.path, str(caught.value)) == ((4,), "holds 4 values; expected at most 2")


def test_labels_of_a_text() -> None:
    found = TextFinder([("ann@a.b", 1), ("*@a.b", 2), ("*.b", 3), ("a*", 4), ("ann@a.b", 5), ("*", 6)])
    assert sorted(found.find("ann@a.b")) == [1, 2, 3, 4, 5, 6]
    assert sorted(found.find("x@c.b")) == [3, 6]


def test_labels_of_a_client() -> None:
    found = ClientFinder([("192.0.2.0/24", 1), ("192.0.2.7/32", 2), ("192.0.2.0/24", 3), ("::/0", 4), ("unix:", 5)])
    assert sorted(found.find("192.0.2.7")) == [1, 2, 3]
    assert found.find("2001:db8::1") == [4]
    assert found.find("unix:") == [5]
    assert found.find("nobody") == []


def test_the_sets_that_hold_a_value() -> None:
    directory = Directory(
        {
            "a": named_set("user", ["ann@x", "bob@x"]),
            "b": named_set("user", ["*@x"]),
            "c": named_set("cidr", ["192.0.2.0/24"]),
            "d": named_set("domain", ["ann@x".partition("@")[2]]),
            "night": NamedSet("time", time_set(["22:00-06:00"])),
        }
    )
    assert directory.holding(Kind.ADDRESS, "ann@x") == []  # nobody has announced that he would ask
    for kind in (Kind.ADDRESS, Kind.CLIENT, Kind.NET):
        directory.announce(kind)
    assert sorted(directory.holding(Kind.ADDRESS, "ann@x")) == ["a", "b"]
    assert directory.holding(Kind.ADDRESS, "cat@x") == ["b"]
    assert directory.holding(Kind.CLIENT, "192.0.2.9") == directory.holding(Kind.NET, "192.0.2.9") == ["c"]
    assert directory.holding(Kind.DOMAIN, "x") == []


@pytest.mark.parametrize(
    ("type_", "patterns", "value"),
    [
        ("user", lambda n: [f"user{i}@example.com" for i in range(n)], "user7@example.org"),
        ("domain", lambda n: [f"*.d{i}.example" for i in range(n)], "mail.d123456.example"),
        ("cidr", lambda n: [f"10.{i >> 8}.{i & 255}.0/24" for i in range(n)], "192.0.2.1"),
    ],
)
def test_cost_does_not_grow_with_members(type_: str, patterns: Any, value: str) -> None:
    few, many = (named_set(type_, patterns(n)).test for n in (10, 20_000))
    assert few(value) is False
    assert many(value) is False
    assert calls(many, value) == calls(few, value)


def test_a_hundred_thousand_users_cost_what_ten_do() -> None:
    few, many = (named_set("user", read_members(_users(n))[0]).test for n in (10, 100_000))
    assert few("user9@example.com")
    assert many("user99999@example.com")
    assert calls(many, "user99999@example.com") == calls(few, "user9@example.com")


def _users(count: int) -> bytes:
    return "".join(f"user{i}@example.com\n" for i in range(count)).encode()
