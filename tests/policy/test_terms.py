"""Numbers as written -> the numbers of a limit."""

import pytest

from smtpgate.policy.model import Event
from smtpgate.policy.rules import Cost, Deny, Escalation, Kind, Limit, OnError, ReplyTemplate
from smtpgate.policy.terms import Amount, Terms, default_burst, merged, settled
from smtpgate.units import parse_rate

SLOW = ReplyTemplate(450, "4.7.1", "slow down")
GONE = ReplyTemplate(421, "4.7.0", "bye")
BASE = Limit("x", Event.MAIL, Kind.RATE, "f:1", None, None)
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("rate", "cost", "burst"),
    [
        ("30/1m", 1.0, 30.0),
        ("2000/1d", 1.0, 2000 / 1440),
        ("20/1h", 1.0, 1.0),
        ("60/1s", 1.0, 60.0),
        ("600/10m", 1.0, 60.0),
        ("1/1d", 1.0, 1.0),
        ("20/1h", 5.0, 5.0),  # one event can pay
        ("3/1h", 5.0, 3.0),  # and never more than the rate's amount
        ("2GiB/1d", Cost.BYTES, 50.0 * MIB),
        ("10MiB/1d", Cost.BYTES, 10.0 * MIB),
        ("600MiB/1m", Cost.BYTES, 600.0 * MIB),
        ("2000/1d", Cost.RECIPIENTS, 100.0),
        ("50/1d", Cost.RECIPIENTS, 50.0),
        ("1MiB/1s", 1.0, 1.0 * MIB),  # a shape
    ],
)
def test_default_burst(rate: str, cost: float | Cost, burst: float) -> None:
    assert default_burst(parse_rate(rate), cost) == pytest.approx(burst)


def test_a_rate() -> None:
    limit = settled(BASE, Terms(rate=parse_rate("30/1m"), burst=Amount(5), cost=2.0, reply=SLOW), shadow=False)
    assert (limit.rate, limit.burst, limit.cost, limit.rate_text) == (0.5, 5.0, 2.0, "30/1m")
    assert (limit.deny, limit.shadow, limit.on_error) == (Deny(SLOW), False, OnError.LOCAL)


@pytest.mark.parametrize(
    ("kind", "terms", "amount", "text"),
    [
        (Kind.CONCURRENCY, Terms(concurrency=20), 20, "20"),
        (Kind.MAX, Terms(max=Amount(100)), 100, "100"),
        (Kind.MAX, Terms(max=Amount(10 * MIB, True), cost=Cost.BYTES), 10 * MIB, "10MiB"),
        (Kind.MAX, Terms(max=Amount(1000), cost=Cost.RECIPIENTS), 1000, "1000"),
    ],
)
def test_amounts(kind: Kind, terms: Terms, amount: int, text: str) -> None:
    limit = settled(Limit("x", Event.MAIL, kind, "f:1", None, None), terms, shadow=False)
    assert (limit.amount, limit.rate_text, limit.rate, limit.burst) == (amount, text, 0.0, 0.0)


def test_a_shape_denies_nothing() -> None:
    base = Limit("x", Event.DATA, Kind.SHAPE, "f:1", None, None)
    limit = settled(base, Terms(shape=parse_rate("2MiB/2s"), burst=Amount(4 * MIB, True)), shadow=False)
    assert (limit.rate, limit.burst, limit.rate_text, limit.deny) == (1.0 * MIB, 4.0 * MIB, "2MiB/2s", None)


def test_all_of_deny() -> None:
    after = Escalation(50, 600.0, GONE, True)
    terms = Terms(reply=SLOW, close=True, delay=2.0, max_delay=15.0, hold=5.0, ban=60.0, after=after)
    expected = Deny(SLOW, close=True, delay=2.0, max_delay=15.0, hold=5.0, ban=60.0, after=after)
    assert settled(BASE, terms, shadow=False).deny == expected


def test_421_closes() -> None:
    deny = settled(BASE, Terms(reply=GONE, close=False), shadow=False).deny
    assert deny is not None
    assert deny.close


@pytest.mark.parametrize(
    ("written", "mode", "shadow"),
    [(None, False, False), (True, False, True), (False, True, True), (None, True, True)],
)
def test_a_policy_that_only_watches_makes_every_limit_do_so(written: bool | None, mode: bool, shadow: bool) -> None:
    assert settled(BASE, Terms(shadow=written), shadow=mode).shadow is shadow


def test_what_a_change_does_not_name_stays() -> None:
    terms = Terms(rate=parse_rate("30/1m"), burst=Amount(5), reply=SLOW, close=True)
    changes = [Terms(burst=Amount(7), close=False), Terms(reply=GONE), Terms(burst=Amount(9))]
    assert merged(terms, changes) == Terms(rate=parse_rate("30/1m"), burst=Amount(9), reply=GONE, close=False)


def test_a_burst_that_nobody_wrote_follows_the_rate() -> None:
    terms = merged(Terms(rate=parse_rate("30/1m")), [Terms(rate=parse_rate("90/1m"))])
    assert settled(BASE, terms, shadow=False).burst == 90.0


def test_amounts_as_people_read_them() -> None:
    assert [str(Amount(100)), str(Amount(10 * MIB, True))] == ["100", "10MiB"]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (Terms(), False),
        (Terms(ban=1.0), True),
        (Terms(after=Escalation(1, 1.0, SLOW, False)), False),
        (Terms(after=Escalation(1, 1.0, SLOW, False, ban=1.0)), True),
    ],
)
def test_may_ban(terms: Terms, expected: bool) -> None:
    assert terms.may_ban is expected
