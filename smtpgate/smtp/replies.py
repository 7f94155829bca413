"""Replies as values, and the catalogue of every reply that the proxy itself may send.

Texts are nginx's where nginx has one (reference/nginx_mail.md section 4, byte for byte). No reply ever
repeats what the client sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from smtpgate.smtp.events import BodyFault


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply (RFC 5321 section 4.2): a code and one or more texts, enhanced code inside the text.

    close: the connection ends after this reply. `wire()` is what goes out, CRLF at every line's end.
    """

    code: int
    lines: tuple[str, ...]
    close: bool = False
    _wire: bytes = field(default=b"", init=False, repr=False, compare=False)

    @property
    def positive(self) -> bool:
        """2xx or 3xx."""
        return self.code < 400

    @property
    def text(self) -> str:
        """All lines in one, for records."""
        return " / ".join(self.lines)

    def wire(self) -> bytes:
        if not self._wire:  # most of what is said is one of a few constants
            *first, last = self.lines
            wire = f"{self.code} {last}\r\n"
            if first:
                wire = "".join([f"{self.code}-{line}\r\n" for line in first]) + wire
            object.__setattr__(self, "_wire", wire.encode("utf-8", "surrogateescape"))
        return self._wire

    def closing(self) -> Reply:
        """The same reply, with the connection's end after it."""
        return Reply(self.code, self.lines, close=True)


def reply(code: int, *lines: str, close: bool = False) -> Reply:
    return Reply(code, lines, close)


# "250 2.0.0 text": what operators write in their files and what auth_http answers (reply code, RFC 5321
# section 4.2; no line end, so that a reply cannot be split).
_ONE_LINE = re.compile(r"([2-5][0-9]{2}) ([^\r\n\0]+)")


def parse(text: str, *, close: bool = False) -> Reply:
    """The reply of one line that `text` spells, "451 4.4.1 no mail server". Raises ValueError."""
    match = _ONE_LINE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a reply; expected a code from 200 to 599, a space and a text")
    return Reply(int(match[1]), (match[2],), close)


def greeting(server_name: str) -> Reply:
    """nginx's, which also answers XCLIENT (Postfix, XCLIENT_README)."""
    return reply(220, f"{server_name} ESMTP ready")


# --- nginx's words (reference/nginx_mail.md sections 3, 4.2 and 7) ------------------------------------------

OK: Final = reply(250, "2.0.0 OK")
BYE: Final = reply(221, "2.0.0 Bye", close=True)
START_TLS: Final = reply(220, "2.0.0 Start TLS")
AUTH_OK: Final = reply(235, "2.0.0 OK")
INVALID_COMMAND: Final = reply(500, "5.5.1 Invalid command")
INVALID_ARGUMENT: Final = reply(501, "5.5.4 Invalid argument")
BAD_SEQUENCE: Final = reply(503, "5.5.1 Bad sequence of commands")
AUTH_REQUIRED: Final = reply(530, "5.7.1 Authentication required")
EARLY_TALKER: Final = reply(503, "5.5.0 Improper use of SMTP command pipelining", close=True)
NO_CERTIFICATE: Final = reply(421, "4.7.1 No required SSL certificate", close=True)
INTERNAL_ERROR: Final = reply(451, "4.3.2 Internal server error", close=True)

# --- where nginx has none -----------------------------------------------------------------------------------

NOTHING_SHOWN: Final = reply(535, "5.7.8 No certificate was shown")  # RFC 4954 section 6
TLS_REQUIRED: Final = reply(530, "5.7.0 Must issue a STARTTLS command first")  # RFC 3207 section 4
BARE_NEWLINE: Final = reply(521, "5.5.2 bare <LF> received", close=True)  # Postfix, smtpd_forbid_bare_newline
NOT_HTTP: Final = reply(521, "5.5.1 This is an SMTP server", close=True)  # RFC 7504; reference/security.md C5
NO_CHUNKING: Final = reply(502, "5.5.1 BDAT is not offered here", close=True)

BAD_SENDER: Final = reply(501, "5.1.7 Bad sender address syntax")
BAD_RECIPIENT: Final = reply(501, "5.1.3 Bad recipient address syntax")
UNKNOWN_PARAMETER: Final = reply(555, "5.5.4 Unsupported parameter")  # RFC 5321 section 4.1.1.11
NOT_ASCII: Final = reply(553, "5.6.7 Non-ASCII address needs SMTPUTF8 and valid UTF-8")  # RFC 6531 section 3.5
SMTPUTF8_MISSING: Final = reply(550, "5.6.7 SMTPUTF8 is not supported on the way to this recipient")
TOO_BIG: Final = reply(552, "5.3.4 Message size exceeds fixed limit")  # RFC 1870 section 6.1
TOO_MANY_RECIPIENTS: Final = reply(452, "4.5.3 Too many recipients")  # RFC 5321 section 4.5.3.1.10
OTHER_ROUTE: Final = reply(452, "4.5.3 Recipient takes another route, send it in another message")

AUTH_UNAVAILABLE: Final = reply(454, "4.7.0 Temporary authentication failure")  # RFC 4954 section 6
LOOKUP_FAILED: Final = reply(451, "4.3.0 Temporary lookup failure")  # Postfix's words for a table that is away
TOO_MANY_ERRORS: Final = reply(421, "4.7.0 Too many errors", close=True)  # Postfix, smtpd_hard_error_limit
NO_STORAGE: Final = reply(452, "4.3.1 Insufficient system storage")
NO_RESOURCES: Final = reply(451, "4.3.1 Out of resources, try again later")  # of this machine: descriptors, memory
NO_BACKEND: Final = reply(451, "4.4.1 No mail server available, try again later")
BACKEND_LOST: Final = reply(451, "4.4.2 Mail server lost, try again later")
BACKEND_CONFUSED: Final = reply(451, "4.3.0 Mail server broke the protocol, try again later")
TIMED_OUT: Final = reply(421, "4.4.2 Timeout, closing connection", close=True)
SHUTTING_DOWN: Final = reply(421, "4.3.2 Service shutting down, try again later", close=True)
TOO_MANY_SESSIONS: Final = reply(421, "4.3.2 Too many connections, try again later", close=True)
# Postfix's code for smtpd_client_connection_count_limit.
TOO_MANY_OF_ADDRESS: Final = reply(421, "4.7.0 Too many connections from your address", close=True)
TOO_MANY_OF_NETWORK: Final = reply(421, "4.7.0 Too many connections from your network", close=True)

BODY_FAULTS: Final[Mapping[BodyFault, Reply]] = MappingProxyType(
    {
        BodyFault.BARE_NEWLINE: reply(550, "5.5.2 Message has a bare <CR> or <LF>"),
        BodyFault.NUL: reply(554, "5.6.0 Message has a NUL octet"),
        BodyFault.TOO_BIG: TOO_BIG,
    }
)
"""The final reply to a message with a fault, after its real end."""
