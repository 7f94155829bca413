"""A Gate over real sockets: PROXY headers and TLS come first, sessions live and die, a bug or a cut is never silent,
a drain lets work finish.
"""

import ipaddress
import socket
import ssl
import struct
import time
from dataclasses import replace

import certificates
import gevent
import gevent.socket
import pytest
from fakes import FakeBackends, FakeHolds, FakePolicy, ListJournal, ManualClock, ports
from turns import turns

from smtpgate.clock import SystemClock
from smtpgate.drivers import listener
from smtpgate.drivers.admission import AddressLimits, Refusal
from smtpgate.drivers.holds import Lines
from smtpgate.drivers.listener import Gate, Listener
from smtpgate.drivers.listenertls import CertificateFiles, ListenerTls, TlsSettings
from smtpgate.policy.model import ALLOWED, Decision, Denial, Event, ReplyText
from smtpgate.session import flow
from smtpgate.session.flow import SessionSettings
from smtpgate.smtp.server import ServerSettings

OPEN = ServerSettings("mx.test", mechanisms=(), auth_required=False)
GREETING = b"220 mx.test ESMTP ready\r\n"
TIMED_OUT = b"421 4.4.2 Timeout, closing connection\r\n"


class World:
    """A Gate with one listener, on as many binds as `times`. options: of Listener; bind: a unix socket's path."""

    def __init__(
        self,
        policy=None,
        holds=None,
        *,
        protocol=OPEN,
        bind=None,
        timeout=5.0,
        xclient=(),
        max_sessions=100,
        times=1,
        **options,
    ):
        self.retired = 0
        self.journal = ListJournal()
        clock = ManualClock()
        settings = SessionSettings("demo", protocol, timeout=timeout, xclient=xclient)
        self.holds = FakeHolds(clock) if holds is None else holds
        world = ports(SystemClock(), FakeBackends(clock), policy=policy, journal=self.journal, holds=self.holds)
        listener = Listener(settings, **options)
        self.gate = Gate([listener] * times, world, 1.0, self.count_retired, max_sessions)
        self.server = gevent.socket.socket(socket.AF_INET if bind is None else socket.AF_UNIX)
        self.server.bind(bind or ("127.0.0.1", 0))
        self.server.listen()
        self.clients = []

    def count_retired(self):
        self.retired += 1

    def client(self):
        client = gevent.socket.socket(self.server.family)
        client.connect(self.server.getsockname())
        self.clients.append(client)
        accepted, address = self.server.accept()
        assert self.gate.admit(0, address) is None
        session = gevent.spawn(lambda: self.gate(0, accepted, address))
        return client, session

    def close(self):
        for one in (self.server, *self.clients):
            one.close()


@pytest.fixture
def make_world():
    worlds = []

    def make(policy=None, **options):
        worlds.append(World(policy, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world):
    return make_world()


def everything(client):
    data = b""
    with gevent.Timeout(30):
        while more := client.recv(4096):
            data += more
    return data


def test_a_session_from_greeting_to_end(world):
    client, session = world.client()
    client.sendall(b"NOOP\r\nQUIT\r\n")
    assert everything(client) == GREETING + b"250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"
    session.join(30)
    assert world.gate.sessions == 0


def test_a_bug_in_a_session_is_a_421_a_log_line_and_nobody_elses_matter(make_world):
    def decide(event, facts):
        if event is Event.MAIL:
            raise ZeroDivisionError("a bug")
        return FakePolicy().decide(event, facts)

    world = make_world(FakePolicy(decide))
    client, session = world.client()
    other, _ = world.client()
    client.sendall(b"MAIL FROM:<a@a.test>\r\n")
    assert everything(client) == GREETING + b"421 4.3.0 Internal server error\r\n"
    session.join(30)
    assert session.successful()
    assert "ZeroDivisionError: a bug" in world.journal.of("bug")[0]["traceback"]
    other.sendall(b"QUIT\r\n")
    assert everything(other).endswith(b"221 2.0.0 Bye\r\n")


def test_a_session_that_is_cut_says_421(world):
    client, session = world.client()
    client.sendall(b"MAIL FROM:<a@a.test>\r\n")
    turns(0.05)
    assert client.recv(4096) == GREETING + b"250 2.0.0 OK\r\n"
    session.kill()
    assert everything(client).endswith(b"421 4.3.2 Service shutting down, try again later\r\n")
    assert world.gate.sessions == 0
    assert [line["end"] for line in world.journal.of("session")] == ["cut off"]


def test_a_drain_ends_sessions_at_rest_and_spares_the_others(world):
    resting, _ = world.client()
    busy, _ = world.client()
    busy.sendall(b"MAIL FROM:<a@a.test>\r\n")
    turns(0.05)
    assert world.gate.sessions == 2
    world.gate.drain()
    assert everything(resting) == GREETING + b"421 4.3.2 Service shutting down, try again later\r\n"
    assert world.gate.sessions == 1
    busy.sendall(b"RSET\r\n")
    assert everything(busy).endswith(b"250 2.0.0 OK\r\n421 4.3.2 Service shutting down, try again later\r\n")


def test_a_drain_ends_the_holding_too(world):
    assert not world.holds.draining
    world.gate.drain()
    assert world.holds.draining


HELD = Decision(
    Denial("few", "s", ReplyText(450, "4.7.1", "slow"), 30.0, 0.0, False, 0.0, "p:1", wait=30.0, hold=30.0)
)


def test_a_client_that_leaves_while_it_is_held_leaves_the_line(make_world):
    policy = FakePolicy(lambda event, facts: HELD if event is Event.MAIL else ALLOWED)
    world = make_world(policy, holds=Lines())
    gone, first = world.client()
    gone.sendall(b"MAIL FROM:<a@a.test>\r\n")
    staying, second = world.client()
    staying.sendall(b"MAIL FROM:<b@a.test>\r\n")
    turns(0.05)
    assert len(world.holds) == 2
    gone.close()
    first.join(5)
    assert first.successful()
    assert len(world.holds) == 1
    # Nothing was asked in its name any more; the other one is the first now, and has asked at once.
    assert [facts.sender[0] for event, facts in policy.events if event is Event.MAIL] == ["a", "b", "b"]
    world.gate.drain()
    assert everything(staying).endswith(b"450 4.7.1 slow\r\n421 4.3.2 Service shutting down, try again later\r\n")
    second.join(5)
    assert len(world.holds) == 0


def test_a_client_that_leaves_at_once_leaves_nothing(world):
    client, session = world.client()
    client.close()
    session.join(30)
    assert session.successful()
    assert world.gate.sessions == 0


@pytest.mark.parametrize(("learns", "last"), [(True, b"250 SIZE 5000\r\n"), (False, b"250 mx.test\r\n")])
def test_what_is_learnt_is_offered_to_the_sessions_to_come_where_the_listener_learns(make_world, learns, last):
    world = make_world(learn_capabilities=learns)
    early, _ = world.client()
    assert early.recv(100) == GREETING
    world.gate.offer(("SIZE 5000",))
    late, _ = world.client()
    assert late.recv(100) == GREETING
    for client in (early, late):
        client.sendall(b"EHLO c.test\r\n")
    assert early.recv(1000) == b"250 mx.test\r\n"
    assert late.recv(1000).endswith(last)


def test_whoever_retires_lets_go_and_says_nothing(world):
    resting, _ = world.client()
    assert resting.recv(100) == GREETING
    world.gate.retire()
    assert world.retired == 1
    resting.sendall(b"QUIT\r\n")
    assert everything(resting) == b"221 2.0.0 Bye\r\n"


# --- PROXY headers -------------------------------------------------------------------------------------------------

HERE = (ipaddress.ip_network("127.0.0.0/8"),)
ELSEWHERE = (ipaddress.ip_network("192.0.2.0/24"),)
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.9 4711 25\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n"
    + bytes([0x21, 0x11])
    + struct.pack("!H4s4sHH", 12, b"\xc0\0\2\7", b"\xc63d\x09", 4711, 25)
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20, 0]) + struct.pack("!H", 0)


def client_of(policy):
    """The client's address as the limits on connections saw it."""
    return [facts.client for event, facts in policy.events if event is Event.CONNECT]


@pytest.mark.parametrize("header", [V1, V2])
def test_the_client_is_whom_the_header_names_wherever_it_is_cut(make_world, header):
    for at in range(1, len(header)):
        policy = FakePolicy()
        world = make_world(policy, proxies=HERE)
        client, session = world.client()
        client.sendall(header[:at])
        gevent.sleep(0.001)
        client.sendall(header[at:] + b"QUIT\r\n")
        assert everything(client) == GREETING + b"221 2.0.0 Bye\r\n"
        session.join(30)
        (line,) = world.journal.of("session")
        assert (line["client"], line["via"], client_of(policy)) == ("192.0.2.7", "127.0.0.1", ["192.0.2.7"])


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", LOCAL])
def test_a_proxy_that_speaks_for_itself(make_world, header):
    policy = FakePolicy()
    world = make_world(policy, proxies=HERE)
    client, session = world.client()
    client.sendall(header + b"QUIT\r\n")
    assert everything(client) == GREETING + b"221 2.0.0 Bye\r\n"
    session.join(30)
    assert client_of(policy) == ["127.0.0.1"]
    assert "via" not in world.journal.of("session")[0]


@pytest.mark.parametrize(
    ("proxies", "octets", "reason"),
    [
        (ELSEWHERE, V1, "is in none of the networks of proxy_protocol"),
        (HERE, b"EHLO c.test\r\n", "PROXY header does not begin as a PROXY header; expected version 1 or 2"),
        (
            HERE,
            V1.replace(b"4711", b"04711"),
            "PROXY header version 1 line has a port that is none; expected 0 to 65535",
        ),
        (HERE, V1[:-1], "has sent no whole PROXY header within 0.05 s"),
        (HERE, b"", "has sent no whole PROXY header within 0.05 s"),
    ],
)
def test_whoever_may_not_send_one_or_sends_none_gets_no_session(make_world, monkeypatch, proxies, octets, reason):
    monkeypatch.setattr(listener, "PROXY_TIMEOUT", 0.05)
    policy = FakePolicy()
    world = make_world(policy, proxies=proxies)
    client, session = world.client()
    client.sendall(octets)
    session.join(30)
    try:
        assert everything(client) == b""
    except ConnectionResetError:
        pass  # it had said more than was read
    assert world.journal.of("refused") == [{"client": "127.0.0.1", "listener": "demo", "reason": reason}]
    assert world.gate.refused["demo", "proxy_protocol"] == 1
    assert policy.events == []


def test_a_check_that_only_connects_is_no_warning(make_world):
    world = make_world(proxies=HERE)
    client, session = world.client()
    client.close()
    session.join(30)
    assert [level for level, *_ in world.journal.lines] == ["info"]


def test_over_a_unix_socket_it_is_believed(make_world, tmp_path):
    policy = FakePolicy()
    world = make_world(policy, proxies=ELSEWHERE, bind=str(tmp_path / "mx.sock"))
    client, session = world.client()
    client.sendall(V1 + b"QUIT\r\n")
    assert everything(client) == GREETING + b"221 2.0.0 Bye\r\n"
    session.join(30)
    assert world.journal.of("session")[0]["via"] == "unix:"
    assert client_of(policy) == ["192.0.2.7"]


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    pair = certificates.Authority(tmp_path_factory.mktemp("pki")).sign("mx", "mx.test")
    return ListenerTls(TlsSettings((CertificateFiles(pair.cert, pair.key),)))


def handshake(protocols=()):
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def test_implicit_tls_behind_a_proxy_header(make_world, tls):
    world = make_world(protocol=replace(OPEN, tls="implicit"), proxies=HERE, tls=tls)
    client, session = world.client()
    client.sendall(V1)
    with handshake(["smtp"]).wrap_socket(client) as secure:
        secure.sendall(b"QUIT\r\n")
        assert everything(secure) == GREETING + b"221 2.0.0 Bye\r\n"
    session.join(30)
    (line,) = world.journal.of("session")
    assert (line["client"], line["tls"]) == ("192.0.2.7", "TLSv1.3")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"EHLO c.test\r\n", "TLS handshake: no TLS handshake"),
        (None, "TLS handshake: client offers no smtp by ALPN"),
    ],
)
def test_a_handshake_that_fails_is_logged(make_world, tls, octets, reason):
    world = make_world(protocol=replace(OPEN, tls="implicit"), tls=tls)
    client, session = world.client()
    if octets is not None:
        client.sendall(octets)
    else:
        with pytest.raises(ssl.SSLError, match="no application protocol"):
            handshake(["h2"]).wrap_socket(client)
    session.join(30)
    assert world.journal.of("connection_lost") == [{"client": "127.0.0.1", "listener": "demo", "reason": reason}]


def test_a_listener_has_its_own_services(make_world):
    backends = FakeBackends(ManualClock())
    world = make_world(backends=backends)
    client, session = world.client()
    client.sendall(b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nQUIT\r\n")
    everything(client)
    session.join(30)
    assert len(backends.asked) == 1


# --- crowds --------------------------------------------------------------------------------------------------------

FULL = b"421 4.3.2 Too many connections, try again later\r\n"
OF_ADDRESS = b"421 4.7.0 Too many connections from your address\r\n"
OF_NETWORK = b"421 4.7.0 Too many connections from your network\r\n"


class Crowded:
    """Connections to a world, admitted or turned away as the acceptor does it."""

    def __init__(self, world):
        self.world = world

    def connect(self):
        """A client, and the refusal that it met."""
        client = gevent.socket.socket(self.world.server.family)
        client.connect(self.world.server.getsockname())
        self.world.clients.append(client)
        accepted, address = self.world.server.accept()
        refusal = self.world.gate.admit(0, address)
        if refusal is None:
            gevent.spawn(lambda: self.world.gate(0, accepted, address))
        else:
            self.world.gate.turn_away(0, accepted, address, refusal)
        return client, refusal


def test_beyond_max_sessions_a_client_is_told_until_there_is_room(make_world):
    world = make_world(max_sessions=2)
    crowd = Crowded(world)
    first, refusal = crowd.connect()
    assert (refusal, first.recv(100)) == (None, GREETING)
    crowd.connect()
    turned_away, refusal = crowd.connect()
    assert (refusal, everything(turned_away)) == (Refusal.FULL, FULL)
    assert world.gate.sessions == 2
    first.sendall(b"QUIT\r\n")
    assert everything(first) == b"221 2.0.0 Bye\r\n"
    turns()
    again, refusal = crowd.connect()
    assert (refusal, again.recv(100)) == (None, GREETING)
    assert world.gate.refused == {
        ("demo", "max_sessions"): 1,
        ("demo", "max_sessions_per_ip"): 0,
        ("demo", "max_sessions_per_network"): 0,
        ("demo", "descriptors"): 0,
        ("demo", "ban"): 0,
        ("demo", "proxy_protocol"): 0,
    }
    assert world.journal.of("flood") == [
        {"listener": "demo", "reason": "max_sessions", "refused": 1, "client": "127.0.0.1"}
    ]


@pytest.mark.parametrize(
    ("limits", "words"), [(AddressLimits(per_address=1), OF_ADDRESS), (AddressLimits(per_network=1), OF_NETWORK)]
)
def test_one_client_has_so_many_connections(make_world, limits, words):
    world = make_world(limits=limits)
    crowd = Crowded(world)
    first, _ = crowd.connect()
    assert first.recv(100) == GREETING
    second, _ = crowd.connect()
    assert everything(second) == words
    first.close()
    turns()
    third, refusal = crowd.connect()
    assert (refusal, third.recv(100)) == (None, GREETING)


def test_under_stress_those_that_wait_have_their_time_reckoned_anew(make_world, monkeypatch):
    monkeypatch.setattr(flow, "STRESS_TIMEOUT", 0.3)
    world = make_world(max_sessions=10, timeout=60.0)
    crowd = Crowded(world)
    first = [crowd.connect()[0] for _ in range(9)]
    assert [client.recv(100) for client in first] == [GREETING] * 9
    assert world.journal.of("stress") == []
    began = time.monotonic()
    last, refusal = crowd.connect()
    assert refusal is None
    assert world.gate.stressed
    assert [everything(client) for client in first] == [TIMED_OUT] * 9
    assert everything(last) == GREETING + TIMED_OUT
    assert time.monotonic() - began < 30.0
    turns()
    assert not world.gate.stressed
    assert world.journal.of("stress") == [{"sessions": 10, "max_sessions": 10}]
    assert world.journal.of("stress_over") == [{"sessions": 8}]
    patient, _ = crowd.connect()
    assert patient.recv(100) == GREETING
    gevent.sleep(0.4)
    patient.sendall(b"QUIT\r\n")
    assert everything(patient) == b"221 2.0.0 Bye\r\n"


def test_a_refused_client_that_speaks_first_hears_why(make_world):
    world = make_world(max_sessions=1)
    crowd = Crowded(world)
    crowd.connect()
    client = gevent.socket.socket()
    client.connect(world.server.getsockname())
    world.clients.append(client)
    client.sendall(b"EHLO early.test\r\n" * 100)
    turns()
    accepted, address = world.server.accept()
    world.gate.turn_away(0, accepted, address, world.gate.admit(0, address))
    turns()
    client.sendall(b"MAIL FROM:<>\r\n")
    assert everything(client) == FULL
    client.close()
    turns()
    assert len(world.gate.lingering) == 0


def banned(seconds):
    gone = ReplyText(454, "4.7.0", "go away")
    return Decision(Denial("net", "x", gone, 900.0, 0.0, False, 0.0, "p:1", wait=900.0, banned=seconds))


@pytest.mark.parametrize(("seconds", "asked"), [(900.0, 1), (0.0, 2)])
def test_who_is_banned_is_told_so_again_without_a_session(make_world, seconds, asked):
    """seconds: of the ban; a limit that refuses without one is asked each time."""
    policy = FakePolicy(lambda event, facts: banned(seconds))
    world = make_world(policy)
    crowd = Crowded(world)
    heard = []
    for _ in range(2):
        client, refusal = crowd.connect()
        heard.append((refusal, everything(client)))
    words = b"454 4.7.0 go away\r\n"
    assert heard == [(None, words), (None if asked == 2 else Refusal.BANNED, words)]
    assert len(policy.events) == len(world.journal.of("session")) == asked
    assert [line["reason"] for line in world.journal.of("flood")] == ["ban"] * (2 - asked)
    assert world.gate.refused["demo", "ban"] == 2 - asked


@pytest.mark.parametrize("early", [b"", b"EHLO early.test\r\n"])
def test_who_is_banned_hears_so_and_is_waited_for_only_if_it_has_spoken(make_world, early):
    world = make_world(FakePolicy(lambda event, facts: banned(900.0)))
    crowd = Crowded(world)
    assert everything(crowd.connect()[0]) == b"454 4.7.0 go away\r\n"
    client = gevent.socket.create_connection(world.server.getsockname())
    world.clients.append(client)
    client.sendall(early)
    turns()
    accepted, address = world.server.accept()
    world.gate.turn_away(0, accepted, address, world.gate.admit(0, address))
    assert len(world.gate.lingering) == bool(early)
    assert everything(client) == b"454 4.7.0 go away\r\n"


def test_a_client_behind_a_proxy_is_banned_and_not_the_proxy(make_world):
    world = make_world(FakePolicy(lambda event, facts: banned(900.0)), proxies=HERE)
    for count in (1, 1, 2):
        client, session = world.client()
        client.sendall(b"PROXY TCP4 192.0.2.%d 127.0.0.1 1 25\r\n" % (6 + count))
        assert everything(client) == b"454 4.7.0 go away\r\n"
        session.join(30)
    assert [line["client"] for line in world.journal.of("session")] == ["192.0.2.7", "192.0.2.8"]
    assert [line["client"] for line in world.journal.of("flood")] == ["192.0.2.7"]


def test_where_tls_comes_first_the_refusal_is_an_alert(make_world, tls):
    world = make_world(protocol=replace(OPEN, tls="implicit"), tls=tls, max_sessions=0)
    client, refusal = Crowded(world).connect()
    assert refusal is Refusal.FULL
    with pytest.raises(ssl.SSLError, match="internal error"):
        handshake().wrap_socket(client)


def test_who_speaks_for_others_is_not_a_client_and_whom_it_names_is(make_world):
    world = make_world(limits=AddressLimits(per_address=1), proxies=HERE)
    crowd = Crowded(world)
    clients = []
    for header in (V1, V1.replace(b"2.7", b"2.8"), V1):
        client, refusal = crowd.connect()
        assert refusal is None
        client.sendall(header)
        clients.append(client)
    assert [client.recv(100) for client in clients[:2]] == [GREETING] * 2
    assert everything(clients[2]) == OF_ADDRESS
    assert world.journal.of("flood")[0]["client"] == "192.0.2.7"
    assert world.gate.refused["demo", "max_sessions_per_ip"] == 1
    clients[0].close()
    turns()
    again, _ = crowd.connect()
    again.sendall(V1)
    assert again.recv(100) == GREETING


def test_who_may_use_xclient_is_not_a_client(make_world):
    world = make_world(limits=AddressLimits(per_address=1), xclient=HERE)
    crowd = Crowded(world)
    assert [crowd.connect()[1] for _ in range(3)] == [None] * 3


def test_who_has_no_header_to_send_is_counted_as_anybody(make_world):
    world = make_world(limits=AddressLimits(per_address=1), proxies=ELSEWHERE)
    crowd = Crowded(world)
    silent, refusal = crowd.connect()
    assert refusal is None
    assert everything(silent) == b""
    assert crowd.connect()[1] is None  # it has gone


def test_the_binds_of_one_listener_count_together(make_world):
    world = make_world(limits=AddressLimits(per_address=1), times=2)
    address = ("192.0.2.1", 4711)
    assert [world.gate.admit(index, address) for index in (0, 1)] == [None, Refusal.ADDRESS]


def test_the_last_words_arrive_although_the_client_still_speaks(make_world):
    world = make_world(protocol=replace(OPEN, max_errors=1))
    client, session = world.client()
    client.sendall(b"nonsense\r\n" + b"x" * 200_000)
    session.join(30)
    assert session.successful()
    client.sendall(b"y" * 1000)
    assert everything(client).startswith(GREETING)
    assert len(world.gate.lingering) == 1


# --- drips ---------------------------------------------------------------------------------------------------------


def client_hello():
    """A whole ClientHello, as OpenSSL writes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = handshake().wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("options", "first", "drip", "word"),
    [
        ({"proxies": HERE}, b"", V1, "refused"),
        ({"protocol": replace(OPEN, tls="implicit")}, b"", None, "connection_lost"),  # of the ClientHello
        ({"protocol": replace(OPEN, tls="implicit")}, None, b"\x16\x03\x03\x40\x00" + bytes(9), "connection_lost"),
        ({}, b"", b"EHLO a-long-name.test", "session"),
    ],
    ids=["PROXY header", "ClientHello", "the handshake after it", "command"],
)
def test_whoever_drips_is_ended(make_world, monkeypatch, tls, options, first, drip, word):
    """An octet now and then restarts no clock."""
    monkeypatch.setattr(listener, "PROXY_TIMEOUT", 0.15)
    monkeypatch.setattr(listener, "TLS_HANDSHAKE_TIMEOUT", 0.15)
    world = make_world(tls=tls, timeout=0.15, **options)
    client, session = world.client()
    hello = client_hello()
    client.sendall(hello if first is None else first)
    started = time.monotonic()
    for octet in hello if drip is None else drip:
        if session.ready():
            break
        try:
            client.sendall(bytes([octet]))
        except OSError:
            break
        gevent.sleep(0.02)
    else:
        pytest.fail("all of it was waited for")
    session.join(30)
    assert time.monotonic() - started > 0.1
    assert session.successful()
    assert len(world.journal.of(word)) == 1
    assert world.gate.sessions == 0
