from __future__ import annotations

import pytest

from authsvc.users import usersyaml, yamledit
from authsvc.users.model import NotWritableError, User

HASH = "{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"

TEXT = f"""\
# Ours.

users:   # all of them
  # The first.
  test:          # a comment
    plan: gold   # paid
    # below plan
    password: "{HASH}"
    enabled: false

  # The second.
  flow: {{plan: gold}}
  last:
      password:
        - "{HASH}"
      cram_md5: "{CRAM_MD5}"

# The end.
"""
PASSWORD = f'    password: "{HASH}"\n'


def put(text: str, user: User) -> str:
    """The new text, which is also what was meant."""
    new = yamledit.put(text.encode(), "users.yaml", user)
    wanted = {**usersyaml.parse(text.encode(), "users.yaml"), user.name: user}
    assert usersyaml.parse(new, "users.yaml") == wanted
    return new.decode()


@pytest.mark.parametrize(
    ("user", "old", "new"),
    [
        (User("test", (HASH,), "gold", enabled=False), "", ""),
        (User("test", (HASH,), "gold"), "    enabled: false", "    enabled: true"),
        (User("test", (HASH,), "free", enabled=False), "    plan: gold   # paid", "    plan: free"),
        (User("test", (HASH,), enabled=False), "    plan: gold   # paid\n", ""),
        (User("test", (), "gold", enabled=False), PASSWORD, ""),
        (
            User("test", (HASH, CRAM_MD5), "gold", "bulk", enabled=False),
            "    enabled: false\n",
            f'    enabled: false\n    cram_md5: "{CRAM_MD5}"\n    pool: bulk\n',
        ),
        (
            User("test", (HASH, HASH), "gold", enabled=False),
            PASSWORD,
            f'    password:\n      - "{HASH}"\n      - "{HASH}"\n',
        ),
        (User("flow", (HASH,)), "  flow: {plan: gold}\n", f"  flow:\n{PASSWORD}"),
        (User("flow"), "  flow: {plan: gold}\n", "  flow: {}\n"),
        (
            User("last", (HASH, CRAM_MD5), enabled=False),
            f'      cram_md5: "{CRAM_MD5}"\n',
            f'      cram_md5: "{CRAM_MD5}"\n      enabled: false\n',
        ),
        (
            User("new@example.com", (HASH,), "1"),
            f'      cram_md5: "{CRAM_MD5}"\n',
            f'      cram_md5: "{CRAM_MD5}"\n  new@example.com:\n{PASSWORD}    plan: "1"\n',
        ),
        (
            User('jürgen "x"\\'),
            f'      cram_md5: "{CRAM_MD5}"\n',
            f'      cram_md5: "{CRAM_MD5}"\n  "jürgen \\"x\\"\\\\": {{}}\n',
        ),
        (User("true"), f'      cram_md5: "{CRAM_MD5}"\n', f'      cram_md5: "{CRAM_MD5}"\n  "true": {{}}\n'),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_user_is_changed_and_all_other_lines_stay(user: User, old: str, new: str, end: str) -> None:
    text, old, new = (part.replace("\n", end) for part in (TEXT, old, new))
    assert put(text, user) == text.replace(old, new, 1)


def test_a_user_with_nothing_left_is_still_a_user() -> None:
    text = f"users:\n  test:\n{PASSWORD}"
    assert put(text, User("test")) == "users:\n  test: {}\n"


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("users: {}\n", "users:\n  test: {}\n"),
        ("users: {}", "users:\n  test: {}\n"),
        ("users: { }  # none yet\n# end\n", "users:  # none yet\n  test: {}\n# end\n"),
        ("users:\n    a: {}", "users:\n    a: {}\n    test: {}\n"),
    ],
)
def test_the_first_user_and_a_last_line_without_an_end(text: str, new: str) -> None:
    assert put(text, User("test")) == new


@pytest.mark.parametrize(
    ("text", "name", "new"),
    [
        (TEXT, "flow", TEXT.replace("  flow: {plan: gold}\n", "")),
        (TEXT, "last", TEXT[: TEXT.index("  last:")] + TEXT[TEXT.index("\n# The end") :]),
        ("users:  # all\n  test:\n    plan: a\n# end\n", "test", "users: {}  # all\n# end\n"),
    ],
)
def test_a_user_is_removed(text: str, name: str, new: str) -> None:
    assert yamledit.remove(text.encode(), "users.yaml", name).decode() == new
    usersyaml.parse(new.encode(), "users.yaml")


@pytest.mark.parametrize(
    "text",
    ["users: {test: {}, other: {}}\n", "{users: {test: {}}}\n", "users: {test: {}}\n"],
)
def test_flow_style_is_refused(text: str) -> None:
    message = r"users\.yaml:1: this line holds several keys in \{…\}; expected a line for each"
    for user in (User("test", enabled=False), User("new")):
        with pytest.raises(NotWritableError, match=message):
            yamledit.put(text.encode(), "users.yaml", user)
    with pytest.raises(NotWritableError, match=message):
        yamledit.remove(text.encode(), "users.yaml", "test")


@pytest.mark.parametrize("text", ['"users": {}\n', "users: {\n}\n", "users:\n  {}\n"])
def test_an_empty_mapping_in_another_way_is_refused(text: str) -> None:
    with pytest.raises(NotWritableError, match="this line is not understood; expected users: alone"):
        yamledit.put(text.encode(), "users.yaml", User("test"))
