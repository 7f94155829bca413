"""`users:` and `cache:` of conf/authsvc.yaml: where users are looked up, in which order, and for how long it holds.

Owns the keys of a store, what they may hold, and the statements of our own table. Refuses to know how a store is
asked: gunicorn's first process reads this before gevent patches anything, so neither redis-py nor SQLAlchemy is
imported here, and URLs are checked as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from authsvc.fields import VISIBLE, duration_field, path_field, secret_file_field, text_field
from smtpgate.policy.storeuri import MEMORY, parse_store_uri
from smtpgate.units import InvalidValue, StrictModel

# A login that nobody has asks each of them, one after the other.
MAX_SOURCES: Final = 8
# What was found, or not, is taken for the truth so long. Dovecot's auth_cache_ttl is 1 h; an account that is
# closed stays open for it.
MAX_KEPT: Final = 3600.0
DEFAULT_FOUND: Final = 30.0
DEFAULT_UNKNOWN: Final = 5.0
DEFAULT_PREFIX: Final = "smtpgate:user:"

_SQL = re.compile(
    r"(?:postgresql\+psycopg|mysql\+pymysql|mariadb\+pymysql)://[!-~]{1,1000}|sqlite:///[^\x00-\x1f\x7f?#%]{1,1000}"
)
_PASSWORD = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_STATEMENT = re.compile(r"(?s)[^\x00]{1,4000}")
# As SQLAlchemy's text() finds them, so that none is overlooked here.
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


@dataclass(frozen=True, slots=True)
class YamlFile:
    """conf/users.yaml's form."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class PasswdFile:
    """Lines as in htpasswd's and Dovecot's files."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class RedisSource:
    """One hash a user, its key `prefix` and the name. uri: as the store of limits has it (policy.storeuri), with
    Sentinels or a cluster too. `str()` has no secret.
    """

    uri: str = field(repr=False)
    prefix: str = DEFAULT_PREFIX
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return _bare(self.uri)


@dataclass(frozen=True, slots=True)
class Statements:
    """SQL with :name parameters. query gives a user's row; the others, None where the store is not changed so,
    are gatectl's, and `upgrade` the service's, for a stronger form of a password.
    """

    query: str
    upgrade: str | None = None
    add: str | None = None
    change: str | None = None
    remove: str | None = None
    list: str | None = None


# The table of an operator who has none: `gatectl user init` makes it (authsvc.sqltable).
OWN: Final = Statements(
    query="SELECT name, password, cram_md5, plan, pool, enabled FROM smtpgate_users WHERE name = :login",
    upgrade="UPDATE smtpgate_users SET password = :password WHERE name = :login AND password = :old",
    add="INSERT INTO smtpgate_users (name, password, cram_md5, plan, pool, enabled)"
    " VALUES (:login, :password, :cram_md5, :plan, :pool, :enabled)",
    change="UPDATE smtpgate_users SET password = :password, cram_md5 = :cram_md5, plan = :plan, pool = :pool,"
    " enabled = :enabled WHERE name = :login",
    remove="DELETE FROM smtpgate_users WHERE name = :login",
    list="SELECT name FROM smtpgate_users ORDER BY name",
)


@dataclass(frozen=True, slots=True)
class SqlSource:
    """A database. `str()` has no secret."""

    url: str = field(repr=False)
    statements: Statements = OWN
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return _bare(self.url)


Source = YamlFile | PasswdFile | RedisSource | SqlSource


@dataclass(frozen=True, slots=True)
class Caching:
    """Seconds for which a look-up in Redis or SQL holds: one that found a user, and one that did not."""

    found: float = DEFAULT_FOUND
    unknown: float = DEFAULT_UNKNOWN


def _bare(url: str) -> str:
    """A URL without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# --- the keys as pydantic reads them ------------------------------------------------------------------------

# Parameter names: those that a statement needs, and those that it may have besides.
_COLUMNS: Final = frozenset({"cram_md5", "plan", "pool", "enabled"})
_PARAMETERS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "query": (frozenset({"login"}), frozenset()),
    # Without :old it would put a password that was just changed back in force.
    "upgrade": (frozenset({"login", "password", "old"}), frozenset()),
    "add": (frozenset({"login", "password"}), _COLUMNS),
    "change": (frozenset({"login", "password"}), _COLUMNS),
    "remove": (frozenset({"login"}), frozenset()),
    "list": (frozenset(), frozenset()),
}
# The keys of each kind of store; its first names the store.
_KINDS: Final = (
    ("file",),
    ("passwd_file",),
    ("redis", "prefix", "password", "password_file"),
    ("sql", "password", "password_file", *_PARAMETERS),
)
_EXPECTED_KIND: Final = "one of file, passwd_file, redis, sql"


def _redis_uri(value: Any) -> str:
    store = parse_store_uri(value)
    if store.scheme == MEMORY:
        raise InvalidValue("holds no users", "e.g. redis://127.0.0.1:6379/0, or a file")
    return str(value)


_UsersFile = path_field(Path.is_file, "is not a file that is there", "a file of users, e.g. users.yaml")
_LinesFile = path_field(Path.is_file, "is not a file that is there", "a file of users, e.g. users.passwd")
_SqlUrl = text_field(
    _SQL,
    "is not the URL of a database",
    "e.g. postgresql+psycopg://user@127.0.0.1/mail, mysql+pymysql://user@127.0.0.1/mail, sqlite:///users.db",
)
_Prefix = text_field(VISIBLE, "is not a prefix", "1 to 256 visible ASCII characters")
_Secret = text_field(_PASSWORD, "is not a password", "1 to 256 characters without controls")
_SecretFile = secret_file_field(_PASSWORD, "holds no password", "one line of 1 to 256 characters")
_Sql = text_field(_STATEMENT, "is not a statement", "SQL of 1 to 4000 characters")


class SourceKeys(StrictModel):
    """One store. A model of all kinds at once: a union's messages would be those of every kind."""

    file: Annotated[Path | None, _UsersFile] = None
    passwd_file: Annotated[Path | None, _LinesFile] = None
    redis: Annotated[str | None, PlainValidator(_redis_uri)] = None
    sql: Annotated[str | None, _SqlUrl] = None
    prefix: Annotated[str | None, _Prefix] = None
    password: Annotated[str | None, _Secret] = None
    password_file: Annotated[str | None, _SecretFile] = None
    query: Annotated[str | None, _Sql] = None
    upgrade: Annotated[str | None, _Sql] = None
    add: Annotated[str | None, _Sql] = None
    change: Annotated[str | None, _Sql] = None
    remove: Annotated[str | None, _Sql] = None
    list: Annotated[str | None, _Sql] = None

    @model_validator(mode="after")
    def _is_one_store(self) -> SourceKeys:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        kinds = [kind for kind in _KINDS if kind[0] in given]
        if len(kinds) != 1:
            raise InvalidValue("is not a store" if not kinds else "is more than one store", _EXPECTED_KIND)
        known = kinds[0]
        for name in given:
            if name not in known:
                raise InvalidValue(f"does not belong to {known[0]}", f"one of {', '.join(known)}", path=(name,))
        if self.password is not None and self.password_file is not None:
            raise InvalidValue("stands beside password", "one of the two", path=("password_file",))
        for name in _PARAMETERS:
            if getattr(self, name) is not None:
                self._check_statement(name)
        if self.sql is not None:
            _check_port(self.sql)
        return self

    def _check_statement(self, name: str) -> None:
        needed, optional = _PARAMETERS[name]
        if self.query is None:
            raise InvalidValue("has no query beside it", "a query too, or neither for our own table", path=(name,))
        found = frozenset(_PARAMETER.findall(getattr(self, name)))
        expected = ", ".join(f":{parameter}" for parameter in sorted(needed | optional)) or "none"
        for parameter in sorted(found - needed - optional):
            raise InvalidValue(f"has the unknown parameter :{parameter}", expected, path=(name,))
        for parameter in sorted(needed - found):
            raise InvalidValue(f"has no parameter :{parameter}", expected, path=(name,))

    def source(self, folder: Path) -> Source:
        """folder: where a relative path in an SQLite URL starts."""
        if self.file is not None:
            return YamlFile(self.file)
        if self.passwd_file is not None:
            return PasswdFile(self.passwd_file)
        password = self.password if self.password_file is None else self.password_file
        if self.redis is not None:
            return RedisSource(self.redis, self.prefix or DEFAULT_PREFIX, password)
        assert self.sql is not None
        return SqlSource(_anchored(self.sql, folder), self._statements(), password)

    def _statements(self) -> Statements:
        if self.query is None:
            return OWN
        return Statements(self.query, self.upgrade, self.add, self.change, self.remove, self.list)


def _check_port(url: str) -> None:
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        expected = "a port from 1 to 65535; a password with : @ / ? # goes to the key password"
        raise InvalidValue("has no valid port", expected, path=("sql",))


def _anchored(url: str, folder: Path) -> str:
    """An SQLite URL with an absolute path, others as they are."""
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or path.startswith("/"):
        return url
    return f"sqlite:///{(folder / path).absolute()}"


def _as_list(value: Any) -> Any:
    """`users: {file: …}`, one store without the list."""
    return [value] if isinstance(value, dict) else value


SourcesField = Annotated[
    list[SourceKeys],
    BeforeValidator(_as_list),
    Field(min_length=1, max_length=MAX_SOURCES, description="{file: users.yaml}, or a list of stores"),
]


class CacheKeys(StrictModel):
    found: Annotated[float, duration_field(MAX_KEPT)] = DEFAULT_FOUND
    unknown: Annotated[float, duration_field(MAX_KEPT)] = DEFAULT_UNKNOWN

    def caching(self) -> Caching:
        return Caching(self.found, self.unknown)
