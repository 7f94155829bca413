"""The URI that names a store of buckets: `store` of conf/proxy.yaml and conf/authsvc.yaml.

Owns its grammar, one for --check, start, HUP and drivers.store, so that none of them takes what another refuses.
It is narrower than those of `limits` and redis-py, which ignore what they do not know, and let an option of the
URI undo the timeouts and the retries that drivers.store insists on.

Refuses to know redis-py. Shows no part of a URI: any of it may belong to a password with a character that should
have been written as %XX.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import PlainValidator

from smtpgate.units import MAX_NAME, InvalidValue, parse_endpoint, parse_hostport

EXPECTED_STORE: Final = "e.g. memory://, redis://127.0.0.1:6379/0"
MEMORY: Final = "memory"
# Valkey speaks Redis' protocol, so one client library serves both and one need not be installed.
SCHEMES: Final[Mapping[str, str]] = {
    MEMORY: MEMORY,
    **{
        server + way: "redis" + way
        for server in ("redis", "valkey")
        for way in ("", "s", "+unix", "+sentinel", "+cluster")
    },
}
# What a URI of each scheme looks like, after "://".
_FORMS: Final[Mapping[str, str]] = {
    MEMORY: "",
    "redis": "host:port/db",
    "rediss": "host:port/db",
    "redis+unix": "/path?db=0",
    "redis+sentinel": "host:port,host:port/service",
    "redis+cluster": "host:port,host:port",
}
_REDIS_PORT: Final = 6379

# User and password hold none of the characters that end them, nor brackets, which Python's urlsplit refuses there.
_USERINFO: Final = r"(?P<user>[^]:@/?#[]*)(?::(?P<password>[^]@/?#[]*))?"
_URI = re.compile(rf"[a-z+]+://(?:{_USERINFO}@)?(?P<servers>[^@/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?")
_VISIBLE = re.compile(r"[!-~]+")
_DATABASE = re.compile(r"0|[1-9][0-9]{0,4}")
# Redis' documentation of Sentinel: letters, digits and ".-_".
_SERVICE = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_NAME}}}")

# Options are redis-py's, less those by which a store would wait longer, ask twice or answer in another protocol.
_SWITCH = re.compile(r"true|false")
_UNIX_OPTIONS: Final = {"db": _DATABASE, "client_name": _VISIBLE}
_TCP_OPTIONS: Final = {**_UNIX_OPTIONS, "socket_keepalive": _SWITCH}
_OPTIONS: Final[Mapping[str, Mapping[str, re.Pattern[str]]]] = {
    "redis": _TCP_OPTIONS,
    "rediss": {
        **_TCP_OPTIONS,
        "ssl_ca_certs": _VISIBLE,
        "ssl_ca_path": _VISIBLE,
        "ssl_certfile": _VISIBLE,
        "ssl_keyfile": _VISIBLE,
        "ssl_password": _VISIBLE,
        "ssl_cert_reqs": re.compile("none|optional|required"),
        "ssl_check_hostname": _SWITCH,
    },
    "redis+unix": _UNIX_OPTIONS,
}
_EXAMPLES: Final[Mapping[str, str]] = {
    "db": "0",
    "socket_keepalive": "true",
    "ssl_check_hostname": "true",
    "ssl_cert_reqs": "required",
}


@dataclass(frozen=True, slots=True)
class StoreUri:
    """A URI that fits. scheme: one of SCHEMES' values. text: the URI with that scheme. user, password: still
    percent-encoded, "" where there is none. public: the URI as written, without either, for people to read.
    """

    scheme: str
    text: str = field(repr=False)
    user: str = field(repr=False)
    password: str = field(repr=False)
    public: str


def parse_store_uri(text: object) -> StoreUri:
    """`memory:// redis://host:port/db …` -> StoreUri. Raises InvalidValue, which quotes nothing of the text."""
    written, separator, _ = text.partition("://") if isinstance(text, str) else ("", "", "")
    if not isinstance(text, str) or not separator or written not in SCHEMES:
        raise InvalidValue("is not the URI of a store", EXPECTED_STORE)
    scheme = SCHEMES[written]
    expected = f"{written}://{_FORMS[scheme]}"
    found = _URI.fullmatch(text) if _VISIBLE.fullmatch(text) else None
    if found is None:
        reserved = "%XX for @ / ? # [ ], spaces and all but ASCII in a user or password"
        raise InvalidValue("has a character that cannot stand there", f"{expected}, with {reserved}")
    servers, path = found["servers"], found["path"] or ""
    if scheme == MEMORY and text != "memory://":
        raise InvalidValue("has something after memory://", expected)
    _check_servers(scheme, servers, expected)
    _check_path(scheme, path, expected)
    _check_options(scheme, found["query"], has_database=path not in ("", "/"))
    return StoreUri(
        scheme=scheme,
        text=scheme + text.removeprefix(written),
        user=found["user"] or "",
        password=found["password"] or "",
        public=f"{written}://{servers}{path}",
    )


def _check_servers(scheme: str, servers: str, expected: str) -> None:
    if scheme in (MEMORY, "redis+unix"):
        if servers:
            raise InvalidValue("names a server, and takes none", expected)
        return
    alone = scheme in ("redis", "rediss")
    for server in [servers] if alone else servers.split(","):
        has_port = ":" in server.rpartition("]")[2]
        try:
            parse_hostport(server if has_port or not alone else f"{server}:{_REDIS_PORT}")
        except InvalidValue as error:
            raise InvalidValue(f"names a server that {error.message}", expected) from None


def _check_path(scheme: str, path: str, expected: str) -> None:
    if scheme == "redis+unix":
        try:
            parse_endpoint(f"unix:{path}")
        except InvalidValue:
            raise InvalidValue("has no path of a unix socket", expected) from None
    elif scheme == "redis+sentinel":
        if not _SERVICE.fullmatch(path[1:]):
            raise InvalidValue("names no service", expected)
    elif path not in ("", "/") and (scheme == "redis+cluster" or not _DATABASE.fullmatch(path[1:])):
        raise InvalidValue("has a path that is no database", expected)


def _check_options(scheme: str, query: str | None, *, has_database: bool) -> None:
    known = _OPTIONS.get(scheme, {})
    choices = f"one of {', '.join(known)}" if known else "no options after it"
    seen = {"db"} if has_database and scheme in ("redis", "rediss") else set()
    for option in [] if query is None else query.split("&"):
        name, _, value = option.partition("=")
        if name not in known:
            raise InvalidValue("has an unknown option", choices)
        if name in seen:
            raise InvalidValue(f"says {name} twice", "it once")
        if not known[name].fullmatch(value):
            raise InvalidValue(f"has no usable value of {name}", f"{name}={_EXAMPLES.get(name, '…')}")
        seen.add(name)


def _checked(value: Any) -> str:
    parse_store_uri(value)
    return str(value)


# A key of a configuration file that names a store: the text as written, once it fits.
StoreField = Annotated[str, PlainValidator(_checked)]
