"""What a client may say, as values.

An event is handed out by `server.ServerProtocol.next_event()` and answered with `send(reply)` before the next
one is handed out, which makes pipelining (RFC 2920) safe by construction. `Body` events are the exception: they
are content, not commands, and need no answer; `BodyEnd` does.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox of RFC 5321 section 4.1.2, source route removed.

    `local` is as typed (a quoted string keeps its quotes); `domain` is as typed, empty only in `<>` and in
    `<postmaster>`. `str()` writes the path's inside anew: "local@domain", or "" for the null reverse-path.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else self.local


NULL_SENDER = Address("", "")


@dataclass(frozen=True, slots=True)
class Hello:
    """HELO or EHLO. `name` is the argument, printable ASCII without spaces."""

    extended: bool
    name: str


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS (RFC 3207), legal here and now. Answer 220, flush, handshake, then call `tls_started()`."""


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH (RFC 4954): `mechanism` is one that the listener offers; `initial` is decoded, None if absent."""

    mechanism: str
    initial: bytes | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class AuthLine:
    """The client's answer to a 334, decoded. Never shown in a repr: it may be a password."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthFault:
    """The exchange ended: cancelled by `*`, or not base64 (RFC 4954 section 4). Answer with an error reply."""

    reason: str


@dataclass(frozen=True, slots=True)
class MailParams:
    """ESMTP parameters of MAIL that we know; None or False where absent.

    size: octets (RFC 1870). body: "7BIT" or "8BITMIME" (RFC 6152). smtputf8 (RFC 6531). ret: "FULL" or "HDRS",
    envid: xtext as typed (RFC 3461). auth: decoded mailbox or "<>" (RFC 4954 section 5), never relayed as trusted.
    """

    size: int | None = None
    body: str | None = None
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    auth: str | None = None


@dataclass(frozen=True, slots=True)
class RcptParams:
    """ESMTP parameters of RCPT that we know (RFC 3461): notify "NEVER" or a comma list, orcpt "type;xtext"."""

    notify: str | None = None
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM. `line` is the command as typed without its line end: auth_http's Auth-SMTP-From wants it."""

    sender: Address
    params: MailParams
    line: bytes


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO. `line` as in Mail: auth_http's Auth-SMTP-To wants it."""

    recipient: Address
    params: RcptParams
    line: bytes


@dataclass(frozen=True, slots=True)
class Xclient:
    """XCLIENT. An attribute that is None was not given, and stays what it was; "" was given as unavailable.

    addr: textual. port, destport: 0 where unavailable. proto: "SMTP" or "ESMTP". login: text; octets that were no
    UTF-8 survive as surrogates.
    """

    name: str | None = None
    addr: str | None = None
    port: int | None = None
    proto: str | None = None
    helo: str | None = None
    login: str | None = None
    destaddr: str | None = None
    destport: int | None = None


@dataclass(frozen=True, slots=True)
class Xforward:
    """XFORWARD: for the log, never for a decision. Names in lower case -> values, "" where unavailable."""

    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Data:
    """DATA after at least one accepted RCPT. Answer 354, or refuse."""


@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT (RFC 3030), offered by this listener. `Body` events with `size` octets in all follow, then BodyEnd.

    Nothing answers this event itself: the chunk's octets are on their way whatever we think, so the one reply
    belongs to its BodyEnd. A chunk that is too big by its size alone comes behind its BodyFaulted.
    """

    size: int
    last: bool


class BodyFault(enum.Enum):
    """Why a body may not be committed. Told only after its real end (reference/security.md section 0)."""

    BARE_NEWLINE = "bare newline"
    NUL = "NUL octet"
    TOO_BIG = "too big"


@dataclass(frozen=True, slots=True)
class Body:
    """A piece of a message, safe to pass on: CR and LF only as CRLF so far, no end of data inside.

    From DATA the octets are as on the wire (dots stuffed); from BDAT they are the content itself. No `Body` is
    handed out once the body has a fault. last: no other follows in DATA's text, whose end has been read as well; of
    two equal texts it may be told of one, for it depends on how the octets were cut.
    """

    data: bytes
    last: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class BodyFaulted:
    """The body in progress has a fault: abort the backend now, go on reading to the real end. Needs no answer."""

    fault: BodyFault


@dataclass(frozen=True, slots=True)
class BodyEnd:
    """The end of DATA's text, or of one BDAT chunk (`last` tells; always True for DATA).

    `size` counts the message's octets so far, stuffed dots and the terminator not among them.
    """

    size: int
    last: bool
    fault: BodyFault | None


@dataclass(frozen=True, slots=True)
class Reset:
    """RSET: forget the transaction."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT. Answer 221, then close."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The client's end of stream, or the protocol gave up (the last reply said so). Nothing follows.

    mid_body tells that a message was under way: whoever relays it must abort, never end it with a dot.
    """

    mid_body: bool = False
    reason: str = "client closed the connection"


Event = (
    Hello
    | StartTls
    | Auth
    | AuthLine
    | AuthFault
    | Mail
    | Rcpt
    | Data
    | Bdat
    | Body
    | BodyFaulted
    | BodyEnd
    | Reset
    | Quit
    | Xclient
    | Xforward
    | Closed
)
