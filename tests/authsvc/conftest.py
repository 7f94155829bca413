"""What these tests share: a clock that is moved by hand, limits that are told what to say, a journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import argon2
import pytest
from logins import SERVER, Gate, Tokens, Users, demo_users

from authsvc.answer.addresses import Addresses, LookupFailedError
from authsvc.answer.destinations import Destinations
from authsvc.answer.holds import Holds
from authsvc.answer.knownnets import KnownNets
from authsvc.answer.service import AuthService, Slots
from authsvc.answer.throttle import Throttle
from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.methods import Methods
from authsvc.proof.passwords import Passwords
from authsvc.proof.proofs import Proofs
from authsvc.proof.remembered import Remembered
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, Facts, ReplyText
from smtpgate.policy.select import Policy
from smtpgate.routing.model import BackendSpec, PoolSpec, Route

METHODS = Methods()
DENIAL = Denial(
    limit="auth.fail.pair",
    subject="192.0.2.7|test",
    reply=ReplyText(454, "4.7.0", "too many failed logins, retry in 120s"),
    retry=120.0,
    delay=2.5,
    close=False,
    balance=0.0,
    source="policies/10-limits.yaml:7",
)


@dataclass
class ManualClock:
    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class ScriptedEngine:
    """Says `looked` when looked at and `charged` when charged for a failed login, `admitted` after a good one, and
    notes each question.
    """

    looked: Decision = ALLOWED
    charged: Decision = ALLOWED
    admitted: Decision = ALLOWED
    policy: Policy = field(default_factory=Policy)
    asked: list[tuple[Event, Facts, bool]] = field(default_factory=list)
    patience: list[float | None] = field(default_factory=list)
    held: list[tuple[str, float]] = field(default_factory=list)

    def decide(
        self, event: Event, facts: Facts, *, debit: bool = True, hold: float | None = None, slots: bool = True
    ) -> Decision:
        assert not slots, "nginx does not tell when a session ends"
        self.asked.append((event, facts, debit))
        if event is Event.AUTH:
            self.patience.append(hold)
            return self.admitted
        assert hold == 0.0
        return self.charged if debit else self.looked

    def held_for(self, limit: str, seconds: float) -> None:
        self.held.append((limit, seconds))

    @property
    def debits(self) -> list[bool]:
        """Of failed logins."""
        return [debit for event, _, debit in self.asked if event is Event.AUTH_FAIL]

    def about(self, event: Event) -> list[Facts]:
        return [facts for asked, facts, _ in self.asked if asked is event]


@dataclass
class RecordingJournal:
    """Keeps each line as (level, event, fields)."""

    lines: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def journal() -> RecordingJournal:
    return RecordingJournal()


@pytest.fixture
def denied() -> Callable[..., Decision]:
    """A decision that denies; arguments change fields of its denial."""
    return lambda **fields: Decision(replace(DENIAL, **fields))


@pytest.fixture
def store(clock: ManualClock) -> MemoryBuckets:
    return MemoryBuckets(clock)


@pytest.fixture
def make_throttle(engine, store, clock) -> Callable[..., Throttle]:
    """A throttle over another engine or store, if that is named."""

    def make(engine=engine, store=store, wait: float = 1.0) -> Throttle:
        nets, holds = KnownNets(store, clock), Holds(clock)
        return Throttle(engine, wait, key=b"k" * 32, nets=nets, holds=holds, clock=clock)

    return make


@pytest.fixture(scope="session")
def cheap_passwords() -> Passwords:
    """Hashes that cost next to nothing. What the cost is, passes no test here any faster or slower."""
    return Passwords(argon2.profiles.CHEAPEST)


@pytest.fixture
def bulkhead() -> Iterator[Bulkhead]:
    made = Bulkhead()
    yield made
    made.close()


# --- a whole service, without HTTP -----------------------------------------------------------------------------


@pytest.fixture
def users(cheap_passwords: Passwords) -> Users:
    return demo_users(cheap_passwords)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def routed() -> list[Facts]:
    """The facts that the routes were asked about."""
    return []


@pytest.fixture
def gate(cheap_passwords: Passwords) -> Iterator[Gate]:
    gate = Gate(cheap_passwords)
    yield gate
    gate.leave.set()


def lookup(host: str) -> str:
    raise LookupFailedError(host)


@pytest.fixture
def make_service(
    users: Users,
    cheap_passwords: Passwords,
    engine,
    routed: list[Facts],
    clock,
    bulkhead: Bulkhead,
    tokens,
    make_throttle,
):
    """A function from settings to a service; other parts of it may be replaced."""

    def make(methods: Methods = METHODS, *, auth_cache: int = 0, **changed: object) -> AuthService:
        parts = {"users": users, "passwords": cheap_passwords, "engine": engine, "slow": bulkhead, "tokens": tokens}
        parts |= changed
        destinations = Destinations(Addresses(clock, lookup), clock)
        core = PoolSpec("core", (BackendSpec("sink", *SERVER),))
        vip = PoolSpec("vip", (BackendSpec("vip", "192.0.2.25", 25),))

        def matches(facts: Facts) -> bool:
            routed.append(facts)
            return True

        default = Route("default", "core", matches, "policies/routes.yaml:1")
        destinations.replace([default], {"core": core, "vip": vip})
        remembered = Remembered(clock, methods.remember, b"k" * 64)
        proofs = Proofs(methods, parts["passwords"], remembered, parts["slow"], parts["tokens"])
        slots = Slots(slow=parts["slow"], quick=Bulkhead())
        throttle = make_throttle(parts["engine"])
        return AuthService(
            methods, parts["users"], proofs, throttle, destinations, slots, clock, auth_cache=auth_cache
        )

    return make


@pytest.fixture
def service(make_service) -> AuthService:
    return make_service()


@pytest.fixture
def clear_service(make_service) -> AuthService:
    """One that takes {PLAIN}."""
    return make_service(Methods(plain_passwords=True), passwords=Passwords(argon2.profiles.CHEAPEST, plain=True))
