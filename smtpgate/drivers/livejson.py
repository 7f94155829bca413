"""Reports and orders as JSON text, as they are kept for other processes and for people with redis-cli.

Owns the form and its tolerance: a field that is not known here is ignored, one that is missing has its default, and
what cannot be a report is None. Its writer may be of another version, and is no reason to show nothing.
"""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from smtpgate.live import Order, Report

# Octets of one report. With 500 sessions it has some 130 thousand; at every bound of `live`, and four octets a
# character, three million.
MAX_OCTETS: Final = 1 << 22

_REPORT: Final = TypeAdapter(Report)
_ORDER: Final = TypeAdapter(Order)
_ORDERS: Final = TypeAdapter(list[Order])

T = TypeVar("T")


def report_to_json(report: Report) -> bytes:
    return _REPORT.dump_json(report)


def report_from_json(octets: bytes | str) -> Report | None:
    return _read(_REPORT, octets)


def order_to_json(order: Order) -> bytes:
    return _ORDER.dump_json(order)


def order_from_json(octets: bytes | str) -> Order | None:
    return _read(_ORDER, octets)


def orders_to_json(orders: list[Order]) -> bytes:
    return _ORDERS.dump_json(orders, indent=1)


def orders_from_json(octets: bytes | str) -> list[Order] | None:
    return _read(_ORDERS, octets)


def _read(form: TypeAdapter[T], octets: bytes | str) -> T | None:
    if len(octets) > MAX_OCTETS:
        return None
    try:
        return form.validate_json(octets)
    except ValidationError:
        return None
