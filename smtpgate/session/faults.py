"""What the failure of a backend means: whose words it is told in, and whether it is anybody's outage.

Owns these judgements on faults. Refuses to know what is done about them (`relay`).
"""

from __future__ import annotations

from smtpgate.session.handshake import HandshakeRefused
from smtpgate.session.link import LinkLost
from smtpgate.smtp import replies
from smtpgate.smtp.replies import Reply


class ReplayRefused(Exception):
    """The replacement backend does not accept what the lost one had accepted and the client was told."""


def is_personal(fault: Exception | None) -> bool:
    """Whether the backend would not have this client, and might well have another. A search that ends so is no
    outage: whoever has a name or a password that no backend likes would try again and again for nothing.
    """
    return isinstance(fault, HandshakeRefused) and fault.personal


def refusal_of(fault: Exception) -> Reply | None:
    """Why the backend hung up on the text, if that is a reply to it: 421 is one to the session."""
    farewell = fault.farewell if isinstance(fault, LinkLost) else None
    return farewell if farewell is not None and farewell.code >= 400 and farewell.code != 421 else None


def words_of(fault: Exception) -> Reply | None:
    """What the backend itself has said, in the place of a greeting or in the handshake."""
    return fault.reply if isinstance(fault, HandshakeRefused) else None


def told(fault: Exception | None) -> Reply:
    """What the client hears of a backend that was lost in its transaction (reference/security.md section 3)."""
    return replies.BACKEND_CONFUSED if isinstance(fault, LinkLost) and fault.garbled else replies.BACKEND_LOST
