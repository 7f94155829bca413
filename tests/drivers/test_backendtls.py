"""TLS towards a backend, with real handshakes on loopback: who is believed, what is taken up again, which files."""

import os
import shutil
import ssl
import time
from dataclasses import replace

import gevent
import gevent.socket
import gevent.ssl
import pytest
from certificates import Authority
from fakes import ManualClock

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers import backendtls
from smtpgate.drivers.backendtls import CHECK_INTERVAL, ClientTls, check
from smtpgate.drivers.connecting import connect
from smtpgate.routing.model import BackendTls
from smtpgate.session.streams import StreamLost, StreamTimeout

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "another authority")


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue("mta.test", "127.0.0.1")


def soon(seconds=5.0):
    return Deadline(CLOCK, seconds)


class Server:
    """A backend that begins with TLS, says a line and waits for the end. seen: what it learnt of each client."""

    def __init__(self, context, alpn=None):
        self.context = context
        self.seen = []
        if alpn:
            context.set_alpn_protocols(alpn)
        self.listener = gevent.socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.address = self.listener.getsockname()
        self.loop = gevent.spawn(self.run)

    def run(self):
        while True:
            sock, _ = self.listener.accept()
            try:
                with self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as secure:
                    secure.do_handshake()
                    self.seen.append((secure.selected_alpn_protocol(), secure.session_reused, secure.getpeercert()))
                    secure.sendall(b"220 mta.test\r\n")
                    secure.recv(100)
            except OSError as error:
                self.seen.append(str(error))

    def stop(self):
        self.loop.kill()
        self.listener.close()


@pytest.fixture
def serve(certificate):
    servers = []

    def start(cert=certificate, **options):
        context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*cert)
        for key, value in options.items():
            if key != "alpn":
                setattr(context, key, value)
        servers.append(Server(context, options.get("alpn")))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def talk(server, tls, settings, name="mta.test"):
    stream = connect(*server.address, soon(), tls)
    try:
        info = stream.start_client_tls(settings, name, soon())
        assert stream.read(soon()) == b"220 mta.test\r\n"
        return info
    finally:
        stream.close()


def test_a_certificate_of_the_authority_for_the_name_is_believed(serve, authority):
    server = serve()
    info = talk(server, ClientTls(CLOCK), BackendTls("required", ca=str(authority.ca)))
    assert info.protocol == "TLSv1.3"
    assert info.cipher.startswith("TLS_")
    assert server.seen == [(None, False, None)]


def test_an_address_is_looked_for_among_the_certificates_addresses(serve, authority):
    talk(serve(), ClientTls(CLOCK), BackendTls("required", ca=str(authority.ca)), "127.0.0.1")
    with pytest.raises(StreamLost, match="certificate not believed: IP address mismatch"):
        talk(serve(), ClientTls(CLOCK), BackendTls("required", ca=str(authority.ca)), "127.0.0.9")


@pytest.mark.parametrize(
    ("believed", "name", "reason"),
    [
        ("authority", "mx.test", "certificate not believed: Hostname mismatch"),
        ("other", "mta.test", "certificate not believed: unable to get local issuer certificate"),
        ("system", "mta.test", "certificate not believed: unable to get local issuer certificate"),
    ],
)
def test_whom_nobody_believes(serve, authority, other, believed, name, reason):
    ca = {"authority": str(authority.ca), "other": str(other.ca), "system": None}[believed]
    with pytest.raises(StreamLost, match=reason):
        talk(serve(), ClientTls(CLOCK), BackendTls("required", ca=ca), name)


def test_without_verification_everybody_is_believed(serve, authority):
    talk(serve(authority.issue("someone.test")), ClientTls(CLOCK), BackendTls("starttls", verify=False))
    talk(serve(), ClientTls(CLOCK), BackendTls("starttls", verify=False), "")


def test_no_name_is_no_way_around_verification(serve, authority):
    with pytest.raises(StreamLost, match="TLS handshake: a certificate is believed for a name"):
        talk(serve(), ClientTls(CLOCK), BackendTls("required", ca=str(authority.ca)), "")


def test_a_backend_that_knows_alpn_is_asked_for_smtp(serve, authority):
    server = serve(alpn=["smtp", "h2"])
    talk(server, ClientTls(CLOCK), BackendTls(ca=str(authority.ca)))
    assert server.seen[0][0] == "smtp"


def test_tls_before_1_2_is_refused(serve, authority):
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        server = serve(maximum_version=ssl.TLSVersion.TLSv1_1)
    server.context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(StreamLost, match="TLS handshake"):
        talk(server, ClientTls(CLOCK), BackendTls(ca=str(authority.ca)))


def test_a_client_certificate_is_shown(serve, authority):
    cert, key = authority.issue("proxy.test")
    server = serve()
    server.context.load_verify_locations(str(authority.ca))
    server.context.verify_mode = ssl.CERT_REQUIRED
    talk(server, ClientTls(CLOCK), BackendTls(ca=str(authority.ca), cert=cert, key=key))
    assert server.seen[0][2]["subject"] == ((("commonName", "proxy.test"),),)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_session_is_taken_up_again(serve, authority, version):
    server = serve(maximum_version=getattr(ssl.TLSVersion, version))
    tls, settings = ClientTls(CLOCK), BackendTls(ca=str(authority.ca))
    for _ in range(3):
        talk(server, tls, settings)
    assert [reused for _, reused, _ in server.seen] == [False, True, True]


def test_a_session_is_taken_up_for_the_same_name_address_and_settings_only(serve, authority):
    tls, settings = ClientTls(CLOCK), BackendTls(ca=str(authority.ca))
    first, second = serve(), serve()
    talk(first, tls, settings)
    talk(first, tls, settings, "127.0.0.1")
    talk(first, tls, replace(settings, mode="implicit"))
    talk(second, tls, settings)
    assert [reused for _, reused, _ in first.seen + second.seen] == [False] * 4


def test_a_context_is_built_once_and_again_when_a_file_changes(authority, other, tmp_path):
    clock, told = ManualClock(), []
    tls = ClientTls(clock, told.append)
    ca = tmp_path / "ca.pem"
    shutil.copy(str(authority.ca), ca)
    settings = BackendTls(ca=str(ca))
    first = tls.context(settings)
    shutil.copy(str(other.ca), ca)
    os.utime(ca, ns=(1, 1))
    assert tls.context(settings) is first
    clock.time += CHECK_INTERVAL
    second = tls.context(settings)
    assert second is not first
    assert second.get_ca_certs() != first.get_ca_certs()
    clock.time += CHECK_INTERVAL
    assert tls.context(settings) is second
    assert told == []


def test_contexts_are_bounded_and_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(backendtls, "MAX_CONTEXTS", 2)
    tls = ClientTls(CLOCK)
    one, two, three = (BackendTls("required", verify=False, server_name=f"mta{n}.test") for n in range(3))
    first, second = tls.context(one), tls.context(two)
    tls.context(three)
    assert tls.context(two) is second
    assert tls.context(one) is not first


def test_a_file_that_broke_leaves_the_context_in_use_and_is_told_once(authority, tmp_path):
    clock, told = ManualClock(), []
    tls = ClientTls(clock, told.append)
    ca = tmp_path / "ca.pem"
    shutil.copy(str(authority.ca), ca)
    first = tls.context(BackendTls(ca=str(ca)))
    ca.write_text("half")
    for _ in range(2):
        clock.time += CHECK_INTERVAL
        assert tls.context(BackendTls(ca=str(ca))) is first
    assert told == [f"tls ca {ca}: is not usable PEM; what was read before stays in use"]


def test_files_that_cannot_be_used(authority, tmp_path):
    cert, key = authority.issue("one.test")
    _, strange = authority.issue("two.test")
    check(BackendTls(ca=str(authority.ca), cert=cert, key=key))
    missing = str(tmp_path / "none.pem")
    for settings, fault in [
        (BackendTls(ca=missing), f"tls ca {missing}: No such file or directory"),
        (BackendTls(ca=key), f"tls ca {key}: is not usable PEM"),
        (BackendTls(cert=cert, key=strange), f"tls cert, key {cert}: is not usable PEM"),
    ]:
        with pytest.raises(StreamLost) as lost:
            check(settings)
        assert str(lost.value) == fault


@pytest.fixture
def plain():
    """(a stream to a backend, that backend's socket)."""
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stream = connect(*listener.getsockname(), soon(), ClientTls(CLOCK))
        sock, _ = listener.accept()
    yield stream, sock
    stream.close()
    sock.close()


def test_a_handshake_that_stalls_ends_with_its_deadline(plain):
    began = time.monotonic()
    with pytest.raises(StreamTimeout):
        plain[0].start_client_tls(BackendTls(), "mta.test", soon(0.1))
    assert time.monotonic() - began < 10.0


def test_a_backend_that_speaks_in_clear_is_lost(plain):
    stream, sock = plain
    sock.sendall(b"250 injected\r\n")
    with pytest.raises(StreamLost, match=r"TLS handshake: WRONG_VERSION_NUMBER"):
        stream.start_client_tls(BackendTls(), "mta.test", soon())


def test_a_backend_that_leaves_is_lost(plain):
    stream, sock = plain
    sock.close()
    with pytest.raises(StreamLost, match="TLS handshake"):
        stream.start_client_tls(BackendTls(), "mta.test", soon())


def test_a_session_ticket_is_nobodys_words(serve, authority):
    """OpenSSL's servers send two behind the handshake; an idle connection with these is not a dead one."""
    server = serve()
    server.context.num_tickets = 2
    stream = connect(*server.address, soon(), ClientTls(CLOCK))
    stream.start_client_tls(BackendTls(ca=str(authority.ca)), "mta.test", soon())
    deadline = soon()
    while not stream.readable() and not deadline.expired:
        gevent.sleep(0.005)
    assert stream.read(soon()) == b"220 mta.test\r\n"
    assert not stream.readable()
    server.loop.kill()
    while not stream.readable() and not deadline.expired:
        gevent.sleep(0.005)
    assert stream.readable()
    assert stream.read(soon()) == b""
    stream.close()
