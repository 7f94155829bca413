"""`console:` as it is written, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import argon2
import pytest

from authsvc import config
from authsvc.console.settings import LOOPBACK, Console
from authsvc.proof.passwords import Passwords
from smtpgate.document import DocumentError
from smtpgate.units import HostPort, parse_cidr

STORED = Passwords(argon2.profiles.CHEAPEST).make(b"right")


def load(folder: Path, console: dict[str, Any] | None, **more: Any) -> config.Config:
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "users.yaml").write_text("users: {}\n")
    keys = {"policies": "policies", "users": {"file": "users.yaml"}, **more}
    if console is not None:
        keys["console"] = console
    (folder / "authsvc.yaml").write_text(json.dumps(keys))
    return config.load(folder / "authsvc.yaml", {})


def test_off_unless_it_is_written(tmp_path: Path) -> None:
    assert load(tmp_path, None).console is None


def test_the_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, {"operators": {"anna": STORED}}).console
    assert found == Console(HostPort("127.0.0.1", 18081), {"anna": STORED}, (), LOOPBACK, 28_800.0, 1800.0)
    assert STORED not in repr(found)


def test_all_that_can_be_written(tmp_path: Path) -> None:
    written = {
        "bind": "[::1]:9000",
        "operators": {"anna": STORED, "ben": STORED},
        "hosts": ["Console.Example.com"],
        "clients": ["192.0.2.0/24"],
        "lifetime": "1h",
        "idle": "5m",
    }
    found = load(tmp_path, written).console
    assert found == Console(
        HostPort("::1", 9000),
        {"anna": STORED, "ben": STORED},
        ("console.example.com",),
        (*LOOPBACK, parse_cidr("192.0.2.0/24")),
        3600.0,
        300.0,
    )


@pytest.mark.parametrize(
    ("console", "where", "expected"),
    [
        ({}, "console", "operators"),
        ({"operators": {}}, "console.operators", "1"),
        ({"operators": {"anna": "secret"}}, "console.operators.anna", "gatectl user hash"),
        ({"operators": {"anna": "{PLAIN}secret"}}, "console.operators.anna", "gatectl user hash"),
        ({"operators": {"anna": "{CRAM-MD5}" + "0" * 64}}, "console.operators.anna", "gatectl user hash"),
        ({"operators": {"an na": STORED}}, "console.operators", "beginning with a letter"),
        ({"operators": {"anna": STORED}, "lifetime": "30s"}, "console.lifetime", "1m or more"),
        ({"operators": {"anna": STORED}, "lifetime": "2d"}, "console.lifetime", "at most 1d"),
        ({"operators": {"anna": STORED}, "idle": "0s"}, "console.idle", "1m or more"),
        ({"operators": {"anna": STORED}, "bind": "unix:/run/x"}, "console.bind", "a port from 1 to 65535"),
        ({"operators": {"anna": STORED}, "bind": "127.0.0.1:18080"}, "console.bind", "a port of its own"),
        ({"operators": {"anna": STORED}, "bind": "192.0.2.1:80"}, "console.bind", "a loopback address, or tls"),
        ({"operators": {"anna": STORED}, "bind": "0.0.0.0:80"}, "console.bind", "a loopback address, or tls"),
        ({"operators": {"anna": STORED}, "clients": ["everybody"]}, "console.clients", "192.0.2.0/24"),
        ({"operators": {"anna": STORED}, "colour": "red"}, "console.colour", "one of bind"),
    ],
)
def test_what_is_wrong(tmp_path: Path, console: dict[str, Any], where: str, expected: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(tmp_path, console)
    (problem,) = caught.value.problems
    assert f": {where}" in str(problem)
    assert expected in str(problem)
    assert "secret" not in str(problem)
