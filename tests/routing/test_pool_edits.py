"""A pool in time: slow start, and edits while sessions go on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from lib.pools import NOW, backend, eject, pool, spec, states, take, turns

from smtpgate.routing.model import BackendView, Balance, HealthSpec, PoolSpec, State
from smtpgate.routing.pool import Open, PoolState, Refuse, Wait

# --- slow start ---------------------------------------------------------------------------------------------------


def test_a_clock_reading_from_before_is_no_harm() -> None:
    for slow_start in (0.0, 20.0):
        state = pool(backend("a"), backend("b"), slow_start=slow_start)
        state.told("a", False, "refused", NOW)
        state.told("a", True, "", NOW + 0.1)
        assert take(state, "b") == "a"
        assert state.view(NOW)[0].weight == (1 / 16 if slow_start else 1.0)


def test_slow_start_is_linear() -> None:
    """Weight 10 over 20 s: what it has at each time, in sixteenths, and its whole weight from then on."""
    state = pool(backend("a", 10), backend("b", 10), slow_start=20.0)
    assert [view.weight for view in state.view(NOW)] == [10.0, 10.0]  # a proxy that starts serves at once
    state.told("a", False, "refused", NOW)
    state.told("a", True, "", NOW)
    curve = {at: state.view(NOW + at)[0].weight for at in (0.0, 0.1, 5.0, 10.0, 19.0, 20.0, 21.0)}
    assert curve == {0.0: 1 / 16, 0.1: 1 / 16, 5.0: 2.5, 10.0: 5.0, 19.0: 9.5, 20.0: 10.0, 21.0: 10.0}


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_CONN])
@pytest.mark.parametrize(("at", "share"), [(0.0, 100), (5.0, 340), (10.0, 567), (20.0, 850)])
def test_slow_start_is_seen_in_the_shares(balance: Balance, at: float, share: int) -> None:
    """1,700 sessions beside one of the same weight of 1: 1/17, 4/20, 8/24, then a half of them."""
    state = pool(backend("a"), backend("b"), slow_start=20.0, balance=balance)
    eject(state, "a", NOW - 31)
    state.acquire(NOW, tried=("b",))
    state.served("a", NOW)
    state.release("a", trial=True)
    assert turns(state, 1700, NOW + at)["a"] == pytest.approx(share, abs=1)


@pytest.mark.parametrize("before", [State.DRAIN, State.OFF, None])
def test_one_that_is_new_or_active_again_starts_slowly(before: State | None) -> None:
    others = (backend("b"),)
    old = others if before is None else (backend("a", state=before), *others)
    state = pool(*old, slow_start=20.0)
    state.replace(PoolSpec("core", (backend("a"), *others), slow_start=20.0), NOW + 5)
    assert [view.weight for view in state.view(NOW + 15)] == [0.5, 1.0]


# --- live edits ---------------------------------------------------------------------------------------------------


def test_an_edit_keeps_counts_and_lets_go_of_what_is_gone() -> None:
    state = pool(backend("a"), backend("b"))
    assert [take(state), take(state), take(state)] == ["a", "b", "a"]
    state.replace(spec(backend("b", max_conns=2), backend("c")), NOW + 1)
    assert repr(state) == "<PoolState core round_robin: b 1/2, c 0; leaving: a 2>"
    assert state.view(NOW + 2)[2] == BackendView("a", "drain", "removed from the policy", NOW + 1, 2, 0.0, "policy")
    assert Counter(take(state) for _ in range(3)) == {"b": 1, "c": 2}
    state.release("a")
    assert state.conns("a") == 1
    state.release("a")
    assert repr(state) == "<PoolState core round_robin: b 2/2, c 2>"
    with pytest.raises(ValueError):
        state.release("a")


def test_a_backend_that_comes_back_finds_its_count_and_nothing_against_it() -> None:
    first = spec(backend("a", max_conns=1), backend("b"))
    state = PoolState(first, NOW)
    assert take(state) == "a"
    eject(state, "a")
    state.told("a", False, "refused", NOW)
    state.replace(spec(backend("b")), NOW)
    state.replace(spec(backend("b"), balance=Balance.LEAST_CONN), NOW + 1)
    assert state.view(NOW + 1)[1].since == NOW
    state.replace(first, NOW + 2)
    assert repr(state) == "<PoolState core round_robin: a 1/1, b 0>"
    assert take(state) == "b"


def test_a_lowered_cap_is_reached_as_sessions_end() -> None:
    state = pool(backend("a", max_conns=3))
    assert [take(state) for _ in range(3)] == ["a", "a", "a"]
    state.replace(spec(backend("a", max_conns=1)), NOW)
    for left in (3, 2, 1):
        assert state.conns("a") == left
        assert state.acquire(NOW) == Wait()
        state.release("a")
    assert take(state) == "a"


def test_another_address_is_another_machine() -> None:
    state = pool(backend("a"), backend("b"))
    take(state)
    eject(state, "a")
    state.told("b", False, "refused", NOW)
    moved = replace(backend("a"), host="127.0.0.2", port=2525)
    state.replace(spec(moved, backend("b", weight=2), balance=Balance.LEAST_CONN), NOW)
    assert states(state) == {"a": "up", "b": "down"}
    assert state.conns("a") == 1
    assert state.acquire(NOW, tried=("b",)) == Open(moved)


def test_drain_and_off_take_no_session_and_come_back() -> None:
    state = pool(backend("a"), backend("b"))
    take(state)
    eject(state, "a")
    state.replace(spec(backend("a", state=State.DRAIN), backend("b")), NOW + 1)
    assert turns(state, 3) == {"b": 3}
    assert state.view(NOW + 2)[0] == BackendView("a", "drain", "set in the policy", NOW + 1, 1, 0.0, "policy")
    assert repr(state) == "<PoolState core round_robin: a 1 drain, b 0>"
    state.replace(spec(backend("a", state=State.OFF), backend("b")), NOW + 3)
    assert state.view(NOW + 4)[0] == BackendView("a", "off", "set in the policy", NOW + 3, 1, 0.0, "policy")
    state.replace(spec(backend("a"), backend("b")), NOW + 5)
    assert states(state) == {"a": "up", "b": "up"}


def test_what_probes_say_of_one_that_was_drained_still_holds() -> None:
    state = pool(backend("a", state=State.DRAIN), backend("b"))
    state.told("a", False, "refused", NOW)
    state.replace(spec(backend("a"), backend("b")), NOW)
    assert states(state) == {"a": "down", "b": "up"}


def test_probes_that_are_switched_off_are_forgotten() -> None:
    state = pool(backend("a"), backend("b"))
    state.told("a", False, "refused", NOW)
    state.replace(spec(backend("a"), backend("b"), health=HealthSpec(probe="off")), NOW)
    assert states(state) == {"a": "up", "b": "up"}


def test_an_edit_keeps_the_cap() -> None:
    """Two of four are ejected; of two that stay one may be: the one that was ejected first comes back."""
    state = pool(*(backend(name) for name in "abcd"))
    assert eject(state, "b", NOW)
    assert eject(state, "a", NOW + 1)
    state.replace(spec(backend("a"), backend("b")), NOW + 2)
    assert states(state) == {"a": "open", "b": "up"}


def test_an_edit_that_changes_nothing_does_not_restart_the_round() -> None:
    state = pool(backend("a"), backend("b"))
    assert take(state) == "a"
    state.replace(spec(backend("a"), backend("b")), NOW)
    assert take(state) == "b"


def test_repr_tells_all() -> None:
    state = pool(backend("a", max_conns=9), backend("b"), backend("c", backup=True), backend("d", state=State.OFF))
    take(state)
    eject(state, "a")
    state.told("b", False, "refused", NOW)
    assert state.spec.name == "core"
    assert repr(state) == "<PoolState core round_robin: a 1/9 open, b 0 down, c 0 backup, d 0 off>"


# --- an operator's orders -------------------------------------------------------------------------------------------


def test_who_is_drained_takes_no_session_and_keeps_those_it_has() -> None:
    state = pool(backend("a"), backend("b"))
    assert [take(state), take(state)] == ["a", "b"]
    assert state.drain({"a": "ann", "z": "ann"}, NOW + 1)
    assert not state.drain({"a": "ann"}, NOW + 2)
    assert turns(state, 4, NOW + 2) == {"b": 4}
    assert state.view(NOW + 3)[0] == BackendView("a", "drain", "drained by ann", NOW + 1, 1, 0.0, "operator")
    assert repr(state) == "<PoolState core round_robin: a 1 drained, b 1>"
    state.release("a")
    assert states(state) == {"a": "drain", "b": "up"}


def test_a_drained_backend_stays_so_whatever_the_policy_says() -> None:
    state = pool(backend("a"), backend("b"))
    state.drain({"a": "ann", "c": "ann"}, NOW)
    state.replace(spec(backend("a", 7), backend("b"), backend("c")), NOW + 1)
    assert states(state, NOW + 1) == {"a": "drain", "b": "up", "c": "drain"}
    state.replace(spec(backend("b")), NOW + 2)
    state.replace(spec(backend("a"), backend("b")), NOW + 3)
    assert turns(state, 3, NOW + 3) == {"b": 3}


def test_with_everybody_drained_there_is_nobody_to_ask() -> None:
    state = pool(backend("a"))
    state.drain({"a": "ann"}, NOW)
    assert state.acquire(NOW) == Refuse("empty")
    assert state.takers == 0


def test_what_is_given_back_starts_slowly_and_with_a_clean_slate() -> None:
    state = pool(backend("a", 10), backend("b", 10), slow_start=20.0)
    eject(state, "a")
    state.drain({"a": "ann"}, NOW + 1)
    assert state.drain({}, NOW + 2)
    assert states(state, NOW + 2) == {"a": "up", "b": "up"}
    assert [view.weight for view in state.view(NOW + 12)] == [5.0, 10.0]


def test_a_drain_leaves_no_more_ejected_than_max_open_allows() -> None:
    state = pool(*(backend(name) for name in "abcd"))
    eject(state, "a", NOW)
    eject(state, "b", NOW + 1)
    assert states(state, NOW + 1) == {"a": "open", "b": "open", "c": "up", "d": "up"}
    state.drain({"c": "ann"}, NOW + 2)
    assert states(state, NOW + 2) == {"a": "up", "b": "open", "c": "drain", "d": "up"}
