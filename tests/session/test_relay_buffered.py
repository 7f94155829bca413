"""A message that is kept while it is sent: said again to another backend, or given up with nothing committed."""

import pytest
from fakes import FakeSpools, ScriptedBackend
from relays import ANN, DATA, DONE, LOST, MAIL, MAILED, TARGET, TOLD_B, greeted, rcpt, relay, said, send

from smtpgate.routing.model import Failover
from smtpgate.session.relay import Relay

BUFFERED = Failover(until="buffered", attempts=2, buffer=12345)


def test_the_text_so_far_is_said_again_and_the_client_notices_nothing():
    dying = greeted(MAILED, TOLD_B, DATA, (b"one\r\n", None))
    second = greeted(MAILED, TOLD_B, DATA, (b"one\r\ntwo\r\nthree\r\n.\r\n", b"250 queued\r\n"))
    spools = FakeSpools()
    one, world, journal, _ = relay(("mta1", dying), ("mta2", second), failover=BUFFERED, spool=spools)
    one.begin(MAIL)
    assert [one.rcpt(TARGET, ANN, rcpt("b")).code, one.data().code] == [250, 354]
    for line in (b"one\r\n", b"two\r\n", b"three\r\n"):
        one.write(line)
    assert said(one.finish()) == "250 queued"
    assert (one.backend, one.replays, one.unknown_outcome) == ("mta2", 1, False)
    [(memory, spool)] = spools.made
    assert (memory, spool.closed) == (12345, True)
    assert [line["outcome"] for line in journal.of("backend_lost")] == ["not delivered"]
    assert [(lease.released, lease.taken) for lease in world.leases] == [(1, 0), (0, 1)]


def test_a_replacement_that_dies_too_is_replaced_in_its_turn():
    dying = (MAILED, TOLD_B, DATA, (b"text\r\n", None))
    one, world, _, _ = relay(
        ("mta1", greeted(*dying)),
        ("mta2", greeted(*dying)),
        ("mta3", greeted(MAILED, TOLD_B, DATA, DONE)),
        failover=BUFFERED,
    )
    assert said(send(one)) == "250 queued"
    assert [tried for _, tried in world.asked] == [frozenset(), {"mta1"}, {"mta1", "mta2"}]
    assert one.replays == 2


def test_tries_for_a_kept_message_are_bounded_too():
    dying = (MAILED, TOLD_B, DATA, (b"text\r\n", None))
    one, world, _, _ = relay(*[(f"mta{n}", greeted(*dying)) for n in range(9)], failover=BUFFERED)
    assert said(send(one)) == "451 4.4.2 Mail server lost, try again later"
    assert [lease.released for lease in world.leases] == [1, 1, 1]


@pytest.mark.parametrize(
    ("replacement", "reply"),
    [
        (greeted(MAILED, (b"RCPT TO:<b@b.test>\r\n", b"450 4.2.0 greylisted\r\n")), LOST),
        (greeted(MAILED, TOLD_B, (b"DATA\r\n", b"451 4.3.0 later\r\n")), LOST),
        (greeted(MAILED, TOLD_B, DATA, (b"text\r\n", b"552 5.3.4 too big\r\n")), "552 5.3.4 too big"),
    ],
    ids=["refuses the recipient", "refuses DATA", "refuses the text"],
)
def test_a_replacement_that_will_not_have_a_kept_message(replacement, reply):
    one, _, _, _ = relay(
        ("mta1", greeted(MAILED, TOLD_B, DATA, (b"text\r\n", None))),
        ("mta2", replacement),
        ("mta3", greeted(MAILED, TOLD_B, DATA, DONE)),
        failover=BUFFERED,
    )
    assert said(send(one)) == reply


@pytest.mark.parametrize("end", [None, b"421 4.3.2 bye\r\n", b""], ids=["gone", "421", "silent"])
def test_behind_the_final_dot_a_kept_message_is_not_sent_again(end):
    one, world, _, _ = relay(
        ("mta1", greeted(MAILED, TOLD_B, DATA, (b"text\r\n.\r\n", end))), ("mta2", greeted()), failover=BUFFERED
    )
    assert said(send(one)) == LOST
    assert len(world.leases) == 1
    assert one.unknown_outcome is (end != b"421 4.3.2 bye\r\n")


def test_a_full_disk_is_told_at_the_end_and_nothing_is_committed():
    backend = greeted(MAILED, TOLD_B, DATA)
    spools = FakeSpools(full=8)
    one, world, journal, _ = relay(("mta1", backend), failover=BUFFERED, spool=spools)
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    one.data()
    for _ in range(3):
        one.write(b"text\r\n")
    assert said(one.finish()) == "452 4.3.1 Insufficient system storage"
    assert backend.unexpected == b"text\r\n"
    assert backend.closed
    assert spools.made[0][1].closed
    assert world.leases[0].faults == []  # our disk says nothing of the backend
    assert journal.of("spool_failed")[0]["reason"] == "[Errno 28] No space left on device"
    one.begin(MAIL)
    assert one._verdict is None


@pytest.mark.parametrize("end", [Relay.abort, Relay.reset, Relay.close], ids=["abort", "reset", "close"])
def test_a_message_that_is_given_up_is_not_kept(end):
    spools = FakeSpools()
    one, _, _, _ = relay(("mta1", greeted(MAILED, TOLD_B, DATA)), failover=BUFFERED, spool=spools)
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    one.data()
    end(one)
    assert spools.made[0][1].closed


def test_without_buffered_nothing_is_kept():
    spools = FakeSpools()
    one, _, _, _ = relay(("mta1", greeted(MAILED, TOLD_B, DATA, DONE)), spool=spools)
    assert send(one).code == 250
    assert spools.made == []


def test_chunks_become_data_where_the_replacement_has_no_chunking_and_the_other_way_round():
    def chunking(*script):
        offer = b"250-mta\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
        return ScriptedBackend([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", offer), MAILED, TOLD_B, *script])

    content = [b"one\r\n", b".\r\n", b"end"]
    chunks = [(b"BDAT %d\r\n" % len(piece) + piece, b"250 ok\r\n") for piece in content]
    backends = [
        ("mta1", chunking(chunks[0], (b"BDAT 3\r\n.\r\n", None))),
        ("mta2", greeted(MAILED, TOLD_B, DATA, (b"one\r\n..\r\nend", None))),
        ("mta3", chunking(*chunks, (b"BDAT 0 LAST\r\n", b"250 queued\r\n"))),
    ]
    one, _, _, _ = relay(*backends, failover=BUFFERED)
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    assert one.data(chunked=True).code == 354
    for piece in content:
        one.write(piece)
    assert said(one.finish()) == "250 queued"
    assert [backend.unexpected for _, backend in backends] == [b"", b"", b""]
