"""What one client may say by what it has shown so far: TLS, a greeting, a login, a relay's trust.

Owns the bars in force (`states.Bar`) and what lifts them. Refuses to know transactions, and which command a bar keeps
out: the tables in `states` do.
"""

from __future__ import annotations

from smtpgate.smtp.events import Hello
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.settings import ServerSettings
from smtpgate.smtp.states import Bar


class Standing:
    """bars: those in force. tls: the dialogue is encrypted. trusted: the client may speak for others."""

    __slots__ = ("_settings", "_tls", "_trusted", "bars")

    def __init__(self, settings: ServerSettings, *, tls: bool, trusted: bool) -> None:
        self._settings = settings
        self._tls = tls
        self._trusted = trusted
        self.bars = settings.bars(tls=tls, trusted=trusted)

    @property
    def authenticated(self) -> bool:
        return Bar.AUTHENTICATED in self.bars

    def hello_reply(self, event: Hello) -> Reply:
        """What answers HELO or EHLO, laid out as nginx does (reference/nginx_mail.md section 4.5)."""
        return Reply(250, self._settings.hello_lines(extended=event.extended, bars=self.bars))

    def greeted(self) -> None:
        """HELO or EHLO was accepted."""
        self.bars.discard(Bar.NO_HELLO)

    def logged_in(self) -> None:
        self.bars.discard(Bar.NO_AUTH)
        self.bars.add(Bar.AUTHENTICATED)

    def secured(self) -> None:
        """TLS is up: what was shown in clear counts for nothing (RFC 3207 section 4.2)."""
        self._tls = True
        self.bars = self._settings.bars(tls=True, trusted=self._trusted)

    def becomes(self, login: str | None) -> None:
        """Another client from here on (Postfix, XCLIENT_README: "the server state is reset"). login: that a relay
        answers for.
        """
        self.bars = self._settings.bars(tls=self._tls, trusted=True)
        if login:
            self.logged_in()
