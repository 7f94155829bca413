"""What a listener prescribes to its clients, as one value.

Owns what follows from a listener's EHLO lines: the message size and which extensions are on; and that neither a
bearer token nor a certificate is asked for in clear where TLS can be had. Refuses to know where the settings come
from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from smtpgate.smtp.command import Offer
from smtpgate.smtp.forwarded import XCLIENT_ATTRIBUTES, XFORWARD_ATTRIBUTES
from smtpgate.smtp.replies import Reply, greeting
from smtpgate.smtp.sasl import MECHANISMS, TLS_MECHANISMS
from smtpgate.smtp.states import Bar

MAX_AUTH_LINE: Final = 12288
"""Octets of AUTH and of a line that answers a challenge, CRLF included (RFC 4954 section 4)."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """capabilities: EHLO lines as configured, in order. mechanisms: in upper case. auth_required: MAIL only
    after AUTH. max_errors: invalid commands until the connection is closed. max_line: octets of a command
    with its CRLF. max_recipients: of a message; the next ones are deferred. max_junk: commands that do nothing
    between two messages; each further one counts as invalid. bare_newline: what becomes of a CR or LF alone.
    "reject": the message or the command is refused. "normalize": a bare LF is taken for CRLF, and a bare CR in a
    text for a space (Postfix's smtpd_forbid_bare_newline has the same two words). The fields after it follow from
    these. greeting: nginx's.

    Raises ValueError where the SIZE capability has no number.
    """

    server_name: str
    capabilities: tuple[str, ...] = ()
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
    auth_required: bool = True
    tls: Literal["off", "starttls", "required", "implicit"] = "off"
    helo_required: bool = False
    max_errors: int = 5  # nginx's max_errors
    max_line: int = 4096  # nginx's smtp_client_buffer; RFC 5321 section 4.5.3.1.4 asks for 512
    max_recipients: int = 1000  # Postfix's smtpd_recipient_limit; RFC 5321 section 4.5.3.1.8 asks for 100
    max_junk: int = 100  # Postfix's smtpd_junk_command_limit
    bare_newline: Literal["reject", "normalize"] = "reject"
    offer: Offer = field(init=False, repr=False, compare=False)
    _clear_offer: Offer = field(init=False, repr=False, compare=False)
    chunking: bool = field(init=False, repr=False, compare=False)
    greeting: Reply = field(init=False, repr=False, compare=False)
    _bars: Mapping[tuple[bool, bool], frozenset[Bar]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = {line.partition(" ")[0].upper(): line.partition(" ")[2].strip() for line in self.capabilities}
        size = words.get("SIZE", "")
        if size and not (size.isascii() and size.isdecimal()):
            raise ValueError(f'capability "SIZE {size}": expected a number of octets')
        offer = Offer(
            mechanisms=frozenset(self.mechanisms),
            max_size=int(size or 0) or None,  # RFC 1870 section 4: 0 or no number is no fixed limit
            smtputf8="SMTPUTF8" in words,
        )
        object.__setattr__(self, "offer", offer)
        clear = replace(offer, mechanisms=offer.mechanisms - TLS_MECHANISMS)
        object.__setattr__(self, "_clear_offer", clear)
        object.__setattr__(self, "chunking", "CHUNKING" in words)
        object.__setattr__(self, "greeting", greeting(self.server_name))
        bars = {
            (tls, trusted): self._barred(tls=tls, trusted=trusted)
            for tls in (False, True)
            for trusted in (False, True)
        }
        object.__setattr__(self, "_bars", bars)

    @property
    def max_size(self) -> int | None:
        """Octets of the largest message, as the SIZE capability says; None for any."""
        return self.offer.max_size

    def bars(self, *, tls: bool, trusted: bool = False) -> set[Bar]:
        """What keeps commands out at the start of a dialogue. tls: it is encrypted. trusted: the client may speak for
        others (XCLIENT, XFORWARD).
        """
        return set(self._bars[tls, trusted])

    def _barred(self, *, tls: bool, trusted: bool) -> frozenset[Bar]:
        in_force = {
            Bar.NO_TLS: self.tls == "required" and not tls,
            Bar.NO_STARTTLS: tls or self.tls not in ("starttls", "required"),
            Bar.NO_CHUNKING: not self.chunking,
            Bar.NO_HELLO: self.helo_required,
            Bar.NO_AUTH: self.auth_required,
            Bar.UNTRUSTED: not trusted,
            # Where TLS can be had. Without any (`tls: off`) the operator answers for who can listen.
            Bar.NO_TOKENS: self.tls == "starttls" and not tls and not TLS_MECHANISMS.isdisjoint(self.mechanisms),
        }
        return frozenset(bar for bar, holds in in_force.items() if holds)

    def offer_under(self, bars: set[Bar]) -> Offer:
        """What is offered while `bars` are in force."""
        return self._clear_offer if Bar.NO_TOKENS in bars else self.offer

    def hello_lines(self, *, extended: bool, bars: set[Bar]) -> tuple[str, ...]:
        """The reply to HELO or EHLO, laid out as nginx does (reference/nginx_mail.md section 4.5)."""
        if not extended:
            return (self.server_name,)
        lines = [self.server_name, *self.capabilities]
        offered = self.offer_under(bars).mechanisms
        if offered and Bar.NO_TLS not in bars:
            lines.append(" ".join(["AUTH", *(name for name in MECHANISMS if name in offered)]))
        if Bar.NO_STARTTLS not in bars:
            lines.append("STARTTLS")
        if Bar.UNTRUSTED not in bars:
            lines += [" ".join(("XCLIENT", *XCLIENT_ATTRIBUTES)), " ".join(("XFORWARD", *XFORWARD_ATTRIBUTES))]
        return tuple(lines)
