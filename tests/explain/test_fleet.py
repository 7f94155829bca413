"""Reports of two nodes, put together."""

from __future__ import annotations

from dataclasses import replace

from smtpgate.explain import fleet
from smtpgate.explain.fleet import BackendSum, PoolSum, Trouble, Wanted
from smtpgate.live import (
    BackendView,
    Counts,
    DenialView,
    Order,
    PolicyView,
    PoolView,
    Report,
    SessionView,
    Sighting,
    SubjectView,
)

SESSION = SessionView("s1", "submission", "192.0.2.7", "mail.example.com", "ann", None, 100.0, "mail", 1)
DENIAL = DenialView(100.0, "s1", "192.0.2.7", "ann", "mail", "msgs", "ann", 0.5, 60.0, "p.yaml:3")
SUBJECT = SubjectView("msgs", "ann", "p.yaml:3", 4, 1, 90.0)
UP = BackendView("mta1", "127.0.0.1:25", "up", 1, 3, 1, 0)
DOWN = replace(UP, state="down", connections=0, failures=2, by="probe", reason="refused")
ONE = Report(
    "mx1", 1, "0.1.0", 110.0, 0.0, False, "shared", 1, 0, Counts(), (SESSION,), (DENIAL,), (SUBJECT,),
    (PoolView("core", "hash", (UP,), 1),), PolicyView("v1", 90.0),
)  # fmt: skip
TWO = replace(
    ONE,
    node="mx2",
    sessions=(replace(SESSION, session="s2", user="ben", since=105.0),),
    denials=(replace(DENIAL, time=105.0, user="ben"),),
    subjects=(replace(SUBJECT, denied=6, since=80.0), replace(SUBJECT, subject="ben", denied=20)),
    pools=(PoolView("core", "hash", (DOWN,), 2),),
)


def test_sessions_and_denials_in_order_and_by_words() -> None:
    assert [(node, one.session) for node, one in fleet.sessions([ONE, TWO])] == [("mx2", "s2"), ("mx1", "s1")]
    assert [node for node, _ in fleet.denials([ONE, TWO])] == ["mx2", "mx1"]
    for words, found in {
        "BEN": ["s2"],
        "mx1": ["s1"],
        "192.0.2 submission": ["s2", "s1"],
        "ben ann": [],
        " ": ["s2", "s1"],
    }.items():
        assert [one.session for _, one in fleet.sessions([ONE, TWO], words)] == found, words


def test_subjects_are_summed() -> None:
    assert fleet.subjects([ONE, TWO]) == [
        SubjectView("msgs", "ben", "p.yaml:3", 20, 1, 90.0),
        SubjectView("msgs", "ann", "p.yaml:3", 10, 2, 80.0),
    ]


def test_pools_are_summed() -> None:
    order = Order("core", "mta1", "anna", 100.0)
    backend = BackendSum(
        "mta1", "127.0.0.1:25", 1, False, (("up", 1), ("down", 1)), 3, 2, 2, ("down by probe: refused",), order
    )
    assert fleet.pools([ONE, TWO], [order, Order("core", "gone", "anna", 1.0)]) == [
        PoolSum("core", "hash", (backend,), 3)
    ]


def test_nothing_to_look_at() -> None:
    assert fleet.troubles([Sighting(ONE, 1.0)], 10.0) == []
    memory = replace(ONE, store="memory")
    assert fleet.troubles([Sighting(memory, 1.0)], 10.0) == []
    assert fleet.troubles([], 10.0) == [Trouble("no worker of any proxy has reported")]


def test_all_that_can_be_wrong() -> None:
    rejected = replace(TWO, store="local", policy=PolicyView("v2", 1.0, ("p.yaml:3:1: no", "p.yaml:4:1: no")))
    seen = [Sighting(ONE, 1.0), Sighting(rejected, 1.0), Sighting(replace(ONE, node="mx3"), 60.0)]
    seen.append(Sighting(replace(ONE, pid=7, time=-1.0), 60.0))  # another one has taken its place
    assert fleet.troubles(seen, 10.0) == [
        Trouble("worker mx3 1 has said nothing for 60 s, and did not say goodbye"),
        Trouble("the limits' store is local for one worker"),
        Trouble(
            "one worker rejected the policies folder as it is now; what was in force before goes on",
            ("p.yaml:3:1: no", "p.yaml:4:1: no"),
        ),
        Trouble("the workers do not have the same policies", ("v1 in one worker", "v2 in one worker")),
        Trouble("backend core/mta1 is down for one worker", ("down by probe: refused",)),
    ]


def test_a_drain_is_wanted_and_no_trouble() -> None:
    drain = BackendView("mta1", "127.0.0.1:25", "drain", 1, 0, 0, 0, False, "operator", "drained by anna", 1.0)
    report = replace(ONE, pools=(PoolView("core", "hash", (drain,)),))
    assert fleet.troubles([Sighting(report, 1.0)], 10.0) == []
    assert fleet.wanted([Order("core", "mta2", "bob", 2.0), Order("core", "mta1", "anna", 1.0)]) == [
        Wanted("core/mta1 takes no sessions: drained by anna", 1.0),
        Wanted("core/mta2 takes no sessions: drained by bob", 2.0),
    ]
