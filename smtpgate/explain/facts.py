"""A question about a session, in an operator's words -> the Facts that the policies are asked with.

Owns what is assumed where the question is silent. Reads no clock: the time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smtpgate.policy.fields import domain_of
from smtpgate.policy.model import Event, Facts

# Of which a question may be: datetime has the year before and the year after in whatever time zone a window is.
YEARS: Final = range(1970, 9999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """ip: the client's address, or "unix:". login: the name that the client types; that of user, if left out.
    sender, rcpt: addresses; "" is the null sender. size: octets. recipients, messages: accepted already, in this
    message and in this session. tls: None for unknown.
    """

    ip: str
    user: str | None = None
    login: str | None = None
    plan: str | None = None
    method: str | None = None
    sender: str | None = None
    rcpt: str | None = None
    size: int | None = None
    recipients: int = 0
    messages: int = 0
    helo: str | None = None
    listener: str | None = None
    tls: bool | None = None

    def facts(self, now: float) -> Facts:
        """All that is known of the session at its end. now: Unix seconds."""
        return Facts(
            client=self.ip,
            listener=self.listener,
            session="explain",
            time=now,
            tls=self.tls,
            helo=self.helo,
            login=self.login or self.user,
            method=self.method or ("plain" if self.user else None),
            user=self.user,
            plan=self.plan,
            sender=self.sender,
            sender_domain=_domain(self.sender),
            size=self.size,
            rcpt=self.rcpt,
            rcpt_domain=_domain(self.rcpt),
            transaction="explain.1",
            messages=self.messages,
            recipients=self.recipients,
            octets=self.size,
            protocol="smtp",
        )

    def events(self) -> list[Event]:
        """Those that a session like this one meets, in their order."""
        events = [Event.CONNECT, Event.MAIL]
        if self.user is not None:
            events.insert(1, Event.AUTH)
        if self.rcpt is not None:
            events += [Event.RCPT, Event.DATA, Event.EOD]
        return events


def _domain(address: str | None) -> str | None:
    """As the session has it: in lower case, "" where there is none."""
    if address is None:
        return None
    return domain_of(address).lower() if "@" in address else ""
