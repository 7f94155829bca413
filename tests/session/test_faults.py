"""Whose fault it was, and in whose words it is told."""

from __future__ import annotations

import pytest

from smtpgate.session.faults import is_personal, refusal_of, told
from smtpgate.session.handshake import HandshakeRefused
from smtpgate.session.link import LinkLost
from smtpgate.session.ports import DialFailed
from smtpgate.smtp import replies
from smtpgate.smtp.replies import Reply

BYE, FULL, LATER = Reply(421, ("4.3.2 bye",)), Reply(552, ("5.3.4 full",)), Reply(451, ("4.3.1 later",))


@pytest.mark.parametrize(
    ("fault", "personal", "refusal", "reply"),
    [
        (None, False, None, replies.BACKEND_LOST),
        (DialFailed("mta1", "refused"), False, None, replies.BACKEND_LOST),
        (HandshakeRefused("AUTH", FULL, personal=True), True, None, replies.BACKEND_LOST),
        (HandshakeRefused("EHLO", FULL), False, None, replies.BACKEND_LOST),
        (LinkLost("gone"), False, None, replies.BACKEND_LOST),
        (LinkLost("said 421", BYE), False, None, replies.BACKEND_LOST),
        (LinkLost("refused early", FULL), False, FULL, replies.BACKEND_LOST),
        (LinkLost("refused early", LATER), False, LATER, replies.BACKEND_LOST),
        (LinkLost("said too much", replies.OK), False, None, replies.BACKEND_LOST),
        (LinkLost("silent", silent=True), False, None, replies.BACKEND_LOST),
        (LinkLost("nonsense", garbled=True), False, None, replies.BACKEND_CONFUSED),
    ],
    ids=str,
)
def test_faults(fault: Exception | None, personal: bool, refusal: Reply | None, reply: Reply) -> None:
    assert is_personal(fault) == personal
    assert (None if fault is None else refusal_of(fault)) == refusal
    assert told(fault) == reply
