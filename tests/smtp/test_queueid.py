"""What servers say when they have taken a message, as they say it."""

from __future__ import annotations

import pytest

from smtpgate.smtp.queueid import MAX_QUEUE_ID, queue_id
from smtpgate.smtp.replies import Reply


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2.0.0 Ok: queued as 4F2ABC9D10", "4F2ABC9D10"),
        ("2.0.0 Ok: queued as 4cVJkL3zpQz9sRK", "4cVJkL3zpQz9sRK"),
        ("2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 9A1B", "9A1B"),
        ("2.0.0 Ok, id=12345-01, from MTA([127.0.0.1]:10025): 250 Ok: queued as 4F2", "4F2"),
        ("2.7.0 Ok, discarded, id=12345-01 - spam", "12345-01"),
        ("OK id=1rABCd-0000xy-1Z", "1rABCd-0000xy-1Z"),
        ("OK id=1vABCd-000000001xy-1ZzZ", "1vABCd-000000001xy-1ZzZ"),
        ("2.0.0 56F9AbCd012345 Message accepted for delivery", "56F9AbCd012345"),
        ("2.0.0 5c1a2b3d Message accepted for delivery", "5c1a2b3d"),
        ("ok 1763800000 qp 12345", "12345"),
        ("Ok. 000000000001A2B3.0000000065F0C0DE.00004D2", "000000000001A2B3.0000000065F0C0DE.00004D2"),
        ("Message Queued (5F1D3C2A-1B2C.1)", "5F1D3C2A-1B2C.1"),
        ("2.0.0 OK  1763800000 d2e1a72fcca58-7b1.23 - gsmtp", "d2e1a72fcca58-7b1.23"),
        (
            "2.6.0 <a.b$c@EX.example> [InternalId=98765, Hostname=EX1.example] 1234 bytes in 0.1, 9 KB/sec"
            " Queued mail for delivery",
            "a.b$c@EX.example",
        ),
        (
            "2.6.0 <ab12@EX.example> [InternalId=98765, Hostname=EX1.example] Queued mail for delivery",
            "ab12@EX.example",
        ),
        ("2.0.0 OK", None),
        ("2.0.0 recorded", None),
        ("Message accepted for delivery", None),
        ("queued as", None),
        ("queued as \u0663\u0664", None),
        ("", None),
        ("queued as " + "a" * MAX_QUEUE_ID, "a" * MAX_QUEUE_ID),
        ("queued as " + "a" * (MAX_QUEUE_ID + 1), None),
    ],
)
def test_forms(text: str, found: str | None) -> None:
    assert queue_id(Reply(250, (text,))) == found


def test_any_line_may_say_it() -> None:
    assert queue_id(Reply(250, ("2.0.0 thank you", "2.0.0 Ok: queued as 4F2"))) == "4F2"


def test_a_refusal_has_queued_nothing() -> None:
    assert queue_id(Reply(451, ("4.3.0 not queued as 4F2",))) is None
