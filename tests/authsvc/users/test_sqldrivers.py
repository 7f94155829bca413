"""The arguments of each driver; test_sqlusers shows that the databases obey them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url

from authsvc.users import sqldrivers


def args(url: str) -> Any:
    return sqldrivers.connect_args(make_url(url), 2.0, 1.5)


def test_each_driver_gets_the_bounds_in_its_own_words() -> None:
    assert args("postgresql+psycopg://h/d") == {
        "connect_timeout": 2,
        "options": "-c statement_timeout=1500",
        "application_name": "smtpgate",
        "client_encoding": "utf8",
        "prepare_threshold": None,
    }
    assert args("mysql+pymysql://h/d") == args("mariadb+pymysql://h/d")
    assert args("mysql+pymysql://h/d") == {
        "connect_timeout": 2,
        "read_timeout": 1.5,
        "write_timeout": 1.5,
        "charset": "utf8mb4",
        "init_command": "SET @smtpgate = 1 /*M!, SESSION max_statement_time = 1.5 */",
    }
    assert args("sqlite:///x") == {"timeout": 0}


def test_options_of_the_url_stay() -> None:
    url = "postgresql+psycopg://h/d?options=-c%20search_path%3Dmail"
    assert args(url)["options"] == "-c search_path=mail -c statement_timeout=1500"


def test_sqlite_makes_no_file_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "a b?.db"
    url = sqldrivers.prepared(make_url("sqlite://").set(database=str(path)))
    assert dict(url.query) == {"mode": "rw", "uri": "true"}
    sqldrivers.make_file(url)
    assert path.is_file()
    assert sqldrivers.prepared(make_url("mysql+pymysql://h/d")) == make_url("mysql+pymysql://h/d")


class Connected(Exception):
    """Instead of a connection."""


@pytest.mark.parametrize(
    ("url", "hostaddr"),
    [
        ("postgresql+psycopg://db.example/d", "192.0.2.1"),
        ("postgresql+psycopg://192.0.2.9/d", "192.0.2.1"),
        ("postgresql+psycopg:///d?host=a.example,b.example", "192.0.2.1,192.0.2.1"),
        ("postgresql+psycopg:///d?host=/run/postgresql", None),
        ("postgresql+psycopg:///d", None),
        ("postgresql+psycopg://db.example/d?hostaddr=192.0.2.5", "192.0.2.5"),
    ],
)
def test_host_names_are_looked_up_here(url: str, hostaddr: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def connect(*_: Any, **arguments: Any) -> None:
        given.update(arguments)
        raise Connected

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    engine = create_engine(url)
    sqldrivers.resolve_names(engine)
    monkeypatch.setattr(engine.dialect.loaded_dbapi, "connect", connect)
    with pytest.raises(Connected):
        engine.connect()
    assert given.get("hostaddr") == hostaddr
