"""The pool decides who is next: shares by weight, caps, edits under load, and counts that never lie."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from smtpgate.routing.model import BackendSpec, Balance, PoolSpec
from smtpgate.routing.pool import Open, PoolState, Refuse


def backend(name: str, weight: int = 1, max_conns: int | None = None) -> BackendSpec:
    return BackendSpec(name, "127.0.0.1", 25, weight, max_conns)


def pool(*backends: BackendSpec, balance: Balance = Balance.ROUND_ROBIN) -> PoolState:
    return PoolState(PoolSpec("core", backends, balance))


def take(state: PoolState, tried: tuple[str, ...] = ()) -> str:
    """The name of the backend acquired; a refusal fails the test."""
    answer = state.acquire(tried)
    assert isinstance(answer, Open)
    return answer.backend.name


# --- round robin --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        ({"a": 1}, "aaaa"),
        ({"a": 1, "b": 1}, "abababab"),
        ({"a": 1, "b": 1, "c": 1}, "abcabc"),
        # The sequence in nginx's own change note of smooth weighted round robin (5, 1, 1).
        ({"a": 5, "b": 1, "c": 1}, "aabacaa"),
    ],
)
def test_smooth_weighted_round_robin(weights: dict[str, int], order: str) -> None:
    state = pool(*(backend(name, weight) for name, weight in weights.items()))
    assert "".join(take(state) for _ in order) == order


@pytest.mark.parametrize("balance", list(Balance))
def test_weights_are_kept(balance: Balance) -> None:
    """10/10/2 over 2,200 sessions that stay: 1,000, 1,000 and 200, within 2 %."""
    state = pool(backend("a", 10), backend("b", 10), backend("c", 2), balance=balance)
    shares = Counter(take(state) for _ in range(2200))
    for name, expected in {"a": 1000, "b": 1000, "c": 200}.items():
        assert shares[name] == pytest.approx(expected, rel=0.02)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_round_robin_is_exact_over_a_whole_round(weights: list[int]) -> None:
    state = pool(*(backend(str(i), weight) for i, weight in enumerate(weights)))
    for _ in range(2):
        assert Counter(take(state) for _ in range(sum(weights))) == {str(i): w for i, w in enumerate(weights)}


def test_one_that_was_tried_leaves_the_others_their_shares() -> None:
    state = pool(backend("a", 10), backend("b", 2), backend("c", 1))
    shares = Counter(take(state, tried=("a",)) for _ in range(300))
    assert shares == {"b": 200, "c": 100}


# --- least connections --------------------------------------------------------------------------------------


def test_least_conn_prefers_the_idle_one() -> None:
    state = pool(backend("a"), backend("b"), balance=Balance.LEAST_CONN)
    assert [take(state), take(state)] == ["a", "b"]
    state.release("b")
    assert take(state) == "b"


def test_least_conn_counts_by_weight() -> None:
    """Three to one is level with weights three and one, so the fifth goes by weight again."""
    state = pool(backend("a", 3), backend("b", 1), balance=Balance.LEAST_CONN)
    assert Counter(take(state) for _ in range(4)) == {"a": 3, "b": 1}
    state.release("b")
    assert take(state) == "b"
    state.release("a")
    state.release("a")
    assert [take(state), take(state)] == ["a", "a"]


def test_least_conn_breaks_ties_fairly() -> None:
    """Sessions that never overlap are always a tie; they must not all fall on the first backend."""
    state = pool(backend("a", 10), backend("b", 10), backend("c", 2), balance=Balance.LEAST_CONN)
    shares: Counter[str] = Counter()
    for _ in range(2200):
        name = take(state)
        shares[name] += 1
        state.release(name)
    assert shares == {"a": 1000, "b": 1000, "c": 200}


# --- refusals -----------------------------------------------------------------------------------------------


def test_refusals_say_why_and_count_nothing() -> None:
    assert pool().acquire() == Refuse("empty")
    state = pool(backend("a", max_conns=1), backend("b"))
    assert state.acquire(("a", "b")) == Refuse("tried")
    assert take(state) == "a"
    assert state.acquire(("b",)) == Refuse("full")
    assert state.acquire(("a", "b")) == Refuse("tried")
    assert repr(state) == "<PoolState core round_robin: a 1/1, b 0>"


def test_a_full_backend_is_passed_over_until_it_has_room() -> None:
    state = pool(backend("a", 10, max_conns=2), backend("b", 1, max_conns=1))
    assert Counter(take(state) for _ in range(3)) == {"a": 2, "b": 1}
    assert state.acquire() == Refuse("full")
    state.release("a")
    assert take(state) == "a"


def test_a_max_conns_of_zero_takes_nobody() -> None:
    assert pool(backend("a", max_conns=0)).acquire() == Refuse("full")


@pytest.mark.parametrize("name", ["a", "nobody"])
def test_a_release_without_a_session_is_an_error(name: str) -> None:
    state = pool(backend("a"))
    with pytest.raises(ValueError) as caught:
        state.release(name)
    assert str(caught.value) == f"pool core: {name} released without a session; expected one release an acquire"
    assert state.conns(name) == 0


# --- live edits ---------------------------------------------------------------------------------------------


def test_an_edit_keeps_counts_and_drains_what_is_gone() -> None:
    state = pool(backend("a"), backend("b"))
    assert [take(state), take(state), take(state)] == ["a", "b", "a"]
    state.replace(PoolSpec("core", (backend("b", max_conns=2), backend("c"))))
    assert repr(state) == "<PoolState core round_robin: b 1/2, c 0; draining: a 2>"
    assert Counter(take(state) for _ in range(3)) == {"b": 1, "c": 2}
    state.release("a")
    assert state.conns("a") == 1
    state.release("a")
    assert repr(state) == "<PoolState core round_robin: b 2/2, c 2>"
    with pytest.raises(ValueError):
        state.release("a")


def test_a_backend_that_comes_back_finds_its_count() -> None:
    spec = PoolSpec("core", (backend("a", max_conns=1), backend("b")))
    state = PoolState(spec)
    assert take(state) == "a"
    state.replace(PoolSpec("core", (backend("b"),)))
    state.replace(spec)
    assert repr(state) == "<PoolState core round_robin: a 1/1, b 0>"
    assert take(state) == "b"


def test_a_lowered_cap_is_reached_as_sessions_end() -> None:
    state = pool(backend("a", max_conns=3))
    assert [take(state) for _ in range(3)] == ["a", "a", "a"]
    state.replace(PoolSpec("core", (backend("a", max_conns=1),)))
    for left in (3, 2, 1):
        assert state.conns("a") == left
        assert state.acquire() == Refuse("full")
        state.release("a")
    assert take(state) == "a"


def test_an_edit_may_change_the_address_and_the_balance() -> None:
    state = pool(backend("a"), backend("b"))
    take(state)
    moved = replace(backend("a"), host="127.0.0.2", port=2525)
    state.replace(PoolSpec("core", (moved, backend("b")), Balance.LEAST_CONN))
    assert take(state) == "b"
    assert state.acquire(("b",)) == Open(moved)


def test_an_edit_that_changes_nothing_does_not_restart_the_round() -> None:
    spec = PoolSpec("core", (backend("a"), backend("b")))
    state = PoolState(spec)
    assert take(state) == "a"
    state.replace(PoolSpec("core", (backend("a"), backend("b"))))
    assert take(state) == "b"


# --- any order of calls -------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")

specs = st.builds(
    PoolSpec,
    name=st.just("core"),
    backends=st.lists(
        st.builds(backend, st.sampled_from(NAMES), st.integers(1, 10), st.one_of(st.none(), st.integers(0, 4))),
        max_size=4,
        unique_by=lambda spec: spec.name,
    ).map(tuple),
    balance=st.sampled_from(Balance),
)


class PoolMachine(RuleBasedStateMachine):
    """The pool beside a plain Counter: whatever the order of calls, both tell the same."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.spec = PoolSpec("core", (backend("a", 2, 2), backend("b")))
        self.state = PoolState(self.spec)
        self.model: Counter[str] = Counter()

    def open_to(self, tried: frozenset[str]) -> set[str]:
        return {
            spec.name
            for spec in self.spec.backends
            if spec.name not in tried and (spec.max_conns is None or self.model[spec.name] < spec.max_conns)
        }

    @precondition(lambda self: self.open_to(frozenset()))
    @rule(target=sessions)
    def acquire(self) -> str:
        allowed = self.open_to(frozenset())
        answer = self.state.acquire()
        assert isinstance(answer, Open)
        assert answer.backend in self.spec.backends
        assert answer.backend.name in allowed
        self.model[answer.backend.name] += 1
        return answer.backend.name

    @rule(tried=st.frozensets(st.sampled_from(NAMES)))
    def acquire_and_release(self, tried: frozenset[str]) -> None:
        allowed = self.open_to(tried)
        before = repr(self.state)
        answer = self.state.acquire(tried)
        if isinstance(answer, Open):
            assert answer.backend.name in allowed
            if self.spec.balance is Balance.LEAST_CONN:
                weights = {spec.name: spec.weight for spec in self.spec.backends}
                lowest = min(self.model[name] / weights[name] for name in allowed)
                assert self.model[answer.backend.name] / answer.backend.weight == pytest.approx(lowest)
            self.state.release(answer.backend.name)
        else:
            assert not allowed
            untried = {spec.name for spec in self.spec.backends} - tried
            assert answer.reason == ("full" if untried else "tried" if self.spec.backends else "empty")
        assert repr(self.state) == before

    @rule(name=consumes(sessions))
    def release(self, name: str) -> None:
        self.state.release(name)
        self.model[name] -= 1

    @rule(spec=specs)
    def edit(self, spec: PoolSpec) -> None:
        self.state.replace(spec)
        self.spec = spec
        assert self.state.spec == spec

    @invariant()
    def counts_agree(self) -> None:
        assert {name: self.state.conns(name) for name in NAMES} == {name: self.model[name] for name in NAMES}

    @invariant()
    def nothing_is_kept_of_what_is_gone(self) -> None:
        current = {spec.name for spec in self.spec.backends}
        draining = {name for name in NAMES if self.model[name] and name not in current}
        shown = repr(self.state).rstrip(">").partition("; draining: ")[2]
        assert {item.split()[0] for item in shown.split(", ") if item} == draining


TestAnyOrderOfCalls = PoolMachine.TestCase
TestAnyOrderOfCalls.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
