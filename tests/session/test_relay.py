"""The relay's promises: what is kept, what is replayed, what is never sent twice."""

import pytest
from fakes import FakeBackends, ManualClock, ScriptedBackend, ports
from relays import ANN, DATA, DONE, LOST, MAIL, MAILED, TARGET, TOLD_B, greeted, rcpt, relay, said, send

from smtpgate.routing.model import BackendAuth, BackendSettings, BackendTls, Failover
from smtpgate.session.ports import Identity, PoolTarget, Seeker
from smtpgate.session.relay import Relay
from smtpgate.session.streams import Peer
from smtpgate.session.tries import STAGES
from smtpgate.smtp.events import Address, Mail, MailParams, Rcpt, RcptParams


def test_the_connection_is_kept_for_the_next_transaction():
    done = (b"text\r\n.\r\n", b"250 queued\r\n")
    backend = greeted(MAILED, TOLD_B, DATA, done, MAILED, TOLD_B, DATA, done, (b"QUIT\r\n", b""))
    one, world, _, _ = relay(("mta1", backend))
    assert [send(one).code, send(one).code] == [250, 250]
    one.close()
    assert backend.script == []
    assert len(world.leases) == 1


def test_a_kept_connection_is_named_in_the_next_transaction_too():
    done = (b"text\r\n.\r\n", b"250 queued\r\n")
    backend = greeted(MAILED, TOLD_B, DATA, done, MAILED, TOLD_B, (b"DATA\r\n", None))
    one, world, journal, _ = relay(("mta1", backend), ("mta2", greeted(MAILED, TOLD_B, DATA, done)))
    assert (send(one).code, one.backend) == (250, "mta1")
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    assert one.backend == "mta1"
    # Lost at DATA: it is not tried again for this message.
    assert one.data().code == 354
    assert [tried for _, tried in world.asked] == [frozenset(), {"mta1"}]
    assert [line["backend"] for line in journal.of("backend_failed")] == ["mta1"]
    assert one.backend == "mta2"


def test_a_connection_that_died_at_rest_is_dialled_again_even_on_the_same_backend():
    done = (b"text\r\n.\r\n", b"250 queued\r\n")
    died = greeted(MAILED, TOLD_B, DATA, done, (b"", None))
    fresh = greeted(MAILED, TOLD_B, DATA, done)
    one, world, journal, _ = relay(("mta1", died), ("mta1", fresh), failover=Failover(attempts=0))
    assert [send(one).code, send(one).code] == [250, 250]
    assert [tried for _, tried in world.asked] == [frozenset(), frozenset()]
    assert [line["backend"] for line in journal.of("backend_left")] == ["mta1"]
    assert journal.of("backend_failed") == []


def test_a_reply_out_of_turn_between_transactions_is_never_taken_for_the_next_ones():
    done = (b"text\r\n.\r\n", b"250 queued\r\n250 and more\r\n")
    one, world, _, _ = relay(
        ("mta1", greeted(MAILED, TOLD_B, DATA, done)), ("mta1", greeted((b"MAIL FROM:<a@a.test>\r\n", b"550 no\r\n")))
    )
    assert send(one).code == 250
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 550
    assert len(world.leases) == 2


def test_another_identity_gets_another_connection():
    first = greeted(MAILED, TOLD_B, (b"QUIT\r\n", b""))
    second = greeted(MAILED, TOLD_B)
    one, world, _, _ = relay(("mta1", first), ("mta1", second))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    one.reset()
    one.begin(MAIL)
    bob = Identity("192.0.2.7", "[UNAVAILABLE]", "c.test", True, "bob")
    assert one.rcpt(TARGET, bob, rcpt("b")).code == 250
    assert first.closed
    assert len(world.leases) == 2


def test_tries_are_bounded_by_attempts():
    one, world, journal, _ = relay(*[(f"mta{n}", "refused") for n in range(9)], failover=Failover(attempts=2))
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).lines == ("4.4.1 no mail server available, try again later",)
    assert [tried for _, tried in world.asked] == [frozenset(), {"mta0"}, {"mta0", "mta1"}]
    assert len(journal.of("backend_failed")) == 3


def test_tries_are_bounded_by_the_deadline():
    one, world, _, clock = relay(
        *[(f"mta{n}", "refused") for n in range(9)], failover=Failover(attempts=8, deadline=10)
    )
    lease = world.lease

    def slow(*args):
        clock.time += 4
        return lease(*args)

    world.lease = slow
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 451
    assert len(world.asked) == 3


def test_the_time_that_a_client_takes_is_not_counted_as_tries():
    one, world, _, clock = relay(("mta1", greeted(MAILED, TOLD_B, DATA)), failover=Failover(attempts=1, deadline=20))
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    clock.time += 290
    assert one.data().code == 354
    assert len(world.leases) == 1


def test_a_backend_that_is_lost_after_a_long_rest_is_still_replaced():
    second = greeted(MAILED, TOLD_B, DATA)
    one, _, _, clock = relay(
        ("mta1", greeted(MAILED, TOLD_B, (b"DATA\r\n", None))), ("mta2", second), failover=Failover(deadline=20)
    )
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    clock.time += 290
    assert one.data().code == 354
    assert second.script == []


def test_each_try_has_an_equal_part_of_the_time_that_is_left():
    one, world, _, clock = relay(
        *[(f"mta{n}", "refused") for n in range(9)], failover=Failover(attempts=2, deadline=30)
    )
    lease, given = world.lease, []

    def hanging(target, seeker, tried, deadline, attending):
        given.append(deadline.remaining())
        clock.time += deadline.remaining()
        return lease(target, seeker, tried, deadline, attending)

    world.lease = hanging
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 451
    assert given == [10, 10, 10]


def test_a_new_transaction_may_try_again():
    one, _, _, _ = relay(("mta1", "refused"), ("mta1", greeted(MAILED, TOLD_B)), failover=Failover(attempts=0))
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 451
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 451
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250


@pytest.mark.parametrize(("passing", "expected"), [(False, "451 4.4.1"), (True, "554 5.7.1")])
def test_the_backends_own_words_at_the_handshake_are_shown_only_where_asked(passing, expected):
    refusing = ScriptedBackend([(b"", b"554 5.7.1 not you\r\n")])
    one, _, _, _ = relay(("mta1", refusing), settings=BackendSettings(pass_error_message=passing))
    one.begin(MAIL)
    reply = one.rcpt(TARGET, ANN, rcpt("b"))
    assert f"{reply.code} {reply.text}".startswith(expected)
    assert reply.close is passing
    assert refusing.closed


def test_nothing_is_sent_twice_after_the_final_dot():
    silent = greeted(MAILED, TOLD_B, DATA)
    one, world, journal, _ = relay(("mta1", silent), ("mta2", greeted(MAILED)))
    assert send(one).code == 451
    assert one.unknown_outcome
    assert len(world.leases) == 1
    assert journal.of("backend_lost")[0]["outcome"] == "unknown"
    assert silent.closed


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (b"250 2.0.0 queued\r\n", "451 4.3.0 Mail server broke the protocol, try again later"),
        (b"552 5.3.4 too big\r\n", "552 5.3.4 too big"),
        (b"421 4.3.2 bye\r\n", "451 4.4.2 Mail server lost, try again later"),
        (b"25", "451 4.4.2 Mail server lost, try again later"),
        (None, "451 4.4.2 Mail server lost, try again later"),
    ],
)
def test_what_a_backend_says_before_the_end_is_not_its_answer_to_the_end(said, reply):
    backend = greeted(MAILED, TOLD_B, DATA, (b"text\r\n", said))
    one, _, journal, _ = relay(("mta1", backend))
    answer = send(one)
    assert f"{answer.code} {answer.text}" == reply
    assert backend.unexpected == b""  # the end was never sent, so nothing was committed
    assert not one.unknown_outcome
    assert journal.of("backend_lost")[0]["outcome"] == "not delivered"


def test_abort_closes_without_dot_and_without_quit():
    backend = greeted(MAILED, TOLD_B, DATA)
    one, _, _, _ = relay(("mta1", backend))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    one.data()
    one.write(b"half")
    one.abort()
    one.close()
    assert backend.unexpected == b"half"
    assert backend.closed


def test_close_mid_text_says_no_quit():
    backend = greeted(MAILED, TOLD_B, DATA)
    one, _, _, _ = relay(("mta1", backend))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    one.data()
    one.close()
    assert backend.unexpected == b""


def test_a_refused_data_is_followed_by_rset():
    backend = greeted(
        MAILED, TOLD_B, (b"DATA\r\n", b"451 4.3.0 later\r\n"), (b"RSET\r\n", b"250 ok\r\n"), MAILED, TOLD_B
    )
    one, _, _, _ = relay(("mta1", backend))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    assert one.data().text == "4.3.0 later"
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    assert backend.script == []


def test_each_lease_is_released_exactly_as_often_as_it_was_given():
    done = (b"text\r\n.\r\n", b"250 queued\r\n")
    one, world, _, _ = relay(
        ("mta1", greeted((b"MAIL FROM:<a@a.test>\r\n", b"421 bye\r\n"))),
        ("mta2", greeted(MAILED, TOLD_B, DATA, done)),
    )
    assert send(one).code == 250
    one.close()
    one.close()
    assert [lease.released for lease in world.leases] == [1, 1]


def test_smtputf8_without_a_backend_that_offers_it():
    one, _, _, _ = relay(("mta1", greeted()))
    one.begin(Mail(Address("a", "a.test"), MailParams(smtputf8=True), b""))
    assert one.rcpt(TARGET, ANN, rcpt("b")).text.startswith("5.6.7 ")


@pytest.mark.parametrize("reply", [b"354 what\r\n", b"250-a\r\n550 b\r\n", b"999 x\r\n", b"250 one\r\n250 two\r\n"])
def test_replies_that_make_no_sense_end_that_backend(reply):
    one, world, _, _ = relay(
        ("mta1", greeted((b"MAIL FROM:<a@a.test>\r\n", reply))), ("mta2", greeted(MAILED, TOLD_B))
    )
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).text == "ok b"
    assert [lease.backend for lease in world.leases] == ["mta1", "mta2"]


def test_a_text_that_is_given_up_between_chunks_leaves_the_backend():
    """RSET behind half a message: the backend is still reading it, so it is left and never told RSET in the text."""
    half = greeted(MAILED, TOLD_B, DATA, (b"half", b""))
    fresh = greeted(MAILED, TOLD_B)
    one, world, _, _ = relay(("mta1", half), ("mta1", fresh))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    one.data()
    one.write(b"half")
    one.reset()
    assert half.closed
    assert half.unexpected == b""
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    assert len(world.leases) == 2


def test_one_targets_verdict_is_not_the_others():
    refusing = greeted((b"MAIL FROM:<a@a.test>\r\n", b"552 5.3.4 too big for us\r\n"), (b"QUIT\r\n", b""))
    one, world, _, _ = relay(("mta1", refusing), ("mta1", greeted(MAILED, TOLD_B)))
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("x")).code == 552
    assert one.rcpt(PoolTarget("other"), ANN, rcpt("b")).code == 250
    assert [tried for _, tried in world.asked] == [frozenset(), frozenset()]


def test_recipients_that_were_accepted_never_go_elsewhere():
    one, _, _, _ = relay(("mta1", greeted(MAILED, TOLD_B)))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    bob = Identity("192.0.2.7", "[UNAVAILABLE]", "c.test", True, "bob")
    with pytest.raises(AssertionError):
        one.rcpt(TARGET, bob, rcpt("c"))


def utf8(*script):
    return ScriptedBackend([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", b"250-mta\r\n250 SMTPUTF8\r\n"), *script])


@pytest.mark.parametrize(
    "replacement",
    [greeted(), ScriptedBackend([(b"", b"554 5.7.1 not you\r\n")])],
    ids=["without SMTPUTF8", "greeting 554"],
)
def test_a_replacement_that_will_not_do_is_our_trouble_and_no_refusal(replacement):
    mailed = (b"MAIL FROM:<a@a.test> SMTPUTF8\r\n", b"250 ok\r\n")
    settings = BackendSettings(pass_error_message=True)
    one, _, _, _ = relay(
        ("mta1", utf8(mailed, TOLD_B, (b"DATA\r\n", None))), ("mta2", replacement), settings=settings
    )
    one.begin(Mail(Address("a", "a.test"), MailParams(smtputf8=True), b""))
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    assert one.data().code == 451


def test_a_replay_that_is_refused_is_logged_with_who_refused():
    lost = greeted(MAILED, TOLD_B, (b"DATA\r\n", None))
    strict = greeted(MAILED, (b"RCPT TO:<b@b.test>\r\n", b"450 4.2.0 greylisted\r\n"))
    one, _, journal, _ = relay(("mta1", lost), ("mta2", strict))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    assert one.data().text.startswith("4.4.2 ")
    (line,) = journal.of("replay_refused")
    assert (line["backend"], line["reason"]) == ("mta2", "450 4.2.0 greylisted")


def test_a_long_replay_is_sent_in_groups_that_fit_every_buffer():
    many = [rcpt(f"r{n}") for n in range(150)]
    told = [(b"RCPT TO:<r%d@b.test>\r\n" % n, b"250 ok\r\n") for n in range(150)]
    first = greeted(MAILED, *told, (b"DATA\r\n", None))
    groups = [MAILED, *told]
    writes = []

    class Watching(ScriptedBackend):
        def write(self, data, deadline):
            writes.append(data.count(b"\r\n"))
            super().write(data, deadline)

    second = Watching([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", b"250-mta\r\n250 PIPELINING\r\n"), *groups, DATA])
    one, _, _, _ = relay(("mta1", first), ("mta2", second))
    one.begin(MAIL)
    for each in many:
        assert one.rcpt(TARGET, ANN, each).code == 250
    assert one.data().code == 354
    assert writes == [1, 100, 51, 1]


@pytest.mark.parametrize(
    ("end", "reply", "unknown"),
    [
        ((b"text\r\n.\r\n", b"421 4.3.2 shutting down\r\n"), 451, False),
        ((b"text\r\n.\r\n", None), 451, True),
        ((b"text\r\n", b"552 5.3.4 enough\r\n"), 552, False),
    ],
    ids=["421 is a clear no", "silence is not", "a refusal before the dot"],
)
def test_what_is_known_of_an_outcome(end, reply, unknown):
    one, _, _, _ = relay(("mta1", greeted(MAILED, TOLD_B, DATA, end)))
    assert send(one).code == reply
    assert one.unknown_outcome is unknown


INTRODUCED = [
    (b"", b"220 mta\r\n"),
    (b"EHLO mx.test\r\n", b"250-mta\r\n250 XCLIENT ADDR\r\n"),
    (b"XCLIENT ADDR=192.0.2.7\r\n", b"220 ok\r\n"),
]


@pytest.mark.parametrize(
    ("backends", "outage"),
    [
        ([("mta1", greeted(MAILED, (b"RCPT TO:<b@b.test>\r\n", b"550 no\r\n")))], False),
        ([("mta1", greeted((b"MAIL FROM:<a@a.test>\r\n", b"550 no\r\n")))], False),
        ([("mta1", greeted(MAILED, TOLD_B, (b"DATA\r\n", b"451 later\r\n")))], False),
        ([("mta1", greeted(MAILED, TOLD_B, DATA, (b"text\r\n.\r\n", b"554 spam\r\n")))], False),
        ([("mta1", greeted(MAILED, TOLD_B, DATA, (b"text\r\n.\r\n", b"250 queued\r\n")))], False),
        ([], True),
        ([("mta1", "refused")], True),
        ([("mta1", ScriptedBackend([(b"", b"554 5.7.1 not you\r\n")]))], True),
        ([("mta1", greeted(MAILED, TOLD_B, (b"DATA\r\n", None)))], True),
        ([("mta1", greeted(MAILED, TOLD_B, DATA, (b"text\r\n", None)))], True),
        ([("mta1", ScriptedBackend([*INTRODUCED, (b"EHLO c.test\r\n", b"501 5.5.2 no such name\r\n")]))], False),
    ],
)
def test_whose_fault_a_refusal_is(backends, outage):
    one, *_ = relay(*backends, failover=Failover(attempts=0))
    one.begin(MAIL)
    if one.rcpt(TARGET, ANN, rcpt("b")).positive and one.data().code == 354:
        one.write(b"text\r\n")
        one.finish()
    assert one.outage is outage
    one.begin(MAIL)
    assert not one.outage


def test_a_refusal_in_the_same_packet_as_the_354():
    early = greeted(MAILED, TOLD_B, (b"DATA\r\n", b"354 go\r\n552 5.3.4 not that\r\n"))
    one, _, _, _ = relay(("mta1", early))
    assert send(one).code == 552
    assert one.unknown_outcome is False
    assert b".\r\n" not in early.unexpected


def test_a_dial_that_fails_after_a_search_without_success_counts():
    one, world, _, _ = relay(
        ("mta1", "refused"), ("mta1", "refused"), ("mta2", "refused"), failover=Failover(attempts=0)
    )
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    one.reset()
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    assert [tried for _, tried in world.asked] == [frozenset(), frozenset()]


def test_a_login_that_no_backend_can_be_told_is_refused_once():
    offering = ScriptedBackend([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", b"250-mta\r\n250 XCLIENT LOGIN\r\n")])
    one, world, journal, _ = relay(("mta1", offering), ("mta2", greeted()))
    one.begin(MAIL)
    long = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "\u00fc" * 255)
    assert one.rcpt(TARGET, long, rcpt("b")).code == 451
    assert len(world.leases) == 1
    assert len(journal.of("identity_untellable")) == 1


def test_a_kill_inside_quit_still_gives_the_slot_back():
    class Cut(BaseException):
        pass

    class Killing(ScriptedBackend):
        def write(self, data, deadline):
            if data == b"QUIT\r\n":
                raise Cut
            super().write(data, deadline)

    backend = Killing([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", b"250 mta\r\n"), MAILED, TOLD_B])
    one, world, _, _ = relay(("mta1", backend))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    with pytest.raises(Cut):
        one.close()
    assert world.leases[0].released == 1


def test_a_session_that_is_cut_while_it_waits_for_354_says_no_quit():
    class Cut(BaseException):
        pass

    class Killing(ScriptedBackend):
        def read(self, deadline):
            if not self.outgoing and self.received.endswith(b"DATA\r\n"):
                raise Cut
            return super().read(deadline)

    backend = Killing([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", b"250 mta\r\n"), MAILED, TOLD_B])
    one, _, _, _ = relay(("mta1", backend))
    one.begin(MAIL)
    one.rcpt(TARGET, ANN, rcpt("b"))
    with pytest.raises(Cut):
        one.data()
    one.close()
    assert bytes(backend.received).endswith(b"DATA\r\n")


def test_a_transaction_ends_where_it_began_though_its_pool_was_edited_away():
    one, world, _, _ = relay(("mta1", greeted(MAILED, TOLD_B, DATA, DONE)))
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    world.gone = True
    assert one.data().code == 354
    one.write(b"text\r\n")
    assert one.finish().code == 250
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).wire() == b"451 4.3.2 Internal server error\r\n"


# --- how far a lost backend is replaced --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reached"),
    [
        ([(b"MAIL FROM:<a@a.test>\r\n", None)], "rcpt"),
        ([MAILED, (b"RCPT TO:<b@b.test>\r\n", None)], "rcpt"),
        ([MAILED, TOLD_B, (b"DATA\r\n", None)], "data_start"),
        ([MAILED, TOLD_B, DATA, (b"text\r\n", None)], "buffered"),
    ],
    ids=["MAIL", "RCPT", "DATA", "text"],
)
@pytest.mark.parametrize("until", STAGES)
def test_a_backend_is_replaced_until_the_stage_that_the_pool_names(script, reached, until):
    one, world, _, _ = relay(
        ("mta1", greeted(*script)), ("mta2", greeted(MAILED, TOLD_B, DATA, DONE)), failover=Failover(until=until)
    )
    one.begin(MAIL)
    heard = [one.rcpt(TARGET, ANN, rcpt("b"))]
    if heard[-1].positive:
        heard.append(one.data())
    if heard[-1].positive:
        one.write(b"text\r\n")
        heard.append(one.finish())
    replaced = STAGES.index(reached) <= STAGES.index(until)
    assert said(heard[-1]) == ("250 queued" if replaced else LOST)
    assert len(world.leases) == 1 + replaced
    assert [lease.faults != [] for lease in world.leases] == [True, False][: 1 + replaced]


@pytest.mark.parametrize("until", STAGES)
def test_whoever_cannot_be_greeted_is_always_replaced(until):
    refusing = ScriptedBackend([(b"", b"554 5.7.1 not you\r\n")])
    one, _, _, _ = relay(
        ("mta0", "refused"), ("mta1", refusing), ("mta2", greeted(MAILED, TOLD_B)), failover=Failover(until=until)
    )
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250


# --- what a search may cost --------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [[], [MAILED]], ids=["MAIL", "RCPT"])
@pytest.mark.parametrize("rested", [False, True])
def test_a_backend_that_has_accepted_nothing_costs_its_part_of_the_deadline(script, rested):
    """Also on a connection that took a message before: there is nothing to lose either."""
    clock = ManualClock()

    class Hanging(ScriptedBackend):
        def read(self, deadline):
            if not self.outgoing:
                clock.time += deadline.remaining()
            return super().read(deadline)

    before = [MAILED, TOLD_B, DATA, DONE] if rested else []
    hanging = Hanging([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", b"250 mta\r\n"), *before, *script])
    world = FakeBackends(
        clock, [("mta1", hanging), ("mta2", greeted(MAILED, TOLD_B))], failover=Failover(attempts=1, deadline=10)
    )
    one = Relay(ports(clock, world), "mx.test", "s1")
    if rested:
        assert send(one).code == 250
    since = clock.time
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    assert clock.time - since == 5
    assert [tried for _, tried in world.asked] == [frozenset(), {"mta1"}]
    assert world.leases[0].faults == ["backend did not answer in time"]


def test_a_backend_that_has_accepted_a_recipient_has_its_own_time_for_the_next():
    clock = ManualClock()

    class Slow(ScriptedBackend):
        def read(self, deadline):
            if self.received.endswith(b"<c@b.test>\r\n") and self.outgoing:
                clock.time += 100
            return super().read(deadline)

    slow = Slow(
        [
            (b"", b"220 mta\r\n"),
            (b"EHLO mx.test\r\n", b"250 mta\r\n"),
            MAILED,
            TOLD_B,
            (b"RCPT TO:<c@b.test>\r\n", b"250 ok c\r\n"),
        ]
    )
    world = FakeBackends(clock, [("mta1", slow)], failover=Failover(deadline=9))
    one = Relay(ports(clock, world), "mx.test", "s1")
    one.begin(MAIL)
    assert [one.rcpt(TARGET, ANN, rcpt(name)).text for name in "bc"] == ["ok b", "ok c"]


# --- what the breaker is told ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "settings", "told"),
    [
        (ScriptedBackend([(b"", b"554 no\r\n")]), BackendSettings(), ["greeting answered 554 no"]),
        (ScriptedBackend([(b"", b"421 busy\r\n")]), BackendSettings(), ["backend said 421"]),
        (ScriptedBackend([]), BackendSettings(), ["backend did not answer in time"]),
        (
            greeted(),
            BackendSettings(tls=BackendTls("required")),
            ["TLS is required, and the backend offers no STARTTLS"],
        ),
        (greeted((b"AUTH PLAIN", b"535 no\r\n")), BackendSettings(auth=BackendAuth(replay=True)), []),
        (
            greeted((b"AUTH PLAIN", b"535 no\r\n")),
            BackendSettings(auth=BackendAuth(user="u", password="p")),
            ["AUTH answered 535 no"],
        ),
        (greeted((b"MAIL FROM:<a@a.test>\r\n", b"450 later\r\n")), BackendSettings(), []),
    ],
    ids=["554", "421", "silent", "no TLS", "the client's login", "our login", "MAIL refused"],
)
def test_failures_of_a_session_are_told_unless_they_are_the_clients(backend, settings, told):
    proven = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "ann", "plain", b"secret")
    one, world, _, _ = relay(("mta1", backend), settings=settings, failover=Failover(attempts=0))
    one.begin(MAIL)
    assert one.rcpt(TARGET, proven, rcpt("b")).code in (450, 451)
    one.close()
    assert world.leases[0].faults == told
    assert world.leases[0].released == 1


@pytest.mark.parametrize("until", ["data_start", "buffered"])
def test_a_backend_that_refuses_a_text_and_hangs_up_has_not_failed(until):
    """Or two clients with messages that are too big could put it out for all."""
    refusing = greeted(MAILED, TOLD_B, DATA, (b"text\r\n", b"552 5.3.4 too big\r\n"), (b"", None))
    one, world, _, _ = relay(("mta1", refusing), failover=Failover(until=until))
    assert send(one).code == 552
    assert world.leases[0].faults == []
    assert world.leases[0].released == 1


@pytest.mark.parametrize(("reply", "taken"), [(b"250 queued\r\n", 1), (b"554 5.6.0 spam\r\n", 0)])
def test_a_message_that_was_taken_is_told(reply, taken):
    one, world, _, _ = relay(("mta1", greeted(MAILED, TOLD_B, DATA, (b"text\r\n.\r\n", reply))))
    send(one)
    assert world.leases[0].taken == taken
    assert world.leases[0].faults == []


def test_who_seeks_a_backend():
    one, world, _, _ = relay(("mta1", greeted(MAILED, TOLD_B)))
    peer = Peer("192.0.2.7", 5, "192.0.2.1", 25)
    one.begin(MAIL)
    identity = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, "ann", peer=peer)
    one.rcpt(TARGET, identity, Rcpt(Address("b", "B.Test"), RcptParams(), b""))
    assert world.seekers[0] == Seeker("192.0.2.7", "ann", "b.test", peer)
