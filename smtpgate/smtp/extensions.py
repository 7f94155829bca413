"""What a backend offers, read from its EHLO reply (RFC 5321 section 4.1.1.1).

Owns the meaning of EHLO keywords. Refuses to decide what to do with them; `encode` and `client` do. A line
that is not an ehlo-line is skipped, not an error: servers put banners there, and an extension that we cannot
read is one that we do not use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from smtpgate.smtp.replies import Reply

# ehlo-line = ehlo-keyword *( SP ehlo-param ), RFC 5321 section 4.1.1.1. The keyword is ASCII, so upper() is
# safe. "AUTH=LOGIN PLAIN" is the form of the drafts before RFC 2554; old Exchange and Notes servers still
# send it.
_EHLO_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ =]([\x20-\x7e]*))?")

# size-param of RFC 1870 section 4: up to 20 digits.
_SIZE = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Extensions:
    """The service extensions of one EHLO reply, by upper-case keyword. `EMPTY` stands for HELO."""

    keywords: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_ehlo(cls, reply: Reply) -> Extensions:
        """Read a 250 to EHLO. The first line names the server; parameters of a repeated keyword add up."""
        found: dict[str, tuple[str, ...]] = {}
        for line in reply.lines[1:]:
            if match := _EHLO_LINE.fullmatch(line):
                keyword = match[1].upper()
                found[keyword] = found.get(keyword, ()) + tuple((match[2] or "").split())
        return cls(MappingProxyType(found))

    def has(self, name: str) -> bool:
        """Is the extension offered? `name` in any case."""
        return name.upper() in self.keywords

    def params(self, name: str) -> tuple[str, ...]:
        """The parameters as sent; () where there are none or the extension is not offered."""
        return self.keywords.get(name.upper(), ())

    @property
    def pipelining(self) -> bool:
        """RFC 2920."""
        return "PIPELINING" in self.keywords

    @property
    def chunking(self) -> bool:
        """RFC 3030."""
        return "CHUNKING" in self.keywords

    @property
    def starttls(self) -> bool:
        """RFC 3207."""
        return "STARTTLS" in self.keywords

    @property
    def eightbitmime(self) -> bool:
        """RFC 6152."""
        return "8BITMIME" in self.keywords

    @property
    def smtputf8(self) -> bool:
        """RFC 6531."""
        return "SMTPUTF8" in self.keywords

    @property
    def dsn(self) -> bool:
        """RFC 3461."""
        return "DSN" in self.keywords

    @property
    def size(self) -> int | None:
        """RFC 1870: the largest message in octets; 0 is "no fixed limit told"; None is "not offered"."""
        if "SIZE" not in self.keywords:
            return None
        limit = next(iter(self.keywords["SIZE"]), "")
        return int(limit) if _SIZE.fullmatch(limit) else 0

    @property
    def xclient(self) -> tuple[str, ...]:
        """Attribute names that XCLIENT may carry, upper case (Postfix XCLIENT_README)."""
        return tuple(name.upper() for name in self.params("XCLIENT"))

    @property
    def auth(self) -> frozenset[str]:
        """Names of SASL mechanisms, upper case (RFC 4954)."""
        return frozenset(name.upper() for name in self.params("AUTH"))


EMPTY: Final = Extensions()
"""No extensions: a session opened by HELO, or none opened yet."""
