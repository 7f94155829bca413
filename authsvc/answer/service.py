"""One auth_http request -> one outcome, in plain functions over values.

Owns the order of steps (limit, user, proof, route, limit), who waits for a slot and who does not, and that an
unknown user, a disabled one and a wrong password are one and the same to the client, in text, code and time.
Refuses to know Flask, files, how passwords are stored, what proves them (`proofs`) and what limits are told
(`throttle`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from authsvc.answer.contract import Answer, AuthRequest, Granted, Refused, Wait, is_sendable_password
from authsvc.answer.destinations import Destination, Destinations, NoDestinationError
from authsvc.answer.envelope import EnvelopeError, envelope_facts
from authsvc.answer.throttle import Throttle, Throttled, Trial, pause
from authsvc.proof.bulkhead import Bulkhead, OverloadError, network_of
from authsvc.proof.jwks import KeysUnavailableError
from authsvc.proof.methods import Methods
from authsvc.proof.proofs import METHODS, Proofs
from authsvc.users.model import StoreDownError, User, UserStore
from smtpgate.clock import Clock
from smtpgate.policy.model import Denial, grown

# Before a client that met our own fault may ask again, seconds.
FAULT_WAIT: Final = 1.0
# RFC 4954 section 6: the client may try again; it is not a failed login.
TEMPORARY_CODE: Final = "454 4.7.0"
TEMPORARY_TEXT: Final = "Temporary authentication failure"
OVERLOAD_TEXT: Final = "Too many logins in progress, try again later"
# RFC 4954 section 4.
UNKNOWN_METHOD_CODE: Final = "504 5.5.4"
UNKNOWN_METHOD_TEXT: Final = "Authentication method not supported"
UNKNOWN_PROTOCOL_TEXT: Final = "Protocol not supported"
NO_ROUTE_CODE: Final = "451 4.3.0"
NO_ROUTE_TEXT: Final = "Temporary routing failure"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to answer, and what to log of it.

    result: granted, wrong, throttled, held, overload, store_down, keys_down, no_route, no_password, bad_envelope,
    unsupported. user: the canonical name where granted. denial: of the limit that refused, or that makes the client
    wait. shadow: of limits that only watch. detail: for the log, never for the client.
    """

    answer: Answer
    result: str
    user: str | None = None
    denial: Denial | None = None
    route: str | None = None
    detail: str | None = None
    shadow: tuple[Denial, ...] = ()


@dataclass(frozen=True, slots=True)
class Slots:
    """Where attempts wait for their turn: those whose proof hashes, and those whose proof takes microseconds, which
    must not stand behind them.
    """

    slow: Bulkhead
    quick: Bulkhead


class AuthService:
    """Answers requests. May let other greenlets run while it waits for the store or for hashing.

    auth_cache: seconds for which our proxy may keep a grant, 0 for not at all.
    """

    def __init__(
        self,
        methods: Methods,
        users: UserStore,
        proofs: Proofs,
        throttle: Throttle,
        destinations: Destinations,
        slots: Slots,
        clock: Clock,
        *,
        auth_cache: int = 0,
    ) -> None:
        self._methods = methods
        self._users = users
        self._proofs = proofs
        self._throttle = throttle
        self._destinations = destinations
        self._slots = slots
        self._clock = clock
        self._auth_cache = auth_cache

    def answer(self, request: AuthRequest) -> Outcome:
        """Decide one request. Raises nothing that a client, a store or a policy can cause."""
        if request.protocol not in METHODS:
            refused = Refused(UNKNOWN_METHOD_CODE, UNKNOWN_PROTOCOL_TEXT)
            return Outcome(refused, "unsupported", detail="Auth-Protocol is not smtp, pop3 or imap")
        if not self._proofs.serves(request.protocol, request.method):
            refused = Refused(UNKNOWN_METHOD_CODE, UNKNOWN_METHOD_TEXT, pause(FAULT_WAIT, request.attempt))
            detail = "Auth-Method is none of those that are offered in this protocol"
            return Outcome(refused, "unsupported", detail=detail)
        if request.method == "none":
            return self._relay(request)
        trial = self._throttle.trial(request, self._proofs.claimed(request))
        try:
            outcome = self._login(request, trial)
        except OverloadError as error:
            outcome = self._fault(request, "overload", OVERLOAD_TEXT, str(error))
        except StoreDownError as error:
            outcome = self._fault(request, "store_down", TEMPORARY_TEXT, str(error))
        except KeysUnavailableError as error:
            outcome = self._fault(request, "keys_down", TEMPORARY_TEXT, str(error))
        return replace(outcome, shadow=trial.shadow)

    def _login(self, request: AuthRequest, trial: Trial) -> Outcome:
        """Raises OverloadError, StoreDownError, KeysUnavailableError."""
        throttled = trial.look()
        if throttled is not None:
            return _refusal(throttled)
        name, detail = self._proofs.name(request)
        user = None if name is None else self._users.find(name)
        # A login that is remembered waits for nobody: it is one of a known user, and costs microseconds.
        if not self._proofs.remembers(request, user):
            throttled = self._prove(request, trial, user)
            if throttled is not None:
                return _refusal(throttled, detail or self._proofs.faults(user))
        assert user is not None
        try:
            facts = grown(trial.facts, user=user.name, plan=user.plan, password_mac=None)
            way = self._destinations.find(facts, user.pool)
        except NoDestinationError as error:
            return self._fault(request, "no_route", TEMPORARY_TEXT, str(error))
        outcome = self._grant(request, way, user)
        if isinstance(outcome.answer, Granted):
            # Last, because it is charged: a login that goes nowhere for another reason has cost nothing.
            throttled = trial.admit(user)
            if throttled is not None:
                return _refusal(throttled)
            trial.succeeded(user)
        return outcome

    def _prove(self, request: AuthRequest, trial: Trial, user: User | None) -> Throttled | None:
        """None if the request proves an enabled user. Raises OverloadError."""
        slots = self._slots.slow if self._proofs.is_slow(request.method) else self._slots.quick
        with slots.attempt(network_of(request.client)):
            # Again: while this attempt waited, others of the same client may have spent what it had left,
            throttled = trial.look()
            if throttled is not None:
                return throttled
            # or may have proven the very same thing.
            if self._proofs.remembers(request, user):
                return None
            # First the proof, then whether there is anybody to prove: the work is the same for all.
            proven = self._proofs.check(request, user)
            if proven and user is not None and user.enabled:
                return None
            return trial.failed(user)

    def _relay(self, request: AuthRequest) -> Outcome:
        """Method none: no login, so only the envelope can be judged."""
        wait = pause(FAULT_WAIT, request.attempt)
        try:
            way = self._destinations.find(envelope_facts(request, self._clock.now()))
        except EnvelopeError as error:
            return Outcome(Refused(error.code, error.text, wait), "bad_envelope")
        except NoDestinationError as error:
            return Outcome(Refused(NO_ROUTE_CODE, NO_ROUTE_TEXT, wait), "no_route", detail=str(error))
        return _granted(Granted(None, way.server, way.pool), way)

    def _fault(self, request: AuthRequest, result: str, text: str, detail: str) -> Outcome:
        refused = Refused(TEMPORARY_CODE, text, pause(FAULT_WAIT, request.attempt))
        return Outcome(refused, result, detail=detail)

    def _grant(self, request: AuthRequest, way: Destination, user: User) -> Outcome:
        server, password = way.server, None
        port = self._methods.ports.get(request.protocol)
        if server is not None and port is not None:
            # A pool names the SMTP ports of its backends; for the other protocols it is the same machines.
            server = (server[0], port)
        if request.method != "plain":
            password = self._backend_password(request.protocol, user)
            if password is None and request.protocol != "smtp":
                # nginx would tell the client of an internal error (reference/auth_http.md section 8).
                detail = (
                    f"nginx needs a password for the {request.protocol} backend, and there is none; see auth_pass"
                )
                return self._fault(request, "no_password", TEMPORARY_TEXT, detail)
        # Kept is what can be compared, and by who knows how: auth_http's Auth-Cache is between our two halves.
        cache = self._auth_cache if request.gate and request.method == "plain" else 0
        return _granted(Granted(user.name, server, way.pool, user.plan, password, cache), way)

    def _backend_password(self, protocol: str, user: User) -> str | None:
        """What nginx may log in to the backend with, None where nothing is configured or can be sent."""
        auth_pass = self._methods.auth_pass
        if auth_pass is None or protocol not in auth_pass.protocols:
            return None
        password = auth_pass.secret if auth_pass.secret is not None else self._proofs.clear_password(user)
        return password if password is not None and is_sendable_password(password) else None


def _refusal(throttled: Throttled, detail: str | None = None) -> Outcome:
    if throttled.denial is None:
        return Outcome(throttled.answer, "wrong", detail=detail)
    result = "held" if isinstance(throttled.answer, Wait) else "throttled"
    return Outcome(throttled.answer, result, denial=throttled.denial, detail=detail)


def _granted(granted: Granted, way: Destination) -> Outcome:
    detail = None if way.server is not None else "no address of the pool could be looked up"
    return Outcome(granted, "granted", user=granted.user, route=way.route, detail=detail)
