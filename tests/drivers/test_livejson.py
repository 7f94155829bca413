"""Reports and orders as text: what is read of another version's."""

from __future__ import annotations

import json

import pytest

from smtpgate.drivers.livejson import (
    MAX_OCTETS,
    order_from_json,
    order_to_json,
    orders_from_json,
    orders_to_json,
    report_from_json,
    report_to_json,
)
from smtpgate.live import (
    MAX_BACKENDS,
    MAX_DENIALS,
    MAX_HELD,
    MAX_SESSIONS,
    MAX_TEXT,
    BackendView,
    Counts,
    DenialView,
    Order,
    PoolView,
    Report,
    SessionView,
    SubjectView,
)

ORDER = Order("core", "mta1", "ann", 7.5)
LEAST = {
    "node": "mx1",
    "pid": 1,
    "version": "0",
    "time": 2.0,
    "began": 1.0,
    "draining": False,
    "store": "shared",
    "open_sessions": 0,
    "resident": 0,
    "counts": {},
}


def test_what_is_missing_has_its_default_and_what_is_new_is_ignored() -> None:
    newer = {
        **LEAST,
        "planets": 9,
        "counts": {"sessions": 4, "comets": 1},
        "policy": {"version": "v", "loaded": 3, "x": 1},
    }
    report = report_from_json(json.dumps(newer))
    assert report is not None
    assert report.counts == Counts(sessions=4)
    assert report.policy is not None
    assert (report.policy.version, report.policy.problems, report.sessions) == ("v", (), ())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        json.dumps({key: value for key, value in LEAST.items() if key != "node"}).encode(),
        json.dumps({**LEAST, "pid": "x"}).encode(),
        json.dumps({**LEAST, "sessions": [{"session": "a"}]}).encode(),
        b" " * (MAX_OCTETS + 1),
    ],
)
def test_what_cannot_be_a_report_is_none(text: bytes) -> None:
    assert report_from_json(text) is None


def test_orders_there_and_back() -> None:
    assert order_from_json(order_to_json(ORDER)) == ORDER
    assert orders_from_json(orders_to_json([ORDER, ORDER])) == [ORDER, ORDER]
    assert order_from_json(b'{"pool": "core"}') is None
    assert orders_from_json(b"{}") is None


def test_a_report_at_every_bound_fits() -> None:
    """With texts of four octets a character, all of them."""
    text = "\N{OLD ITALIC LETTER A}" * MAX_TEXT
    name = "n" * 64
    session = SessionView("5" * 16, name, "2001:db8::1", text, text, "TLSv1.3", 1.0, "data", 1, "7" * 32, name)
    denial = DenialView(1.0, "5" * 16, "2001:db8::1", text, "mail", name, text, 1.0, 1.0, name)
    backend = BackendView(name, name, "ejected", 1, 1, 1, 1, False, "sessions", "r" * 60, 1.0)
    report = Report(
        "n" * 64,
        1,
        "1",
        1.0,
        1.0,
        False,
        "shared",
        1,
        1,
        Counts(),
        (session,) * MAX_SESSIONS,
        (denial,) * MAX_DENIALS,
        (SubjectView(name, text, name, 1, 1, 1.0),) * MAX_HELD,
        (PoolView(name, "hash", (backend,) * (MAX_BACKENDS // 2)),) * 2,
    )
    octets = report_to_json(report)
    assert len(octets) <= MAX_OCTETS, len(octets)
    assert report_from_json(octets) == report
