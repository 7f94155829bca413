"""One auth_http request -> one outcome: the rule of each method, in plain functions over values.

Owns the order of steps (limit, user, proof, limit, route) and that an unknown user, a disabled one and a
wrong password are one and the same to the client, in text, code and time. Refuses to know Flask, files and
how passwords are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from authsvc import crammd5
from authsvc.bulkhead import Bulkhead, OverloadError
from authsvc.contract import Answer, AuthRequest, Granted, Refused
from authsvc.destinations import Destination, Destinations, NoDestinationError
from authsvc.envelope import EnvelopeError, envelope_facts
from authsvc.passwords import Passwords
from authsvc.subject import SubjectError, common_name
from authsvc.throttle import Throttle, Throttled, pause
from authsvc.users import StoreDownError, User, UserStore
from smtpgate.policy.model import Facts

# Before a client that met our own fault may ask again, seconds.
FAULT_WAIT: Final = 1.0
# RFC 4954 section 6: the client may try again; it is not a failed login.
TEMPORARY_CODE: Final = "454 4.7.0"
TEMPORARY_TEXT: Final = "Temporary authentication failure"
OVERLOAD_TEXT: Final = "Too many logins in progress, try again later"
# RFC 4954 section 4.
UNKNOWN_METHOD_CODE: Final = "504 5.5.4"
UNKNOWN_METHOD_TEXT: Final = "Authentication method not supported"
NOT_SMTP_TEXT: Final = "Only SMTP is served here"
NO_ROUTE_CODE: Final = "451 4.3.0"
NO_ROUTE_TEXT: Final = "Temporary routing failure"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to answer, and what to log of it.

    result: granted, wrong, throttled, overload, store_down, no_route, bad_envelope, unsupported. user: the
    canonical name where granted. limit: the limit that refused. detail: for the log, never for the client.
    """

    answer: Answer
    result: str
    user: str | None = None
    limit: str | None = None
    route: str | None = None
    detail: str | None = None


class AuthService:
    """Answers requests. May let other greenlets run while it waits for the store or for hashing."""

    def __init__(
        self,
        users: UserStore,
        passwords: Passwords,
        throttle: Throttle,
        destinations: Destinations,
        bulkhead: Bulkhead,
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._throttle = throttle
        self._destinations = destinations
        self._bulkhead = bulkhead
        self._proofs: Mapping[str, Callable[[AuthRequest, User | None], bool]] = {
            "plain": self._password_matches,
            "cram-md5": self._digest_matches,
            "external": self._certificate_matches,
        }

    def answer(self, request: AuthRequest) -> Outcome:
        """Decide one request. Raises nothing that a client, a store or a policy can cause."""
        if request.protocol != "smtp":
            refused = Refused(UNKNOWN_METHOD_CODE, NOT_SMTP_TEXT)
            return Outcome(refused, "unsupported", detail="Auth-Protocol is not smtp")
        if request.method == "none":
            return self._relay(request)
        if request.method not in self._proofs:
            refused = Refused(UNKNOWN_METHOD_CODE, UNKNOWN_METHOD_TEXT, pause(FAULT_WAIT, request.attempt))
            return Outcome(refused, "unsupported", detail="Auth-Method is none of those served")
        try:
            with self._bulkhead.attempt():
                return self._login(request)
        except OverloadError as error:
            return self._fault(request, "overload", OVERLOAD_TEXT, str(error))

    def _login(self, request: AuthRequest) -> Outcome:
        login = _login_name(request)
        facts = Facts(
            client=request.client,
            tls=request.tls,
            login=request.login_text if login is None else login,
            method=request.method,
        )
        throttled = self._throttle.look(facts, request.attempt)
        if throttled is not None:
            return _refusal(throttled)
        try:
            user = None if login is None else self._users.find(login)
        except StoreDownError as error:
            return self._fault(request, "store_down", TEMPORARY_TEXT, str(error))
        # First the proof, then whether there is anybody to prove: the work is the same for all.
        proven = self._proofs[request.method](request, user)
        if user is None or not proven or not user.enabled:
            return _refusal(self._throttle.failed(facts, request.attempt))
        try:
            way = self._destinations.find(replace(facts, user=user.name, plan=user.plan), user.pool)
        except NoDestinationError as error:
            return self._fault(request, "no_route", TEMPORARY_TEXT, str(error))
        return _grant(way, user)

    def _relay(self, request: AuthRequest) -> Outcome:
        """Method none: no login, so only the envelope can be judged."""
        wait = pause(FAULT_WAIT, request.attempt)
        try:
            way = self._destinations.find(envelope_facts(request))
        except EnvelopeError as error:
            return Outcome(Refused(error.code, error.text, wait), "bad_envelope")
        except NoDestinationError as error:
            return Outcome(Refused(NO_ROUTE_CODE, NO_ROUTE_TEXT, wait), "no_route", detail=str(error))
        return _grant(way, None)

    def _fault(self, request: AuthRequest, result: str, text: str, detail: str) -> Outcome:
        refused = Refused(TEMPORARY_CODE, text, pause(FAULT_WAIT, request.attempt))
        return Outcome(refused, result, detail=detail)

    def _password_matches(self, request: AuthRequest, user: User | None) -> bool:
        stored = None if user is None else user.password
        return self._bulkhead.run(self._passwords.verify, stored, request.password)

    def _digest_matches(self, request: AuthRequest, user: User | None) -> bool:
        stored = None if user is None else user.cram_md5
        return crammd5.verify(stored, request.salt, request.password)

    def _certificate_matches(self, request: AuthRequest, _user: User | None) -> bool:
        # nginx passes on certificates that it could not verify (ssl_verify_client optional_no_ca), and lets
        # EXTERNAL through where it is not configured: reference/auth_http.md section 1.
        return request.tls and request.verify == "SUCCESS"


def _login_name(request: AuthRequest) -> str | None:
    """The name to look up, None if it can be nobody's."""
    if request.method != "external":
        return request.login
    try:
        name = common_name(request.subject)
    except SubjectError:
        return None
    # RFC 4422 appendix A: an authorization identity may be given; acting for somebody else is not offered.
    asked = request.user.decode("utf-8", "replace")
    return name if asked in ("", name) else None


def _refusal(throttled: Throttled) -> Outcome:
    if throttled.denial is None:
        return Outcome(throttled.refused, "wrong")
    return Outcome(throttled.refused, "throttled", limit=throttled.denial.limit)


def _grant(way: Destination, user: User | None) -> Outcome:
    name = None if user is None else user.name
    granted = Granted(name, way.server, way.pool, None if user is None else user.plan)
    detail = None if way.server is not None else "no address of the pool could be looked up"
    return Outcome(granted, "granted", user=name, route=way.route, detail=detail)
