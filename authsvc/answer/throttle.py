"""Limits of logins, and how a refusal is told to nginx.

Owns what the limits are told of a login, and their order: look before a proof, charge `auth_fail` after it failed,
ask `auth` after it succeeded. A throttled client learns nothing of its password, not even by time, and nothing of
who exists: at a look every login is nobody's (known_user is false), and only a charge tells who it was.

`auth` is asked for a stock nginx alone: our own proxy asks its own engine, and knows when a session ends. For nginx,
whose sessions end unseen by us, limits of concurrency are left out.

Refuses to know what limits there are (smtpgate.policy) and what proves a login (`proofs`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from authsvc.answer.contract import MAX_ATTEMPTS, AuthRequest, Refused, Wait
from authsvc.answer.holds import Holds
from authsvc.answer.knownnets import KnownNets
from authsvc.users.model import User
from smtpgate.clock import Clock
from smtpgate.policy.addresses import net_of
from smtpgate.policy.fields import canonical_address
from smtpgate.policy.match import Matcher
from smtpgate.policy.model import Decision, Denial, Event, Facts, grown
from smtpgate.policy.select import Policy

# RFC 4954 section 6.
WRONG_CODE: Final = "535 5.7.8"
WRONG_TEXT: Final = "Authentication credentials invalid"

_TOKENS: Final = frozenset({"xoauth2", "oauthbearer"})
# What stays the same when it is tried again. Digests answer another challenge each time.
_COMPARABLE: Final = _TOKENS | {"plain"}
# nginx forgets the digest when it is told to WAIT, and asks again without one (reference/auth_http.md section 6.3).
_FORGOTTEN: Final = frozenset({"cram-md5", "apop"})
# Octets: a MAC tells passwords of one login apart, and is of little use to whoever steals the store.
_MAC_OCTETS: Final = 8
# RFC 5321 section 3.8: with 421 the connection ends.
_CLOSING: Final = 421


class Engine(Protocol):
    """smtpgate.policy.engine.Engine, as far as it is used here."""

    @property
    def policy(self) -> Policy: ...

    def decide(
        self, event: Event, facts: Facts, *, debit: bool = True, hold: float | None = None, slots: bool = True
    ) -> Decision: ...

    def held_for(self, limit: str, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Throttled:
    """A login that may not go on now, and the limit that spoke, None where it is only a wrong password."""

    answer: Refused | Wait
    denial: Denial | None


class Throttle:
    """failed_login_wait: seconds before the reply to a wrong password when no limit speaks. key: for the MACs of
    wrong passwords, one for all processes that share a store.
    """

    def __init__(
        self, engine: Engine, failed_login_wait: float, *, key: bytes, nets: KnownNets, holds: Holds, clock: Clock
    ) -> None:
        self.engine = engine
        self.failed_login_wait = failed_login_wait
        self.nets = nets
        self.holds = holds
        self.clock = clock
        self._key = hashlib.blake2b(key).digest()
        self._read: tuple[Policy | None, dict[Event, frozenset[str]]] = (None, {})

    def trial(self, request: AuthRequest, claimed: str | None) -> Trial:
        """claimed: the name that the request comes for, None where it can be nobody's. May ask the store."""
        login = request.login_text if claimed is None else claimed
        facts = Facts(
            client=request.client,
            time=self.clock.now(),
            tls=request.tls,
            login=login,
            method=request.method,
            password_mac=self._mac(login, request),
            known_user=False,
            protocol=request.protocol,
        )
        return Trial(self, request, self.placed(Event.AUTH_FAIL, facts, login))

    def placed(self, event: Event, facts: Facts, login: str) -> Facts:
        """With known_net, if limits of the event look at it: one call of the store, whoever that login is."""
        net = self._net(facts.client) if "known_net" in self._reads(event) else None
        return facts if net is None else grown(facts, known_net=self.nets.knows(login, net))

    def note(self, client: str, logins: Iterable[str]) -> None:
        """These logins come from the client's network, if any limit looks at known_net."""
        net = self._net(client)
        if net is not None and "known_net" in self._reads(Event.AUTH_FAIL) | self._reads(Event.AUTH):
            for login in dict.fromkeys(map(canonical_address, logins)):
                self.nets.note(login, net)

    def _net(self, client: str) -> str | None:
        return net_of(client, self.engine.policy.prefixes)

    def _reads(self, event: Event) -> frozenset[str]:
        """The fields that limits of an event, and what is said of them elsewhere in the policy, look at."""
        policy = self.engine.policy
        if self._read[0] is not policy:
            self._read = policy, {}
        known = self._read[1]
        if event not in known:
            known[event] = frozenset(test.field.name for match in _matches(policy, event) for test in match.tests)
        return known[event]

    def _mac(self, login: str, request: AuthRequest) -> str | None:
        """The login is part of it, as in Dovecot's auth_policy: one password of two users is not seen to be one."""
        if request.method not in _COMPARABLE:
            return None
        name = canonical_address(login).encode("utf-8", "surrogatepass")
        mac = hashlib.blake2b(key=self._key, digest_size=_MAC_OCTETS)
        mac.update(len(name).to_bytes(4, "big") + name + request.password)
        return mac.hexdigest()


class Trial:
    """One login under the limits, from the first look to the last word."""

    def __init__(self, throttle: Throttle, request: AuthRequest, facts: Facts) -> None:
        self._throttle = throttle
        self._engine = throttle.engine
        self._request = request
        self._shadow: dict[str, Denial] = {}
        self.facts = facts

    @property
    def shadow(self) -> tuple[Denial, ...]:
        """What limits that only watch would have said, each once."""
        return tuple(self._shadow.values())

    def look(self) -> Throttled | None:
        """Whether this client has tokens left for a failed login. Takes none."""
        denial = self._decide(Event.AUTH_FAIL, self.facts, debit=False)
        return None if denial is None else self._refused(denial)

    def failed(self, user: User | None) -> Throttled:
        """Charge a failed login; the reply is the limit's, or that of a wrong password. user: who has that name."""
        exists: bool | None = user is not None and user.enabled
        if user is None and self._request.method in _TOKENS:
            # A token that is not good names nobody, whatever login stands beside it.
            exists = None
        denial = self._decide(Event.AUTH_FAIL, grown(self.facts, known_user=exists), debit=True)
        if denial is not None:
            return self._refused(denial)
        wait = pause(self._throttle.failed_login_wait, self._request.attempt)
        return Throttled(Refused(WRONG_CODE, WRONG_TEXT, wait), None)

    def admit(self, user: User) -> Throttled | None:
        """Charge a login that was proven, where nobody else does; None lets it go on."""
        if self._request.gate:
            return None
        facts = grown(self.facts, user=user.name, plan=user.plan, known_user=True)
        holds, key = self._throttle.holds, (self._request.client, user.name, self._request.attempt)
        can_wait = self._request.method not in _FORGOTTEN and self._request.attempt < MAX_ATTEMPTS
        hold = holds.rest(key) if can_wait else 0.0
        if facts.known_net is None:
            facts = self._throttle.placed(Event.AUTH, facts, user.name)
        denial = self._decide(Event.AUTH, facts, hold=hold)
        if denial is not None and denial.hold > 0.0:
            holds.begin(key, denial.limit, denial.hold)
            # nginx asks again at full speed, and for ever, where it is not told to wait.
            return Throttled(Wait(max(1, math.ceil(min(denial.wait, denial.hold)))), denial)
        if (held := holds.end(key)) is not None:
            self._engine.held_for(*held)
        return None if denial is None else self._refused(denial)

    def succeeded(self, user: User) -> None:
        """The login goes on. Its network is noted for the name that was typed, too, if that is another."""
        typed = self._request.login
        self._throttle.note(self.facts.client, (user.name, user.name if typed is None else typed))

    def _decide(self, event: Event, facts: Facts, *, debit: bool = True, hold: float | None = 0.0) -> Denial | None:
        decision = self._engine.decide(event, facts, debit=debit, hold=hold, slots=False)
        self._shadow |= {denial.limit: denial for denial in decision.shadow}
        return decision.denial

    def _refused(self, denial: Denial) -> Throttled:
        reply = denial.reply
        closing = denial.close or reply.code == _CLOSING
        # A limit that does not close lets the client try again, which takes an Auth-Wait of at least 1.
        wait = 0 if closing else pause(max(denial.delay, 1.0), self._request.attempt)
        return Throttled(Refused(f"{reply.code} {reply.enhanced}", reply.text, wait), denial)


def pause(seconds: float, attempt: int) -> int:
    """Auth-Wait: whole seconds, rounded up; 0, which ends the session, after MAX_ATTEMPTS."""
    return 0 if attempt >= MAX_ATTEMPTS else math.ceil(seconds)


def _matches(policy: Policy, event: Event) -> Iterator[Matcher]:
    rules = policy.rules.get(event, ())
    names = {rule.limit.name for rule in rules}
    yield from (rule.match for rule in rules)
    yield from (exemption.match for exemption in policy.exemptions if names & exemption.limits)
    yield from (override.match for override in policy.overrides if names & override.changes.keys())
