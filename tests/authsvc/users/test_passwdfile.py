from __future__ import annotations

import pytest

from authsvc.users import passwdfile
from authsvc.users.model import NotWritableError, User
from smtpgate.document import DocumentError

SHA512 = "{SHA512-CRYPT}$6$saltsalt$" + "a" * 86
# htpasswd -nbB -C 5 test secret
BCRYPT = "$2y$05$.sZSPMjXYWOBUes5mX14yeRGx25zjiqve0zHnuvZHForcknwh6Y.2"
CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"


@pytest.mark.parametrize(
    ("line", "user"),
    [
        (f"test:{SHA512}", User("test", (SHA512,))),
        (f"test:{BCRYPT}", User("test", (BCRYPT,))),
        (f"test:{SHA512}:1000:1000:Test, Mr:/home/test:/bin/sh", User("test", (SHA512,))),
        ("test:", User("test")),
        ("test::::::", User("test")),
        ("test:::::::", User("test")),
        (f"test@example.com:{SHA512}::::::userdb_quota_rule=*:bytes=1G", User("test@example.com", (SHA512,))),
        (
            f"jürgen:{SHA512}::::::plan=gold pool=bulk cram_md5={CRAM_MD5} nologin",
            User("jürgen", (SHA512, CRAM_MD5), "gold", "bulk", enabled=False),
        ),
        ("test:::::::nologin=y", User("test", enabled=False)),
        ("a b:", User("a b")),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_is_a_user(line: str, user: User, end: str) -> None:
    assert passwdfile.parse((line + end).encode(), "users") == {user.name: user}


def test_comments_and_empty_lines_say_nothing() -> None:
    text = f"\ufeff# users\n\n \t\r\n#test2:{SHA512}\ntest:\n"
    assert list(passwdfile.parse(text.encode(), "users")) == ["test"]


def test_an_empty_file_has_no_users() -> None:
    assert passwdfile.parse(b"", "users") == {}


def test_clear_passwords_are_taken_where_they_are_asked_for() -> None:
    assert passwdfile.parse(b"test:{PLAIN}12 34\n", "users", plain=True) == {"test": User("test", ("{PLAIN}12 34",))}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"hunter2", "the line has no colon; expected NAME:PASSWORD"),
        (
            b":hunter2",
            '"" cannot be a user\'s name; expected 1 to 320 octets of printable text, no space at its ends',
        ),
        (b" test:", '" test" cannot be a user\'s name; expected 1 to 320 octets of printable text, no space at its'),
        (b"te\xffst:hunter2", "the line is not UTF-8"),
        (b"test:hunter2", "this is not a stored password; expected {ARGON2ID}, "),
        (
            b"test:{PLAIN}hunter2",
            "{PLAIN} passwords are not taken; expected a hash, or plain_passwords: true in conf",
        ),
        (b"test:!" + BCRYPT.encode(), "this is not a stored password; expected {ARGON2ID}, "),
        (b"test:::::::cram_md5=hunter2", "this is not a stored password; expected {ARGON2ID}, "),
        (b"test:::::::plan=a/b", 'plan: "a/b" is not a name; expected 1 to 64 of A-Z a-z 0-9 . _ -'),
        (b"test:::::::allow_nets=10.0.0.0/8", 'the extra field "allow_nets" is not known; expected plan=…, pool=…, '),
        (b"test:::::::plan=a plan=b", "the extra field plan stands there twice; expected each once"),
        (b"old:", '"old" stands here again, first in line 1'),
        (b"test:" + b"x" * 4092, "the line has 4097 characters; expected at most 4096"),
    ],
)
def test_what_is_wrong_with_a_line(line: bytes, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        passwdfile.parse(b"old:\n# x\n" + line + b"\nnew:\n", "etc/users")
    assert str(caught.value).startswith(f"etc/users:3:1: {message}")
    assert len(caught.value.problems) == 1
    assert "hunter2" not in str(caught.value)


def test_every_line_that_is_wrong_is_told() -> None:
    with pytest.raises(DocumentError) as caught:
        passwdfile.parse(b"a\nb:\nc\n", "users")
    assert [problem.line for problem in caught.value.problems] == [1, 3]


def test_a_file_that_is_too_long() -> None:
    with pytest.raises(
        DocumentError, match="the file has more than 4194304 octets; expected Redis or SQL for so many"
    ):
        passwdfile.parse(b"#" * (passwdfile.MAX_TEXT + 1), "users")


TEXT = f"# ours\ntest:{SHA512}:1000:100::/home/test:/bin/sh:userdb_x=1 plan=gold\n\n# last\ntest2:\n"


@pytest.mark.parametrize(
    ("user", "line"),
    [
        (User("test", (BCRYPT,)), f"test:{BCRYPT}:1000:100::/home/test:/bin/sh:userdb_x=1"),
        (
            User("test", (CRAM_MD5,), "free", enabled=False),
            f"test::1000:100::/home/test:/bin/sh:userdb_x=1 plan=free cram_md5={CRAM_MD5} nologin",
        ),
    ],
)
def test_a_users_line_is_changed_and_no_other(user: User, line: str) -> None:
    old = TEXT.splitlines()[1]
    assert passwdfile.put(TEXT.encode(), "users", user).decode() == TEXT.replace(old, line)


def test_a_line_without_other_programs_fields_gets_them_only_when_it_has_to() -> None:
    assert passwdfile.put(b"test:\n", "users", User("test", (BCRYPT,))) == f"test:{BCRYPT}\n".encode()
    assert passwdfile.put(b"test:\n", "users", User("test", pool="a")) == b"test:::::::pool=a\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"new:\n"),
        (b"test:\n", b"test:\nnew:\n"),
        (b"test:", b"test:\nnew:\n"),
        (b"test:\r\n", b"test:\r\nnew:\r\n"),
    ],
)
def test_a_user_is_added_at_the_end(before: bytes, after: bytes) -> None:
    assert passwdfile.put(before, "users", User("new")) == after


def test_the_first_line_is_found_behind_a_byte_order_mark_and_lines_keep_their_ends() -> None:
    text = b"\xef\xbb\xbftest:\r\nother:\n"
    assert passwdfile.put(text, "users", User("test", enabled=False)) == b"\xef\xbb\xbftest:::::::nologin\r\nother:\n"
    assert passwdfile.remove(b"\xef\xbb\xbftest:\nother:\n", "users", "test") == b"other:\n"


def test_a_user_is_removed() -> None:
    assert passwdfile.remove(TEXT.encode(), "users", "test2").decode() == TEXT.removesuffix("test2:\n")
    assert passwdfile.remove(TEXT.encode(), "users", "tes").decode() == TEXT


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (User("a:b"), 'users: "a:b" cannot stand in a line; expected no colon, no # in front'),
        (User("#a"), 'users: "#a" cannot stand in a line; expected no colon, no # in front'),
        (User("a", (BCRYPT, SHA512)), "users: a line has room for one password; this user has 2"),
    ],
)
def test_what_a_line_cannot_hold(user: User, message: str) -> None:
    with pytest.raises(NotWritableError) as caught:
        passwdfile.put(b"", "users", user)
    assert str(caught.value) == message
