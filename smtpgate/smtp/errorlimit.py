"""How much nonsense one client may say: its errors, and the commands that get nobody any further.

Owns the two counts and when they end a dialogue (reference/security.md F7). Refuses to know replies, and which
command is an error: the server's tables say so.
"""

from __future__ import annotations

from typing import Final

from smtpgate.smtp.states import Verb

JUNK: Final = frozenset({Verb.NOOP, Verb.RSET, Verb.VRFY, Verb.EXPN, Verb.HELP, Verb.HELO, Verb.EHLO})
"""What Postfix calls junk commands: lawful, and of no use in any number (smtpd_junk_command_limit)."""


class ErrorLimit:
    """The counts of one connection. STARTTLS and a login do not reset them.

    most: errors at which it ends. junk: commands without effect that are free between two messages; each further one
    is an error. count: errors so far.
    """

    __slots__ = ("_free", "_junk", "_most", "count")

    def __init__(self, most: int, junk: int) -> None:
        self._most = most
        self._free = junk
        self._junk = 0
        self.count = 0

    def error(self) -> bool:
        """One more; whether it was one too many."""
        self.count += 1
        return self.count >= self._most

    def junk(self) -> bool:
        """A command without effect: one of JUNK, or refused for its syntax or its place. Whether it is one error too
        many.
        """
        self._junk += 1
        return self._junk > self._free and self.error()

    def message(self) -> None:
        """A message was taken: the client does what it has come for."""
        self._junk = 0
