"""What may be said when: the server's states, the commands, and the reply to each that comes too early.

Everything that decides legality is in this file, as tables that can be printed, and nothing else is. A
`State` is how far the transaction has come. A `Bar` is a reason of another kind that keeps a command out:
what the listener demands or does not offer. A command is legal when no bar in force forbids it and its state
allows it; a positive answer moves the state as ON_SUCCESS says, a negative one leaves it. Refuses to know how
a command is spelt.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from smtpgate.smtp import replies
from smtpgate.smtp.replies import Reply


class Verb(enum.Enum):
    """The commands that are known. Any other is invalid."""

    HELO = b"HELO"
    EHLO = b"EHLO"
    STARTTLS = b"STARTTLS"
    AUTH = b"AUTH"
    MAIL = b"MAIL"
    RCPT = b"RCPT"
    DATA = b"DATA"
    BDAT = b"BDAT"
    RSET = b"RSET"
    NOOP = b"NOOP"
    QUIT = b"QUIT"
    VRFY = b"VRFY"
    EXPN = b"EXPN"
    HELP = b"HELP"
    XCLIENT = b"XCLIENT"
    XFORWARD = b"XFORWARD"

    __hash__ = object.__hash__  # members are looked up for every command, and Enum's hash runs in Python


class State(enum.Enum):
    """How far the dialogue has come, and so what the next octets are."""

    START = "no transaction"
    MAIL = "a sender accepted"
    RCPT = "a recipient accepted"
    BDAT = "between the chunks of a message"
    BDAT_FAILED = "after a refused chunk, until MAIL, RSET or EHLO (RFC 3030 section 2)"
    # From here on the next octets are not a command.
    AUTH = "a challenge is out, the next line answers it"
    TEXT = "in DATA's text"
    CHUNK = "in a BDAT chunk"
    SKIP = "in a BDAT chunk that was refused"
    HANDSHAKE = "STARTTLS answered, TLS not yet up"
    CLOSED = "nothing is read any more"

    __hash__ = object.__hash__


class Bar(enum.Enum):
    """Why a command may be kept out, whatever the state."""

    NO_TLS = "the listener demands TLS and has none yet"
    NO_STARTTLS = "STARTTLS is not offered, or TLS is up already"
    NO_CHUNKING = "CHUNKING is not offered"
    NO_HELLO = "the listener demands HELO or EHLO first"
    NO_AUTH = "the listener demands authentication first"
    NO_TOKENS = "mechanisms that show a bearer token or a certificate are offered after STARTTLS only"
    AUTHENTICATED = "authenticated already"
    UNTRUSTED = "this client may not speak for others"

    __hash__ = object.__hash__


FOR_OTHERS: Final = frozenset((Verb.XCLIENT, Verb.XFORWARD))
"""With which a relay speaks for its clients."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reply to a command that may not be given now. counted: it is one of the listener's `max_errors`."""

    reply: Reply
    counted: bool = False


INVALID: Final = Refusal(replies.INVALID_COMMAND, counted=True)
UNSUPPORTED: Final = Refusal(replies.INVALID_COMMAND)
OUT_OF_SEQUENCE: Final = Refusal(replies.BAD_SEQUENCE)

_TLS_FIRST: Final = (Bar.NO_TLS, Refusal(replies.TLS_REQUIRED))
_HELLO_FIRST: Final = (Bar.NO_HELLO, OUT_OF_SEQUENCE)

# The first bar in force answers. NO_AUTH answers DATA and BDAT as nginx does, which does not know them before
# it has authenticated (reference/nginx_mail.md section 4.2). RCPT needs no bar: without MAIL it is out of
# sequence.
BARS: Final[Mapping[Verb, tuple[tuple[Bar, Refusal], ...]]] = MappingProxyType(
    {
        Verb.STARTTLS: ((Bar.NO_STARTTLS, UNSUPPORTED),),
        Verb.AUTH: (_TLS_FIRST, _HELLO_FIRST, (Bar.AUTHENTICATED, OUT_OF_SEQUENCE)),
        Verb.MAIL: (_TLS_FIRST, _HELLO_FIRST, (Bar.NO_AUTH, Refusal(replies.AUTH_REQUIRED))),
        Verb.DATA: ((Bar.NO_AUTH, INVALID),),
        Verb.BDAT: ((Bar.NO_CHUNKING, Refusal(replies.NO_CHUNKING)), (Bar.NO_AUTH, INVALID)),
        # To everybody else these are unknown commands, as in nginx (reference/security.md E1).
        Verb.XCLIENT: ((Bar.UNTRUSTED, INVALID), _TLS_FIRST),
        Verb.XFORWARD: ((Bar.UNTRUSTED, INVALID), _TLS_FIRST),
    }
)

# Allowed in every state that reads commands, and back to the start on success.
_ALWAYS: Final = {
    Verb.HELO: State.START,
    Verb.EHLO: State.START,
    Verb.RSET: State.START,
    Verb.QUIT: State.CLOSED,
}
_TLS: Final = {Verb.STARTTLS: State.HANDSHAKE}

ON_SUCCESS: Final[Mapping[State, Mapping[Verb, State]]] = MappingProxyType(
    {
        State.START: {
            **_ALWAYS,
            **_TLS,
            Verb.AUTH: State.START,
            Verb.MAIL: State.MAIL,
            Verb.XCLIENT: State.START,
            Verb.XFORWARD: State.START,
        },
        State.MAIL: {**_ALWAYS, **_TLS, Verb.RCPT: State.RCPT},
        State.RCPT: {
            **_ALWAYS,
            **_TLS,
            Verb.RCPT: State.RCPT,
            Verb.DATA: State.TEXT,
            Verb.BDAT: State.CHUNK,
        },
        State.BDAT: {**_ALWAYS, Verb.BDAT: State.CHUNK},
        State.BDAT_FAILED: {**_ALWAYS, Verb.MAIL: State.MAIL},
        State.AUTH: {},
        State.TEXT: {},
        State.CHUNK: {},
        State.SKIP: {},
        State.HANDSHAKE: {},
        State.CLOSED: {},
    }
)
"""Where a positive answer leads, for each command that a state allows."""

ALLOWED: Final[Mapping[State, frozenset[Verb]]] = MappingProxyType(
    {state: frozenset(moves) for state, moves in ON_SUCCESS.items()}
)

ANSWERED_ANYWHERE: Final[Mapping[Verb, Reply]] = MappingProxyType(
    {
        Verb.NOOP: replies.OK,
        Verb.VRFY: replies.INVALID_COMMAND,
        Verb.EXPN: replies.INVALID_COMMAND,
        Verb.HELP: replies.INVALID_COMMAND,
    }
)
"""Commands that change nothing, and the answer to them in every state that reads commands."""

AFTER_CONTENT: Final[Mapping[tuple[bool, bool], State]] = MappingProxyType(
    {
        (True, True): State.START,
        (True, False): State.START,
        (False, True): State.BDAT,
        (False, False): State.BDAT_FAILED,
    }
)
"""(the last of its message, answered positively) -> the state after DATA's text or a chunk."""


def refusal(verb: Verb, state: State, bars: Set[Bar]) -> Refusal | None:
    """Why `verb` may not be given in `state` with `bars` in force; None if it may."""
    if bars and verb in BARS:
        for bar, answer in BARS[verb]:
            if bar in bars:
                return answer
    return None if verb in ON_SUCCESS[state] else OUT_OF_SEQUENCE
