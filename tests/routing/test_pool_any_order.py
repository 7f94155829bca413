"""The pool under any order of calls: its promises hold, whatever it has been told."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from lib.pools import NOW, backend

from smtpgate.routing.model import (
    BackendSpec,
    BackendView,
    Balance,
    BreakerSpec,
    HealthSpec,
    PoolSpec,
    QueueSpec,
    State,
)
from smtpgate.routing.pool import Open, PoolState, Refuse, Wait

NAMES = ("a", "b", "c", "d")
OPEN = 30.0

names = st.sampled_from(NAMES)
backends = st.builds(
    backend,
    names,
    st.integers(1, 10),
    st.one_of(st.none(), st.integers(1, 4)),
    state=st.sampled_from([State.ACTIVE, State.ACTIVE, State.ACTIVE, State.DRAIN, State.OFF]),
    backup=st.booleans(),
)
specs = st.builds(
    PoolSpec,
    name=st.just("core"),
    backends=st.lists(backends, max_size=4, unique_by=lambda one: one.name).map(tuple),
    balance=st.sampled_from(Balance),
    health=st.builds(HealthSpec, probe=st.sampled_from(["off", "ehlo"]), rise=st.just(1), fall=st.just(1)),
    breaker=st.builds(
        BreakerSpec,
        connect=st.integers(1, 2),
        session=st.integers(1, 2),
        min_clients=st.integers(1, 2),
        open=st.just(OPEN),
        max_open=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    ),
    slow_start=st.sampled_from([0.0, 20.0]),
    queue=st.sampled_from([QueueSpec(), QueueSpec(max=0)]),
)
# A session: where it is, and whether it was the one to try.
Session = tuple[str, bool]


class PoolMachine(RuleBasedStateMachine):
    """The pool beside a plain Counter, and beside what its own view says of health."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.spec = PoolSpec("core", (backend("a", 2, 2), backend("b"), backend("c", backup=True)))
        self.state = PoolState(self.spec, self.now)
        self.count = Counter[str]()
        self.trials: dict[str, float] = {}
        self.drained: dict[str, str] = {}

    def views(self) -> dict[str, BackendView]:
        return {view.name: view for view in self.state.view(self.now)}

    def takes(self, one: BackendSpec) -> bool:
        return one.state is State.ACTIVE and one.name not in self.drained

    def free(self, one: BackendSpec) -> bool:
        return one.max_conns is None or self.count[one.name] < one.max_conns

    @rule(
        target=sessions,
        tried=st.frozensets(names, max_size=3),
        key=st.one_of(st.none(), st.sampled_from("xyz")),
        chance=st.floats(0, 1, exclude_max=True),
        may_wait=st.booleans(),
    )
    def acquire(self, tried: frozenset[str], key: str | None, chance: float, may_wait: bool) -> Session | None:
        views = self.views()
        answer = self.state.acquire(self.now, tried=tried, hash_key=key, chance=chance, may_wait=may_wait)
        may_wait = may_wait and self.spec.queue.max > 0
        active = [one for one in self.spec.backends if self.takes(one)]
        left = [one for one in active if one.name not in tried]
        healthy = [one for one in left if views[one.name].state in ("up", "backup")]
        # Those whom a session waits for: what is behind them does not help, but backups do where nobody may wait.
        first = [one for one in healthy if not one.backup] or healthy or left
        if isinstance(answer, Open):
            self.check_open(answer, first, healthy, left, may_wait)
            return answer.backend.name, answer.trial
        if isinstance(answer, Wait):
            assert may_wait
            assert left
            assert not any(self.free(one) for one in first)
        elif answer == Refuse("full"):
            assert not may_wait
            assert left
            assert not any(self.free(one) for one in healthy or left)
        else:
            assert not left
            assert answer == Refuse("tried" if active else "empty")
        return None

    def check_open(
        self,
        answer: Open,
        first: list[BackendSpec],
        healthy: list[BackendSpec],
        left: list[BackendSpec],
        may_wait: bool,
    ) -> None:
        one = answer.backend
        assert one in left
        assert self.free(one)
        if answer.trial:
            view = self.views()[one.name]
            assert view.state in ("open", "down")
            assert self.now >= self.trials.get(one.name, 0.0) + OPEN
            self.trials[one.name] = self.now
        elif one not in first:
            assert one in healthy
            assert not may_wait
            assert not any(self.free(other) for other in first)
        self.count[one.name] += 1

    @rule(session=consumes(sessions))
    def release(self, session: Session | None) -> None:
        if session is not None:
            name, trial = session
            self.state.release(name, trial=trial)
            self.count[name] -= 1
            if trial:
                self.trials.pop(name, None)

    @rule(name=names)
    def connect_failed(self, name: str) -> None:
        self.check_change(name, self.state.connect_failed, name, self.now)

    @rule(name=names, network=st.sampled_from(["192.0.2.0/24", "198.51.100.0/24"]))
    def session_failed(self, name: str, network: str) -> None:
        self.check_change(name, self.state.session_failed, name, network, self.now)

    @rule(name=names)
    def served(self, name: str) -> None:
        self.check_change(name, self.state.served, name, self.now)

    @rule(name=names, up=st.booleans())
    def probed(self, name: str, up: bool) -> None:
        self.check_change(name, self.state.probed, name, up, "refused", self.now)

    @rule(name=names, up=st.booleans(), ago=st.floats(0, 60))
    def told(self, name: str, up: bool, ago: float) -> None:
        self.state.told(name, up, "refused", self.now - ago)

    @rule(name=names, up=st.booleans(), ago=st.floats(0, 60))
    def told_of_a_breaker(self, name: str, up: bool, ago: float) -> None:
        if self.state.told(name, up, "failed", self.now - ago, passive=True):
            self.trials.pop(name, None)

    def check_change(self, name: str, report: object, *args: object) -> None:
        """A report says truly whether the state changed, where nothing more important hides that."""
        before = self.views().get(name)
        assert callable(report)
        changed = report(*args)
        self.trials.pop(name, None)
        after = self.views().get(name)
        if before is None or after is None:
            assert not changed or name not in {one.name for one in self.spec.backends}
        elif before.state != after.state:
            assert changed

    @rule(seconds=st.sampled_from([0.5, 10.0, OPEN]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(spec=specs)
    def edit(self, spec: PoolSpec) -> None:
        self.state.replace(spec, self.now)
        self.spec = spec
        self.trials.clear()
        assert self.state.spec == spec

    @rule(drained=st.dictionaries(names, st.sampled_from(["ann", "bob"]), max_size=2))
    def order(self, drained: dict[str, str]) -> None:
        self.state.drain(drained, self.now)
        for name in drained.keys() ^ self.drained.keys():
            self.trials.pop(name, None)
        self.drained = drained
        assert not self.state.drain(drained, self.now)

    @invariant()
    def counts_agree(self) -> None:
        assert {name: self.state.conns(name) for name in NAMES} == {name: self.count[name] for name in NAMES}

    @invariant()
    def the_cap_is_kept(self) -> None:
        active = {one.name for one in self.spec.backends if self.takes(one)}
        ejected = sum(self.views()[name].state == "open" for name in active)
        share = self.spec.breaker.max_open
        assert ejected <= (max(1, int(len(active) * share)) if share else 0)

    @invariant()
    def the_view_names_what_there_is(self) -> None:
        current = {one.name for one in self.spec.backends}
        gone = {name for name in NAMES if self.count[name] and name not in current}
        assert list(self.views()) == [one.name for one in self.spec.backends] + [
            name for name in self.views() if name not in current
        ]
        assert set(self.views()) == current | gone
        for one in self.spec.backends:
            weight = self.views()[one.name].weight
            assert 0 < weight <= one.weight if self.takes(one) else weight == 0


TestAnyOrderOfCalls = PoolMachine.TestCase
TestAnyOrderOfCalls.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
