from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from logins import apop, cram, external, oauth, plain

from authsvc.answer.contract import AuthRequest, Refused, Wait
from authsvc.answer.throttle import Throttle, Throttled, pause
from authsvc.users.model import User
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Decision, Event, grown
from smtpgate.policy.store import StoreUnavailable
from smtpgate.snapshot import build

GOLD = User("test", plan="gold")
TOO_MANY = Refused("454 4.7.0", "too many failed logins, retry in 120s", 3)


@pytest.fixture
def throttle(make_throttle) -> Throttle:
    return make_throttle()


def test_looking_takes_nothing(throttle: Throttle, engine) -> None:
    trial = throttle.trial(plain(), "test")
    assert trial.look() is None
    assert engine.asked == [(Event.AUTH_FAIL, trial.facts, False)]


def test_a_wrong_password_is_charged(throttle: Throttle, engine) -> None:
    trial = throttle.trial(plain(), "test")
    assert trial.failed(GOLD) == Throttled(Refused("535 5.7.8", "Authentication credentials invalid", 1), None)
    assert engine.asked == [(Event.AUTH_FAIL, grown(trial.facts, known_user=True), True)]


@pytest.mark.parametrize(
    ("fields", "wait"),
    [
        ({"delay": 2.5}, 3),
        ({"delay": 15.0}, 15),
        ({"delay": 0.2}, 1),
        ({"delay": 0.0}, 1),
        ({"delay": 5.0, "close": True}, 0),
    ],
)
def test_a_limits_delay_becomes_auth_wait(
    throttle: Throttle, engine, denied: Callable[..., Decision], fields: dict[str, object], wait: int
) -> None:
    engine.looked = engine.charged = engine.admitted = denied(**fields)
    expected = Throttled(Refused("454 4.7.0", "too many failed logins, retry in 120s", wait), engine.looked.denial)
    trial = throttle.trial(plain(), "test")
    assert [trial.look(), trial.failed(GOLD), trial.admit(GOLD)] == [expected] * 3


def test_with_421_the_session_ends(throttle: Throttle, engine, denied: Callable[..., Decision]) -> None:
    reply = replace(denied().denial.reply, code=421)
    engine.looked = denied(reply=reply, delay=5.0)
    throttled = throttle.trial(plain(), "test").look()
    assert throttled is not None
    assert throttled.answer == Refused("421 4.7.0", "too many failed logins, retry in 120s", 0)


@pytest.mark.parametrize(
    ("seconds", "attempt", "wait"),
    [(1.0, 1, 1), (0.5, 1, 1), (1.1, 1, 2), (0.0, 1, 0), (1.0, 9, 1), (1.0, 10, 0), (1.0, 500, 0)],
)
def test_pause(seconds: float, attempt: int, wait: int) -> None:
    assert pause(seconds, attempt) == wait


def test_the_tenth_attempt_ends_the_session_whatever_the_limit_says(
    throttle: Throttle, engine, denied: Callable[..., Decision]
) -> None:
    engine.looked = denied(delay=15.0)
    throttled = throttle.trial(plain(attempt=10), "test").look()
    assert throttled is not None
    assert throttled.answer == replace(TOO_MANY, wait=0)


def test_what_limits_that_only_watch_would_have_said_is_told_once_each(
    throttle: Throttle, engine, denied: Callable[..., Decision]
) -> None:
    first, second = denied(limit="a", retry=1.0).denial, denied(limit="b").denial
    engine.looked = Decision(shadow=(first,))
    engine.charged = Decision(shadow=(replace(first, retry=2.0), second))
    trial = throttle.trial(plain(), "test")
    assert trial.look() is None
    assert trial.failed(GOLD).denial is None
    assert trial.shadow == (replace(first, retry=2.0), second)


# --- what is told of a password -------------------------------------------------------------------------------


def mac(throttle: Throttle, request: AuthRequest, login: str | None = "test") -> str | None:
    return throttle.trial(request, login).facts.password_mac


def test_a_password_is_told_apart_and_not_told(throttle: Throttle, make_throttle) -> None:
    known = mac(throttle, plain(password=b"hunter2"))
    assert known is not None
    assert len(bytes.fromhex(known)) == 8
    assert mac(throttle, plain(password=b"hunter2", attempt=2, tls=True), "TEST") == known
    others = [
        mac(throttle, plain(password=b"hunter3")),
        mac(throttle, plain(password=b"hunter2"), "test2"),
        # Where a name ends is part of it.
        mac(throttle, plain(password=b"2hunter2")),
        mac(throttle, plain(password=b"")),
        mac(
            Throttle(
                throttle.engine, 1.0, key=b"o" * 32, nets=throttle.nets, holds=throttle.holds, clock=throttle.clock
            ),
            plain(password=b"hunter2"),
        ),
    ]
    assert len({known, *others}) == 6
    assert mac(make_throttle(), plain(password=b"hunter2")) == known, "every worker has the same key"


@pytest.mark.parametrize(
    ("request_", "comparable"),
    [
        (plain(), True),
        (oauth(b"bad"), True),
        (oauth(method="oauthbearer"), True),
        (cram(), False),
        (apop(), False),
        (external(), False),
    ],
)
def test_what_can_be_tried_twice(throttle: Throttle, request_: AuthRequest, comparable: bool) -> None:
    assert (mac(throttle, request_) is not None) is comparable


# --- who, and from where --------------------------------------------------------------------------------------


LIMITS = """
version: 1
replies: {{auth: "454 4.7.0 too many failed logins, retry in {{retry}}s"}}
limits:
  fail: {{event: auth_fail, rate: 1/1h, burst: 1, key: "{{net}}", match: {{{match}}}, deny: {{reply: auth}}}}
  shaped: {{event: auth, rate: 1/2s, burst: 1, key: "{{user}}", deny: {{reply: auth, hold: 5s}}}}
  open: {{event: auth, concurrency: 1, key: "{{user}}", deny: {{reply: auth}}}}
{more}
"""


@pytest.fixture
def make_real(store, clock, make_throttle):
    """A throttle under limits as they are written."""

    def make(match: str = "", more: str = "", store=store) -> Throttle:
        policy = build([("p.yaml", LIMITS.format(match=match, more=more).encode())]).policy
        return make_throttle(Engine(store, clock, lambda: 0.0, policy=policy), store)

    return make


class Counted(MemoryBuckets):
    """Counts the calls for known networks; `away` answers none of them."""

    def __init__(self, clock: object) -> None:
        super().__init__(clock)  # type: ignore[arg-type]
        self.calls: list[str] = []
        self.away = False

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.away:
            raise StoreUnavailable

    def note(self, key: str, member: str, ttl: float, keep: int) -> None:
        self._called(f"note {key} {member}")
        super().note(key, member, ttl, keep)

    def seen(self, key: str, member: str) -> bool:
        self._called(f"seen {key} {member}")
        return super().seen(key, member)


@pytest.mark.parametrize(
    ("match", "more", "asks"),
    [
        ("", "", False),
        ("client: 192.0.2.0/24", "", False),
        ("known_user: false", "", False),
        ("known_net: false", "", True),
        ("", "exempt: [{match: {known_net: true}, limits: [fail]}]", True),
        ("", "overrides: [{match: {known_net: true}, set: {fail: {rate: 5/1h}}}]", True),
        # What concerns other limits is not asked for here.
        ("", "exempt: [{match: {known_net: true}, limits: [shaped]}]", False),
    ],
)
def test_the_store_is_asked_for_networks_only_where_a_limit_wants_to_know(
    make_real, clock, match: str, more: str, asks: bool
) -> None:
    store = Counted(clock)
    trial = make_real(match, more, store).trial(plain(), "test")
    assert (trial.facts.known_net is False) is asks
    assert store.calls == (["seen test 192.0.2.7"] if asks else [])


def test_names_that_do_not_exist_are_charged_and_nobody_learns_which(make_real) -> None:
    """1 wrong name, and the network is throttled, whichever name it comes with next."""
    throttle = make_real("known_user: false")
    known, unknown = (throttle.trial(plain(name.encode()), name) for name in ("test", "nobody"))
    assert known.failed(GOLD).denial is None
    assert (known.look(), unknown.look()) == (None, None)
    assert unknown.failed(None).denial is None
    assert known.look() == unknown.look()
    throttled = known.look()
    assert throttled is not None
    assert throttled.denial is not None


def test_a_disabled_user_does_not_exist(throttle: Throttle, engine) -> None:
    for user in (User("test", enabled=False), None, GOLD):
        throttle.trial(plain(), "test").failed(user)
    assert [facts.known_user for facts in engine.about(Event.AUTH_FAIL)] == [False, False, True]


def test_a_network_is_known_after_a_login_from_there(make_real, clock) -> None:
    store = Counted(clock)
    throttle = make_real("known_net: false", store=store)
    trial = throttle.trial(plain(b"Test"), "Test")
    assert trial.facts.known_net is False
    trial.succeeded(GOLD)
    trial.succeeded(GOLD)
    assert throttle.trial(plain(), "test").facts.known_net is True
    # Whether somebody exists is not to be seen by a clock: nobody's networks are asked for, too.
    assert throttle.trial(plain(b"nobody"), "nobody").facts.known_net is False
    assert store.calls == [
        "seen test 192.0.2.7",
        "note test 192.0.2.7",
        "seen test 192.0.2.7",
        "seen nobody 192.0.2.7",
    ]


def test_a_network_is_noted_for_what_was_typed_too(make_real, clock) -> None:
    store = Counted(clock)
    throttle = make_real("known_net: false", store=store)
    throttle.trial(plain(b"ann"), "ann").succeeded(User("ann@example.com"))
    # Bearer tokens need no name beside them.
    throttle.trial(oauth(b"good:bob", b""), None).succeeded(User("bob"))
    assert [call for call in store.calls if call.startswith("note")] == [
        "note ann@example.com 192.0.2.7",
        "note ann 192.0.2.7",
        "note bob 192.0.2.7",
    ]


def test_what_net_is_is_for_the_policy_to_say(make_real, clock) -> None:
    store = Counted(clock)
    make_real("known_net: true", "ip_prefix: {v4: 24}", store=store).trial(plain(), "test").succeeded(GOLD)
    assert store.calls == ["seen test 192.0.2.0/24", "note test 192.0.2.0/24"]


def test_networks_are_not_noted_for_nobody(make_real, clock) -> None:
    store = Counted(clock)
    make_real("known_user: true", store=store).trial(plain(), "test").succeeded(GOLD)
    assert store.calls == []


def test_a_limit_of_good_logins_may_want_to_know_the_network(make_real, clock) -> None:
    store = Counted(clock)
    more = "overrides: [{match: {known_net: false}, set: {shaped: {deny: {hold: 0s}}}}]"
    throttle = make_real(more=more, store=store)
    for ip in ("192.0.2.7", "192.0.2.8", "192.0.2.7"):
        trial = throttle.trial(replace(plain(), client=ip), "test")
        throttled = trial.admit(GOLD)
        if throttled is None:
            trial.succeeded(GOLD)
        elif ip == "192.0.2.8":
            assert isinstance(throttled.answer, Refused)
        else:
            assert isinstance(throttled.answer, Wait)
    assert [call.split()[0] for call in store.calls] == ["seen", "note", "seen", "seen"]


def test_without_the_store_no_network_is_known_or_unknown(make_real, clock) -> None:
    store = Counted(clock)
    store.away = True
    trial = make_real("known_net: false", store=store).trial(plain(), "test")
    assert trial.facts.known_net is None
    trial.succeeded(GOLD)
    assert trial.look() is None


# --- a login that was proven ----------------------------------------------------------------------------------


def test_our_own_proxy_asks_by_itself(throttle: Throttle, engine, denied: Callable[..., Decision]) -> None:
    engine.admitted = denied()
    assert throttle.trial(replace(plain(), gate=True), "test").admit(GOLD) is None
    assert engine.asked == []


def test_a_login_of_nginx_is_charged(throttle: Throttle, engine) -> None:
    assert throttle.trial(plain(), "TEST").admit(GOLD) is None
    [facts] = engine.about(Event.AUTH)
    assert (facts.user, facts.plan, facts.login, facts.known_user) == ("test", "gold", "TEST", True)
    assert engine.asked == [(Event.AUTH, facts, True)]


def test_nginx_waits_and_then_passes(make_real, clock) -> None:
    """1 login in 2 s, and concurrency that counts for no one."""
    throttle = make_real()
    assert throttle.trial(plain(), "test").admit(GOLD) is None
    held = throttle.trial(plain(), "test").admit(GOLD)
    assert held is not None
    assert held.answer == Wait(2)
    assert held.denial is not None
    assert (held.denial.limit, len(throttle.holds)) == ("shaped", 1)
    clock.sleep(2.0)
    assert throttle.trial(plain(), "test").admit(GOLD) is None
    assert len(throttle.holds) == 0
    assert throttle.engine.counters["shaped"].held_seconds == 2.0


def test_a_wait_has_an_end(throttle: Throttle, engine, clock, denied: Callable[..., Decision]) -> None:
    """Others take each token as it comes: what is left of the hold shrinks, and the last word is a refusal."""
    engine.admitted = denied(wait=2.0, hold=5.0)
    answers = []
    for _ in range(3):
        throttled = throttle.trial(plain(), "test").admit(GOLD)
        assert throttled is not None
        answers.append(throttled.answer)
        clock.sleep(2.0)
    assert answers == [Wait(2)] * 3
    engine.admitted = denied(wait=2.0, hold=0.0)
    refused = throttle.trial(plain(), "test").admit(GOLD)
    assert refused is not None
    assert refused.answer == TOO_MANY
    assert engine.patience == [None, 3.0, 1.0, 0.0]
    assert engine.held == [("auth.fail.pair", 6.0)]


def test_auth_wait_is_never_0_with_wait(throttle: Throttle, engine, denied: Callable[..., Decision]) -> None:
    engine.admitted = denied(wait=0.0, hold=0.2)
    throttled = throttle.trial(plain(), "test").admit(GOLD)
    assert throttled is not None
    assert throttled.answer == Wait(1)


@pytest.mark.parametrize("request_", [cram(), apop(), plain(attempt=10)])
def test_who_could_not_ask_again_is_not_told_to_wait(throttle: Throttle, engine, request_: AuthRequest) -> None:
    """nginx has forgotten the digest then; and its memory for attempts has an end."""
    throttle.trial(request_, "test").admit(GOLD)
    assert engine.patience == [0.0]
