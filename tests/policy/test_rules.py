"""Reply templates."""

import math

import pytest

from smtpgate.policy.model import ReplyText
from smtpgate.policy.rules import ReplyTemplate


@pytest.mark.parametrize(
    ("text", "retry", "expected"),
    [
        ("slow down", 1.0, "slow down"),
        ("{limit} {retry} {rate} {host}", 1.0, "user.msgs 1 30/1m mx.example.com"),
        ("in {retry}s", 0.01, "in 1s"),
        ("in {retry}s", 1e-9, "in 1s"),
        ("in {retry}s", 59.2, "in 60s"),
        ("in {retry}s", 100 * 1.1, "in 110s"),
        ("in {retry}s", 1e12, "in 31536000s"),
        ("in {retry}s", math.inf, "in 31536000s"),
    ],
)
def test_render(text: str, retry: float, expected: str) -> None:
    template = ReplyTemplate(450, "4.7.1", text)
    rendered = template.render(limit="user.msgs", retry=retry, rate="30/1m", host="mx.example.com")
    assert rendered == ReplyText(450, "4.7.1", expected)
