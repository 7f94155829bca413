"""Authentication of one session: run a SASL exchange with the client, ask auth_http, obey its waits.

Owns the loop of challenges, the loop of WAIT answers (reference/auth_http.md section 6.3), the error challenge that
tells of a refused token (RFC 7628 section 3.2.2) and the reply that each outcome gives. Refuses to know how a
question travels and what an answer is used for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

from smtpgate.policy.model import Event as PolicyEvent
from smtpgate.session.client import Client, text_of
from smtpgate.session.policing import Account, Policing
from smtpgate.session.ports import (
    AddressTarget,
    AuthAnswer,
    Authenticator,
    AuthGranted,
    AuthQuery,
    AuthRefused,
    AuthUnavailable,
    AuthWait,
    BackendRefused,
    PoolTarget,
    Ports,
    Target,
)
from smtpgate.session.records import AuthRecord
from smtpgate.smtp import replies, sasl
from smtpgate.smtp.events import Auth, AuthLine, Closed, Event
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.server import ServerProtocol

# An auth server that only ever says WAIT would hold a client for good: nginx does so at full speed
# (reference/auth_http.md section 6.3). Ten questions are more than any shaping needs.
MAX_WAIT_ANSWERS: Final = 10
# What an address hears that is kept out, instead of a greeting (RFC 5321 section 4.2.2).
DOOR_WORDS: Final = replies.reply(421, "4.7.0 Too many failed logins, try again later", close=True)
SALT_OCTETS: Final = 8  # nginx draws 31 bits; a guess must not be worth trying


def target_of(granted: AuthGranted) -> Target | None:
    """Where an answer of the auth service sends the client; None where the proxy's own routes decide."""
    if granted.pool is not None:
        return PoolTarget(granted.pool)
    if granted.server is not None and not granted.own_routes:
        return AddressTarget(*granted.server)
    return None


class Login:
    """AUTH on one connection, and what else is asked of auth_http. busy: an exchange is under way. asked: seconds
    that went into questions, and into the waits that they were answered with.

    pause(seconds): lets time pass with nothing left unsent. abort_on_close(): a context in which waiting for
    somebody else ends, with StreamLost, when the client has gone. restart_timeout(): the client's time to speak
    begins anew.
    """

    def __init__(
        self,
        ports: Ports,
        client: Client,
        policing: Policing,
        protocol: ServerProtocol,
        server_name: str,
        next_event: Callable[[], Event],
        pause: Callable[[float], None],
        abort_on_close: Callable[[], AbstractContextManager[None]],
        restart_timeout: Callable[[], None],
    ) -> None:
        self._ports = ports
        self._client = client
        self._policing = policing
        self._account = Account()
        self._protocol = protocol
        self._server_name = server_name
        self._next_event = next_event
        self._pause = pause
        self._abort_on_close = abort_on_close
        self._restart_timeout = restart_timeout
        self._salt: str | None = None  # one a connection, as nginx
        self.busy = False
        self.asked = 0.0

    def authenticate(self, event: Auth) -> Reply | Closed:
        """The reply to AUTH: 235 once the auth service said yes, with the client's facts grown. Closed when the
        client went away in the middle of the exchange.
        """
        self.busy = True
        try:
            return self._authenticate(event)
        finally:
            self.busy = False

    def _authenticate(self, event: Auth) -> Reply | Closed:
        if event.mechanism == "EXTERNAL" and not self._client.certified:
            return replies.NOTHING_SHOWN
        gathered = self._gather(event)
        if not isinstance(gathered, sasl.Credentials):
            return gathered
        asked = self.asked
        answer = self.ask(self._client.claims(gathered), replies.AUTH_UNAVAILABLE)
        # nginx: the auth request stops the clock, and a refused client has the whole timeout again.
        self._restart_timeout()
        if isinstance(answer, AuthGranted) and not gathered.user and answer.user is None:
            answer = self._named(gathered, answer)
        reply = self._admit(gathered, answer) if isinstance(answer, AuthGranted) else answer
        record = AuthRecord(self._client.who(), text_of(gathered.user), gathered.method, reply, self.asked - asked)
        self._ports.records.authentication(record)
        if isinstance(answer, AuthGranted):
            return reply
        return self._told_why(gathered, reply) or reply

    def _named(self, credentials: sasl.Credentials, granted: AuthGranted) -> AuthGranted | Reply:
        """A grant for whom nobody has a name. Scripts for nginx look at the certificate's subject, and name nobody
        either: then the subject is the name. A token shows none.
        """
        tls = self._client.tls
        if credentials.method == "external" and tls is not None and tls.certificate is not None:
            return replace(granted, user=tls.certificate.subject)
        self._unavailable("auth server granted a login without a name, and named nobody")
        return replies.AUTH_UNAVAILABLE

    def forget(self) -> None:
        """Nobody is logged in any more: the places that the login held are free."""
        self._policing.settle(self._account)

    def _admit(self, credentials: sasl.Credentials, granted: AuthGranted) -> Reply:
        """The auth service said yes; the limits on logins may still say no, and then nobody is logged in."""
        self._client.accepted(credentials, granted, self._ports.clock.now())
        refused = self._policing.ask(PolicyEvent.AUTH, self._client.facts, self._account)
        if refused is None:
            return replies.AUTH_OK
        self._client.withdrawn()
        return refused.reply

    def _told_why(self, credentials: sasl.Credentials, reply: Reply) -> Closed | None:
        """Tell of a token that was refused for good, with the challenge that its mechanism has for it.

        Only of that: a client that hears it throws a token away which a 4xx says nothing against.
        """
        challenge = sasl.ERROR_CHALLENGES.get(credentials.method)
        if challenge is None or reply.code < 500:
            return None
        self._protocol.challenge(challenge)
        answer = self._next_event()
        return answer if isinstance(answer, Closed) else None

    def ask(self, query: AuthQuery, unavailable: Reply) -> AuthGranted | Reply:
        """auth_http's verdict. A refusal has had its Auth-Wait already when it comes back as a reply. unavailable:
        the reply where there is no verdict, which says nothing of the client.
        """
        began = self._ports.clock.monotonic()
        try:
            return self._ask(query, unavailable)
        finally:
            self.asked += self._ports.clock.monotonic() - began

    def _ask(self, query: AuthQuery, unavailable: Reply) -> AuthGranted | Reply:
        authenticator = self._ports.authenticator
        assert authenticator is not None, "a listener that asks has auth_http; the configuration sees to it"
        answer = self._until_decided(authenticator, query)
        if isinstance(answer, AuthGranted):
            return answer if self._leads_anywhere(answer) else unavailable
        if isinstance(answer, AuthRefused):
            reply = replies.parse(f"{answer.code} {answer.text}", close=answer.wait <= 0)
            if answer.keep_out > 0:
                self._ports.banned(self._client.peer.host, answer.keep_out, DOOR_WORDS)
            if answer.wait > 0:
                self._pause(answer.wait)
            return reply
        assert isinstance(answer, AuthUnavailable)
        self._unavailable(answer.reason)
        return unavailable

    def _leads_anywhere(self, granted: AuthGranted) -> bool:
        """A yes that sends the client where nobody may go is no answer: whoever was let in would be told so later."""
        target = target_of(granted)
        try:
            if target is not None:
                self._ports.backends.check(target)
        except BackendRefused as refused:
            self._unavailable(str(refused))
            return False
        return True

    def _unavailable(self, reason: str) -> None:
        self._ports.journal.error("auth_unavailable", **self._client.who().fields(), reason=reason)

    def _gather(self, event: Auth) -> sasl.Credentials | Reply | Closed:
        """Run the exchange that `event` opened. A cancelled, unreadable or malformed one gets nginx's 500."""
        exchange = sasl.MECHANISMS[event.mechanism](event.initial, self._challenge())
        try:
            challenge = next(exchange)
            while True:
                self._protocol.challenge(challenge)
                answer = self._next_event()
                if isinstance(answer, Closed):
                    return answer
                if not isinstance(answer, AuthLine):
                    return replies.INVALID_COMMAND
                challenge = exchange.send(answer.data)
        except sasl.SaslError:
            return replies.INVALID_COMMAND
        except StopIteration as done:
            credentials: sasl.Credentials = done.value
            return credentials

    def _challenge(self) -> str:
        if self._salt is None:
            token = self._ports.token(SALT_OCTETS)
            self._salt = sasl.cram_salt(token, self._ports.clock.now(), self._server_name)
        return self._salt

    def _until_decided(self, authenticator: Authenticator, query: AuthQuery) -> AuthAnswer:
        """Ask until the answer is not WAIT; the attempt keeps its number.

        Credentials that came with WAIT stay in force: a grant that names none grants those (auth_http.md section
        6.4), and not what the client typed.
        """
        user = password = None
        for _ in range(MAX_WAIT_ANSWERS):
            with self._abort_on_close():
                answer = authenticator.ask(query)
            if isinstance(answer, AuthGranted):
                return replace(
                    answer,
                    user=user if answer.user is None else answer.user,
                    password=password if answer.password is None else answer.password,
                )
            if not isinstance(answer, AuthWait):
                return answer
            self._pause(answer.wait)
            if answer.user is not None:
                user = text_of(answer.user)
                query = replace(query, user=answer.user)
            if answer.password is not None:
                password = answer.password
                query = replace(query, password=answer.password)
        return AuthUnavailable(f"auth server answered WAIT {MAX_WAIT_ANSWERS} times")
