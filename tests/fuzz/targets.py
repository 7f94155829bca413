"""What is fuzzed, and what must hold whatever the octets are.

A target is a function of octets that returns nothing, and raises AssertionError where its invariant does not hold;
any other exception is a fault as well. Who makes the octets is of no concern here: hypothesis (test_fuzz.py, for
seconds), libFuzzer (tools/fuzz, for hours) or the files of corpus/TARGET/.
"""

from __future__ import annotations

import importlib.util
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dialogue import play
from textoracle import first_fault, mended, normalize_oracle, oracle

from smtpgate import snapshot
from smtpgate.document import DocumentError, Problem
from smtpgate.drivers import authwire
from smtpgate.session.ports import AuthGranted, AuthRefused, AuthWait
from smtpgate.smtp import command, encode, replies, sasl
from smtpgate.smtp.datascan import ChunkScanner, DataScanner
from smtpgate.smtp.events import Event, Mail, Rcpt
from smtpgate.smtp.extensions import Extensions
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.replyparser import MAX_REPLY_LINES, ReplyError, ReplyParser
from smtpgate.smtp.sasl import MAX_PASSWORD, MAX_TOKEN, MAX_USER
from smtpgate.smtp.server import ServerSettings

CORPUS: Final = Path(__file__).parent / "corpus"
Target = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Cut:
    """Octets that came with the way in which they are to be cut: the first ones say it."""

    lengths: tuple[int, ...]
    octets: bytes

    @classmethod
    def of(cls, data: bytes) -> Cut:
        count = data[0] % 4 + 1 if data else 1
        lengths = tuple(octet % 17 + 1 for octet in data[1 : 1 + count]) or (1,)
        return cls(lengths, data[1 + count :])

    def pieces(self) -> Iterator[bytes]:
        at = turn = 0
        while at < len(self.octets):
            length = self.lengths[turn % len(self.lengths)]
            yield self.octets[at : at + length]
            at, turn = at + length, turn + 1


# --- commands --------------------------------------------------------------------------------------------------

_CATALOGUE: Final = frozenset(
    one for found in vars(replies).values() if isinstance(found, Reply) for one in (found, found.closing())
)
_OFFER: Final = command.Offer(frozenset(("PLAIN", "LOGIN", "CRAM-MD5")), max_size=10_000_000, smtputf8=True)
_EVERYTHING: Final = Extensions.from_ehlo(
    Reply(250, ("mta", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "DSN", "AUTH PLAIN", "PIPELINING"))
)


def command_line(data: bytes) -> None:
    """A line is an event or a reply of the catalogue, never an error; and what is sent on for MAIL and RCPT is one
    line that says the same when it is read again.
    """
    line = data.partition(b"\n")[0]
    parsed = _parsed(line, smtputf8=True)
    if isinstance(parsed, Reply):
        assert parsed in _CATALOGUE
        assert parsed.code >= 500
    elif isinstance(parsed, Mail):
        again = _said_again(encode.mail(parsed.sender, parsed.params, _EVERYTHING), parsed.params.smtputf8)
        assert isinstance(again, Mail)
        assert again.sender == parsed.sender
        ours = (again.params.size, again.params.body, again.params.envid, again.params.ret, again.params.auth)
        auth = None if parsed.params.auth is None else "<>"
        assert ours == (parsed.params.size, parsed.params.body, parsed.params.envid, parsed.params.ret, auth)
    elif isinstance(parsed, Rcpt):
        again = _said_again(encode.rcpt(parsed.recipient, parsed.params, _EVERYTHING), smtputf8=True)
        assert isinstance(again, Rcpt)
        assert (again.recipient, again.params) == (parsed.recipient, parsed.params)


def _parsed(line: bytes, *, smtputf8: bool) -> Event | Reply:
    said = command.split(line)
    if isinstance(said, Reply):
        return said
    if said.verb in (command.Verb.NOOP, command.Verb.VRFY, command.Verb.EXPN, command.Verb.HELP):
        return replies.INVALID_COMMAND  # answered before they are parsed
    if said.verb is command.Verb.BDAT:
        return command.parse_bdat(said)
    return command.parse(said, _OFFER, smtputf8=smtputf8)


def _said_again(wire: bytes, smtputf8: bool) -> Event | Reply:
    assert wire.endswith(b"\r\n")
    assert not re.search(rb"[\r\n\0]", wire[:-2])
    return _parsed(wire[:-2], smtputf8=smtputf8)


_SETTINGS: Final = tuple(
    ServerSettings(
        "mx.test",
        ("SIZE 1000", "CHUNKING", "SMTPUTF8"),
        ("PLAIN", "LOGIN", "CRAM-MD5"),
        auth_required=auth_required,
        max_errors=20,
        max_line=64,
        bare_newline=bare_newline,
    )
    for auth_required in (False, True)
    for bare_newline in ("reject", "normalize")
)
_REPLY_LINES: Final = re.compile(rb"(?:[2-5][0-9]{2}[ -][ -~]*\r\n)*")


def dialogue(data: bytes) -> None:
    """What a server says and takes depends on the octets, not on how they were cut; its replies are lines of ASCII,
    and no message that it takes can be read in two ways.
    """
    cut = Cut.of(data[1:])
    settings = _SETTINGS[data[0] % len(_SETTINGS) if data else 0]
    whole = play(settings, [cut.octets], looks=True)
    assert play(settings, list(cut.pieces()), looks=True) == whole
    assert _REPLY_LINES.fullmatch(whole.out)
    for message in whole.messages:
        bare = message.text.replace(b"\r\n", b"")
        assert not re.search(rb"[\r\n\0]", bare)
        assert message.chunked or b"\r\n.\r\n" not in b"\r\n" + message.text


# --- texts -----------------------------------------------------------------------------------------------------


def data_text(data: bytes) -> None:
    """The scanner says what an oracle says that reads an octet at a time, however the text is cut, in both modes."""
    max_size = (None, 5, 12)[data[0] % 3] if data else None
    cut = Cut.of(data[1:] + b"\r\n.\r\nQUIT\r\n")
    if b"\r\n.\r\n" not in b"\r\n" + cut.octets:
        return
    for normalize in (False, True):
        judge = normalize_oracle if normalize else oracle
        text, rest, size, fault = judge(cut.octets, max_size)
        scanner, got, behind = DataScanner(max_size, normalize=normalize), b"", None
        for piece in cut.pieces():
            if behind is not None:
                behind += piece
                continue
            scanned = scanner.feed(piece)
            got, behind = got + scanned.text, scanned.rest
        assert (behind, scanner.size, scanner.fault) == (rest, size, fault)
        assert text is None or got == text
        bare = got.replace(b"\r\n", b"")
        assert not re.search(rb"[\r\n\0]", bare)
        assert b"\r\n.\r\n" not in b"\r\n" + got


def bdat_text(data: bytes) -> None:
    """The same for the chunks of a message: each octet 0xFF ends one."""
    cut = Cut.of(data)
    chunks = cut.octets.split(b"\xff")
    for normalize in (False, True):
        scanner, got = ChunkScanner(None, normalize=normalize), b""
        for number, chunk in enumerate(chunks, 1):
            scanner.begin(len(chunk))
            for piece in Cut(cut.lengths, chunk).pieces():
                got += scanner.feed(piece)
            got += scanner.end(last=number == len(chunks))
        whole = b"".join(chunks)
        content = mended(whole) if normalize else whole
        fault = first_fault(content, None) if normalize else oracle_of_chunks(whole)
        assert (scanner.fault, scanner.size) == (fault, len(content))
        assert fault is not None or got == content


def oracle_of_chunks(whole: bytes) -> object:
    """As the oracle of DATA, which knows stuffed dots besides: they are no faults."""
    return (
        oracle(whole, None)[3] if b"\r\n.\r\n" not in b"\r\n" + whole else oracle(whole.replace(b".", b"x"), None)[3]
    )


# --- replies ---------------------------------------------------------------------------------------------------


def backend_replies(data: bytes) -> None:
    """The same replies at every cut, up to the same error; each is bounded, has a code of SMTP, and is read the same
    again when it is written.
    """
    cut = Cut.of(data)
    whole, error = _replies([cut.octets])
    assert _replies(list(cut.pieces())) == (whole, error)
    assert error is None or (error.isascii() and error.isprintable())
    for reply in whole:
        assert 200 <= reply.code <= 599
        assert len(reply.lines) <= MAX_REPLY_LINES
        assert not re.search(r"[\r\n\0]", "".join(reply.lines))
        assert _replies([reply.wire()]) == ([reply], None)


def _replies(pieces: list[bytes]) -> tuple[list[Reply], str | None]:
    parser, found = ReplyParser(), []
    try:
        for piece in pieces:
            parser.receive_data(piece)
            while (reply := parser.next_reply()) is not None:
                found.append(reply)
    except ReplyError as error:
        # A line without its end is judged by what has come of it; only that it is refused does not depend on it.
        return found, "refused" if error.reason.isascii() and error.reason.isprintable() else error.reason
    return found, None


# --- logins ----------------------------------------------------------------------------------------------------


def sasl_exchange(data: bytes) -> None:
    """Credentials within their bounds, or a SaslError; and a response has one spelling in base64."""
    name = list(sasl.MECHANISMS)[data[0] % len(sasl.MECHANISMS)] if data else "PLAIN"
    initial, *answers = data[1:].split(b"\n") or [b""]
    decoded = command.decode_response(initial)
    assert decoded is None or b64encode(decoded) == initial or (initial, decoded) == (b"=", b"")
    given = _login(name, initial, answers)
    if given is None:
        return
    if isinstance(given, str):
        assert given.isascii()
        assert given.isprintable()
        return
    token = given.method in ("xoauth2", "oauthbearer")
    assert b"\0" not in given.user + given.password
    assert len(given.user) <= MAX_USER
    assert len(given.password) <= (MAX_TOKEN if token else MAX_PASSWORD)
    assert given.user or given.method in ("external", "oauthbearer")
    assert given.password or given.method == "external"


def _login(name: str, initial: bytes, answers: list[bytes]) -> sasl.Credentials | str | None:
    """What comes out, or why nothing does; None while it asks for more."""
    exchange = sasl.MECHANISMS[name](initial or None, "<1.2@mx.test>")
    try:
        next(exchange)
        for answer in answers:
            exchange.send(answer)
    except StopIteration as done:
        return done.value
    except sasl.SaslError as error:
        return error.reason
    return None


_CODE: Final = re.compile(r"[45][0-9]{2}( [45]\.[0-9]{1,3}\.[0-9]{1,3})?")
_LINE: Final = re.compile(rb"([^:\n]*):([^\n]*?)\r?\n")


def auth_answer(data: bytes) -> None:
    """A response is an answer within its bounds, or a WireError; and one that says no in an Auth-Status, however the
    name is spelt, is never a grant.
    """
    end = authwire.head_end(data)
    for searched in range(0, end or len(data), max(1, len(data) // 8)):
        assert authwire.head_end(data[:searched]) is None
        assert authwire.head_end(data, searched) == end
    if end is None:
        return
    try:
        head = authwire.read_head(data[:end])
        answer = authwire.read_answer(head)
    except authwire.WireError:
        return
    length = authwire.body_length(head)
    assert length is None or 0 <= length <= authwire.MAX_BODY
    assert 0 <= authwire.read_lifetime(head) <= authwire.MAX_LIFETIME
    assert isinstance(answer, AuthGranted | AuthRefused | AuthWait)
    if isinstance(answer, AuthGranted):
        lines = _LINE.findall(data[:end])
        said = [
            value.strip(b" ") for name, value in lines if re.sub(rb"[^a-z0-9]", b"", name.lower()) == b"authstatus"
        ]
        assert all(value in (b"", b"OK") for value in said), said
        assert answer.user is None or (answer.user.isprintable() and len(answer.user.encode()) <= authwire.MAX_USER)
        assert answer.server is None or 1 <= answer.server[1] <= 65535
        assert answer.server is not None or answer.pool is not None or answer.own_routes
    else:
        assert 0 <= answer.wait <= authwire.MAX_WAIT
    if isinstance(answer, AuthRefused):
        assert _CODE.fullmatch(answer.code)
        assert answer.text.isascii()
        assert answer.text.isprintable()
        assert 1 <= len(answer.text) <= authwire.MAX_TEXT


# --- policies --------------------------------------------------------------------------------------------------


def policy_file(data: bytes) -> None:
    """A folder is a snapshot, the same one each time, or a list of problems with places in the file."""
    first, second = _built(data), _built(data)
    if isinstance(first, snapshot.Snapshot):
        assert isinstance(second, snapshot.Snapshot)
        assert second.version_hash == first.version_hash
        return
    assert second == first
    assert first
    for problem in first:
        assert 1 <= problem.line <= len(data.splitlines()) + 1
        assert problem.column >= 1
        assert problem.message.isprintable()


def _built(data: bytes) -> snapshot.Snapshot | tuple[Problem, ...]:
    try:
        return snapshot.build([("policies/fuzzed.yaml", data)], {})
    except DocumentError as error:
        return tuple(error.problems)


TARGETS: Final[dict[str, Target]] = {
    "command": command_line,
    "dialogue": dialogue,
    "datascan": data_text,
    "chunkscan": bdat_text,
    "replyparser": backend_replies,
    "sasl": sasl_exchange,
    "authwire": auth_answer,
    "policy": policy_file,
}

if importlib.util.find_spec("smtpgate.smtp.proxyheader") is not None:
    from fuzz.proxytarget import proxy_header

    TARGETS["proxyheader"] = proxy_header


def seeds(name: str) -> list[bytes]:
    """The corpus of a target, in the order of its files' names."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
