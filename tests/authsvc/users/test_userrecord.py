from __future__ import annotations

import pytest

from authsvc.users.model import StoreDownError, User
from authsvc.users.userrecord import RecordError, join_forms, read_record, split_forms, write_record

CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"


@pytest.mark.parametrize(
    ("record", "user"),
    [
        ({}, User("test")),
        ({"password": None, "plan": None, "pool": "", "enabled": None}, User("test")),
        ({"password": "$6$x"}, User("test", ("$6$x",))),
        ({"password": b"{SSHA}a  {SSHA}b "}, User("test", ("{SSHA}a", "{SSHA}b"))),
        ({"password": memoryview(b"{SSHA}a"), "cram_md5": CRAM_MD5}, User("test", ("{SSHA}a", CRAM_MD5))),
        ({"plan": "gold", "pool": b"bulk", "uid": 1000}, User("test", (), "gold", "bulk")),
        ({"name": "Test"}, User("Test")),
        ({"name": b"j\xc3\xbcrgen"}, User("jürgen")),
    ],
)
def test_a_record_is_a_user(record: dict[str, object], user: User) -> None:
    assert read_record("test", record) == user


@pytest.mark.parametrize("value", [True, 1, "1", "true", "T", "yes", "Y", "on", b"1", "", None])
def test_enabled(value: object) -> None:
    assert read_record("test", {"enabled": value}).enabled is True


@pytest.mark.parametrize("value", [False, 0, "0", "false", "F", "no", "N", "off", b"0"])
def test_disabled(value: object) -> None:
    assert read_record("test", {"enabled": value}).enabled is False


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "te\nst"}, "name is not a user's name; expected 1 to 320 octets of printable text, no space"),
        ({"name": 7}, "name is of the type int; expected text"),
        ({"password": b"hunter2\xff"}, "password is not UTF-8"),
        ({"password": "hunter2" * 1000}, "password has 7000 characters; expected at most 4096"),
        ({"password": 1234}, "password is of the type int; expected text"),
        ({"plan": "a b"}, "plan is not a name; expected 1 to 64 of A-Z a-z 0-9 . _ -"),
        ({"pool": "*"}, "pool is not a name; expected 1 to 64 of A-Z a-z 0-9 . _ -"),
        ({"enabled": "perhaps"}, "enabled is neither true nor false; expected e.g. true, false, 1, 0"),
        ({"enabled": 2}, "enabled is of the type int; expected text"),
    ],
    ids=repr,
)
def test_a_record_that_makes_no_user(record: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record("test", record)
    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)


def test_a_bad_record_is_no_answer_to_those_who_ask() -> None:
    assert issubclass(RecordError, StoreDownError)


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("", ()),
        ("  ", ()),
        ("{SSHA}a", ("{SSHA}a",)),
        ("{SSHA}a {PLAIN}a b {SSHA}c", ("{SSHA}a", "{PLAIN}a b {SSHA}c")),
        ("{plain.B64}YQ== x", ("{plain.B64}YQ== x",)),
        ("{CLEARTEXT}a b", ("{CLEARTEXT}a b",)),
    ],
)
def test_forms_are_apart_by_spaces_but_a_clear_password_may_hold_them(text: str, forms: tuple[str, ...]) -> None:
    assert split_forms(text) == forms


def test_a_clear_password_is_written_last() -> None:
    user = User("test", ("{PLAIN}a b", CRAM_MD5, "{SSHA}c"))
    assert join_forms(user) == "{SSHA}c {PLAIN}a b"
    assert sorted(read_record("test", write_record(user)).passwords) == sorted(user.passwords)


@pytest.mark.parametrize(
    ("user", "record"),
    [
        (User("test"), {"password": "", "cram_md5": None, "plan": None, "pool": None, "enabled": True}),
        (
            User("test", ("{SSHA}a", CRAM_MD5, "{SSHA}b"), "gold", "bulk", enabled=False),
            {"password": "{SSHA}a {SSHA}b", "cram_md5": CRAM_MD5, "plan": "gold", "pool": "bulk", "enabled": False},
        ),
    ],
)
def test_a_user_is_written(user: User, record: dict[str, object]) -> None:
    assert write_record(user) == record
