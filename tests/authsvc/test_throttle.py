from __future__ import annotations

from collections.abc import Callable

import pytest

from authsvc.contract import Refused
from authsvc.throttle import Throttle, Throttled, pause
from smtpgate.policy.model import Decision, Event, Facts

FACTS = Facts(client="192.0.2.7", login="test", method="plain")


def test_looking_takes_nothing(engine) -> None:
    assert Throttle(engine, 1.0).look(FACTS, 1) is None
    assert engine.asked == [(Event.AUTH_FAIL, FACTS, False)]


def test_a_wrong_password_is_charged(engine) -> None:
    throttled = Throttle(engine, 1.0).failed(FACTS, 1)
    assert engine.asked == [(Event.AUTH_FAIL, FACTS, True)]
    assert throttled == Throttled(Refused("535 5.7.8", "Authentication credentials invalid", 1), None)


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
    engine, denied: Callable[..., Decision], fields: dict[str, object], wait: int
) -> None:
    engine.looked = engine.charged = denied(**fields)
    expected = Throttled(Refused("454 4.7.0", "too many failed logins, retry in 120s", wait), engine.looked.denial)
    assert Throttle(engine, 1.0).look(FACTS, 1) == expected
    assert Throttle(engine, 1.0).failed(FACTS, 1) == expected


@pytest.mark.parametrize(
    ("seconds", "attempt", "wait"),
    [(1.0, 1, 1), (0.5, 1, 1), (1.1, 1, 2), (0.0, 1, 0), (1.0, 9, 1), (1.0, 10, 0), (1.0, 500, 0)],
)
def test_pause(seconds: float, attempt: int, wait: int) -> None:
    assert pause(seconds, attempt) == wait


def test_the_tenth_attempt_ends_the_session_whatever_the_limit_says(engine, denied: Callable[..., Decision]) -> None:
    engine.looked = denied(delay=15.0)
    throttled = Throttle(engine, 1.0).look(FACTS, 10)
    assert throttled is not None
    assert throttled.refused.wait == 0
