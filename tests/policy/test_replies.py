"""Replies as operators write them."""

import math

import pytest

from smtpgate.policy.replies import compile_reply, find_reply
from smtpgate.policy.rules import ReplyTemplate
from smtpgate.units import MAX_AMOUNT, MAX_HOSTNAME, MAX_NAME, InvalidValue


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("450 4.7.1 slow down", ReplyTemplate(450, "4.7.1", "slow down")),
        (
            "550 5.7.1 {host}: {limit} ({rate}) {retry}s",
            ReplyTemplate(550, "5.7.1", "{host}: {limit} ({rate}) {retry}s"),
        ),
        ("421 4.7.28 x", ReplyTemplate(421, "4.7.28", "x")),
    ],
)
def test_replies(text: str, expected: ReplyTemplate) -> None:
    assert compile_reply(text) == expected


LITERAL = 'expected code, enhanced code and text, e.g. "450 4.7.1 rate limit {limit}, retry in {retry}s"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("250 2.0.0 fine", f'"250 2.0.0 fine" is not a 4xx or 5xx reply; {LITERAL}'),
        ("450 slow down", f'"450 slow down" is not a 4xx or 5xx reply; {LITERAL}'),
        ("450 4.7.1", f'"450 4.7.1" is not a 4xx or 5xx reply; {LITERAL}'),
        ("450 4.7.1 a\r\n250 ok", f'"450 4.7.1 a\\r\\n250 ok" is not a 4xx or 5xx reply; {LITERAL}'),
        (
            "450 4.7.1 zu schnell für uns",
            f'"450 4.7.1 zu schnell für uns" is not a 4xx or 5xx reply; {LITERAL}',
        ),
        ("٤50 4.7.1 x", f'"٤50 4.7.1 x" is not a 4xx or 5xx reply; {LITERAL}'),
        (
            "450 5.7.1 x",
            '"450 5.7.1 x" has 5.7.1 after 450; expected an enhanced code that begins with 4 (RFC 3463)',
        ),
        (
            "450 4.7.1 {user}",
            '"450 4.7.1 {user}" has the unknown placeholder {user}; expected {limit} {retry} {rate} {host}',
        ),
        (
            "450 4.7.1 {limit!r}",
            '"450 4.7.1 {limit!r}" has the unknown placeholder {limit!r}; expected {limit} {retry} {rate} {host}',
        ),
        (
            "450 4.7.1 {{x",
            '"450 4.7.1 {{x" has a brace that is no placeholder; expected {limit} {retry} {rate} {host}',
        ),
        (
            "450 4.7.1 {host} {host}",
            '"450 4.7.1 {host} {host}" has {host} twice; expected each placeholder once',
        ),
        ("450 4.7.1 " + "x" * 201, None),
    ],
)
def test_bad_replies(text: str, message: str | None) -> None:
    with pytest.raises(InvalidValue) as caught:
        compile_reply(text)
    if message is None:
        assert str(caught.value).endswith(" is too long; expected at most 200 characters of text")
    else:
        assert str(caught.value) == message


def test_a_reply_filled_in_with_the_longest_of_everything_is_a_line_of_smtp() -> None:
    """512 octets with CRLF; the hundred and fortieth x is the last that fits."""
    fits = "450 4.7.1 {host} {limit} {retry} {rate} " + "x" * 140
    template = compile_reply(fits)
    filled = template.render(
        limit="l" * MAX_NAME, retry=math.inf, rate=f"{MAX_AMOUNT}/315359999999ms", host="h" * MAX_HOSTNAME
    )
    assert len(f"{filled.code} {filled.enhanced} {filled.text}\r\n") == 512
    with pytest.raises(InvalidValue, match="may become a line of 513 octets; expected at most 512"):
        compile_reply(fits + "x")


def test_a_literal_or_a_name() -> None:
    slow = ReplyTemplate(450, "4.7.1", "slow down")
    assert find_reply("slow", {"slow": slow}) is slow
    assert find_reply("450 4.7.1 slow down", {}) == slow
    with pytest.raises(InvalidValue) as caught:
        find_reply("slwo", {"slow": slow})
    assert str(caught.value) == '"slwo" is not a reply; expected a literal, e.g. "450 4.7.1 text", or one of slow'
