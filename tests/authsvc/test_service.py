from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import replace

import gevent
import pytest
from gevent.event import Event as Signal

from authsvc import crammd5
from authsvc.addresses import Addresses, LookupFailedError
from authsvc.bulkhead import Bulkhead
from authsvc.contract import AuthRequest, Granted, Refused
from authsvc.destinations import Destinations
from authsvc.passwords import Passwords
from authsvc.service import AuthService, Outcome
from authsvc.throttle import Throttle
from authsvc.users import StoreDownError, User
from smtpgate.policy.model import Decision, Event, Facts
from smtpgate.routing.model import BackendSpec, PoolSpec, Route

WRONG = Refused("535 5.7.8", "Authentication credentials invalid", 1)
SALT = b"<1896.697170952@mail.example.com>"
SERVER = ("127.0.0.1", 10025)


class Users:
    """A store in a dictionary. `down` makes it fail."""

    def __init__(self, *users: User) -> None:
        self._users = {user.name: user for user in users}
        self.asked: list[str] = []
        self.down = False

    def find(self, login: str) -> User | None:
        self.asked.append(login)
        if self.down:
            raise StoreDownError("connection refused")
        return self._users.get(login)


def lookup(host: str) -> str:
    raise LookupFailedError(host)


@pytest.fixture
def users(cheap_passwords: Passwords) -> Users:
    stored = cheap_passwords.make(b"1234")
    return Users(
        User("test", stored, crammd5.make(b"1234"), plan="gold"),
        User("jürgen", stored),
        User("a+b%c{d}", stored),
        User("off", stored, crammd5.make(b"1234"), enabled=False),
        User("nohash"),
        User("lost", stored, pool="gone"),
        User("own", stored, pool="vip"),
    )


@pytest.fixture
def routed() -> list[Facts]:
    """The facts that the routes were asked about."""
    return []


@pytest.fixture
def service(
    users: Users,
    cheap_passwords: Passwords,
    engine,
    routed: list[Facts],
    clock,
    bulkhead: Bulkhead,
) -> AuthService:
    destinations = Destinations(Addresses(clock, lookup))
    core = PoolSpec("core", (BackendSpec("sink", *SERVER),))
    vip = PoolSpec("vip", (BackendSpec("vip", "192.0.2.25", 25),))

    def matches(facts: Facts) -> bool:
        routed.append(facts)
        return True

    default = Route("default", "core", matches, "policies/routes.yaml:1")
    destinations.replace([default], {"core": core, "vip": vip})
    return AuthService(users, cheap_passwords, Throttle(engine, 1.0), destinations, bulkhead)


def plain(user: bytes = b"test", password: bytes = b"1234", **fields: object) -> AuthRequest:
    return replace(AuthRequest("plain", "192.0.2.7", user=user, password=password), **fields)


def cram(user: bytes = b"test", password: bytes = b"1234", salt: bytes = SALT) -> AuthRequest:
    digest = hmac.new(password, SALT, "md5").hexdigest().encode()
    return AuthRequest("cram-md5", "192.0.2.7", user=user, password=digest, salt=salt)


def external(subject: bytes = b"CN=test", verify: str = "SUCCESS", user: bytes = b"") -> AuthRequest:
    return AuthRequest("external", "192.0.2.7", user=user, tls=True, verify=verify, subject=subject)


GRANTED = Granted("test", SERVER, "core", "gold")


@pytest.mark.parametrize(
    "request_", [plain(), cram(), external(), external(user=b"test"), external(b"O=x\\, y,CN=test")]
)
def test_each_method_lets_the_right_client_in(service: AuthService, engine, request_: AuthRequest) -> None:
    assert service.answer(request_) == Outcome(GRANTED, "granted", user="test", route="default")
    assert engine.debits == [False]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(plain(password=b"12345"), id="wrong password"),
        pytest.param(plain(password=b""), id="empty password"),
        pytest.param(plain(b"nobody"), id="unknown user"),
        pytest.param(plain(b"off"), id="disabled user"),
        pytest.param(plain(b"nohash"), id="user without a password"),
        pytest.param(plain(b"TEST"), id="another spelling"),
        pytest.param(plain(b""), id="empty user"),
        pytest.param(plain(b"te\0st"), id="NUL"),
        pytest.param(plain(b"test\r\nAuth-Status: OK"), id="CRLF"),
        pytest.param(plain("jürgen".encode("latin-1")), id="Latin-1"),
        pytest.param(plain(b"x" * 10_000), id="10 kB"),
        pytest.param(cram(password=b"12345"), id="wrong digest"),
        pytest.param(cram(salt=b"<other>"), id="another challenge"),
        pytest.param(cram(b"nobody"), id="unknown user's digest"),
        pytest.param(cram(b"off"), id="disabled user's digest"),
        pytest.param(cram("jürgen".encode()), id="user without CRAM-MD5"),
        pytest.param(external(verify="NONE"), id="no certificate"),
        pytest.param(external(verify="FAILED:self signed"), id="certificate not verified"),
        pytest.param(external(verify="success"), id="not nginx's word"),
        pytest.param(replace(external(), tls=False), id="no TLS"),
        pytest.param(external(b"CN=nobody"), id="unknown CN"),
        pytest.param(external(b"CN=off"), id="disabled CN"),
        pytest.param(external(b"CN=test,CN=admin"), id="two CNs"),
        pytest.param(external(b""), id="no subject"),
        pytest.param(external(user=b"admin"), id="another authorization identity"),
    ],
)
def test_every_wrong_login_looks_the_same(service: AuthService, engine, request_: AuthRequest) -> None:
    assert service.answer(request_) == Outcome(WRONG, "wrong")
    assert engine.debits == [False, True]


def test_names_with_marks_of_other_languages(service: AuthService) -> None:
    for name in ("jürgen", "a+b%c{d}"):
        assert service.answer(plain(name.encode())).answer == Granted(name, SERVER, "core")


# --- limits ---------------------------------------------------------------------------------------------------


def test_facts_of_a_login(service: AuthService, engine) -> None:
    service.answer(plain(password=b"wrong", tls=True))
    facts = Facts(client="192.0.2.7", tls=True, login="test", method="plain")
    assert engine.asked == [(Event.AUTH_FAIL, facts, False), (Event.AUTH_FAIL, facts, True)]


@pytest.mark.parametrize(
    ("request_", "login"),
    [
        (plain(b""), "<>"),
        (plain(b"j\xfcrgen"), "j\\xfcrgen"),
        (plain(b"x" * 10_000), "x" * 320),
        (external(b"CN=nobody"), "nobody"),
        (external(b"nonsense"), "<>"),
    ],
)
def test_every_login_has_a_text_that_limits_can_count(
    service: AuthService, engine, request_: AuthRequest, login: str
) -> None:
    service.answer(request_)
    assert [facts.login for _, facts, _ in engine.asked] == [login, login]


@pytest.mark.parametrize("request_", [plain(), plain(password=b"wrong"), plain(b"nobody"), cram(), external()])
def test_a_throttled_client_learns_nothing_of_its_password(
    service: AuthService,
    engine,
    users: Users,
    denied: Callable[..., Decision],
    monkeypatch: pytest.MonkeyPatch,
    request_: AuthRequest,
) -> None:
    def verify(*_: object) -> bool:
        raise AssertionError("the password was looked at")

    monkeypatch.setattr(Passwords, "verify", verify)
    engine.looked = denied()
    expected = Refused("454 4.7.0", "too many failed logins, retry in 120s", 3)
    assert service.answer(request_) == Outcome(expected, "throttled", limit="auth.fail.pair")
    assert engine.debits == [False]
    assert users.asked == []


def test_a_wrong_password_that_reaches_the_limit_gets_its_reply(
    service: AuthService, engine, denied: Callable[..., Decision]
) -> None:
    engine.charged = denied(close=True)
    expected = Refused("454 4.7.0", "too many failed logins, retry in 120s", 0)
    assert service.answer(plain(password=b"x")) == Outcome(expected, "throttled", limit="auth.fail.pair")


def test_the_tenth_wrong_password_of_a_session_ends_it(service: AuthService) -> None:
    waits = [service.answer(plain(password=b"x", attempt=attempt)).answer.wait for attempt in (9, 10, 11)]
    assert waits == [1, 0, 0]


# --- faults ---------------------------------------------------------------------------------------------------

TEMPORARY = Refused("454 4.7.0", "Temporary authentication failure", 1)


def test_a_store_that_is_down_is_nobodys_failed_login(service: AuthService, engine, users: Users) -> None:
    users.down = True
    assert service.answer(plain()) == Outcome(TEMPORARY, "store_down", detail="connection refused")
    assert engine.debits == [False]


def test_a_user_whose_pool_is_gone(service: AuthService, engine) -> None:
    outcome = service.answer(plain(b"lost"))
    detail = "the user's pool gone does not exist in the policies"
    assert outcome == Outcome(TEMPORARY, "no_route", detail=detail)
    assert engine.debits == [False]


@pytest.mark.parametrize("method", ["apop", "PLAIN", "login", "xoauth2", "\r\n"])
def test_other_methods_are_refused(service: AuthService, engine, method: str) -> None:
    outcome = service.answer(plain(method=method))
    assert outcome.answer == Refused("504 5.5.4", "Authentication method not supported", 1)
    assert engine.asked == []


@pytest.mark.parametrize("protocol", ["imap", "pop3", "SMTP", ""])
def test_other_protocols_are_refused(service: AuthService, protocol: str) -> None:
    outcome = service.answer(plain(protocol=protocol))
    assert outcome.answer == Refused("504 5.5.4", "Only SMTP is served here", 0)


def test_beyond_what_may_wait_a_client_is_told_to_come_back(
    users: Users, cheap_passwords: Passwords, engine, clock
) -> None:
    leave = Signal()

    class SlowUsers(Users):
        def find(self, login: str) -> User | None:
            leave.wait()
            return None

    bulkhead = Bulkhead(at_once=1, waiting=1)
    throttle, ways = Throttle(engine, 1.0), Destinations(Addresses(clock, lookup))
    service = AuthService(SlowUsers(), cheap_passwords, throttle, ways, bulkhead)
    busy = [gevent.spawn(service.answer, cram()) for _ in range(2)]
    gevent.sleep(0.01)
    refused = Refused("454 4.7.0", "Too many logins in progress, try again later", 1)
    outcome = service.answer(cram())
    assert (outcome.answer, outcome.result) == (refused, "overload")
    leave.set()
    gevent.joinall(busy, timeout=10, raise_error=True)
    assert [one.value.result for one in busy] == ["wrong", "wrong"]
    bulkhead.close()


def test_parallel_guesses_hardly_outrun_the_limit(
    cheap_passwords: Passwords, users: Users, clock, denied: Callable[..., Decision]
) -> None:
    """Looking and charging both let other greenlets run, as Redis does."""

    class Bucket:
        tokens = 5

        def decide(self, event: Event, facts: Facts, *, debit: bool = True) -> Decision:
            gevent.sleep(0)
            if self.tokens <= 0:
                return denied()
            self.tokens -= debit
            return Decision()

    class Counting:
        verified = 0

        def verify(self, stored: str | None, password: bytes) -> bool:
            self.verified += 1
            return cheap_passwords.verify(stored, password)

    counting = Counting()
    bulkhead = Bulkhead(at_once=2, waiting=100)
    ways = Destinations(Addresses(clock, lookup))
    service = AuthService(users, counting, Throttle(Bucket(), 1.0), ways, bulkhead)
    guesses = [gevent.spawn(service.answer, plain(password=b"x")) for _ in range(50)]
    gevent.joinall(guesses, timeout=30, raise_error=True)
    assert [guess.value.result for guess in guesses].count("wrong") == 5
    assert 5 <= counting.verified <= 6
    bulkhead.close()


# --- the way --------------------------------------------------------------------------------------------------


def test_the_users_own_pool_wins(service: AuthService) -> None:
    assert service.answer(plain(b"own")).answer == Granted("own", ("192.0.2.25", 25), "vip")


def test_routes_see_the_canonical_name_and_the_plan(service: AuthService, routed: list[Facts]) -> None:
    service.answer(plain())
    assert routed == [Facts(client="192.0.2.7", tls=False, login="test", method="plain", user="test", plan="gold")]


def envelope(mail: bytes = b"MAIL FROM:<a@b.example>", rcpt: bytes = b"RCPT TO:<c@d.example>") -> AuthRequest:
    return AuthRequest("none", "192.0.2.7", mail_line=mail, rcpt_line=rcpt)


def test_without_login_the_envelope_is_routed(service: AuthService, engine, routed: list[Facts]) -> None:
    assert service.answer(envelope()) == Outcome(Granted(None, SERVER, "core"), "granted", route="default")
    assert engine.asked == []
    assert (routed[0].sender, routed[0].rcpt_domain, routed[0].user) == ("a@b.example", "d.example", None)


def test_a_bad_envelope_is_refused_and_the_client_stays(service: AuthService) -> None:
    outcome = service.answer(envelope(rcpt=b"RCPT TO:<c"))
    refused = Refused("501 5.1.3", "Bad recipient address syntax", 1)
    assert outcome == Outcome(refused, "bad_envelope")
