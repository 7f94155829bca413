"""Which command may be sent to a backend when, and what its reply does: one table.

Owns the states of the client's side of SMTP and every change between them. Two rules: a state is what the
backend has confirmed, never what we hope for; and nothing outside this file decides by state what is legal.
Refuses to know octets, queues and extensions; that is `client`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


class ClientState(enum.Enum):
    """What the backend has confirmed. Commands under way do not count until they are answered."""

    GREETING = "greeting"  # no 220 yet, or the greeting was a refusal
    HELLO = "hello"  # greeted (or TLS just begun); EHLO or HELO comes next
    READY = "ready"  # between transactions
    TLS = "tls"  # STARTTLS has its 220: handshake, then tls_started()
    MAIL = "mail"  # MAIL accepted
    RCPT = "rcpt"  # at least one RCPT accepted
    DATA = "data"  # 354 received: the text is being written, end_data() ends it
    BDAT = "bdat"  # chunks under way (RFC 3030); only more chunks or RSET may follow
    CLOSED = "closed"  # for good

    __hash__ = object.__hash__  # members are looked up for every command, and Enum's hash runs in Python


class Verb(enum.Enum):
    """What can be answered."""

    GREETING = "the greeting"
    HELO = "HELO"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    XCLIENT = "XCLIENT"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    END_OF_DATA = "end of data"
    BDAT = "BDAT"
    BDAT_LAST = "BDAT LAST"
    RSET = "RSET"
    QUIT = "QUIT"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    legal: the states in which the command may be sent, and in which it may be answered positively.
    success, refused: the state after a positive or a negative reply; None leaves it as it is.
    positive: first digit of the positive reply; 4 and 5 are the negative ones, anything else is a violation.
    refusable: False where a negative reply is a violation too.
    last: nothing may be sent behind it before its reply (RFC 2920 section 3.1).
    also_from: further states in which a positive reply is believed.
    """

    legal: frozenset[ClientState]
    success: ClientState | None = None
    refused: ClientState | None = None
    positive: int = 2
    refusable: bool = True
    last: bool = False
    also_from: frozenset[ClientState] = frozenset()


_S = ClientState


def _in(*states: ClientState) -> frozenset[ClientState]:
    return frozenset(states)


RULES: Final[Mapping[Verb, Rule]] = MappingProxyType(
    {
        Verb.GREETING: Rule(_in(_S.GREETING), _S.HELLO, last=True),
        Verb.HELO: Rule(_in(_S.HELLO, _S.READY), _S.READY, last=True),
        Verb.EHLO: Rule(_in(_S.HELLO, _S.READY), _S.READY, last=True),
        Verb.STARTTLS: Rule(_in(_S.READY), _S.TLS, last=True),
        # Postfix forgets the EHLO after XCLIENT, others do not. Both take another EHLO, and nginx sends it
        # only if the client said hello, so READY stays. XCLIENT_README wants the command at the end of a
        # group.
        Verb.XCLIENT: Rule(_in(_S.READY), last=True),
        Verb.AUTH: Rule(_in(_S.READY), last=True),
        Verb.MAIL: Rule(_in(_S.READY), _S.MAIL),
        Verb.RCPT: Rule(_in(_S.MAIL, _S.RCPT), _S.RCPT),
        # RFC 2920 section 3.1: a server may say 354 although it refused each RCPT of the group. Lawful, so no
        # violation; the driver sees that nobody was accepted and ends an empty text or drops the connection.
        Verb.DATA: Rule(_in(_S.RCPT), _S.DATA, positive=3, last=True, also_from=_in(_S.MAIL)),
        Verb.END_OF_DATA: Rule(_in(_S.DATA), _S.READY, _S.READY),
        # After a refused chunk, the last one included, the transaction is in doubt until RSET (RFC 3030
        # section 2).
        Verb.BDAT: Rule(_in(_S.RCPT, _S.BDAT), _S.BDAT, _S.BDAT),
        Verb.BDAT_LAST: Rule(_in(_S.RCPT, _S.BDAT), _S.READY, _S.BDAT, last=True),
        # RSET knows no refusal (RFC 5321 section 4.3.2); after one, nobody could say what the backend still
        # holds.
        Verb.RSET: Rule(_in(_S.READY, _S.MAIL, _S.RCPT, _S.BDAT), _S.READY, refusable=False),
        Verb.QUIT: Rule(
            _in(_S.GREETING, _S.HELLO, _S.READY, _S.MAIL, _S.RCPT, _S.BDAT), _S.CLOSED, _S.CLOSED, last=True
        ),
    }
)
"""Legality, whole."""
