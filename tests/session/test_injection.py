"""Octets that come before their time, from either side: never carried out, never taken for the answer to anything.

STARTTLS injection (CVE-2011-0411) and response injection (reference/security.md C1, C2, B1), at every split.
"""

from __future__ import annotations

import pytest
from fakes import FakeStream, ManualClock, ScriptedBackend
from hypothesis import given
from hypothesis import strategies as st
from sessions import DATA, ENVELOPE, MAIL, MESSAGE, RCPT, TAKEN, TEXT, Session, backend, greeted

from smtpgate.clock import Deadline
from smtpgate.routing.model import BackendSettings, BackendTls
from smtpgate.session import flow
from smtpgate.session.link import BackendLink, LinkLost
from smtpgate.session.streams import TlsInfo
from smtpgate.smtp.client import BackendProtocolError, ClientProtocol
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.server import ServerSettings

TLS = ServerSettings("mx.test", mechanisms=(), auth_required=False, tls="starttls")
GO = b"220 2.0.0 Start TLS\r\n"

# --- behind the client's STARTTLS -------------------------------------------------------------------------------

INJECTED = [
    b"MAIL FROM:<smug@x.test>\r\n",
    b"MAIL FROM:<smug@x.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nsmug\r\n.\r\n",
    b"NOOP\r\n",
    b"MAIL FROM:<smug",
    b"\r\n",
    b"\x16\x03\x01\x00",
]


class Secured(FakeStream):
    """A client that speaks TLS from the handshake on: what comes afterwards is said inside. As the real stream, it
    forgets what it had read in clear, and hands the rest of what was sent in clear to the handshake, which fails.
    """

    def __init__(self, clear: list[bytes], inside: list[bytes]) -> None:
        super().__init__(clear)
        self.inside = inside

    def start_tls(self, deadline: Deadline) -> TlsInfo:
        self.heard_in_clear = bytes(self.received)
        self.received.clear()
        self.pieces = list(self.inside)
        return super().start_tls(deadline)


@pytest.mark.parametrize("injected", INJECTED)
def test_what_a_client_is_made_to_say_behind_starttls_is_forgotten(injected: bytes) -> None:
    clear = b"EHLO c.test\r\nSTARTTLS\r\n" + injected
    for cut in range(1, len(clear) + 1):
        session = Session([], protocol=TLS)
        stream = session.stream = Secured([clear[:cut], clear[cut:]] if cut < len(clear) else [clear], [b"QUIT\r\n"])
        flow.run(stream, session.settings, session.ports)
        assert stream.heard_in_clear.endswith(GO)
        assert bytes(stream.received) == b"221 2.0.0 Bye\r\n", cut
        assert session.told.transactions == []


@given(
    injected=st.binary(max_size=80), inside=st.sampled_from([b"NOOP\r\n", b"EHLO c\r\n", b"RCPT TO:<b@b.test>\r\n"])
)
def test_the_first_words_inside_tls_are_the_clients_own(injected: bytes, inside: bytes) -> None:
    session, alone = (
        Session([], protocol=TLS),
        Session([inside], protocol=ServerSettings("mx.test", mechanisms=(), auth_required=False)),
    )
    stream = session.stream = Secured([b"STARTTLS\r\n" + injected], [inside])
    flow.run(stream, session.settings, session.ports)
    assert bytes(stream.received) == alone.run()


# --- behind a backend's 220 to STARTTLS -------------------------------------------------------------------------


def starttls(says: bytes, piece: int) -> ScriptedBackend:
    hello = b"250-mta1\r\n250 STARTTLS\r\n"
    return ScriptedBackend([(b"", b"220 mta1\r\n"), (b"EHLO mx.test\r\n", hello), (b"STARTTLS\r\n", says)], piece)


@pytest.mark.parametrize(
    "injected", [b"250 x\r\n", b"250-mta1\r\n250 AUTH PLAIN\r\n", b"2", b"\r\n", b"220 again\r\n", b"421 bye\r\n"]
)
def test_what_stands_behind_a_backends_220_ends_the_connection_before_tls(injected: bytes) -> None:
    says = b"220 go\r\n" + injected
    for piece in range(1, len(says) + 1):
        told = starttls(says, piece)
        session = Session([ENVELOPE + b"QUIT\r\n"], told)
        session.backends.settings = BackendSettings(tls=BackendTls("required"))
        assert b"\r\n451 4.4.1 " in session.run()
        assert told.handshakes == []
        assert bytes(told.received) == b"EHLO mx.test\r\nSTARTTLS\r\n"
        assert told.closed


# --- replies that come too early, or in excess ------------------------------------------------------------------

# What a backend says to each of the commands of one message, and the reply that stands for it at the client.
STEPS: list[tuple[bytes, bytes]] = [
    (MAIL + RCPT, b"250 mail\r\n250 first\r\n"),
    (b"RCPT TO:<c@b.test>\r\n", b"550 second\r\n"),
    (b"DATA\r\n", b"354 go\r\n"),
    (TEXT, b"250 queued\r\n"),
]
HEARD = [b"250 2.0.0 OK", b"250 first", b"550 second", b"354 go", b"250 queued"]
SAYS = [MAIL, RCPT, b"RCPT TO:<c@b.test>\r\n", b"DATA\r\n", TEXT]

EXCESS = st.sampled_from(
    [b"250 extra\r\n", b"354 extra\r\n", b"550 extra\r\n", b"451 extra\r\n", b"250-extra\r\n", b"25"]
)


@given(at=st.integers(0, 2), excess=EXCESS, piece=st.integers(1, 60))
def test_a_reply_in_excess_answers_nothing(at: int, excess: bytes, piece: int) -> None:
    """Said with the reply to a step before the text: the client hears the right answers, then a 4xx, and nothing is
    committed. Between a client's commands there is time for it to arrive.
    """
    steps = [(asked, said + excess if n == at else said) for n, (asked, said) in enumerate(STEPS)]
    told = greeted(*steps)
    told.piece = piece
    session = Session([one for line in SAYS for one in (line, None)][:-1], told)
    lines = session.run().split(b"\r\n")[:-1]
    right = HEARD[: at + 2]
    if at == 0 and lines[1] != HEARD[1]:
        right = right[:1]  # one packet with the replies to MAIL and RCPT: which of three are the two, nobody can tell
    assert lines[: len(right)] == right
    later = lines[len(right)]
    if at == 2 and excess[:3] in {b"550", b"451"}:
        assert later == excess.rstrip()  # behind a 354 it is a lawful refusal of the text
    else:
        assert later.startswith(b"451 ")
        assert b"extra" not in later
    assert session.told.transactions[0].outcome != "delivered"
    assert not bytes(told.received).endswith(b".\r\n")


@given(excess=EXCESS, piece=st.integers(1, 60))
def test_a_reply_behind_the_last_one_spoils_the_connection_and_not_the_message(excess: bytes, piece: int) -> None:
    first = backend(DATA, (TEXT, b"250 2.0.0 Ok: queued as 4F2\r\n" + excess))
    first.piece = piece
    second = backend(DATA, TAKEN)
    session = Session([MESSAGE, None, MESSAGE, None, b"QUIT\r\n"], first, second)
    session.run()
    assert [record.outcome for record in session.told.transactions] == ["delivered", "delivered"]
    assert [lease.backend for lease in session.backends.leases] == ["mta1", "mta2"]
    assert bytes(first.received).count(b"MAIL FROM") == 1


@given(
    said=st.lists(st.sampled_from([b"250 ok\r\n", b"250-a\r\n250 b\r\n", b"550 no\r\n", b"354 go\r\n"]), max_size=6),
    cuts=st.lists(st.integers(1, 12), max_size=40),
)
def test_no_more_replies_than_commands_and_each_to_its_own(said: list[bytes], cuts: list[int]) -> None:
    """The nth reply handed out is the nth that the backend said, and there are never more than commands."""
    client, octets = ClientProtocol(), b"220 mta1\r\n" + b"".join(said)
    expected = [b"220 mta1", *[one.rstrip(b"\r\n").split(b"\r\n")[-1] for one in said]]
    handed: list[Reply] = []
    commands = 1  # the greeting answers our connection
    at = 0
    try:
        for size in [*cuts, len(octets)]:
            client.receive_data(octets[at : at + size])
            at += size
            while (reply := client.next_reply()) is not None:
                handed.append(reply)
                assert len(handed) <= commands
                if not client.awaiting:
                    client.send(b"EHLO mx.test\r\n")
                    commands += 1
    except BackendProtocolError:
        pass  # told apart from every answer
    assert [f"{reply.code} {reply.lines[-1]}".encode() for reply in handed] == expected[: len(handed)]


@pytest.mark.parametrize("late", [b"250 extra\r\n", b"354 extra\r\n", b"421 bye\r\n", None])
def test_what_has_come_before_a_command_is_not_its_answer(late: bytes | None) -> None:
    told = ScriptedBackend([(b"", b"220 mta1\r\n"), (b"EHLO mx.test\r\n", b"250 mta1\r\n"), (b"NEVER", b"")])
    clock = ManualClock()
    link = BackendLink(told, clock)
    link.greeting(Deadline(clock, 5.0))
    assert link.ask(b"EHLO mx.test\r\n")[0].code == 250
    if late is None:
        told.hung_up = True
    else:
        told.outgoing += late
    with pytest.raises(LinkLost, match="backend spoke or left before it was asked") as lost:
        link.ask(MAIL)
    assert bytes(told.received) == b"EHLO mx.test\r\n"
    assert lost.value.garbled == (late is not None and late[:3] != b"421")
    assert (lost.value.farewell and lost.value.farewell.code) == (421 if late and late[:3] == b"421" else None)
