"""Text that nobody has made, on a page."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from authsvc.console.plain import moment, plain, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ann@example.com", "ann@example.com"),
        ("jürgen שלום", "jürgen שלום"),
        ("\u202eabc", "\\u202eabc"),
        ("a\r\nb\x00\x1b[31m", "a\\r\\nb\\x00\\x1b[31m"),
        ("\u2066\u200b\ufeff", "\\u2066\\u200b\\ufeff"),
        ("<script>", "<script>"),  # that is autoescape's
        (7, 7),
        (None, None),
    ],
)
def test_plain(value: object, text: object) -> None:
    assert plain(value) == text


def test_markup_of_ours_stays() -> None:
    made = Markup("<b>\n</b>")
    assert plain(made) is made


def test_moment() -> None:
    assert moment(0.0) == "1970-01-01 00:00:00"
    assert moment(1_795_000_000.9) == "2026-11-18 11:06:40"


@pytest.mark.parametrize(
    ("octets", "text"), [(0, "0 B"), (812, "812 B"), (1434, "1.4 KiB"), (64 << 20, "64 MiB"), (1e13, "9313 GiB")]
)
def test_size(octets: float, text: str) -> None:
    assert size(octets) == text
