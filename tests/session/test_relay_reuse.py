"""Connections to backends that serve one session after the other: what is inherited, and who is blamed."""

import pytest
from fakes import FakeBackends, ListJournal, ManualClock, ScriptedBackend, ports
from relays import ANN, DATA, DONE, MAIL, MAILED, TARGET, TOLD_B, greeted, rcpt, send

from smtpgate.routing.model import Failover
from smtpgate.session.ports import Identity
from smtpgate.session.relay import Relay

BOB = Identity("192.0.2.8", "[UNAVAILABLE]", "d.test", True, "bob")
RSET = (b"RSET\r\n", b"250 ok\r\n")


def two_sessions(*backends, **kwargs):
    """What two sessions, one after the other, are handed."""
    clock = ManualClock()
    world = FakeBackends(clock, backends, keeping=True, **kwargs)
    journal = ListJournal()
    own = ports(clock, world, journal=journal)
    return Relay(own, "mx.test", "s1"), Relay(own, "mx.test", "s2"), world, journal


def test_a_connection_that_took_a_message_serves_another_session():
    backend = greeted(MAILED, TOLD_B, DATA, DONE, RSET, MAILED, TOLD_B, DATA, DONE)
    first, second, world, _ = two_sessions(("mta1", backend))
    assert send(first).code == 250
    first.close()
    assert (second.backend, send(second).code, second.backend) == (None, 250, "mta1")
    second.close()
    assert (backend.script, backend.unexpected, backend.closed) == ([], b"", False)
    assert [lease.released for lease in world.leases] == [1, 1]


@pytest.mark.parametrize(
    "script",
    [
        [MAILED, TOLD_B],
        [MAILED, (b"RCPT TO:<b@b.test>\r\n", b"550 no\r\n")],
        [MAILED, TOLD_B, (b"DATA\r\n", b"451 no\r\n")],
        [MAILED, TOLD_B, DATA, (b"text\r\n.\r\n", b"554 spam\r\n")],
        [MAILED, TOLD_B, DATA, DONE, MAILED, (b"RCPT TO:<b@b.test>\r\n", b"550 no\r\n")],
        [MAILED, TOLD_B, DATA, (b"text\r\n.\r\n", b"250 queued\r\n250 and more\r\n")],
    ],
    ids=["open", "recipient refused", "DATA refused", "text refused", "refused after one", "talks out of turn"],
)
def test_no_session_inherits_anything_but_a_taken_message(script):
    first, second, world, _ = two_sessions(("mta1", greeted(*script)), ("mta2", greeted(MAILED, TOLD_B)))
    for _ in range(script.count(MAILED)):
        first.begin(MAIL)
        told = first.rcpt(TARGET, ANN, rcpt("b")).positive
        if told and len(script) > 2 and first.data().positive:
            first.write(b"text\r\n")
            first.finish()
    first.close()
    second.begin(MAIL)
    assert second.rcpt(TARGET, BOB, rcpt("b")).code == 250
    assert [lease.backend for lease in world.leases] == ["mta1", "mta2"]


@pytest.mark.parametrize("last", [None, b"421 4.4.2 idle too long\r\n"])
def test_a_kept_connection_that_failed_is_dialled_anew_and_blamed_on_nobody(last):
    dying = greeted(MAILED, TOLD_B, DATA, DONE, (b"RSET\r\n", last))
    first, second, world, _ = two_sessions(
        ("mta1", dying), ("mta1", greeted(MAILED, TOLD_B)), failover=Failover(attempts=0)
    )
    send(first)
    first.close()
    second.begin(MAIL)
    assert second.rcpt(TARGET, BOB, rcpt("b")).code == 250
    assert [tried for _, tried in world.asked] == [frozenset()] * 3
    assert [lease.faults for lease in world.leases] == [[]] * 3
    assert [lease.released for lease in world.leases] == [1, 1, 0]


def test_a_kept_connection_that_is_there_and_silent_is_a_failed_backend():
    silent = greeted(MAILED, TOLD_B, DATA, DONE)
    first, second, world, _ = two_sessions(("mta1", silent), ("mta2", greeted(MAILED, TOLD_B)))
    send(first)
    first.close()
    second.begin(MAIL)
    assert second.rcpt(TARGET, BOB, rcpt("b")).code == 250
    assert [tried for _, tried in world.asked] == [frozenset(), frozenset(), {"mta1"}]
    assert world.leases[1].faults == ["backend did not answer in time"]


def test_a_client_that_is_refused_in_person_does_not_use_up_the_kept_connections():
    offer = b"250-mta\r\n250 XCLIENT ADDR HELO\r\n"
    to_bob = (b"XCLIENT ADDR=192.0.2.8 HELO=d.test\r\n", b"220 ok\r\n")

    def kept():
        return ScriptedBackend(
            [
                (b"", b"220 mta\r\n"),
                (b"EHLO mx.test\r\n", offer),
                (b"XCLIENT ADDR=192.0.2.7 HELO=c.test\r\n", b"220 ok\r\n"),
                (b"EHLO c.test\r\n", offer),
                *(MAILED, TOLD_B, DATA, DONE, to_bob, (b"EHLO d.test\r\n", b"501 5.5.2 what a name\r\n")),
            ]
        )

    clock = ManualClock()
    world = FakeBackends(clock, [(f"mta{n}", kept()) for n in (1, 2, 3)], keeping=True, failover=Failover(attempts=1))
    own = ports(clock, world)
    open_ones = [Relay(own, "mx.test", f"s{n}") for n in range(3)]
    for one in open_ones:
        assert send(one).code == 250
    for one in open_ones:
        one.close()
    bob = Relay(own, "mx.test", "bob")
    bob.begin(MAIL)
    assert bob.rcpt(TARGET, BOB, rcpt("b")).code == 451
    assert not bob.outage
    assert [tried for _, tried in world.asked[3:]] == [frozenset(), {"mta1"}]
    assert [lease.faults for lease in world.leases] == [[]] * 5


def test_the_replay_after_a_loss_may_use_a_kept_connection_too():
    kept = greeted(MAILED, TOLD_B, DATA, DONE, RSET, MAILED, TOLD_B, DATA, DONE)
    first, second, world, _ = two_sessions(
        ("mta1", kept), ("mta2", greeted(MAILED, TOLD_B, (b"DATA\r\n", None))), failover=Failover()
    )
    second.begin(MAIL)
    send(first)
    world.keeping = False
    assert second.rcpt(TARGET, BOB, rcpt("b")).code == 250
    world.keeping = True
    first.close()
    assert second.data().code == 354
    second.write(b"text\r\n")
    assert second.finish().code == 250
    assert (second.backend, kept.script) == ("mta1", [])
