"""One command line -> an event, or the reply that refuses it.

Owns the syntax of commands and their parameters. What it hands out is parsed to the end: nothing in an event
is raw but `line`, which auth_http wants as typed. No reply repeats a client's octet. Refuses to know whether
a command may be given now; that is `states`.

Letters are compared without case by bytes.upper(), which knows ASCII only: str.upper() makes QUIT of "QUıT".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from smtpgate.smtp import forwarded, grammar, replies
from smtpgate.smtp.encode import unxtext
from smtpgate.smtp.events import (
    Address,
    Auth,
    Bdat,
    Data,
    Event,
    Hello,
    Mail,
    MailParams,
    Quit,
    Rcpt,
    RcptParams,
    Reset,
    StartTls,
    Xclient,
    Xforward,
)
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.states import Verb

T = TypeVar("T")

MAX_ARGUMENTS: Final = 11
"""Words after the verb. nginx's NGX_MAIL_MAX_ARGS; MAIL with every parameter that we know has 7."""

MAX_OCTETS: Final = 2**63 - 1
"""The largest size or chunk that is taken for a number: what a file's size can be."""

HTTP_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI")
)
"""RFC 9110 section 9, RFC 5789, and HTTP/2's preface. A browser that is made to speak to us carries somebody
else's commands in its body (reference/security.md C5, ALPACA)."""

_VERBS: Final[Mapping[bytes, Verb]] = MappingProxyType({verb.value: verb for verb in Verb})


@dataclass(frozen=True, slots=True)
class Offer:
    """What a listener offers, as far as the syntax depends on it. max_size: octets, None for any."""

    mechanisms: frozenset[str] = frozenset()
    max_size: int | None = None
    smtputf8: bool = False


class Command(NamedTuple):
    """A line taken apart: `arguments` are the octets after the verb, spaces around them removed."""

    verb: Verb
    arguments: bytes
    line: bytes


def split(line: bytes) -> Command | Reply:
    """Verb and arguments, or the reply to what is no command at all: 500, or 521 to HTTP.

    nginx's rules (reference/nginx_mail.md section 4.1): the verb starts the line, spaces separate. A CR or
    NUL inside makes the line invalid.
    """
    line = line.rstrip(b" ")
    word, _, arguments = line.partition(b" ")
    word = word.upper()
    verb = _VERBS.get(word)
    if verb is None:
        return replies.NOT_HTTP if word in HTTP_METHODS else replies.INVALID_COMMAND
    if b"\r" in line or b"\0" in line:
        return replies.INVALID_COMMAND
    arguments = arguments.lstrip(b" ")
    if arguments.count(b" ") >= MAX_ARGUMENTS and len(_words(arguments)) > MAX_ARGUMENTS:
        return replies.INVALID_COMMAND
    return Command(verb, arguments, line)


def parse(command: Command, offer: Offer, *, smtputf8: bool) -> Event | Reply:
    """The event that a command is, or the reply to its faulty arguments.

    smtputf8: the transaction's MAIL had the parameter (RFC 6531), so its recipients may be UTF-8.
    """
    try:
        return _PARSERS[command.verb](command, offer, smtputf8)
    except _RefusedError as refused:
        return refused.reply


def parse_bdat(command: Command) -> Bdat | Reply:
    """BDAT's size and mark. Every reply closes: where the chunk ends is not known, or too far away."""
    match = grammar.BDAT.fullmatch(command.arguments)
    if match is None:
        return replies.INVALID_ARGUMENT.closing()
    size = int(match[1])
    return Bdat(size, match[2] is not None) if size <= MAX_OCTETS else replies.TOO_BIG.closing()


class _RefusedError(Exception):
    """The arguments are faulty; `reply` says how. Does not leave this module."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


def _words(arguments: bytes) -> list[bytes]:
    return [word for word in arguments.split(b" ") if word]


def _hello(command: Command, _offer: Offer, _smtputf8: bool) -> Hello:
    if grammar.HELLO_NAME.fullmatch(command.arguments) is None:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    return Hello(command.verb is Verb.EHLO, command.arguments.decode("ascii"))


def _auth(command: Command, offer: Offer, _smtputf8: bool) -> Auth:
    """RFC 4954 section 4. As nginx: 501 to a missing argument, 500 to all else."""
    mechanism, *initial = _words(command.arguments) or [b""]
    if not mechanism:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    if grammar.SASL_MECH.fullmatch(mechanism) is None or len(initial) > 1:
        raise _RefusedError(replies.INVALID_COMMAND)
    name = mechanism.upper().decode("ascii")
    if name not in offer.mechanisms:
        raise _RefusedError(replies.INVALID_COMMAND)
    if not initial:
        return Auth(name)
    response = decode_response(initial[0])
    if response is None:
        raise _RefusedError(replies.INVALID_COMMAND)
    return Auth(name, response)


def decode_response(word: bytes) -> bytes | None:
    """A SASL response: base64, or "=" for an empty one (RFC 4954 section 4). None where it is neither."""
    return b"" if word == b"=" else grammar.decode_base64(word)


def _mail(command: Command, offer: Offer, _smtputf8: bool) -> Mail:
    match = grammar.REVERSE_PATH.fullmatch(command.arguments)
    if match is None:
        known = grammar.FROM.fullmatch(command.arguments)
        raise _RefusedError(replies.BAD_SENDER if known else replies.INVALID_ARGUMENT)
    params = _mail_params(_parameters(match["parameters"], _MAIL_KEYWORDS), offer)
    try:
        sender = grammar.mailbox(match, utf8=params.smtputf8)
    except grammar.AddressError:
        raise _RefusedError(replies.BAD_SENDER) from None
    except grammar.NotUtf8Error:
        raise _RefusedError(replies.NOT_ASCII) from None
    return Mail(sender, params, command.line)


def _rcpt(command: Command, _offer: Offer, smtputf8: bool) -> Rcpt:
    match = grammar.FORWARD_PATH.fullmatch(command.arguments)
    if match is None:
        known = grammar.TO.fullmatch(command.arguments)
        raise _RefusedError(replies.BAD_RECIPIENT if known else replies.INVALID_ARGUMENT)
    params = _rcpt_params(_parameters(match["parameters"], _RCPT_KEYWORDS))
    postmaster = match["postmaster"]
    if postmaster is not None:
        return Rcpt(Address(postmaster.decode("ascii"), ""), params, command.line)
    try:
        recipient = grammar.mailbox(match, utf8=smtputf8)
    except grammar.AddressError:
        raise _RefusedError(replies.BAD_RECIPIENT) from None
    except grammar.NotUtf8Error:
        raise _RefusedError(replies.NOT_ASCII) from None
    return Rcpt(recipient, params, command.line)


def _data(command: Command, _offer: Offer, _smtputf8: bool) -> Data:
    if command.arguments:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    return Data()


def _xclient(command: Command, _offer: Offer, _smtputf8: bool) -> Xclient:
    try:
        return forwarded.parse_xclient(command.arguments)
    except forwarded.AttributeFault:
        raise _RefusedError(replies.INVALID_ARGUMENT) from None


def _xforward(command: Command, _offer: Offer, _smtputf8: bool) -> Xforward:
    try:
        return forwarded.parse_xforward(command.arguments)
    except forwarded.AttributeFault:
        raise _RefusedError(replies.INVALID_ARGUMENT) from None


_Parser = Callable[[Command, Offer, bool], Event]

# STARTTLS, RSET and QUIT take no notice of arguments, as in nginx.
_PARSERS: Final[Mapping[Verb, _Parser]] = MappingProxyType(
    {
        Verb.HELO: _hello,
        Verb.EHLO: _hello,
        Verb.AUTH: _auth,
        Verb.MAIL: _mail,
        Verb.RCPT: _rcpt,
        Verb.DATA: _data,
        Verb.STARTTLS: lambda _command, _offer, _smtputf8: StartTls(),
        Verb.RSET: lambda _command, _offer, _smtputf8: Reset(),
        Verb.QUIT: lambda _command, _offer, _smtputf8: Quit(),
        Verb.XCLIENT: _xclient,
        Verb.XFORWARD: _xforward,
    }
)


VERB_OF: Final[Mapping[type, Verb]] = MappingProxyType(
    {
        Hello: Verb.EHLO,
        StartTls: Verb.STARTTLS,
        Mail: Verb.MAIL,
        Rcpt: Verb.RCPT,
        Data: Verb.DATA,
        Reset: Verb.RSET,
        Quit: Verb.QUIT,
        Xclient: Verb.XCLIENT,
        Xforward: Verb.XFORWARD,
    }
)
"""The verb that a positive answer to an event moves the state by: HELO and EHLO are one there."""


# --- ESMTP parameters (RFC 5321 section 4.1.2) --------------------------------------------------------------

_MAIL_KEYWORDS: Final = frozenset(("SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"))
_RCPT_KEYWORDS: Final = frozenset(("NOTIFY", "ORCPT"))


def _parameters(text: bytes, known: frozenset[str]) -> dict[str, str | None]:
    """Keyword, in upper case, -> value as typed. An unknown one is 555, a malformed or second one 501."""
    given: dict[str, str | None] = {}
    if not text:
        return given
    for word in _words(text):
        match = grammar.ESMTP_PARAMETER.fullmatch(word)
        if match is None:
            raise _RefusedError(replies.INVALID_ARGUMENT)
        keyword = match[1].decode("ascii").upper()
        if keyword not in known:
            raise _RefusedError(replies.UNKNOWN_PARAMETER)
        if keyword in given:
            raise _RefusedError(replies.INVALID_ARGUMENT)
        given[keyword] = None if match[2] is None else match[2].decode("ascii")
    return given


def _mail_params(given: dict[str, str | None], offer: Offer) -> MailParams:
    """SIZE, BODY, AUTH and DSN's parameters are taken whether or not the listener's EHLO offers them.

    Clients of a proxy that announces nothing (nginx does so by default) send them all the same.
    """
    if not given:
        return _NO_MAIL_PARAMS
    smtputf8 = "SMTPUTF8" in given
    if smtputf8 and not offer.smtputf8:
        raise _RefusedError(replies.UNKNOWN_PARAMETER)
    if smtputf8 and given["SMTPUTF8"] is not None:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    size = _valued(given, "SIZE", _size)
    if size is not None and size > (MAX_OCTETS if offer.max_size is None else offer.max_size):
        raise _RefusedError(replies.TOO_BIG)
    return MailParams(
        size=size,
        body=_valued(given, "BODY", _body),
        smtputf8=smtputf8,
        ret=_valued(given, "RET", _ret),
        envid=_valued(given, "ENVID", _envid),
        auth=_valued(given, "AUTH", _auth_mailbox),
    )


def _rcpt_params(given: dict[str, str | None]) -> RcptParams:
    if not given:
        return _NO_RCPT_PARAMS
    return RcptParams(notify=_valued(given, "NOTIFY", _notify), orcpt=_valued(given, "ORCPT", _orcpt))


_NO_MAIL_PARAMS: Final = MailParams()
_NO_RCPT_PARAMS: Final = RcptParams()


def _valued(given: dict[str, str | None], keyword: str, read: Callable[[str], T]) -> T | None:
    """What `read` makes of the keyword's value; None where the keyword was not given."""
    if keyword not in given:
        return None
    value = given[keyword]
    if value is None:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    return read(value)


def _size(value: str) -> int:
    if grammar.SIZE_VALUE.fullmatch(value) is None:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    return int(value)


def _body(value: str) -> str:
    """RFC 6152. BINARYMIME (RFC 3030) is never offered: its CR and LF are no line ends, and we guard those."""
    if value.upper() == "BINARYMIME":
        raise _RefusedError(replies.UNKNOWN_PARAMETER)
    return _one_of(value, "7BIT", "8BITMIME")


def _ret(value: str) -> str:
    return _one_of(value, "FULL", "HDRS")


def _one_of(value: str, *expected: str) -> str:
    value = value.upper()
    if value not in expected:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    return value


def _envid(value: str) -> str:
    if len(_spelt(value)) > grammar.MAX_ENVID:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    return value


def _auth_mailbox(value: str) -> str:
    """RFC 4954 section 5: "<>" or a mailbox, as xtext."""
    if value == "<>":
        return value
    match = grammar.MAILBOX.fullmatch(_unxtext(value))
    if match is None:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    try:
        return str(grammar.mailbox(match, utf8=True))
    except (grammar.AddressError, grammar.NotUtf8Error):
        raise _RefusedError(replies.INVALID_ARGUMENT) from None


def _notify(value: str) -> str:
    value = value.upper()
    if grammar.NOTIFY.fullmatch(value) is None:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    return value


def _orcpt(value: str) -> str:
    match = grammar.ORCPT.fullmatch(value)
    if match is None or len(value) > grammar.MAX_ORCPT:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    _spelt(match[1])
    return value


def _spelt(value: str) -> bytes:
    """What xtext spells, which must be printable ASCII."""
    octets = _unxtext(value)
    if grammar.PRINTABLE.fullmatch(octets) is None:
        raise _RefusedError(replies.INVALID_ARGUMENT)
    return octets


def _unxtext(value: str) -> bytes:
    try:
        return unxtext(value)
    except ValueError:
        raise _RefusedError(replies.INVALID_ARGUMENT) from None
