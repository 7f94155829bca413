"""`user:` and `group:`: names and numbers, and what this system does not know."""

import grp
import pwd

import pytest

from smtpgate.document import Document, parse
from smtpgate.document.account import MAX_ID, Account, account, account_problems, name_or_number
from smtpgate.units import InvalidValue

ROOT = pwd.getpwuid(0).pw_name
NOBODY = pwd.getpwnam("nobody")
GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name
UNKNOWN = 4_000_000_000
"""A number that no user has."""


@pytest.mark.parametrize(
    ("user", "group", "found"),
    [
        (None, None, None),
        ("nobody", None, Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid)),
        (str(NOBODY.pw_uid), None, Account(str(NOBODY.pw_uid), NOBODY.pw_uid, NOBODY.pw_gid)),
        ("nobody", GROUP, Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid)),
        ("nobody", "4711", Account("nobody", NOBODY.pw_uid, 4711)),
        (str(UNKNOWN), "4711", Account(str(UNKNOWN), UNKNOWN, 4711)),
        (ROOT, None, Account(ROOT, 0, 0)),
    ],
)
def test_an_account(user, group, found):
    assert account(user, group) == found


@pytest.mark.parametrize(
    ("user", "group", "path", "message"),
    [
        ("no-such-user", None, ("user",), "is no user of this system"),
        ("nobody", "no-such-group", ("group",), "is no group of this system"),
        (str(UNKNOWN), None, ("user",), "has no name, and so no group of its own"),
        (None, "nogroup", ("group",), "is for a user, and there is none"),
    ],
)
def test_what_is_none(user, group, path, message):
    with pytest.raises(InvalidValue) as caught:
        account(user, group)
    assert caught.value.path == path
    assert message in str(caught.value)


@pytest.mark.parametrize(("value", "text"), [("smtpgate", "smtpgate"), (0, "0"), (990, "990"), (MAX_ID, str(MAX_ID))])
def test_a_name_or_a_number(value, text):
    assert name_or_number(value) == text


@pytest.mark.parametrize("value", [True, -1, MAX_ID + 1, 1.5, "", "a\0b", ["a"], {}])
def test_what_is_no_name(value):
    with pytest.raises(InvalidValue, match="is no name and no number"):
        name_or_number(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"user: nobody\n", []),
        (b"user: [a]\n", []),  # the key's own matter
        (
            b"workers: x\nuser: no-such-user\n",
            ['f.yaml:2:1: user: "no-such-user" is no user of this system; expected e.g. smtpgate, 990'],
        ),
        (b"group: 12\n", ["f.yaml:1:1: group: is for a user, and there is none; expected user, beside it"]),
    ],
)
def test_problems_have_their_places(text, told):
    document, problems = parse(text, "f.yaml", {})
    assert isinstance(document, Document)
    assert problems == []
    assert [str(problem) for problem in account_problems(document)] == told
