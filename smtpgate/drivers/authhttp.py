"""The Authenticator that asks auth_http servers: which one, for how long, and when not to ask at all.

Owns the total deadline over everything that a question takes, the order of servers, the grants that are kept
(authcache), that guessers have waited for each other before that deadline begins (authlane), and that whose guess has
no place there is kept out for a while. A single server and
its connections are authserver's, what is said is authwire's.

The server that answered last is asked first; one that failed is asked last, until another one fails. The next
one is asked only while not an octet of an answer has come: the server could not be reached, it hung up, or it used
up its part of the time, an equal one for each server that is left. Once an answer has begun it is the answer, good
or bad. The price of the next server's help: one that was too slow, and had counted a failed login, counts it while
another one counts it too. With one server a timeout is never asked again.

A server that gave no answer (refused, hung up, timed out, no whole header) is asked by one client a second until it
answers (authbreaker); others are not kept waiting for it. A header that is whole is an answer, whatever it says: a
user whose record makes the service answer nonsense closes the door to nobody else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from gevent import Timeout

from smtpgate.clock import Clock, Deadline, SystemClock
from smtpgate.drivers.authbreaker import AuthBreaker
from smtpgate.drivers.authcache import GrantCache
from smtpgate.drivers.authlane import Lane
from smtpgate.drivers.authserver import MAX_CONNECTIONS, Answered, AuthServer, BrokenOffError, UnansweredError
from smtpgate.drivers.authwire import WireError
from smtpgate.drivers.turns import OverloadError
from smtpgate.session.ports import AuthAnswer, AuthGranted, AuthQuery, AuthRefused, AuthUnavailable

SECRET_OCTETS: Final = 32
NOT_ASKED: Final = "no auth server was asked: none of them answers"
# RFC 4954 section 6: the client may try again. In the words of our auth service, which says so where it is too much.
TOO_MANY_GUESSES: Final = AuthRefused("454 4.7.0", "Too many logins in progress, try again later", wait=1.0)
# Seconds without a session for an address whose guess had no place in the lane: its next ones would have none either,
# and each costs a greeting, an EHLO and a wait of the queue. From where somebody has logged in nobody is kept out.
KEEP_OUT: Final = 30.0


class _Overdue(BaseException):
    """Thrown where the whole question takes too long. A Timeout that is raised would hold the frame that has it in a
    variable, and so the session.
    """


class _Unbegun(BaseException):
    """Thrown where one server has used up its part without a first octet."""


class AuthHttp:
    """A `session.ports.Authenticator`.

    urls: one or more, see authserver.parse_url. timeout: seconds for everything together: free connections,
    connecting, asking, and the whole header of the answer. headers: added to each request, after nginx's own.
    cache: the longest that a grant is kept, in seconds; 0 is never. max_connections: questions at once to one
    server; more wait, within their timeout. ca: a file of certificates to trust for https instead of the system's.
    certificate: the files of a chain and its key, shown to https servers that ask for one. on_failover: told why a
    server was given up for the next one. on_down: told a server and why, when it is asked only once a second from now
    on; on_up: told it when it answers again.

    Raises ValueError for a url or a header that cannot be used, OSError for files that cannot be.
    """

    def __init__(
        self,
        urls: Sequence[str],
        timeout: float,
        headers: Mapping[str, str] | None = None,
        *,
        cache: float = 0.0,
        pass_client_cert: bool = False,
        max_connections: int = MAX_CONNECTIONS,
        ca: str | None = None,
        certificate: tuple[str, str] | None = None,
        clock: Clock | None = None,
        on_failover: Callable[[str], None] = lambda reason: None,
        on_down: Callable[[str, str], None] = lambda server, reason: None,
        on_up: Callable[[str], None] = lambda server: None,
    ) -> None:
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._on_failover, self._on_down, self._on_up = on_failover, on_down, on_up
        self._servers = [
            AuthServer(
                url,
                timeout,
                headers or {},
                pass_client_cert=pass_client_cert,
                max_connections=max_connections,
                ca=ca,
                certificate=certificate,
            )
            for url in urls
        ]
        self._breakers = [AuthBreaker() for _ in self._servers]
        self._first = 0  # the one that answered last
        self._lane = Lane(self._clock)
        self._cache = GrantCache(self._clock, cache, secrets.token_bytes(SECRET_OCTETS))

    def __repr__(self) -> str:
        return f"<AuthHttp {' '.join(server.name for server in self._servers)}>"

    def close(self) -> None:
        """Close idle connections and forget grants; later questions get an AuthUnavailable."""
        self.forget()
        for server in self._servers:
            server.close()

    def forget(self) -> None:
        """Keep no grant from before this moment: what the pools and routes are may have changed."""
        self._cache.forget()

    def ask(self, query: AuthQuery) -> AuthAnswer:
        """See Authenticator.ask."""
        granted = self._cache.find(query)
        if granted is not None:
            return granted
        try:
            with self._lane.turn(query):
                answer = self._ask(query)
        except OverloadError:
            if self._lane.is_known(query):
                return TOO_MANY_GUESSES
            return replace(TOO_MANY_GUESSES, keep_out=KEEP_OUT)
        self._lane.heard(query, answer)
        return answer

    def _ask(self, query: AuthQuery) -> AuthAnswer:
        limit = Timeout.start_new(self._timeout, _Overdue)
        try:
            return self._ask_in_turn(query, limit)
        finally:
            limit.close()

    def _ask_in_turn(self, query: AuthQuery, limit: Timeout) -> AuthAnswer:
        """The first answer that begins; else what was wrong with the last server that was asked."""
        deadline = Deadline(self._clock, self._timeout)
        count, first, epoch = len(self._servers), self._first, self._cache.epoch
        order = [(first + step) % count for step in range(count)]
        fault = ""
        for step, index in enumerate(order):
            server, now = self._servers[index], self._clock.monotonic()
            admitted = self._breakers[index].admit(now)
            if admitted is None:
                continue
            if fault:
                self._on_failover(fault)
            left = 1 + sum(self._breakers[later].may_ask(now) for later in order[step + 1 :])
            try:
                answered = _ask_one(server, query, limit, deadline.remaining() / left if left > 1 else None)
            except (UnansweredError, WireError) as error:
                self._first = (index + 1) % count
                fault = f"auth server {server.name}: {error}"
                if isinstance(error, UnansweredError | BrokenOffError):
                    self._unanswered(index, admitted, str(error))
                else:
                    self._answered(index)
                if isinstance(error, WireError):
                    break
            else:
                self._answered(index)
                self._first = index
                if isinstance(answered.answer, AuthGranted):
                    self._cache.keep(query, answered.answer, answered.lifetime, epoch)
                elif isinstance(answered.answer, AuthRefused):
                    self._cache.refuse(query)
                return answered.answer
        return AuthUnavailable(fault or NOT_ASKED)

    def _unanswered(self, index: int, admitted: int, reason: str) -> None:
        if self._breakers[index].failed(admitted, self._clock.monotonic()):
            self._on_down(self._servers[index].name, reason)

    def _answered(self, index: int) -> None:
        if self._breakers[index].answered():
            self._on_up(self._servers[index].name)


def _ask_one(server: AuthServer, query: AuthQuery, limit: Timeout, part: float | None) -> Answered:
    """Ask one server. limit: the running timeout of the whole question; part: seconds for a first octet.

    Raises UnansweredError, after which another server may be asked, and WireError, after which none; of these
    BrokenOffError where no whole answer came.
    """
    patience = Timeout.start_new(part, _Unbegun)
    try:
        return server.ask(query, began=patience.close, done=limit.close)
    except _Unbegun:
        raise UnansweredError(f"no answer within {part:.1f} s") from None
    except _Overdue:
        raise BrokenOffError(f"no answer within {limit.seconds:g} s") from None
    except OSError as error:
        raise BrokenOffError(f"{type(error).__name__}: {error}") from error
    finally:
        patience.close()
