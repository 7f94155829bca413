"""What enters the policy engine and what leaves it, as frozen values.

Owns no behaviour. `Facts` grow along a session (a new object each time); a `Decision` is all that a caller needs
to act and to log.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, NamedTuple


class Event(enum.Enum):
    """The moments at which limits are asked (shared policy.md, "Events and facts")."""

    CONNECT = "connect"
    AUTH = "auth"
    AUTH_FAIL = "auth_fail"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    EOD = "eod"

    # One object each: Enum's own hash is that of the name, in Python, and every decision looks an event up.
    __hash__ = object.__hash__


class Facts(NamedTuple):
    """What is known of a session at an event; None is "not known yet".

    client: the textual address, or "unix:". session, transaction: ids unique to one connection and one MAIL. time:
    Unix seconds of the event. login: what the client typed, unverified. user: the canonical name that the auth
    service returned. sender: "" is the null reverse-path. size: what MAIL announced. octets: of the message, at its
    end. recipients: accepted before this event in its transaction; messages: MAILs accepted before it in its session.

    At auth and auth_fail. password_mac: what was tried, as a keyed and cut MAC. known_user: the login exists.
    known_net: the login has come from this network before, with the right password.

    protocol: smtp, pop3 or imap; a stock nginx asks the auth service about all three.

    A tuple, because a message makes three of them: a frozen dataclass of so many fields takes four times as long.
    """

    client: str
    listener: str | None = None
    session: str | None = None
    time: float | None = None
    tls: bool | None = None
    helo: str | None = None
    login: str | None = None
    method: str | None = None
    user: str | None = None
    plan: str | None = None
    password_mac: str | None = None
    known_user: bool | None = None
    known_net: bool | None = None
    sender: str | None = None
    sender_domain: str | None = None
    size: int | None = None
    rcpt: str | None = None
    rcpt_domain: str | None = None
    transaction: str | None = None
    messages: int = 0
    recipients: int = 0
    octets: int | None = None
    protocol: str | None = None


_POSITIONS: Final = {name: position for position, name in enumerate(Facts._fields)}


def grown(facts: Facts, **known: Any) -> Facts:
    """`facts` with more of them known: _replace, in half of its time. Raises TypeError for a field that is none."""
    values = list(facts)
    for name, value in known.items():
        position = _POSITIONS.get(name)
        if position is None:
            raise TypeError(f"no fact is called {name!r}; expected one of {', '.join(Facts._fields)}")
        values[position] = value
    return tuple.__new__(Facts, values)


@dataclass(frozen=True, slots=True)
class ReplyText:
    """A reply chosen by policy: 4xx or 5xx, enhanced code, one line of text."""

    code: int
    enhanced: str
    text: str


@dataclass(frozen=True, slots=True)
class Denial:
    """Why not, by which rule of which file, and what to do about it.

    wait: seconds until the bucket could pay (inf: never). retry: the same with jitter, a year at most. hold:
    seconds that the session may wait for tokens before it is told. delay: seconds to wait before the reply is sent.
    balance: tokens, or free slots, left. source: "file:line" of the limit. banned: seconds that the subject's ban
    lasts yet; 0 where it is none.
    """

    limit: str
    subject: str
    reply: ReplyText
    retry: float
    delay: float
    close: bool
    balance: float
    source: str
    wait: float = 0.0
    hold: float = 0.0
    banned: float = 0.0


@dataclass(frozen=True, slots=True)
class Paid:
    """One bucket that a decision debited, for Engine.refund. rejected: the limit gives back what the mail servers
    refused; what our own fault cost is always given back. local: the store was away, a bucket of this process paid.

    A bucket with `distinct` is not among them: whoever tries the same value again pays nothing for it.
    """

    limit: str
    key: str
    rate: float
    burst: float
    cost: float
    rejected: bool
    local: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a concurrency limit that a decision took; it is held until Engine.release."""

    limit: str
    key: str
    holder: str


@dataclass(frozen=True, slots=True)
class Shape:
    """A bucket that the octets of a message have to pay before they are read (event data). rate: octets a second.
    local: while the store is away, a bucket of this process slows instead.
    """

    limit: str
    key: str
    rate: float
    burst: float
    local: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """allowed, or the denial whose wait is the longest; and what came of the limits besides.

    shadow: what limits that only watch would have said. A denied decision has paid nothing and holds nothing that is
    enforced.
    """

    denial: Denial | None = None
    shadow: tuple[Denial, ...] = ()
    paid: tuple[Paid, ...] = ()
    slots: tuple[Slot, ...] = ()
    shapes: tuple[Shape, ...] = ()

    @property
    def allowed(self) -> bool:
        return self.denial is None


ALLOWED = Decision()
