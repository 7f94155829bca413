from __future__ import annotations

from pathlib import Path

import pytest

from authsvc.users import sources
from authsvc.users.sources import (
    OWN,
    CacheKeys,
    Caching,
    PasswdFile,
    RedisSource,
    Source,
    SourcesField,
    SqlSource,
    Statements,
    YamlFile,
)
from smtpgate import document
from smtpgate.document import DocumentError
from smtpgate.units import StrictModel

QUERY = "SELECT password FROM mailbox WHERE username = :login"


class Keys(StrictModel):
    users: SourcesField
    cache: CacheKeys = CacheKeys()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("users.yaml", "users.passwd"):
        (tmp_path / name).touch()
    (tmp_path / "secret").write_text("pä ss\n")
    return tmp_path


def load(folder: Path, text: str) -> tuple[Source, ...]:
    environ = {"PASSWORD": "hunter2"}
    _, keys = document.read(text.encode(), Keys, source="x.yaml", environ=environ, context={"folder": folder})
    return tuple(one.source(folder) for one in keys.users)


def test_one_file_needs_no_list(folder: Path) -> None:
    assert load(folder, "users: {file: users.yaml}") == (YamlFile(folder / "users.yaml"),)


def test_every_kind_in_its_order(folder: Path) -> None:
    text = f"""
users:
  - {{passwd_file: users.passwd}}
  - {{redis: "redis://127.0.0.1:6379/1"}}
  - {{sql: "sqlite:///users.db"}}
  - {{file: {folder}/users.yaml}}
  - {{redis: "valkey+sentinel://192.0.2.1:26379,192.0.2.2:26379/mail"}}
  - {{redis: "redis+unix:///run/redis.sock?db=1", prefix: "mail:{{x}}:", password: "${{PASSWORD}}"}}
  - sql: postgresql+psycopg://mail@[::1]:5432/mail?sslmode=require
    password_file: secret
    query: >-
      {QUERY}
    upgrade: UPDATE mailbox SET password = :password WHERE username = :login AND password = :old
    add: INSERT INTO mailbox VALUES (:login, :password, :cram_md5, :plan, :pool, :enabled, '12:30', now()::text)
    change: UPDATE mailbox SET password = :password WHERE username = :login
    remove: DELETE FROM mailbox WHERE username = :login
    list: SELECT username FROM mailbox
"""
    assert load(folder, text) == (
        PasswdFile(folder / "users.passwd"),
        RedisSource("redis://127.0.0.1:6379/1", "smtpgate:user:", None),
        SqlSource(f"sqlite:///{folder}/users.db", OWN, None),
        YamlFile(folder / "users.yaml"),
        RedisSource("valkey+sentinel://192.0.2.1:26379,192.0.2.2:26379/mail"),
        RedisSource("redis+unix:///run/redis.sock?db=1", "mail:{x}:", "hunter2"),
        SqlSource(
            "postgresql+psycopg://mail@[::1]:5432/mail?sslmode=require",
            Statements(
                QUERY,
                "UPDATE mailbox SET password = :password WHERE username = :login AND password = :old",
                "INSERT INTO mailbox VALUES"
                " (:login, :password, :cram_md5, :plan, :pool, :enabled, '12:30', now()::text)",
                "UPDATE mailbox SET password = :password WHERE username = :login",
                "DELETE FROM mailbox WHERE username = :login",
                "SELECT username FROM mailbox",
            ),
            "pä ss",
        ),
    )


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (YamlFile(Path("conf/users.yaml")), "conf/users.yaml"),
        (PasswdFile(Path("conf/users")), "conf/users"),
        (RedisSource("rediss://mail:hunter2@redis.example:6380/1?x=hunter2"), "rediss://redis.example:6380/1"),
        (RedisSource("redis+unix:///run/redis.sock", password="hunter2"), "redis+unix:///run/redis.sock"),
        (SqlSource("mysql+pymysql://mail:hunter2@[::1]/mail?p=hunter2"), "mysql+pymysql://[::1]/mail"),
        (SqlSource("sqlite:////var/users.db"), "sqlite:////var/users.db"),
    ],
)
def test_a_source_is_shown_without_its_secrets(source: Source, shown: str) -> None:
    assert str(source) == shown
    assert "hunter2" not in repr(source)


@pytest.mark.parametrize(
    "source",
    [
        'redis: "http://hunter2@127.0.0.1"',
        'redis: "redis+cluster://hunter2@127.0.0.1"',
        'redis: "redis://127.0.0.1/0?socket_timeout=hunter2"',
        'redis: "memory://"',
        'redis: "redis://hunter2@127.0.0.1:99999"',
        'redis: "redis://127.0.0.1", password: "hunter2\\n"',
        'redis: "redis://127.0.0.1", prefix: "hunter2 "',
        'sql: "oracle://hunter2@127.0.0.1/mail"',
        'sql: "sqlite://"',
        'sql: "sqlite:///users.db?mode=hunter2"',
        'sql: "mysql+pymysql://mail:hunter2/@127.0.0.1:x/mail"',
    ],
)
def test_what_is_refused_is_not_shown(folder: Path, source: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(folder, f"users: [{{{source}}}]")
    assert len(caught.value.problems) == 1
    assert "hunter2" not in str(caught.value)


def test_a_password_file_that_cannot_be_taken(folder: Path) -> None:
    (folder / "long").write_text("x" * 5000)
    for name, message in (
        ("none", 'password_file: "none" is not a file that is there; expected a file with one line, the secret'),
        ("users.yaml", "password_file: its file holds no password; expected one line of 1 to 256 characters"),
        ("long", "password_file: its file holds no password; expected one line of 1 to 256 characters"),
    ):
        with pytest.raises(DocumentError) as caught:
            load(folder, f'users: [{{redis: "redis://127.0.0.1", password_file: {name}}}]')
        assert str(caught.value).endswith(message)


def test_times_of_the_cache(folder: Path) -> None:
    context = {"folder": folder}
    _, keys = document.read(
        b"users: {file: users.yaml}\ncache: {found: 1h, unknown: 0s}", Keys, source="x", context=context
    )
    assert keys.cache.caching() == Caching(3600.0, 0.0)
    assert CacheKeys().caching() == Caching(30.0, 5.0)


def test_our_own_statements_have_the_parameters_that_are_asked_of_others() -> None:
    for name, (needed, optional) in sources._PARAMETERS.items():
        found = frozenset(sources._PARAMETER.findall(getattr(OWN, name)))
        assert needed <= found <= needed | optional
