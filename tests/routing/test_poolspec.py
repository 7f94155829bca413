"""Keys -> PoolSpec: what is inherited, what belongs together, and the files that are named."""

from __future__ import annotations

from typing import Any

import pytest

from smtpgate.routing.model import (
    BackendAuth,
    BackendSettings,
    BackendSpec,
    BackendTls,
    Balance,
    BreakerSpec,
    Failover,
    HealthSpec,
    PoolSpec,
    QueueSpec,
    ReuseSpec,
    State,
)
from smtpgate.routing.poolspec import SideFiles, circle, pool_spec
from smtpgate.routing.schema import PoolKeys
from smtpgate.units import InvalidValue

MTA1 = {"name": "mta1", "addr": "10.1.0.1:25"}


class Files:
    """SideFiles that tell what they were asked, and refuse whatever is named "bad"."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def check_tls(self, tls: BackendTls) -> None:
        self.asked.append(tls)
        if tls.ca == "/etc/gate/bad":
            raise InvalidValue("holds no certificate", "a PEM file", path=("ca",))

    def secret(self, path: str) -> str:
        self.asked.append(path)
        if path == "/etc/gate/bad":
            raise InvalidValue("the file holds no password", "one line")
        return "from the file"


def build(
    settings: BackendSettings | None = None, side: SideFiles | None = None, **keys: Any
) -> tuple[PoolSpec, list[InvalidValue]]:
    validated = PoolKeys.model_validate({"backends": [MTA1], **keys})
    return pool_spec("core", validated, settings=settings or BackendSettings(), folder="/etc/gate", side=side)


def good(settings: BackendSettings | None = None, side: SideFiles | None = None, **keys: Any) -> PoolSpec:
    spec, faults = build(settings, side, **keys)
    assert faults == []
    return spec


def test_nothing_said_is_the_models_defaults() -> None:
    assert good() == PoolSpec("core", (BackendSpec("mta1", "10.1.0.1", 25),))


def test_every_key() -> None:
    mta2 = {"name": "mta2", "addr": "[::1]:26", "weight": 10, "max_conns": 200, "state": "drain", "backup": "on"}
    assert good(
        balance="hash",
        hash_key="domain",
        xclient="on",
        proxy_protocol="v2",
        smtp_auth={"user": "relay", "password": "secret"},
        pass_error_message="on",
        tls={"mode": "implicit", "verify": False, "server_name": "mta", "ca": "ca.pem", "cert": "/c", "key": "../k"},
        backends=[MTA1, mta2],
        health={"probe": "connect", "every": "1s", "timeout": "3s", "rise": 4, "fall": 5},
        breaker={"connect": 6, "session": 7, "min_clients": 8, "open": "9s", "max_open": "10%"},
        slow_start="11s",
        failover={"until": "buffered", "attempts": 12, "deadline": "13s", "buffer": 14},
        reuse={"idle": "15s", "messages": 16, "max_idle": 17, "age": "18s"},
        queue={"wait": "19s", "max": 20},
        unavailable={"pool": "dr"},
    ) == PoolSpec(
        name="core",
        backends=(
            BackendSpec("mta1", "10.1.0.1", 25),
            BackendSpec("mta2", "::1", 26, weight=10, max_conns=200, state=State.DRAIN, backup=True),
        ),
        balance=Balance.HASH,
        hash_key="domain",
        settings=BackendSettings(
            xclient="on",
            proxy_protocol="v2",
            auth=BackendAuth(user="relay", password="secret"),
            pass_error_message=True,
            tls=BackendTls("implicit", False, "mta", "/etc/gate/ca.pem", "/c", "/etc/gate/../k"),
        ),
        health=HealthSpec("connect", 1.0, 3.0, 4, 5),
        breaker=BreakerSpec(6, 7, 8, 9.0, 0.1),
        slow_start=11.0,
        failover=Failover(12, 13.0, "buffered", 14),
        reuse=ReuseSpec(15.0, 16, 17, 18.0),
        queue=QueueSpec(19.0, 20),
        fallback="dr",
    )


OF_THE_PROXY = BackendSettings(
    xclient="off", proxy_protocol="v1", auth=BackendAuth(replay=True), tls=BackendTls("required", ca="/ca")
)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {}),
        ({"xclient": "auto"}, {"xclient": "auto"}),
        ({"proxy_protocol": "off"}, {"proxy_protocol": "off"}),
        ({"pass_error_message": True}, {"pass_error_message": True}),
        ({"smtp_auth": "off"}, {"auth": None}),
        ({"smtp_auth": "on"}, {"auth": BackendAuth(replay=True)}),
        ({"tls": "off"}, {"tls": BackendTls()}),
        # As a whole: a pool's tls has nothing of backend's.
        ({"tls": "implicit"}, {"tls": BackendTls("implicit")}),
    ],
)
def test_a_pool_says_only_what_differs_from_the_proxy(keys: dict[str, Any], expected: dict[str, Any]) -> None:
    fields = ("xclient", "proxy_protocol", "auth", "pass_error_message", "tls")
    whole = {field: getattr(OF_THE_PROXY, field) for field in fields} | expected
    assert good(OF_THE_PROXY, **keys).settings == BackendSettings(**whole)


@pytest.mark.parametrize(
    ("settings", "renewable"),
    [
        (BackendSettings(), True),
        (BackendSettings(xclient="on", tls=BackendTls("required")), True),
        (BackendSettings(auth=BackendAuth(user="relay", password="x")), True),
        (BackendSettings(auth=BackendAuth(replay=True)), False),
        (BackendSettings(proxy_protocol="v2"), False),
    ],
)
def test_whose_connections_may_serve_another_client(settings: BackendSettings, renewable: bool) -> None:
    assert settings.identity_renewable is renewable


def faults(**keys: Any) -> list[tuple[tuple[str | int, ...], str]]:
    return [(fault.path, fault.message) for fault in build(**keys)[1]]


def mta(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "addr": "10.1.0.1:25", **keys}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"hash_key": "user"}, [(("hash_key",), "is for balance: hash")]),
        ({"balance": "hash", "hash_key": "user"}, []),
        ({"balance": "hash"}, []),
        ({"failover": {"buffer": 1}}, [(("failover", "buffer"), "buffer is for until: buffered")]),
        ({"failover": {"until": "buffered"}}, []),
        ({"backends": [mta("a", backup=True)]}, [(("backends",), "all are backups")]),
        (
            {"backends": [mta("a", state="off"), mta("b", state="drain")]},
            [(("backends",), "none is active: all are drained or off")],
        ),
        # The primaries are being serviced; the whole site is.
        ({"backends": [mta("a", state="off"), mta("b", backup=True)]}, []),
        ({"backends": [mta("a", state="off")], "unavailable": {"pool": "dr"}}, []),
        ({"tls": {"mode": "required", "key": "k"}}, [(("tls", "key"), "a key without a certificate")]),
        ({"tls": {"mode": "required", "cert": "both.pem"}}, []),
        ({"smtp_auth": {"user": "u"}}, [(("smtp_auth",), "the login has no password")]),
        (
            {"smtp_auth": {"user": "u", "password": "a", "password_file": "b"}},
            [(("smtp_auth",), "the login has two passwords")],
        ),
        ({"unavailable": {}}, [(("unavailable",), "it says neither reply nor pool")]),
        ({"unavailable": {"reply": "x", "pool": "y"}}, [(("unavailable",), "it says both reply and pool")]),
        # Short, but it can be met; the tries that do not fit are not made.
        ({"failover": {"attempts": 16, "deadline": "100ms"}}, []),
    ],
)
def test_what_belongs_together(keys: dict[str, Any], expected: list[tuple[tuple[str, ...], str]]) -> None:
    assert faults(**keys) == expected


def test_the_files_are_looked_into() -> None:
    files = Files()
    spec = good(side=files, tls={"mode": "required", "ca": "ca.pem"}, smtp_auth={"user": "u", "password_file": "/pw"})
    assert files.asked == ["/pw", BackendTls("required", ca="/etc/gate/ca.pem")]
    assert spec.settings.auth == BackendAuth(user="u", password="from the file")


def test_the_files_faults_stand_at_their_keys() -> None:
    keys: dict[str, Any] = {
        "tls": {"mode": "required", "ca": "bad"},
        "smtp_auth": {"user": "u", "password_file": "bad"},
    }
    assert faults(side=Files(), **keys) == [
        (("smtp_auth", "password_file"), "the file holds no password"),
        (("tls", "ca"), "holds no certificate"),
    ]


def test_without_a_look_files_stay_unread() -> None:
    auth = good(smtp_auth={"user": "u", "password_file": "bad"}, tls={"mode": "required", "ca": "bad"}).settings.auth
    assert auth == BackendAuth(user="u", password=None)


@pytest.mark.parametrize(
    ("fallbacks", "circles"),
    [
        ({"a": None}, {}),
        ({"a": "b", "b": "c", "c": None}, {}),
        ({"a": "nowhere"}, {}),
        ({"a": "a"}, {"a": "a a"}),
        ({"a": "b", "b": "a"}, {"a": "a b a", "b": "b a b"}),
        ({"a": "b", "b": "c", "c": "b"}, {"b": "b c b", "c": "c b c"}),
    ],
)
def test_circles(fallbacks: dict[str, str | None], circles: dict[str, str]) -> None:
    pools = {name: PoolSpec(name, (), fallback=fallback) for name, fallback in fallbacks.items()}
    assert {name: " ".join(circle(pools, name)) for name in pools if circle(pools, name)} == circles
