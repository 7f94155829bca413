"""What one session knows of its client.

Owns the facts that policy is asked with, the client's claims and what the auth service made of them, and what of it
others may learn (auth_http, the backend, the log). Decides nothing, reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from smtpgate.policy.model import Facts
from smtpgate.session.ports import AuthGranted, AuthQuery, Identity, Peer, TlsInfo
from smtpgate.smtp.encode import UNAVAILABLE
from smtpgate.smtp.events import Hello, Mail, Rcpt
from smtpgate.smtp.sasl import Credentials

# No resolver yet: what nginx says of a client without a verified name (reference/auth_http.md section 5).
NO_HOST_NAME: Final = UNAVAILABLE


class Client:
    """Grows along a session. `facts` is replaced, never changed; peer, session id and attempts stay for good."""

    def __init__(self, session: str, peer: Peer, listener: str, tls: TlsInfo | None) -> None:
        self.session = session
        self.peer = peer
        self.attempts = 0  # questions to auth_http; STARTTLS does not reset them (auth_http.md section 3)
        self._listener = listener
        self.forget(tls)

    def forget(self, tls: TlsInfo | None) -> None:
        """Back to a client that has said nothing yet: at the start, and after STARTTLS (RFC 3207 section 4.2)."""
        self.tls = tls
        self.facts = Facts(client=self.peer.host, listener=self._listener, tls=tls is not None)
        self.granted: AuthGranted | None = None
        self._hello: Hello | None = None
        self._extended = False
        self._login: str | None = None
        self._password: bytes | None = None

    def greeted(self, hello: Hello) -> None:
        self._hello = hello
        self._extended = self._extended or hello.extended  # nginx: who ever said EHLO is replayed as EHLO
        self.facts = replace(self.facts, helo=hello.name)

    def claims(self, credentials: Credentials) -> AuthQuery:
        """The question whether these credentials are good. A claim is no fact: limits are not keyed on it."""
        return self._query(
            credentials.method, user=credentials.user, password=credentials.password, salt=credentials.salt
        )

    def accepted(self, credentials: Credentials, granted: AuthGranted) -> None:
        """The auth service said yes; its words replace the client's (auth_http.md section 6.4)."""
        self.granted = granted
        self._login = granted.user if granted.user is not None else text_of(credentials.user)
        self._password = granted.password
        if self._password is None and credentials.method == "plain":
            self._password = credentials.password
        self.facts = replace(
            self.facts,
            login=text_of(credentials.user),
            method=credentials.method,
            user=self._login,
            plan=granted.plan,
        )

    def envelope(self, mail: Mail, rcpt: Rcpt) -> AuthQuery:
        """The question whether this recipient may be sent to by a client without a login (method none)."""
        return self._query("none", mail_line=mail.line, rcpt_line=rcpt.line)

    def admitted(self, granted: AuthGranted, *, keep: bool) -> None:
        """A `none` answer. It may make a login (auth_http.md section 6.4). keep: it stands for all recipients."""
        if keep:
            self.granted = granted
        if granted.user is not None:
            self._login = granted.user

    def _query(
        self,
        method: str,
        *,
        user: bytes = b"",
        password: bytes = b"",
        salt: str | None = None,
        mail_line: bytes | None = None,
        rcpt_line: bytes | None = None,
    ) -> AuthQuery:
        self.attempts += 1
        return AuthQuery(
            method=method,
            attempt=self.attempts,
            peer=self.peer,
            client_host=NO_HOST_NAME,
            user=user,
            password=password,
            salt=salt,
            tls=self.tls,
            helo=self.facts.helo,
            mail_line=mail_line,
            rcpt_line=rcpt_line,
        )

    def identity(self) -> Identity:
        """What a backend may learn."""
        return Identity(
            addr=self.peer.host,
            name=NO_HOST_NAME,
            helo=self.facts.helo,
            extended=self._extended,
            login=self._login,
            method=self.facts.method or "none",
            password=self._password,
        )

    def who(self) -> dict[str, object]:
        """The fields that every log line of the session has."""
        facts = self.facts
        return {
            "session": self.session,
            "client": facts.client,
            "listener": facts.listener,
            "user": facts.user,
        }


def text_of(login: bytes) -> str:
    """A login as text; octets that are no UTF-8 survive the round trip to the backend."""
    return login.decode("utf-8", "surrogateescape")
