"""What a server opens and commits of a client's octets, read to the letter: RFC 5321 for DATA, RFC 3030 for BDAT.

Of the cases in tests/corpora: slow, short, and of another make than `smtpgate.smtp`. `textoracle` says what becomes
of a text. A proxy smuggles where the server behind it sees another envelope, or another text, than this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from hostile import Policy
from textoracle import first_fault, mended, normalize_oracle, oracle

from smtpgate.smtp.events import BodyFault

END_OF_DATA: Final = b"\r\n.\r\n"
CHUNK: Final = re.compile(rb"BDAT ([0-9]{1,20})( LAST)? *", re.IGNORECASE)
MAIL: Final = re.compile(rb"MAIL FROM:<([^>]*)>", re.IGNORECASE)
RCPT: Final = re.compile(rb"RCPT TO:<([^>]+)>", re.IGNORECASE)


@dataclass(slots=True)
class Envelope:
    """With at least one recipient a server behind the proxy hears of it. text: as DATA, its dots stuffed, with the
    last line's end; None while nothing is committed.
    """

    sender: bytes
    recipients: list[bytes] = field(default_factory=list)
    text: bytes | None = None

    @property
    def commands(self) -> list[bytes]:
        return [b"MAIL FROM:<%b>" % self.sender, *(b"RCPT TO:<%b>" % one for one in self.recipients)]


@cache  # a text of a megabyte takes a second, and is asked for in each segmentation
def read(wire: bytes, policy: Policy, *, chunked: bool = False) -> tuple[Envelope, ...]:
    """All envelopes of a session, in order. It has said MAIL and RCPT; and DATA too, unless it is `chunked`."""
    session = _Session(policy)
    if chunked:
        session.commands(wire)
    else:
        session.text(wire)
    return tuple(one for one in session.opened if one.recipients)


class _Session:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.current: Envelope | None = Envelope(b"a@a.test", [b"r1@x.test"])
        self.opened = [self.current]
        self.content: bytes | None = None  # of chunks, from the first on

    def text(self, wire: bytes) -> None:
        """Behind a 354."""
        if END_OF_DATA not in b"\r\n" + wire:
            return  # it never ends, and so it never was
        assert self.current is not None
        read_text = oracle if self.policy == "reject" else normalize_oracle
        self.current.text, rest, _, _ = read_text(wire, None)
        self.current = None
        assert rest is not None
        self.commands(rest)

    def commands(self, wire: bytes) -> None:
        while wire:
            line, _, wire = wire.partition(b"\r\n" if self.policy == "reject" else b"\n")
            line = line.removesuffix(b"\r") if self.policy == "normalize" else line
            if b"\n" in line:
                return  # a bare LF: the session is over
            verb = line[:4].upper()
            if verb == b"BDAT":
                found = CHUNK.fullmatch(line)
                if found is None or len(wire) < int(found[1]):
                    return  # nobody knows where the next command begins, or it never comes
                size = int(found[1])
                chunk, wire = wire[:size], wire[size:]
                self.chunk(chunk, last=found[2] is not None)
            elif verb == b"DATA":
                if self.content is None and self.current is not None and self.current.recipients:
                    self.text(wire)
                    return
                if wire:
                    return  # refused, and its text comes all the same: no line of it is a command
            elif verb == b"RSET":
                self.current = self.content = None
            elif self.content is None:  # RFC 3030 section 2: between chunks nothing but chunks and RSET
                self.envelope(line)

    def envelope(self, line: bytes) -> None:
        if self.current is None and (found := MAIL.fullmatch(line)):
            self.current = Envelope(found[1])
            self.opened.append(self.current)
        elif self.current is not None and (found := RCPT.fullmatch(line)):
            self.current.recipients.append(found[1])

    def chunk(self, octets: bytes, *, last: bool) -> None:
        if self.current is None or not self.current.recipients:
            return
        self.content = (self.content or b"") + octets
        if last:
            self.current.text = as_data(self.content, self.policy)
            self.current = self.content = None


def as_data(content: bytes, policy: Policy) -> bytes | None:
    """A message that came in chunks, as the text of a DATA; None where it has a fault."""
    clean = mended(content)
    if first_fault(content, None) is BodyFault.NUL or (policy == "reject" and clean != content):
        return None
    whole = clean + b"\r\n" if clean and not clean.endswith(b"\r\n") else clean
    return b"\r\n".join(b"." + line if line[:1] == b"." else line for line in whole.split(b"\r\n"))
