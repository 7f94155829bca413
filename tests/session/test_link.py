"""The conversation with a backend: what every kind of fault becomes, and the chunks of a text."""

import pytest
from fakes import ManualClock, ScriptedBackend

from smtpgate.clock import Deadline
from smtpgate.routing.model import BackendSettings
from smtpgate.session import handshake
from smtpgate.session.link import MAX_UNANSWERED, BackendLink, LinkLost
from smtpgate.session.ports import Identity
from smtpgate.smtp.encode import RSET

NOBODY = Identity("192.0.2.7", "[UNAVAILABLE]", "c.test", True, None)


def link(*script, offers=()):
    """A link that has been greeted."""
    clock = ManualClock()
    lines = ["mta1", *offers]
    wire = "".join(f"250{'-' if one is not lines[-1] else ' '}{one}\r\n" for one in lines)
    stream = ScriptedBackend([(b"", b"220 mta1\r\n"), (b"EHLO mx.test\r\n", wire.encode()), *script])
    one = BackendLink(stream, clock)
    handshake.greet(one, "mx.test", "", NOBODY, BackendSettings(), Deadline(clock, 20.0))
    return one, stream


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (None, "closed the connection"),
        (b"421 4.3.2 down\r\n", "421"),
        (b"250 ok\n", "line"),
        (b"999 what\r\n", "999"),
        (b"250-a\r\n251 b\r\n", "250"),
        (b"", "did not answer in time"),
    ],
)
def test_every_fault_of_a_backend_is_a_lost_link(says, reason):
    one, _ = link((RSET, says))
    with pytest.raises(LinkLost, match=reason) as lost:
        one.ask(RSET)
    assert lost.value.silent is (says == b"")


def test_the_421_is_kept_as_farewell():
    one, _ = link((RSET, b"421 4.3.2 down\r\n"))
    with pytest.raises(LinkLost) as lost:
        one.ask(RSET)
    assert lost.value.farewell.wire() == b"421 4.3.2 down\r\n"


@pytest.mark.parametrize("surplus", [b"250 x\r\n", b"550 x\r\n", b"354 x\r\n", b"x\r\n"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_group_with_more_replies_than_commands_has_no_answers(place, surplus):
    """Passed on, the third would be the second's: a recipient refused that was not."""
    (mail, taken), (rcpt, _) = ENVELOPE
    says = [taken, taken]
    says.insert(place, surplus)
    one, _ = link((mail + rcpt, b"".join(says)), offers=["PIPELINING"])
    with pytest.raises(LinkLost) as lost:
        one.ask(mail, rcpt)
    assert lost.value.garbled


@pytest.mark.parametrize("behind", [b"421 4.7.0 too many errors\r\n", b"421", b"25"])
def test_what_is_no_reply_yet_or_a_farewell_leaves_a_group_its_answers(behind):
    (mail, taken), (rcpt, _) = ENVELOPE
    one, stream = link((mail + rcpt, taken + b"550 nobody\r\n" + behind), (b"", None), offers=["PIPELINING"])
    assert [reply.code for reply in one.ask(mail, rcpt)] == [250, 550]
    with pytest.raises(LinkLost) as lost:
        one.ask(RSET)
    assert (lost.value.farewell is not None) is (behind[-1:] == b"\n")
    assert bytes(stream.received).endswith(rcpt)


# --- chunks ------------------------------------------------------------------------------------------------------

ENVELOPE = (b"MAIL FROM:<a@a.test>\r\n", b"250 ok\r\n"), (b"RCPT TO:<b@b.test>\r\n", b"250 ok\r\n")


def chunking(*script, pipelining=True):
    one, stream = link(*ENVELOPE, *script, offers=["CHUNKING", *(["PIPELINING"] if pipelining else [])])
    for command, _ in ENVELOPE:
        one.ask(command)
    return one, stream


def chunk(size, answer=b"250 ok\r\n"):
    return (b"BDAT %d\r\n" % size + b"x" * size, answer)


LAST = (b"BDAT 0 LAST\r\n", b"250 queued\r\n")


@pytest.mark.parametrize("pipelining", [True, False])
def test_chunks_and_their_end(pipelining):
    one, stream = chunking(chunk(5), chunk(3), LAST, pipelining=pipelining)
    assert [one.write_chunk(b"xxxxx"), one.write_chunk(b"xxx"), one.settle_chunks()] == [None, None, None]
    assert one.end_chunks().text == "queued"
    assert stream.script == []
    assert one.resting


def test_a_server_without_pipelining_is_asked_after_every_chunk():
    one, _ = chunking(chunk(5, b""), pipelining=False)
    assert one.write_chunk(b"xxxxx") is None
    with pytest.raises(LinkLost, match="in time"):
        one.write_chunk(b"xxx")


def test_the_replies_that_are_not_read_yet_fit_every_buffer():
    one, stream = chunking(*[chunk(1, b"")] * MAX_UNANSWERED)
    for _ in range(MAX_UNANSWERED):
        assert one.write_chunk(b"x") is None
    with pytest.raises(LinkLost, match="in time"):
        one.write_chunk(b"x")
    assert stream.unexpected == b""


def test_a_refused_chunk_is_the_messages_refusal_and_nothing_more_is_written():
    one, stream = chunking(chunk(1, b""), chunk(1, b"250 ok\r\n552 5.3.4 too big\r\n"), (RSET, b"250 ok\r\n"))
    assert one.write_chunk(b"x") is None
    assert one.write_chunk(b"x") is None
    assert one.write_chunk(b"x").text == "5.3.4 too big"
    assert one.settle_chunks() is None
    assert not one.resting
    assert one.ask(RSET)[0].positive
    assert one.resting
    assert stream.unexpected == b""


def test_all_chunks_have_their_answers_before_the_end_is_sent():
    one, stream = chunking(
        chunk(1, b""), chunk(1, b""), (b"", b"250 ok\r\n"), (b"", b"451 4.3.0 no\r\n503 5.5.1 no\r\n")
    )
    for _ in range(2):
        one.write_chunk(b"x")
    assert one.settle_chunks().text == "4.3.0 no"
    assert stream.unexpected == b""


def test_what_was_said_with_no_chunk_unanswered_is_out_of_turn():
    one, _ = chunking(chunk(1, b"250 ok\r\n250 again\r\n"))
    one.write_chunk(b"x")
    assert one.settle_chunks() is None
    with pytest.raises(LinkLost, match="unsolicited"):
        one.end_chunks()
