"""One message's text into one backend: which form it takes, and what comes before its commit."""

import pytest
from fakes import ManualClock, ScriptedBackend

from smtpgate.clock import Deadline
from smtpgate.routing.model import BackendSettings
from smtpgate.session import handshake
from smtpgate.session.link import BackendLink, LinkLost
from smtpgate.session.ports import Identity
from smtpgate.session.text import open_text

ENVELOPE = (b"MAIL FROM:<a@a.test>\r\n", b"250 ok\r\n"), (b"RCPT TO:<b@b.test>\r\n", b"250 ok\r\n")
DATA = (b"DATA\r\n", b"354 go\r\n")


def opened(*script, chunked, chunking):
    """A text, and the backend that has accepted its envelope."""
    clock = ManualClock()
    offer = b"250-mta\r\n250 CHUNKING\r\n" if chunking else b"250 mta\r\n"
    stream = ScriptedBackend([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", offer), *ENVELOPE, *script])
    link = BackendLink(stream, clock)
    nobody = Identity("192.0.2.7", "[UNAVAILABLE]", None, False, None)
    handshake.greet(link, "mx.test", "", nobody, BackendSettings(), Deadline(clock, 20.0))
    for command, _ in ENVELOPE:
        link.ask(command)
    return open_text(link, chunked=chunked), stream


@pytest.mark.parametrize(
    ("chunked", "chunking", "pieces", "script"),
    [
        (False, False, [b"a\r\n", b"..\r\n"], [DATA, (b"a\r\n..\r\n.\r\n", b"250 queued\r\n")]),
        (False, True, [b"a\r\n"], [DATA, (b"a\r\n.\r\n", b"250 queued\r\n")]),
        (True, False, [b"a\r\n", b".\r\nb"], [DATA, (b"a\r\n..\r\nb\r\n.\r\n", b"250 queued\r\n")]),
        (True, False, [], [DATA, (b".\r\n", b"250 queued\r\n")]),
        (
            True,
            True,
            [b"a\r\n", b".\r\nb"],
            [
                (b"BDAT 3\r\na\r\n", b"250 ok\r\n"),
                (b"BDAT 4\r\n.\r\nb", b"250 ok\r\n"),
                (b"BDAT 0 LAST\r\n", b"250 queued\r\n"),
            ],
        ),
        (True, True, [], [(b"BDAT 0 LAST\r\n", b"250 queued\r\n")]),
    ],
    ids=["DATA", "DATA to one with CHUNKING", "BDAT to DATA", "empty to DATA", "BDAT to BDAT", "empty to BDAT"],
)
def test_the_form(chunked, chunking, pieces, script):
    text, stream = opened(*script, chunked=chunked, chunking=chunking)
    assert text.start().code == 354
    for piece in pieces:
        text.write(piece)
    assert text.settle() is None
    assert text.commit().text == "queued"
    assert (stream.script, stream.unexpected) == ([], b"")


def test_a_refused_data():
    text, _ = opened((b"DATA\r\n", b"451 4.3.0 later\r\n"), chunked=False, chunking=False)
    assert text.start().text == "4.3.0 later"


def test_no_chunk_goes_into_a_connection_that_has_ended():
    text, stream = opened(chunked=True, chunking=True)
    stream.hung_up = True
    with pytest.raises(LinkLost, match="spoke or left"):
        text.start()


def test_a_refused_chunk_ends_the_text_before_its_commit():
    text, stream = opened((b"BDAT 1\r\nx", b"552 5.3.4 too big\r\n"), chunked=True, chunking=True)
    text.start()
    for _ in range(3):
        text.write(b"x")
    assert text.settle().text == "5.3.4 too big"
    assert stream.unexpected == b""
