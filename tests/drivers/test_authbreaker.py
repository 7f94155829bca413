"""One question without an answer opens it, one probe a second goes through, one answer closes it."""

from __future__ import annotations

from smtpgate.drivers.authbreaker import PAUSE, AuthBreaker


def test_one_failure_opens_and_one_answer_closes() -> None:
    breaker = AuthBreaker()
    asked = breaker.admit(0.0)
    assert asked == 0
    assert breaker.failed(asked, 5.0) is True
    assert [breaker.admit(now) for now in (5.0, 5.5, 5.0 + PAUSE - 0.01)] == [None] * 3
    assert breaker.may_ask(5.0) is False
    assert breaker.admit(5.0 + PAUSE) == 0
    assert breaker.answered() is True
    assert breaker.answered() is False
    assert breaker.may_ask(0.0) is True


def test_one_probe_a_second_whatever_becomes_of_it() -> None:
    breaker = AuthBreaker()
    breaker.failed(0, 0.0)
    times = [n / 10 for n in range(55)]
    assert [now for now in times if breaker.admit(now) is not None] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_probe_that_fails_is_no_second_opening_and_delays_no_probe() -> None:
    breaker = AuthBreaker()
    breaker.failed(0, 0.0)
    probe = breaker.admit(1.0)
    assert probe is not None
    assert breaker.failed(probe, 1.9) is False
    assert breaker.admit(2.0) is not None


def test_whoever_answers_others_is_not_down() -> None:
    breaker = AuthBreaker()
    slow = breaker.admit(0.0)
    assert slow is not None
    breaker.answered()
    assert breaker.failed(slow, 10.0) is False
    assert breaker.may_ask(10.0) is True


def test_questions_that_were_under_way_when_it_opened_say_nothing_new() -> None:
    breaker = AuthBreaker()
    first, second = breaker.admit(0.0), breaker.admit(0.5)
    assert first is not None
    assert second is not None
    assert breaker.failed(first, 10.0) is True
    assert breaker.failed(second, 10.5) is False
    assert breaker.admit(11.0) is not None


def test_after_an_answer_a_new_failure_opens_again() -> None:
    breaker = AuthBreaker()
    breaker.failed(0, 0.0)
    breaker.answered()
    asked = breaker.admit(2.0)
    assert asked == 1
    assert breaker.failed(asked, 2.0) is True
