"""What enters the policy engine and what leaves it, as frozen values.

Owns no behaviour. `Facts` grow along a session (a new object each time); a `Decision` is all that a caller needs
to act and to log.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Event(enum.Enum):
    """The moments at which limits are asked (shared policy.md, "Events and facts")."""

    CONNECT = "connect"
    AUTH = "auth"
    AUTH_FAIL = "auth_fail"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    EOD = "eod"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a session at an event; None is "not known yet".

    client: the textual address, or "unix:". login: what the client typed, unverified. user: the canonical name
    that the auth service returned. sender: "" is the null reverse-path. transaction: an id unique to one MAIL.
    """

    client: str
    listener: str | None = None
    tls: bool | None = None
    helo: str | None = None
    login: str | None = None
    method: str | None = None
    user: str | None = None
    plan: str | None = None
    sender: str | None = None
    sender_domain: str | None = None
    size: int | None = None
    rcpt: str | None = None
    rcpt_domain: str | None = None
    transaction: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyText:
    """A reply chosen by policy: 4xx or 5xx, enhanced code, one line of text."""

    code: int
    enhanced: str
    text: str


@dataclass(frozen=True, slots=True)
class Denial:
    """Why not, by which rule of which file, and what to do about it.

    retry: seconds until the bucket could pay, jitter included (inf: never). delay: seconds to wait before the
    reply is sent. balance: tokens left. source: "file:line" of the limit.
    """

    limit: str
    subject: str
    reply: ReplyText
    retry: float
    delay: float
    close: bool
    balance: float
    source: str


@dataclass(frozen=True, slots=True)
class Decision:
    """allowed, or the denial whose wait is the longest."""

    denial: Denial | None = None

    @property
    def allowed(self) -> bool:
        return self.denial is None


ALLOWED = Decision()
