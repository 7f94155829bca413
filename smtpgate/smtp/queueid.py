"""The name under which a mail server has queued a message, out of its final reply.

Owns the forms that servers use; RFC 5321 prescribes none. Refuses to guess: what looks like none of them is None.
"""

from __future__ import annotations

import re
from typing import Final

from smtpgate.smtp.replies import Reply

MAX_QUEUE_ID: Final = 128
"""Characters. Postfix's long ids have 16, Exchange's message ids some 80; more is nobody's."""

_FORMS: Final = tuple(
    re.compile(form, re.ASCII)
    for form in (
        # Postfix; also behind a content filter, which quotes the next server: "from MTA(...): 250 Ok: queued as 4F2"
        r"queued as ([0-9A-Za-z]+)",
        r"Message Queued \(([0-9A-Fa-f.-]+)\)",  # Haraka
        r"<([!-;=?-~]+)> \[[^\]]*\] (?:[^<>]{0,80} )?Queued mail for delivery",  # Exchange, Microsoft 365
        r"\bid=([0-9A-Za-z][0-9A-Za-z.-]*)",  # Exim; amavisd-new in front of a server that names none
        r"\b([0-9A-Za-z]+) Message accepted for delivery",  # sendmail, OpenSMTPD
        r"\bok [0-9]+ qp ([0-9]+)",  # qmail: the process that has queued it
        r"\bOk\. ([0-9A-F]+(?:\.[0-9A-F]+)+)",  # Courier
        r"\bOK +[0-9]+ ([0-9A-Za-z.-]+) - gsmtp",  # Gmail
    )
)


def queue_id(reply: Reply) -> str | None:
    """Of a positive final reply: printable ASCII without spaces, None where it names nothing that is known."""
    if not reply.positive:
        return None
    for form in _FORMS:
        match = form.search(reply.text)
        if match is not None:
            return match[1] if len(match[1]) <= MAX_QUEUE_ID else None
    return None
