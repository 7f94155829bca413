"""drivers/tlslayer.py: two of them talk to each other, without a socket."""

from __future__ import annotations

import ssl

import pytest
from certificates import Authority

from smtpgate.drivers import tlslayer
from smtpgate.drivers.tlslayer import TlsFault, TlsLayer

RECORD = 1 << 14
"""Octets of clear text that a record has at most (RFC 8446 section 5.1)."""
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("mta.test"))
    return context


@pytest.fixture
def client_context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca))


class Pair:
    """A server's layer and a client's, and the wire between them."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, name: str = "mta.test") -> None:
        self.server = TlsLayer(server, server_side=True)
        self.client = TlsLayer(client, server_hostname=name)

    def shake(self) -> None:
        """Until both are done. Raises TlsFault."""
        done = {self.client: False, self.server: False}
        for one, other in [(self.client, self.server), (self.server, self.client)] * 4:
            done[one] = done[one] or one.shake()
            if records := one.records():
                other.feed(records)
        assert all(done.values())


@pytest.fixture
def pair(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> Pair:
    made = Pair(server_context, client_context)
    made.shake()
    assert made.client.read(100) is None  # tickets
    return made


def test_what_is_said_is_heard(pair: Pair) -> None:
    pair.server.feed(pair.client.write(b"EHLO c.test\r\n"))
    assert pair.server.more
    assert pair.server.read(100) == b"EHLO c.test\r\n"
    assert not pair.server.more
    assert pair.server.read(100) is None
    assert (pair.server.protocol, pair.server.cipher) == (pair.client.protocol, pair.client.cipher)


def test_at_every_split(pair: Pair) -> None:
    """Of records, and of where what is in them is asked for."""
    for cut in range(60):
        records = pair.client.write(b"MAIL\r\n") + pair.client.write(b"RCPT\r\n")
        heard = b""
        for piece in (records[:cut], records[cut:]):
            if piece:
                pair.server.feed(piece)
            heard += pair.server.read(100) or b""
        assert heard == b"MAIL\r\nRCPT\r\n"


def test_many_records_are_read_at_once_and_no_more_than_is_asked_for(pair: Pair) -> None:
    text = bytes(range(256)) * (3 * RECORD // 256)
    pair.server.feed(pair.client.write(text))
    first = pair.server.read(2 * RECORD + 5)
    assert first == text[: 2 * RECORD + 5]
    assert pair.server.more
    assert pair.server.read(10 * RECORD) == text[2 * RECORD + 5 :]
    assert not pair.server.more


@pytest.mark.parametrize("cleanly", [True, False])
def test_the_end_comes_behind_what_was_said_and_stays(pair: Pair, cleanly: bool) -> None:
    pair.server.feed(pair.client.write(b"QUIT\r\n") + (pair.client.end() if cleanly else b""))
    if not cleanly:
        pair.server.feed(b"")
    assert pair.server.read(100) == b"QUIT\r\n"
    assert pair.server.more
    assert [pair.server.read(100) for _ in range(2)] == [b"", b""]
    assert pair.server.more  # there is nothing to wait for


def test_an_end_in_the_middle_of_a_record(pair: Pair) -> None:
    pair.server.feed(pair.client.write(b"QUIT\r\n")[:-1])
    pair.server.feed(b"")
    assert pair.server.read(100) == b""


def test_what_was_said_before_a_broken_record_is_heard_and_the_fault_stays(pair: Pair) -> None:
    broken = bytearray(pair.client.write(b"RSET\r\n"))
    broken[-1] ^= 1
    pair.server.feed(pair.client.write(b"NOOP\r\n")[:0] + bytes(broken))
    for _ in range(2):
        with pytest.raises(TlsFault, match=r"\ADECRYPTION_FAILED_OR_BAD_RECORD_MAC\Z"):
            pair.server.read(100)
        assert pair.server.more
    with pytest.raises(TlsFault):
        pair.server.write(b"250 ok\r\n")
    pair.client.feed(pair.server.end())  # the alert
    with pytest.raises(TlsFault, match="BAD_RECORD_MAC"):
        pair.client.read(100)


def test_a_broken_record_behind_a_good_one(pair: Pair) -> None:
    good, broken = pair.client.write(b"NOOP\r\n"), bytearray(pair.client.write(b"RSET\r\n"))
    broken[-1] ^= 1
    pair.server.feed(good + bytes(broken))
    assert pair.server.read(100) == b"NOOP\r\n"
    assert pair.server.more
    with pytest.raises(TlsFault):
        pair.server.read(100)


def test_what_comes_with_the_handshake_is_not_lost(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    pair = Pair(server_context, client_context)
    assert not pair.client.shake()
    pair.server.feed(pair.client.records())
    assert not pair.server.shake()
    pair.client.feed(pair.server.records())
    assert pair.client.shake()
    pair.server.feed(pair.client.write(b"EHLO c.test\r\n"))  # behind its Finished
    assert pair.server.shake()
    assert pair.server.more
    assert pair.server.read(100) == b"EHLO c.test\r\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_only_a_server_of_1_3_may_keep_its_last_records_for_its_first_words(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client_context.minimum_version = client_context.maximum_version = version
    pair = Pair(server_context, client_context)
    pair.shake()
    assert pair.client.is_urgent
    assert pair.server.is_urgent is (version is ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_taken_up(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    client_context.minimum_version = client_context.maximum_version = version
    pair = Pair(server_context, client_context)
    pair.shake()
    assert pair.client.read(100) is None
    session = pair.client.session()
    assert session is not None
    again = Pair(server_context, client_context)
    again.client = TlsLayer(client_context, server_hostname="mta.test", session=session)
    again.shake()
    assert again.client._tls.session_reused


def test_a_handshake_that_fails_has_words_and_an_alert(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    pair = Pair(server_context, client_context, "mx.test")
    with pytest.raises(TlsFault, match=r"\Acertificate not believed: Hostname mismatch, certificate is not valid"):
        pair.shake()
    pair.server.feed(pair.client.records())
    with pytest.raises(TlsFault, match="ALERT_BAD_CERTIFICATE"):
        pair.server.shake()


def test_a_certificate_cannot_be_believed_for_no_name(client_context: ssl.SSLContext) -> None:
    with pytest.raises(ValueError, match="the peer has none"):
        TlsLayer(client_context)


@pytest.mark.parametrize(
    ("said", "reason"), [(b"", "peer closed the connection"), (b"220 hello\r\n", "WRONG_VERSION_NUMBER")]
)
def test_who_answers_a_handshake_with_something_else(
    client_context: ssl.SSLContext, said: bytes, reason: str
) -> None:
    layer = TlsLayer(client_context, server_hostname="mta.test")
    assert not layer.shake()
    layer.feed(said)
    with pytest.raises(TlsFault, match=rf"\A{reason}\Z"):
        layer.shake()


def test_who_makes_us_answer_and_takes_no_answer_is_cut(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlslayer, "MAX_UNSENT", 10)
    pair.server._outgoing.write(b"x" * 11)  # what OpenSSL answers by itself; Python's client asks for nothing
    pair.server.feed(pair.client.write(b"NOOP\r\n"))
    with pytest.raises(TlsFault, match="takes none"):
        pair.server.read(100)


def test_an_end_may_be_said_twice(pair: Pair) -> None:
    assert pair.server.end() != b""
    assert pair.server.end() == b""
    pair.client.feed(b"")
    assert pair.client.read(100) == b""
