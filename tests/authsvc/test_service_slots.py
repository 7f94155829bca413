"""service.py: who waits for whom, and who is remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import gevent
import pytest
from logins import GRANTED, WRONG, Gate, Users, cram, external, oauth, plain
from turns import turns

from authsvc.answer.contract import AuthRequest, Refused
from authsvc.answer.service import Outcome
from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.methods import Methods
from authsvc.proof.passwords import Passwords
from authsvc.users.model import User
from smtpgate.policy.model import Decision, Event, Facts
from smtpgate.policy.select import Policy


def guess(client: str) -> AuthRequest:
    return replace(plain(password=b"guess"), client=client)


def test_beyond_what_may_wait_a_client_is_told_to_come_back(make_service, gate: Gate) -> None:
    slow = Bulkhead(at_once=1, waiting=1)
    service = make_service(passwords=gate, slow=slow)
    busy = [gevent.spawn(service.answer, guess("192.0.2.7")) for _ in range(2)]
    turns()
    refused = Refused("454 4.7.0", "Too many logins in progress, try again later", 1)
    outcome = service.answer(guess("192.0.2.7"))
    assert outcome == Outcome(refused, "overload", detail="1 attempts wait; at most 1 may")
    gate.leave.set()
    gevent.joinall(busy, timeout=10, raise_error=True)
    assert [one.value.result for one in busy] == ["wrong", "wrong"]
    slow.close()


def test_guesses_do_not_hold_up_who_logged_in_a_while_ago_nor_quick_methods(make_service, gate: Gate) -> None:
    slow = Bulkhead(at_once=2, waiting=2)
    service = make_service(passwords=gate, slow=slow)
    gate.leave.set()
    assert service.answer(plain()).result == "granted"
    gate.leave.clear()
    guesses = [gevent.spawn(service.answer, guess("198.51.100.1")) for _ in range(9)]
    turns()
    for request_ in (plain(), cram(), external(), oauth()):
        with gevent.Timeout(5):
            assert service.answer(request_).result == "granted"
    gate.leave.set()
    gevent.joinall(guesses, timeout=10, raise_error=True)
    results = [one.value.result for one in guesses]
    assert (results.count("wrong"), results.count("overload")) == (4, 5)
    slow.close()


def test_a_first_login_from_elsewhere_is_next_behind_a_strangers_guesses(make_service, gate: Gate) -> None:
    slow = Bulkhead(at_once=1, waiting=4)
    service = make_service(passwords=gate, slow=slow)
    guesses = [gevent.spawn(service.answer, guess("198.51.100.1")) for _ in range(9)]
    turns()
    first = gevent.spawn(service.answer, plain())
    turns()
    gate.leave.set()
    assert first.get(timeout=10).result == "granted"
    gevent.joinall(guesses, timeout=10, raise_error=True)
    assert gate.checked.index(b"1234") == 2
    slow.close()


def test_parallel_guesses_hardly_outrun_the_limit(make_service, gate: Gate, denied: Callable[..., Decision]) -> None:
    """Looking and charging both let other greenlets run, as Redis does."""

    class Bucket:
        tokens = 5
        policy = Policy()

        def decide(self, event: Event, facts: Facts, *, debit: bool = True, **_: object) -> Decision:
            gevent.sleep(0)
            if self.tokens <= 0:
                return denied()
            self.tokens -= debit
            return Decision()

    gate.leave.set()
    slow = Bulkhead(at_once=2, waiting=100)
    service = make_service(passwords=gate, slow=slow, engine=Bucket())
    guesses = [gevent.spawn(service.answer, plain(password=b"x")) for _ in range(50)]
    gevent.joinall(guesses, timeout=30, raise_error=True)
    assert [guess.value.result for guess in guesses].count("wrong") == 5
    assert 5 <= len(gate.checked) <= 6
    slow.close()


# --- remembered successes -------------------------------------------------------------------------------------


@pytest.fixture
def counted(cheap_passwords: Passwords) -> Gate:
    """Passwords that are counted and never wait."""
    gate = Gate(cheap_passwords)
    gate.leave.set()
    return gate


def test_a_busy_user_is_hashed_once_in_a_while(make_service, counted: Gate, engine, clock) -> None:
    service = make_service(passwords=counted)
    expected = Outcome(GRANTED, "granted", user="test", route="default")
    assert [service.answer(plain()) for _ in range(3)] == [expected] * 3
    assert counted.checked == [b"1234"]
    # The limit is looked at each time; only the first login was looked at again in its slot.
    assert engine.debits == [False] * 4
    clock.sleep(300)
    assert service.answer(plain()) == expected
    assert counted.checked == [b"1234", b"1234"]


def test_a_wrong_password_is_hashed_each_time(make_service, counted: Gate) -> None:
    service = make_service(passwords=counted)
    service.answer(plain())
    for _ in range(3):
        assert service.answer(plain(password=b"wrong")).answer == WRONG
    assert counted.checked == [b"1234", *[b"wrong"] * 3]


def test_a_throttled_client_is_not_let_in_by_memory(make_service, engine, denied: Callable[..., Decision]) -> None:
    service = make_service()
    service.answer(plain())
    engine.looked = denied()
    assert service.answer(plain()).result == "throttled"


def test_a_changed_password_is_out_at_once(
    make_service, users: Users, counted: Gate, cheap_passwords: Passwords
) -> None:
    service = make_service(passwords=counted)
    assert service.answer(plain()).result == "granted"
    users.put(User("test", (cheap_passwords.make(b"new"),)))
    assert service.answer(plain()).answer == WRONG
    assert service.answer(plain(password=b"new")).result == "granted"


def test_a_disabled_user_is_out_at_once_and_the_right_password_takes_as_long_as_any(
    make_service, users: Users, counted: Gate
) -> None:
    service = make_service(passwords=counted)
    assert service.answer(plain()).result == "granted"
    disabled = replace(users.find("test"), enabled=False)
    users.put(disabled)
    assert [service.answer(plain()).answer for _ in range(2)] == [WRONG, WRONG]
    assert counted.checked == [b"1234"] * 3


def test_of_many_first_logins_at_once_one_is_hashed(make_service, gate: Gate) -> None:
    slow = Bulkhead(at_once=1, waiting=10)
    service = make_service(passwords=gate, slow=slow)
    logins = [gevent.spawn(service.answer, plain()) for _ in range(8)]
    turns()
    gate.leave.set()
    gevent.joinall(logins, timeout=10, raise_error=True)
    assert [one.value.result for one in logins] == ["granted"] * 8
    assert gate.checked == [b"1234"]
    slow.close()


def test_remembering_can_be_switched_off(make_service, counted: Gate) -> None:
    service = make_service(Methods(remember=0.0), passwords=counted)
    for _ in range(2):
        assert service.answer(plain()).result == "granted"
    assert counted.checked == [b"1234"] * 2
