"""drivers.listenertls and drivers.peek against Python's own TLS client, on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import certificates
import gevent
import gevent.socket
import pytest
from cryptography.hazmat.primitives import serialization
from fakes import ListJournal
from turns import turns

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers import listenertls
from smtpgate.drivers.listenertls import (
    CertificateFiles,
    ListenerTls,
    TlsSettings,
    certificate_names,
    keep_fresh,
)
from smtpgate.drivers.peek import PeerGone, peek, take
from smtpgate.drivers.stream import SocketStream
from smtpgate.session.streams import ClientCertificate, StreamLost, TlsInfo


def soon(seconds: float = 5.0) -> Deadline:
    return Deadline(SystemClock(), seconds)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    return certificates.Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def mx(authority: certificates.Authority) -> certificates.Pair:
    return authority.sign("mx", "mx.example.com", "*.mail.example.com")


@pytest.fixture(scope="module")
def other(authority: certificates.Authority) -> certificates.Pair:
    return authority.sign("other", "other.example.net")


def settings(*pairs: certificates.Pair, **more: Any) -> TlsSettings:
    return TlsSettings(tuple(CertificateFiles(pair.cert, pair.key) for pair in pairs), **more)


@contextmanager
def served(tls: ListenerTls) -> Iterator[tuple[Callable[..., Any], list[TlsInfo | Exception]]]:
    """connect(context, name) -> what a client's handshake gives; what the server saw of each."""
    seen: list[TlsInfo | Exception] = []
    listening = gevent.socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()

    def serve() -> None:
        while True:
            sock, _ = listening.accept()
            stream = SocketStream(sock, tls)
            try:
                seen.append(stream.start_tls(soon()))
                stream.write(b"220 hello\r\n", soon())
                stream.read(soon())  # until the client has gone
            except StreamLost as fault:
                seen.append(fault)
            finally:
                stream.close()

    def connect(context: ssl.SSLContext, name: str | None = None, session: ssl.SSLSession | None = None) -> Any:
        def client() -> None:
            with socket.create_connection(listening.getsockname()) as sock:
                try:
                    with context.wrap_socket(sock, server_hostname=name, session=session) as secure:
                        secure.recv(100)
                        found.append(
                            (
                                secure.getpeercert(),
                                secure.selected_alpn_protocol(),
                                secure.session,
                                secure.session_reused,
                            )
                        )
                except OSError as error:
                    found.append(error)

        found: list[Any] = []
        thread = threading.Thread(target=client)
        thread.start()
        while thread.is_alive():
            gevent.sleep(0.005)
        return found[0]

    server = gevent.spawn(serve)
    try:
        yield connect, seen
    finally:
        server.kill()
        listening.close()


def client(authority: certificates.Authority, pair: certificates.Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.check_hostname = False
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


def common_name(found: Any) -> str:
    return str(dict(field[0] for field in found[0]["subject"])["commonName"])


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("mx.example.com", "mx.example.com"),
        ("MX.Example.COM", "mx.example.com"),
        ("other.example.net", "other.example.net"),
        ("a.mail.example.com", "mx.example.com"),
        ("a.b.mail.example.com", "other.example.net"),
        ("nobody.example.org", "other.example.net"),
        (None, "other.example.net"),
    ],
)
def test_the_certificate_is_that_of_the_name(
    authority: certificates.Authority,
    mx: certificates.Pair,
    other: certificates.Pair,
    asked: str | None,
    shown: str,
) -> None:
    with served(ListenerTls(settings(other, mx))) as (connect, seen):
        assert common_name(connect(client(authority), asked)) == shown
    (info,) = seen
    assert isinstance(info, TlsInfo)
    assert (info.sni, info.protocol, info.certificate) == (asked.lower() if asked else None, "TLSv1.3", None)


@pytest.mark.parametrize(("offered", "chosen"), [(["smtp"], "smtp"), (["h2", "smtp"], "smtp"), (None, None)])
def test_alpn_is_smtp_or_nothing(
    authority: certificates.Authority, mx: certificates.Pair, offered: list[str] | None, chosen: str | None
) -> None:
    context = client(authority)
    if offered:
        context.set_alpn_protocols(offered)
    with served(ListenerTls(settings(mx))) as (connect, _):
        assert connect(context)[1] == chosen


def test_another_protocol_is_refused_by_its_alert(authority: certificates.Authority, mx: certificates.Pair) -> None:
    context = client(authority)
    context.set_alpn_protocols(["http/1.1"])
    with served(ListenerTls(settings(mx))) as (connect, seen):
        error = connect(context)
    assert isinstance(error, ssl.SSLError)
    assert "alert no application protocol" in str(error)
    assert str(seen[0]) == "TLS handshake: client offers no smtp by ALPN"


@pytest.mark.parametrize(("wanted", "version"), [("TLSv1.2", "TLSv1.2"), ("TLSv1.3", "TLSv1.3")])
def test_the_versions_are_the_operators(
    authority: certificates.Authority, mx: certificates.Pair, wanted: str, version: str
) -> None:
    with served(ListenerTls(settings(mx, minimum=wanted, maximum=wanted))) as (connect, seen):
        connect(client(authority))
    assert isinstance(seen[0], TlsInfo)
    assert seen[0].protocol == version


def test_a_session_is_resumed_also_after_the_files_were_read_again(
    authority: certificates.Authority, mx: certificates.Pair
) -> None:
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where Python's client has its ticket right after the handshake
    tls = ListenerTls(settings(mx))
    with served(tls) as (connect, _):
        *_, session, reused = connect(context)
        assert not reused
        *_, session, reused = connect(context, session=session)
        assert reused
        mx.cert.touch()
        assert tls.refresh()
        *_, session, reused = connect(context, session=session)
        assert reused


def test_another_listener_resumes_nothing(authority: certificates.Authority, mx: certificates.Pair) -> None:
    """Also with the same certificate: what was agreed on where nothing is asked of clients is worth nothing elsewhere
    (reference/security.md C7).
    """
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with served(ListenerTls(settings(mx))) as (connect, _):
        *_, session, _ = connect(context)
        assert session.has_ticket
    with served(ListenerTls(settings(mx))) as (connect, _):
        *_, reused = connect(context, session=session)
    assert not reused


def test_without_tickets_no_other_process_resumes(authority: certificates.Authority, mx: certificates.Pair) -> None:
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with served(ListenerTls(settings(mx, tickets=False))) as (connect, _):
        *_, session, _ = connect(context)
        assert not session.has_ticket


def test_what_was_begun_with_a_certificate_is_not_resumed_once_files_have_changed(
    authority: certificates.Authority, mx: certificates.Pair
) -> None:
    alice, bob = authority.sign("a3", "alice"), authority.sign("b3", "bob")
    context = client(authority, alice)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    tls = ListenerTls(settings(mx, client="optional", client_ca=authority.ca, client_crl=authority.revoke(bob)))
    with served(tls) as (connect, seen):
        *_, session, _ = connect(context)
        *_, session, reused = connect(context, session=session)
        assert reused
        authority.revoke(bob, alice)
        assert tls.refresh()
        connect(context, session=session)
    assert isinstance(seen[1], TlsInfo)
    assert str(seen[2]) == "TLS handshake: certificate not believed: certificate revoked"


def test_a_key_with_a_passphrase(authority: certificates.Authority, mx: certificates.Pair, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(mx.key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"second word")))
    words = tmp_path / "words"
    words.write_text("first\nsecond word\nthird\n")
    tls = ListenerTls(TlsSettings((CertificateFiles(mx.cert, locked, words),)))
    with served(tls) as (connect, _):
        assert common_name(connect(client(authority))) == "mx.example.com"
        words.write_text("third\n")
        with pytest.raises(ssl.SSLError):
            tls.refresh()


def test_a_changed_certificate_is_shown_from_the_next_handshake_on(
    authority: certificates.Authority, tmp_path: Path
) -> None:
    old, new = authority.sign("live", "old.example.com"), authority.sign("next", "new.example.com")
    cert, key = tmp_path / "c", tmp_path / "k"
    cert.write_bytes(old.cert.read_bytes())
    key.write_bytes(old.key.read_bytes())
    tls = ListenerTls(TlsSettings((CertificateFiles(cert, key),)))
    with served(tls) as (connect, _):
        assert not tls.refresh()
        cert.write_bytes(new.cert.read_bytes())
        with pytest.raises(ssl.SSLError):
            tls.refresh()  # half of a change: chain and key do not fit
        assert common_name(connect(client(authority))) == "old.example.com"
        key.write_bytes(new.key.read_bytes())
        assert tls.refresh()
        assert common_name(connect(client(authority))) == "new.example.com"
        cert.unlink()
        with pytest.raises(FileNotFoundError):
            tls.refresh()
        assert common_name(connect(client(authority))) == "new.example.com"


def test_what_has_been_read_is_used_when_it_is_taken_up(authority: certificates.Authority, tmp_path: Path) -> None:
    old, new = authority.sign("live2", "old.example.com"), authority.sign("next2", "new.example.com")
    tls = ListenerTls(settings(old))
    with served(tls) as (connect, _):
        tls.prepare()
        assert not tls.take_up()
        for there, changed in ((old.cert, new.cert), (old.key, new.key)):
            there.write_bytes(changed.read_bytes())
        tls.prepare()
        tls.prepare()  # a second reload, after one that was refused: it has been read, and still waits
        assert common_name(connect(client(authority))) == "old.example.com"
        assert tls.take_up()
        assert not tls.take_up()
        assert common_name(connect(client(authority))) == "new.example.com"


def test_changes_are_taken_up_and_what_is_broken_is_told_once(
    authority: certificates.Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listenertls, "REFRESH_INTERVAL", 0.001)
    pair = authority.sign("fresh", "fresh.example.com")
    cert = tmp_path / "c"
    cert.write_bytes(pair.cert.read_bytes())
    journal = ListJournal()
    tls = ListenerTls(TlsSettings((CertificateFiles(cert, pair.key),)))
    keeping = gevent.spawn(keep_fresh, {"mx": tls}, journal)
    turns()
    assert journal.lines == []
    cert.write_text("nonsense")
    turns()
    assert [(level, line["listener"]) for level, _, line in journal.lines] == [("error", "mx")]
    cert.write_bytes(pair.cert.read_bytes())
    turns()
    keeping.kill()
    assert [event for _, event, _ in journal.lines] == ["certificates_rejected", "certificates_loaded"]


def test_what_is_learnt_of_a_client_certificate(authority: certificates.Authority, mx: certificates.Pair) -> None:
    alice = authority.sign("alice", "alice", email="alice@example.com")
    tls = ListenerTls(settings(mx, client="optional", client_ca=authority.ca))
    with served(tls) as (connect, seen):
        connect(client(authority, alice))
        connect(client(authority))
    shown, none = seen
    assert isinstance(shown, TlsInfo)
    assert isinstance(none, TlsInfo)
    assert none.certificate == ClientCertificate("NONE")
    found = shown.certificate
    assert found is not None
    assert (found.verify, found.subject, found.issuer) == (
        "SUCCESS",
        "emailAddress=alice@example.com,CN=alice",
        "CN=test-ca",
    )
    assert int(found.serial, 16) == alice.x509.serial_number
    assert found.pem == alice.cert.read_bytes()
    assert len(found.fingerprint) == 40


@pytest.mark.parametrize("case", ["stranger", "revoked"])
def test_a_bad_client_certificate_ends_the_handshake(
    authority: certificates.Authority, mx: certificates.Pair, tmp_path: Path, case: str
) -> None:
    alice, bob = authority.sign("a", "alice"), authority.sign("b", "bob")
    stranger = certificates.Authority(tmp_path, "stranger").sign("s", "alice")
    tls = ListenerTls(settings(mx, client="optional", client_ca=authority.ca, client_crl=authority.revoke(bob)))
    with served(tls) as (connect, seen):
        connect(client(authority, alice))
        connect(client(authority, stranger if case == "stranger" else bob))
    assert isinstance(seen[0], TlsInfo)
    why = {"stranger": "unable to get local issuer certificate", "revoked": "certificate revoked"}[case]
    assert str(seen[1]) == f"TLS handshake: certificate not believed: {why}"


def test_a_new_revocation_counts_once_it_is_read(authority: certificates.Authority, mx: certificates.Pair) -> None:
    alice, bob = authority.sign("a2", "alice"), authority.sign("b2", "bob")
    tls = ListenerTls(settings(mx, client="optional", client_ca=authority.ca, client_crl=authority.revoke(bob)))
    with served(tls) as (connect, seen):
        connect(client(authority, alice))
        authority.revoke(bob, alice)
        assert tls.refresh()
        connect(client(authority, alice))
    assert isinstance(seen[0], TlsInfo)
    assert str(seen[1]) == "TLS handshake: certificate not believed: certificate revoked"


def test_names_of_a_certificate(mx: certificates.Pair) -> None:
    assert certificate_names(mx.cert.read_bytes()) == ["mx.example.com", "*.mail.example.com"]


# --- peek --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[gevent.socket.socket, gevent.socket.socket]]:
    if request.param == socket.AF_UNIX:
        ends = gevent.socket.socketpair()
    else:
        with gevent.socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            near = gevent.socket.create_connection(listening.getsockname())
            ends = (listening.accept()[0], near)
    yield ends
    for end in ends:
        end.close()


def until_dot(data: bytes) -> bytes | int:
    """Up to the first dot, five octets at least: for parsers that know what they need."""
    found = data.find(b".") + 1
    return data[:found] if found else max(len(data) + 1, 5)


def test_nothing_is_taken_however_it_arrives(pair: tuple[gevent.socket.socket, gevent.socket.socket]) -> None:
    near, far = pair

    def drip() -> None:
        for octet in b"abcdefg.rest":
            far.sendall(bytes([octet]))
            gevent.sleep(0.002)

    sender = gevent.spawn(drip)
    assert peek(near, until_dot, 100, soon()) == b"abcdefg."
    sender.join()
    assert take(near, 8, soon()) == b"abcdefg."
    near.settimeout(1)
    assert near.recv(100) == b"rest"


def test_an_end_before_enough_has_arrived(pair: tuple[gevent.socket.socket, gevent.socket.socket]) -> None:
    near, far = pair
    far.sendall(b"abc")
    far.close()
    with pytest.raises(PeerGone):
        peek(near, until_dot, 100, soon())


@pytest.mark.parametrize("first", [b"", b"abc"])
def test_silence_ends_with_the_deadline(
    pair: tuple[gevent.socket.socket, gevent.socket.socket], first: bytes
) -> None:
    near, far = pair
    far.sendall(first)
    with pytest.raises(TimeoutError):
        peek(near, until_dot, 100, soon(0.05))
