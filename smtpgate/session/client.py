"""What one session knows of its client.

Owns the facts that policy is asked with, the client's claims and what the auth service made of them, and what of it
others may learn (auth_http, the backend, the log). Decides nothing, reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeVar

from smtpgate.policy.model import Facts, grown
from smtpgate.session.ports import AuthGranted, AuthQuery, Identity
from smtpgate.session.records import Who
from smtpgate.session.streams import Peer, Proxied, TlsInfo
from smtpgate.smtp.encode import UNAVAILABLE
from smtpgate.smtp.events import Hello, Mail, Rcpt, Xclient, Xforward
from smtpgate.smtp.sasl import Credentials

# What nginx says of a client without a verified name (reference/auth_http.md section 5).
NO_HOST_NAME: Final = UNAVAILABLE
# The auth service is asked by POP3 and IMAP proxies too; the policies are the same.
PROTOCOL: Final = "smtp"

T = TypeVar("T", str, int)


class Client:
    """Grows along a session. `facts` is replaced, never changed; the session's id stays for good.

    peer: the client, as its connection, a PROXY header or XCLIENT tells. tls: its own with us, else what a PROXY
    header says of its TLS with the sender. proxied: what a PROXY header said. now, here and below: Unix seconds.
    """

    def __init__(
        self,
        session: str,
        peer: Peer,
        listener: str,
        tls: TlsInfo | None,
        now: float,
        proxied: Proxied | None = None,
    ) -> None:
        self.session = session
        self.peer = self._first = peer
        self.attempts = 0  # questions to auth_http; STARTTLS does not reset them (auth_http.md section 3)
        self.name = self._first_name = NO_HOST_NAME
        self._relay: str | None = None  # the address of whoever has said XCLIENT
        self._listener = listener
        self._proxied = proxied
        self._who: tuple[Facts, str, TlsInfo | None, Who] | None = None  # the last one, and of what it was made
        self._tls_in_front = None if proxied is None else proxied.tls
        self.forget(tls, now)

    @property
    def introduced(self) -> bool:
        """XCLIENT has made another client of this one."""
        return self._relay is not None

    @property
    def certified(self) -> bool:
        """It has shown us a certificate that is believed. Only a third party's word stands behind anything else."""
        certificate = None if self.tls is None else self.tls.certificate
        return certificate is not None and certificate.verify == "SUCCESS"

    def named(self, name: str) -> None:
        """The confirmed name of the address that has connected, or nginx's word for its absence."""
        self.name = self._first_name = name

    def forget(self, tls: TlsInfo | None, now: float) -> None:
        """Back to a client that has said nothing yet: at the start, and after STARTTLS (RFC 3207 section 4.2)."""
        self.peer, self.name, self._relay = self._first, self._first_name, None
        self._begin(tls or self._tls_in_front, now)

    def _begin(self, tls: TlsInfo | None, now: float) -> None:
        self.tls = tls
        self.facts = Facts(
            client=self.peer.host,
            listener=self._listener,
            session=self.session,
            time=now,
            tls=tls is not None,
            protocol=PROTOCOL,
        )
        self.granted: AuthGranted | None = None
        self._extended = False
        self._login: str | None = None
        self._password: bytes | None = None
        self._forwarded: dict[str, str] = {}

    def becomes(self, told: Xclient, now: float) -> None:
        """XCLIENT: from here on this is the client that a relay in front of us serves.

        All that was said before is forgotten, and the relay's own name and HELO with it. An attribute that is not
        given stays what an XCLIENT before it has told, since a long one comes in several; but a login that is not
        told is none, as in Postfix. An address that the relay does not know is the relay's own. A login is one that
        the relay answers for: it has no password and no method of auth_http, whose question, if there is one, is that
        for a client without AUTH.
        """
        extended = self._extended
        name, helo = (self.name, self.facts.helo) if self.introduced else (NO_HOST_NAME, None)
        self._relay = self._relay or self.peer.host
        self.name = name if told.name is None else told.name or NO_HOST_NAME
        self.peer = Peer(
            host=_told(told.addr, self.peer.host, self._first.host),
            port=self.peer.port if told.port is None else told.port,
            local_host=_told(told.destaddr, self.peer.local_host, self._first.local_host),
            local_port=_told(told.destport, self.peer.local_port, self._first.local_port),
        )
        self.attempts = 0
        # The relay's certificate proves the relay, not whom it serves.
        self._begin(None if self.tls is None else replace(self.tls, certificate=None), now)
        self._extended = extended if told.proto is None else told.proto == "ESMTP"
        self._login = told.login or None
        helo = helo if told.helo is None else told.helo or None
        self.facts = grown(self.facts, helo=helo, login=self._login, user=self._login)

    def forwards(self, told: Xforward) -> None:
        """XFORWARD: for the log of the next transaction, and for nothing else."""
        self._forwarded.update(told.attributes)

    def forwarded(self) -> dict[str, str]:
        """What XFORWARD told of the transaction that has just ended; the next one has its own (Postfix,
        XFORWARD_README).
        """
        told, self._forwarded = self._forwarded, {}
        return told

    def greeted(self, hello: Hello) -> None:
        self._extended = self._extended or hello.extended  # nginx: who ever said EHLO is replayed as EHLO
        self.facts = grown(self.facts, helo=hello.name)

    def claims(self, credentials: Credentials) -> AuthQuery:
        """The question whether these credentials are good. A claim is no fact: limits are not keyed on it."""
        return self._query(
            credentials.method, user=credentials.user, password=credentials.password, salt=credentials.salt
        )

    def accepted(self, credentials: Credentials, granted: AuthGranted, now: float) -> None:
        """The auth service said yes; its words replace the client's (auth_http.md section 6.4)."""
        self.granted = granted
        self._login = granted.user if granted.user is not None else text_of(credentials.user)
        self._password = granted.password
        if self._password is None and credentials.method == "plain":
            self._password = credentials.password
        self.facts = grown(
            self.facts,
            time=now,
            login=text_of(credentials.user),
            method=credentials.method,
            user=self._login,
            plan=granted.plan,
        )

    def withdrawn(self) -> None:
        """A limit refused the login that the auth service had granted: nobody is logged in."""
        self.granted = self._login = self._password = None
        self.facts = grown(self.facts, login=None, method=None, user=None, plan=None)

    def envelope(self, mail: Mail, rcpt: Rcpt) -> AuthQuery:
        """The question whether this recipient may be sent to by a client without a login (method none)."""
        return self._query("none", mail_line=mail.line, rcpt_line=rcpt.line)

    def admitted(self, granted: AuthGranted, *, keep: bool) -> None:
        """A `none` answer. It may make a login (auth_http.md section 6.4), which stands for as long as the answer.
        keep: for all recipients.
        """
        if keep:
            self.granted = granted
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
            client_host=self.name,
            user=user,
            password=password,
            salt=salt,
            tls=self.tls,
            helo=self.facts.helo,
            mail_line=mail_line,
            rcpt_line=rcpt_line,
            proxied=None if self._proxied is None else self._proxied.ends,
        )

    def identity(self) -> Identity:
        """What a backend may learn."""
        return Identity(
            addr=self.peer.host,
            name=self.name,
            helo=self.facts.helo,
            extended=self._extended,
            login=self._login,
            method=self.facts.method or "none",
            password=self._password,
            peer=self.peer,
            tls=self.tls,
        )

    def who(self) -> Who:
        """What every record of the session says of it."""
        facts, name, tls = self.facts, self.name, self.tls
        if self._who is not None:
            of_facts, of_name, of_tls, who = self._who
            if of_facts is facts and of_name is name and of_tls is tls:
                return who
        spoken = [self._relay, None if self._proxied is None else self._proxied.via]
        who = Who(
            session=self.session,
            listener=self._listener,
            client=facts.client,
            name=name,
            user=facts.user,
            helo=facts.helo,
            tls=None if tls is None else tls.protocol,
            via=", ".join(one for one in spoken if one is not None),
        )
        self._who = (facts, name, tls, who)
        return who


def _told(value: T | None, before: T, own: T) -> T:
    """An attribute of XCLIENT: what it was before where it is not given, the relay's own where that knows none."""
    return before if value is None else value or own


def text_of(login: bytes) -> str:
    """A login as text; octets that are no UTF-8 survive the round trip to the backend."""
    return login.decode("utf-8", "surrogateescape")
