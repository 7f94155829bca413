from __future__ import annotations

from pathlib import Path

import pytest

from authsvc.users import usersyaml
from authsvc.users.model import User
from smtpgate.document import DocumentError

BAD = Path(__file__).parents[2] / "bad" / "authsvc"
ARGON2ID = "{ARGON2ID}$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$1UexDQN/TZayQt6ad1P45h3ch7cbOL+8CsFEzxAiuU0"
SSHA = "{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"


def test_every_key() -> None:
    text = f'''
users:
  test:
    password: "{ARGON2ID}"
    cram_md5: "{CRAM_MD5}"
    plan: gold
    pool: bulk
    enabled: false
  "jürgen@example.com": {{}}
  several: {{password: ["{ARGON2ID}", "{SSHA}"]}}
'''
    assert usersyaml.parse(text.encode(), "users.yaml") == {
        "test": User("test", (ARGON2ID, CRAM_MD5), "gold", "bulk", enabled=False),
        "jürgen@example.com": User("jürgen@example.com"),
        "several": User("several", (ARGON2ID, SSHA)),
    }


def test_a_password_hash_is_not_shown() -> None:
    user = usersyaml.parse(f'users: {{test: {{cram_md5: "{CRAM_MD5}"}}}}'.encode(), "users.yaml")["test"]
    assert "fab7" not in repr(user)


def test_clear_passwords_are_taken_where_they_are_asked_for() -> None:
    text = b'users: {test: {password: "{PLAIN}12 34"}}'
    assert usersyaml.parse(text, "users.yaml", plain=True) == {"test": User("test", ("{PLAIN}12 34",))}
    assert usersyaml.form(plain=True).parse(text, "users.yaml") == {"test": User("test", ("{PLAIN}12 34",))}
    with pytest.raises(DocumentError) as caught:
        usersyaml.parse(text, "users.yaml")
    expected = "a hash, or plain_passwords: true in conf/authsvc.yaml"
    assert (
        str(caught.value)
        == f"users.yaml:1:16: users.test.password: {{PLAIN}} passwords are not taken; expected {expected}"
    )


# Each fixture is named after its fault; its first lines tell the message, as comments.
@pytest.mark.parametrize("path", sorted(BAD.glob("users_*.yaml")), ids=lambda path: path.stem)
def test_what_is_wrong_with_a_file(path: Path) -> None:
    expected = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    with pytest.raises(DocumentError) as caught:
        usersyaml.parse(path.read_bytes(), path.name)
    assert str(caught.value).splitlines() == expected
