"""The envelope of a session without login (method none): Auth-SMTP-From and Auth-SMTP-To -> facts.

Owns nothing of SMTP's grammar: nginx sends whole commands as the client typed them, and they are read by the
parser that the proxy reads them with. What that parser refuses is refused here with the same reply.
"""

from __future__ import annotations

from typing import Final, TypeVar

from authsvc.answer.contract import AuthRequest
from smtpgate.policy.model import Facts
from smtpgate.smtp import command, replies
from smtpgate.smtp.events import Mail, Rcpt
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.states import Verb

# Whether the listener offers SMTPUTF8 is not told: nginx hands the parameter on to the backend.
_OFFER: Final = command.Offer(smtputf8=True)

E = TypeVar("E", Mail, Rcpt)


class EnvelopeError(ValueError):
    """Not a MAIL or RCPT command. code, text: Auth-Error-Code and Auth-Status of the refusal."""

    def __init__(self, refusal: Reply) -> None:
        super().__init__(refusal.text)
        enhanced, _, self.text = refusal.text.partition(" ")
        self.code = f"{refusal.code} {enhanced}"


def envelope_facts(request: AuthRequest, now: float) -> Facts:
    """What is known at one RCPT. now: Unix seconds. Raises EnvelopeError."""
    sender = _read(request.mail_line, Verb.MAIL, Mail).sender
    recipient = _read(request.rcpt_line, Verb.RCPT, Rcpt).recipient
    return Facts(
        client=request.client,
        time=now,
        tls=request.tls,
        helo=request.helo,
        method=request.method,
        sender=str(sender),
        sender_domain=sender.domain.lower(),
        rcpt=str(recipient),
        rcpt_domain=recipient.domain.lower(),
        protocol=request.protocol,
    )


def _read(line: bytes, verb: Verb, expected: type[E]) -> E:
    parts = command.split(line)
    if isinstance(parts, Reply):
        raise EnvelopeError(parts)
    if parts.verb is not verb:
        raise EnvelopeError(replies.INVALID_COMMAND)
    event = command.parse(parts, _OFFER, smtputf8=True)
    if isinstance(event, Reply):
        raise EnvelopeError(event)
    assert isinstance(event, expected)
    return event
