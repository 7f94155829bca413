"""What differs between SQLite, PostgreSQL (psycopg) and MariaDB (PyMySQL): options of a connection, and our table.

Owns the spelling of the same bounds for each driver, and that a database's host name is looked up by Python, where
gevent lets others run, and not by the driver's C library.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from sqlalchemy import URL, Boolean, Column, Engine, MetaData, String, Table, Text, event, true
from sqlalchemy.dialects import mysql

from authsvc.answer.contract import MAX_NAME, MAX_USER

METADATA: Final = MetaData()
_NAME: Final = String(MAX_USER).with_variant(
    mysql.VARCHAR(MAX_USER, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
# MAX_USER counts octets, so that no name is too long for the column.
Table(
    "smtpgate_users",
    METADATA,
    Column("name", _NAME, primary_key=True),
    Column("password", Text, nullable=False),
    Column("cram_md5", Text),
    Column("plan", String(MAX_NAME)),
    Column("pool", String(MAX_NAME)),
    Column("enabled", Boolean, nullable=False, server_default=true()),
)


def connect_args(url: URL, connect_timeout: float, statement_timeout: float) -> Mapping[str, Any]:
    """The driver's arguments for a new connection; seconds."""
    dialect = url.get_backend_name()
    if dialect == "postgresql":
        options = f"-c statement_timeout={round(statement_timeout * 1000)}"
        given = url.query.get("options")
        return {
            # libpq counts whole seconds.
            "connect_timeout": round(connect_timeout),
            "options": f"{given} {options}" if isinstance(given, str) else options,
            "application_name": "smtpgate",
            # Not the database's: psycopg would be the one to fail, on a character that it lacks.
            "client_encoding": "utf8",
            # None of what a server remembers of a session, so that PgBouncer may stand in between.
            "prepare_threshold": None,
        }
    if dialect in ("mysql", "mariadb"):
        return {
            "connect_timeout": round(connect_timeout),
            "read_timeout": statement_timeout,
            "write_timeout": statement_timeout,
            "charset": "utf8mb4",
            # MariaDB alone reads what is in this comment; for MySQL, read_timeout has to do.
            "init_command": f"SET @smtpgate = 1 /*M!, SESSION max_statement_time = {statement_timeout:g} */",
        }
    # A lock is waited for by whoever asks.
    return {"timeout": 0}


def prepared(url: URL) -> URL:
    """The URL to connect to: a path of SQLite that is wrong is to be an error, not an empty database."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return url
    return url.set(database=f"file:{quote(url.database)}").update_query_dict({"mode": "rw", "uri": "true"})


def make_file(url: URL) -> None:
    """Make the empty file of an SQLite database, for its owner alone, unless it is there. Raises OSError."""
    if url.get_backend_name() == "sqlite" and url.database is not None:
        Path(unquote(url.database).removeprefix("file:")).touch(mode=0o600)


def resolve_names(engine: Engine) -> None:
    """Have the host names of a PostgreSQL URL looked up by Python, at each new connection."""
    if engine.dialect.name != "postgresql":
        return

    def look_up(_dialect: Any, _record: Any, _args: Any, arguments: dict[str, Any]) -> None:
        hosts = str(arguments.get("host", "")).split(",")
        # A path is a unix socket's folder; "" is the default one.
        if "hostaddr" not in arguments and all(host and not host.startswith("/") for host in hosts):
            arguments["hostaddr"] = ",".join(_address(host) for host in hosts)

    event.listen(engine, "do_connect", look_up)


def _address(host: str) -> str:
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
