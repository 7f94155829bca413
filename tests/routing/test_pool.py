"""The pool decides who is next: who may be asked at all, caps, trials, and what others have found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from lib.pools import BREAKER, NOW, backend, eject, pool, states, take, turns

from smtpgate.routing.model import BackendView, Balance, HealthSpec, PoolSpec, QueueSpec, State
from smtpgate.routing.pool import Open, PoolState, Refuse, Wait

# --- shares ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_CONN])
def test_2200_sessions_over_10_10_2(balance: Balance) -> None:
    state = pool(backend("a", 10), backend("b", 10), backend("c", 2), balance=balance)
    assert Counter(take(state) for _ in range(2200)) == {"a": 1000, "b": 1000, "c": 200}
    assert [state.conns(name) for name in "abc"] == [1000, 1000, 200]


def test_one_that_was_tried_leaves_the_others_their_shares() -> None:
    state = pool(backend("a", 10), backend("b", 2), backend("c", 1))
    assert Counter(take(state, "a") for _ in range(300)) == {"b": 200, "c": 100}


def test_least_conn_prefers_the_idle_one() -> None:
    state = pool(backend("a"), backend("b"), balance=Balance.LEAST_CONN)
    assert [take(state), take(state)] == ["a", "b"]
    state.release("b")
    assert take(state) == "b"


def test_hash_and_chance_reach_the_choice() -> None:
    state = pool(backend("a"), backend("b"), balance=Balance.HASH)
    homes = {key: take(state, hash_key=key) for key in ["ann", "bob", "cid", "dan", "eve"]}
    assert set(homes.values()) == {"a", "b"}
    for name in homes.values():
        state.release(name)
    assert take(state, hash_key="ann") == homes["ann"]
    assert take(state, homes["ann"], hash_key="ann") != homes["ann"]
    state = pool(backend("a"), backend("b"), balance=Balance.RANDOM2)
    assert [take(state, chance=0.9), take(state, chance=0.9)] == ["b", "a"]


# --- max_conns and the queue ------------------------------------------------------------------------------------


def test_refusals_say_why_and_count_nothing() -> None:
    assert pool().acquire(NOW) == Refuse("empty")
    state = pool(backend("a", max_conns=1), backend("b"))
    assert state.acquire(NOW, tried=("a", "b")) == Refuse("tried")
    assert take(state) == "a"
    assert state.acquire(NOW, tried=("b",)) == Wait()
    assert state.acquire(NOW, tried=("b",), may_wait=False) == Refuse("full")
    assert state.acquire(NOW, tried=("a", "b")) == Refuse("tried")
    assert repr(state) == "<PoolState core round_robin: a 1/1, b 0>"


def test_a_full_backend_is_passed_over_until_it_has_room() -> None:
    state = pool(backend("a", 10, max_conns=2), backend("b", 1, max_conns=1))
    assert Counter(take(state) for _ in range(3)) == {"a": 2, "b": 1}
    assert state.acquire(NOW) == Wait()
    state.release("a")
    assert take(state) == "a"


@pytest.mark.parametrize("queue", [QueueSpec(wait=0.0), QueueSpec(max=0)])
def test_without_a_queue_nobody_waits(queue: QueueSpec) -> None:
    state = pool(backend("a", max_conns=1), queue=queue)
    take(state)
    assert state.acquire(NOW) == Refuse("full")


def test_full_primaries_are_waited_for_before_a_backup_is_asked() -> None:
    state = pool(backend("a", max_conns=1), backend("b", max_conns=1, backup=True))
    assert take(state) == "a"
    assert state.acquire(NOW) == Wait()
    assert take(state, may_wait=False) == "b"
    assert state.acquire(NOW, may_wait=False) == Refuse("full")


def test_a_dead_one_does_not_help_busy_ones() -> None:
    state = pool(backend("a", max_conns=1), backend("b"), backend("c"))
    eject(state, "b")
    state.told("c", False, "connect refused", NOW)
    assert take(state) == "a"
    assert state.acquire(NOW) == Wait()
    assert state.acquire(NOW, may_wait=False) == Refuse("full")


@pytest.mark.parametrize("name", ["a", "nobody"])
def test_a_release_without_a_session_is_an_error(name: str) -> None:
    state = pool(backend("a"))
    with pytest.raises(ValueError) as caught:
        state.release(name)
    assert str(caught.value) == f"pool core: {name} released without a session; expected one release an acquire"
    assert state.conns(name) == 0


# --- who may be asked -------------------------------------------------------------------------------------------


def test_the_order_in_which_a_session_finds_them() -> None:
    """Each kind twice, the later one first in the policy: primaries before backups, health before everything."""
    ranked = ["up", "backup", "open", "backup-open", "down", "backup-down"]
    state = pool(
        *(backend(name, backup="backup" in name) for name in reversed(ranked)),
        backend("drain", state=State.DRAIN),
        backend("off", state=State.OFF),
    )
    for name in ranked:
        if "open" in name:
            assert eject(state, name)
        if "down" in name:
            assert state.told(name, False, "refused", NOW)
    found: list[str] = []
    while not isinstance(answer := state.acquire(NOW, tried=found), Refuse):
        assert isinstance(answer, Open)
        found.append(answer.backend.name)
    assert found == ranked
    assert answer == Refuse("tried")


def test_only_the_healthy_for_whom_another_pool_may_take() -> None:
    state = pool(backend("a", max_conns=1), backend("b"), backend("c", backup=True, max_conns=1))
    eject(state, "b")
    assert take(state, anyone=False) == "a"
    assert state.acquire(NOW, anyone=False) == Wait()
    assert take(state, anyone=False, may_wait=False) == "c"
    assert state.acquire(NOW, anyone=False, may_wait=False) == Refuse("full")
    assert state.acquire(NOW, tried=("a", "c"), anyone=False) == Refuse("down")
    assert state.acquire(NOW, tried=("a", "b", "c"), anyone=False) == Refuse("tried")
    assert take(state, "a", "c") == "b"
    state.release("b")
    assert state.acquire(NOW + 30, tried=("a", "c"), anyone=False) == Open(backend("b"), trial=True)


@pytest.mark.parametrize("state", [State.DRAIN, State.OFF])
def test_a_pool_that_takes_nobody_is_empty(state: State) -> None:
    assert pool(backend("a", state=state), backend("b", state=state)).acquire(NOW) == Refuse("empty")


def test_backups_share_among_themselves_when_no_primary_is_up() -> None:
    state = pool(backend("a"), backend("b", backup=True), backend("c", backup=True))
    assert turns(state, 4) == {"a": 4}
    state.told("a", False, "refused", NOW)
    assert turns(state, 4) == {"b": 2, "c": 2}
    state.told("a", True, "", NOW)
    assert turns(state, 4) == {"a": 4}


# --- probes and the breaker -------------------------------------------------------------------------------------


def test_probes_take_a_backend_out_and_back() -> None:
    state = pool(backend("a"), backend("b"), health=HealthSpec(rise=2, fall=3))
    assert [state.probed("a", False, "greeting 554", NOW + n) for n in range(3)] == [False, False, True]
    assert turns(state, 4) == {"b": 4}
    assert state.view(NOW + 3)[0] == BackendView("a", "down", "greeting 554", NOW + 2, 0, 1.0, "probe")
    assert [state.probed("a", True, "", NOW + n) for n in (4, 5)] == [False, True]
    assert turns(state, 4) == {"a": 2, "b": 2}


def test_failed_connects_eject() -> None:
    state = pool(backend("a"), backend("b"))
    assert [state.connect_failed("a", NOW), state.connect_failed("a", NOW + 1)] == [False, True]
    assert state.view(NOW)[0] == BackendView("a", "open", "2 failed connects in a row", NOW + 1, 0, 1.0, "sessions")
    assert turns(state, 4) == {"b": 4}


def test_a_connection_that_is_made_ends_the_row() -> None:
    state = pool(backend("a"), backend("b"))
    state.connect_failed("a", NOW)
    state.connected("a")
    assert not state.connect_failed("a", NOW)


def test_failed_sessions_eject_if_several_networks_see_them() -> None:
    state = pool(backend("a"), backend("b"))
    assert not any(state.session_failed("a", "192.0.2.0/24", NOW) for _ in range(9))
    assert state.session_failed("a", "198.51.100.0/24", NOW)
    assert states(state) == {"a": "open", "b": "up"}


def test_a_served_session_ends_the_row() -> None:
    state = pool(backend("a"), backend("b"))
    state.connect_failed("a", NOW)
    state.session_failed("a", "192.0.2.0/24", NOW)
    assert not state.served("a", NOW)
    assert not state.connect_failed("a", NOW)
    assert not state.session_failed("a", "198.51.100.0/24", NOW)


def test_half_open_takes_one_session_at_a_time_until_one_is_served() -> None:
    state = pool(backend("a"), backend("b"))
    eject(state, "a")
    assert turns(state, 4, NOW + 29.9) == {"b": 4}
    at = NOW + 30
    answers = [state.acquire(at) for _ in range(4)]
    assert [answer for answer in answers if isinstance(answer, Open) and answer.trial] == [Open(backend("a"), True)]
    assert (state.conns("a"), state.conns("b")) == (1, 3)
    # It ends without a verdict: the next one may try.
    state.release("a", trial=True)
    assert state.acquire(at, tried=("b",)) == Open(backend("a"), trial=True)
    assert states(state, at) == {"a": "open", "b": "up"}
    assert state.served("a", at + 1)
    assert states(state, at + 1) == {"a": "up", "b": "up"}
    assert state.acquire(at + 1, tried=("b",)) == Open(backend("a"), trial=False)


@pytest.mark.parametrize("failure", ["connect", "session"])
def test_one_failure_of_a_trial_is_enough(failure: str) -> None:
    state = pool(backend("a"), backend("b"))
    eject(state, "a")
    at = NOW + 30
    assert state.acquire(at, tried=("b",)) == Open(backend("a"), trial=True)
    if failure == "connect":
        assert not state.connect_failed("a", at)
    else:
        assert not state.session_failed("a", "192.0.2.0/24", at)
    state.release("a", trial=True)
    assert turns(state, 4, at + 29.9) == {"b": 4}
    assert state.view(at)[0].since == NOW
    assert state.acquire(at + 30, tried=("b",)) == Open(backend("a"), trial=True)


def test_a_trial_waits_for_room() -> None:
    state = pool(backend("a", max_conns=1), backend("b"))
    assert take(state) == "a"
    eject(state, "a")
    assert turns(state, 3, NOW + 30) == {"b": 3}


@pytest.mark.parametrize(
    ("backends", "max_open", "most"),
    [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (10, 0.29, 2), (3, 0.3, 1), (3, 1.0, 3), (3, 0.0, 0)],
)
def test_no_more_than_max_open_are_ejected(backends: int, max_open: float, most: int) -> None:
    breaker = replace(BREAKER, max_open=max_open)
    names = [f"mta{n}" for n in range(backends)]
    state = PoolState(PoolSpec("core", tuple(backend(name) for name in names), breaker=breaker), NOW)
    assert sum(eject(state, name) for name in names) == most
    assert list(states(state).values()).count("open") == most


def test_the_next_failure_ejects_once_there_is_room_under_the_cap() -> None:
    state = pool(backend("a"), backend("b"))
    assert eject(state, "a")
    assert not eject(state, "b")
    state.acquire(NOW + 30, tried=("b",))
    state.served("a", NOW + 30)
    assert state.connect_failed("b", NOW + 31)


def test_reports_about_the_unknown_are_ignored() -> None:
    state = pool(backend("a"))
    state.connected("gone")
    assert not state.connect_failed("gone", NOW)
    assert not state.session_failed("gone", "192.0.2.0/24", NOW)
    assert not state.served("gone", NOW)
    assert not state.probed("gone", False, "", NOW)
    assert not state.told("gone", False, "", NOW)
    assert states(state) == {"a": "up"}


# --- what other workers found -------------------------------------------------------------------------------------


def test_told_of_probes() -> None:
    state = pool(backend("a"), backend("b"))
    assert state.told("a", False, "refused", NOW - 5)
    assert not state.told("a", False, "refused", NOW - 5)
    assert state.view(NOW)[0] == BackendView("a", "down", "refused", NOW - 5, 0, 1.0, "probe")
    assert state.told("a", True, "", NOW)
    assert turns(state, 4) == {"a": 2, "b": 2}


def test_told_of_an_ejection() -> None:
    state = pool(backend("a"), backend("b"))
    assert state.told("a", False, "3 failed connects in a row", NOW - 5, passive=True)
    assert state.view(NOW)[0] == BackendView("a", "open", "3 failed connects in a row", NOW - 5, 0, 1.0, "sessions")
    assert not state.told("b", False, "too", NOW - 4, passive=True)  # max_open
    at = NOW + 25
    assert state.acquire(at, tried=("b",)) == Open(backend("a"), trial=True)
    assert state.served("a", at)
    # The other worker has not tried yet, and still says so.
    assert not state.told("a", False, "3 failed connects in a row", NOW - 5, passive=True)
    assert states(state, at) == {"a": "up", "b": "up"}


def test_told_that_an_ejection_was_taken_back() -> None:
    state = pool(backend("a"), backend("b"))
    eject(state, "a")
    assert not state.told("a", True, "", NOW - 1, passive=True)  # older than our own finding
    assert states(state)["a"] == "open"
    assert state.told("a", True, "", NOW + 1, passive=True)
    assert states(state)["a"] == "up"
    # Said again and again; it must not spare the backend what it does from now on.
    state.connect_failed("a", NOW + 2)
    assert not state.told("a", True, "", NOW + 1, passive=True)
    assert state.connect_failed("a", NOW + 3)
