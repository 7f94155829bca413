"""Replies from octets: exact values, each malformation, every split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpgate.smtp.replies import Reply
from smtpgate.smtp.replyparser import (
    MAX_REPLY_LINE,
    MAX_REPLY_LINES,
    BackendProtocolError,
    ReplyError,
    ReplyParser,
)


def parse(*pieces: bytes) -> list[Reply]:
    """All replies of the pieces, taken after each piece."""
    parser = ReplyParser()
    replies = []
    for piece in pieces:
        parser.receive_data(piece)
        while (reply := parser.next_reply()) is not None:
            replies.append(reply)
    return replies


def outcome(*pieces: bytes) -> list[Reply] | str:
    try:
        return parse(*pieces)
    except ReplyError as error:
        return error.reason


WELL_FORMED = [
    (b"220 mx.example.com ESMTP\r\n", Reply(220, ("mx.example.com ESMTP",))),
    (b"250\r\n", Reply(250, ("",))),
    (b"250 \r\n", Reply(250, ("",))),
    (b"250-\r\n250\r\n", Reply(250, ("", ""))),
    (b"250-mx\r\n250-SIZE 1\r\n250 HELP\r\n", Reply(250, ("mx", "SIZE 1", "HELP"))),
    (b"599 \ttab\t\r\n", Reply(599, ("\ttab\t",))),
    (b"550 5.1.1 - no - such\r\n", Reply(550, ("5.1.1 - no - such",))),
    ("250 zażółć\r\n".encode(), Reply(250, ("zażółć",))),
    (b"250 \xe9\xff\r\n", Reply(250, ("\udce9\udcff",))),
    (b"250 " + b"x" * (MAX_REPLY_LINE - 6) + b"\r\n", Reply(250, ("x" * (MAX_REPLY_LINE - 6),))),
    (b"250-x\r\n" * (MAX_REPLY_LINES - 1) + b"250 x\r\n", Reply(250, ("x",) * MAX_REPLY_LINES)),
]


@pytest.mark.parametrize(("wire", "reply"), WELL_FORMED)
def test_well_formed(wire: bytes, reply: Reply) -> None:
    assert parse(wire) == [reply]


@pytest.mark.parametrize(("wire", "reply"), WELL_FORMED)
def test_octet_by_octet(wire: bytes, reply: Reply) -> None:
    assert parse(*(wire[i : i + 1] for i in range(len(wire)))) == [reply]


def test_octets_that_are_not_utf8_come_out_as_they_came() -> None:
    wire = b"250-\xc3\xa9 \xe9\r\n250 \x80\r\n"
    assert parse(wire)[0].wire() == wire


MALFORMED = [
    (b"199 x\r\n", r"reply line without a code from 200 to 599: b'199 x\r\n'"),
    (b"600 x\r\n", r"reply line without a code from 200 to 599: b'600 x\r\n'"),
    (b"25 x\r\n", r"reply line without a code from 200 to 599: b'25 x\r\n'"),
    (b"\r\n", r"reply line without a code from 200 to 599: b'\r\n'"),
    (b" 250 x\r\n", r"reply line without a code from 200 to 599: b' 250 x\r\n'"),
    ("25\u0660 x\r\n".encode(), r"reply line without a code from 200 to 599: b'25\xd9\xa0 x\r\n'"),
    (b"HTTP/1.1 400\r\n", r"reply line without a code from 200 to 599: b'HTTP/1.1 400\r\n'"),
    (b"250x\r\n", r"reply code followed by neither space nor hyphen: b'250x\r\n'"),
    (b"2500 x\r\n", r"reply code followed by neither space nor hyphen: b'2500 x\r\n'"),
    (b"250\tx\r\n", r"reply code followed by neither space nor hyphen: b'250\tx\r\n'"),
    (b"250-a\r\n251 b\r\n", r"reply changes its code from 250 to 251: b'251 b\r\n'"),
    (b"220-a\r\n250 b\r\n", r"reply changes its code from 220 to 250: b'250 b\r\n'"),
    (b"250 x\n", r"reply line ends in a bare LF, expected CRLF: b'250 x\n'"),
    (b"250 x\n250 y\r\n", r"reply line ends in a bare LF, expected CRLF: b'250 x\n'"),
    (b"250 x\ry\r\n", r"bare CR in a reply line: b'250 x\ry\r\n'"),
    (b"250 x\r\r\n", r"bare CR in a reply line: b'250 x\r\r\n'"),
    (b"\r250 x\r\n", r"bare CR in a reply line: b'\r250 x\r\n'"),
    (b"250 \0\r\n", r"control octet in a reply line: b'250 \x00\r\n'"),
    (b"250 \x1b[2J\r\n", r"control octet in a reply line: b'250 \x1b[2J\r\n'"),
    (b"250 \x7f\r\n", r"control octet in a reply line: b'250 \x7f\r\n'"),
    (b"250 \x0b\r\n", r"control octet in a reply line: b'250 \x0b\r\n'"),
    (b"250-x\r\n" * (MAX_REPLY_LINES + 1), "reply of more than 100 lines"),
    (
        b"250 " + b"x" * (MAX_REPLY_LINE - 5) + b"\r\n",
        f"reply line of more than 4096 octets: b'250 {'x' * 76}'",
    ),
    (b"2" * MAX_REPLY_LINE, f"reply line of more than 4096 octets: b'{'2' * 80}'"),
]


@pytest.mark.parametrize(("wire", "reason"), MALFORMED)
def test_malformed(wire: bytes, reason: str) -> None:
    assert outcome(wire) == reason
    assert outcome(*(wire[i : i + 1] for i in range(len(wire)))) == reason


@pytest.mark.parametrize("wire", [wire for wire, _ in WELL_FORMED + MALFORMED if len(wire) < 100])
def test_every_split_gives_the_same(wire: bytes) -> None:
    whole = outcome(wire)
    for cut in range(1, len(wire)):
        assert outcome(wire[:cut], wire[cut:]) == whole


def test_replies_in_one_packet_come_one_by_one() -> None:
    parser = ReplyParser()
    parser.receive_data(b"250 a\r\n250-b\r\n250 c\r\n354 go\r\n55")
    assert parser.buffered == 31
    assert parser.next_reply() == Reply(250, ("a",))
    assert parser.buffered == 24
    assert parser.next_reply() == Reply(250, ("b", "c"))
    assert parser.next_reply() == Reply(354, ("go",))
    assert parser.buffered == 2
    assert parser.next_reply() is None
    parser.receive_data(b"0 d\r\n")
    assert parser.next_reply() == Reply(550, ("d",))
    assert parser.buffered == 0


def test_an_unfinished_reply_counts_as_buffered() -> None:
    parser = ReplyParser()
    parser.receive_data(b"250-a\r\n")
    assert parser.next_reply() is None
    assert parser.buffered == 7
    parser.receive_data(b"25")
    assert parser.buffered == 9


def test_an_error_is_for_ever() -> None:
    parser = ReplyParser()
    parser.receive_data(b"nonsense\r\n250 ok\r\n")
    with pytest.raises(ReplyError) as first:
        parser.next_reply()
    parser.receive_data(b"250 ok\r\n")
    with pytest.raises(ReplyError) as second:
        parser.next_reply()
    assert str(second.value) == str(first.value)
    assert isinstance(first.value, BackendProtocolError)
    assert str(first.value) == first.value.reason


def test_replies_before_an_error_are_handed_out() -> None:
    parser = ReplyParser()
    parser.receive_data(b"250 ok\r\nnonsense\r\n")
    assert parser.next_reply() == Reply(250, ("ok",))
    with pytest.raises(ReplyError):
        parser.next_reply()


def test_an_endless_line_is_cut_off_without_its_end() -> None:
    parser = ReplyParser()
    for _ in range(MAX_REPLY_LINE - 1):
        parser.receive_data(b"2")
        assert parser.next_reply() is None
    parser.receive_data(b"2")
    with pytest.raises(ReplyError):
        parser.next_reply()
    parser.receive_data(b"2" * 1_000_000)
    assert parser.buffered == MAX_REPLY_LINE


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([b"2", b"5", b"0", b" ", b"-", b"\r", b"\n", b"\r\n", b"250 ", b"250-", b"x", b"\0"])),
    st.lists(st.integers(0, 40)),
)
def test_any_octets_any_split(words: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(words)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    pieces = [wire[start:end] for start, end in pairwise(edges)]
    assert outcome(*pieces) == outcome(wire)
