"""STARTTLS injection on the wire, with real TLS, in both directions and at every split (CVE-2011-0411, RFC 3207).

Octets that somebody in the middle puts behind STARTTLS, or behind a backend's 220 to it, are said in clear: whoever
takes one of them for something that was said inside TLS has lost.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
from certificates import Certificates, make_certificates
from peers.process import HOST, free_port, wait_until
from rawclient import RawClient
from recorder import Recorder
from stack import RELAY, UNSHARED, Stack

BACKEND: Final = free_port()
AT_ONCE: Final = 16
GAP: Final = 0.01  # seconds between two pieces, so that they are two packets
STARTTLS: Final = b"STARTTLS\r\n"
INJECTED: Final = b"MAIL FROM:<smug@x.test>\r\nRCPT TO:<smug@x.test>\r\nDATA\r\nsmug\r\n.\r\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def trust(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates.ca))


# --- a client that is made to say more ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack], certificates: Certificates) -> Stack:
    cert, key = map(str, certificates.server)
    listener = {**RELAY, "tls": "starttls", "certificate": [{"cert": cert, "key": key}], "error_delay": "0s"}
    return start_module_stack([(HOST, BACKEND)], listeners=[listener], auth_url=None, pool=UNSHARED)


@pytest.fixture
def backend() -> Iterator[Recorder]:
    with Recorder(HOST, BACKEND) as recorder:
        yield recorder


def client_hello(trust: ssl.SSLContext) -> bytes:
    """The first octets of a TLS client."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        trust.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST).do_handshake()
    return outgoing.read()


def secured(stack: Stack, trust: ssl.SSLContext, pieces: list[bytes]) -> bool:
    """Say the pieces in clear, and then what a client says in TLS; whether it came to that. The injected octets were
    then answered by nobody: the first words inside are the answer to the client's own first command.
    """
    with RawClient(stack.proxy) as client:
        client.greeted()
        for piece in pieces:
            client.send(piece)
            time.sleep(GAP)
        assert client.reply() == b"220 2.0.0 Start TLS\r\n"
        try:
            client.sock = trust.wrap_socket(client.sock, server_hostname=HOST)
        except OSError:  # the octets fell into the handshake, which ended the connection
            return False
        assert client.ask(b"RCPT TO:<b@example.com>").startswith(b"503 ")
        assert client.ask(b"EHLO inside.example").startswith(b"250-")
        assert client.deliver() == b"250 2.0.0 recorded\r\n"
    return True


def test_what_stands_behind_starttls_is_nobodys_command(
    stack: Stack, backend: Recorder, trust: ssl.SSLContext
) -> None:
    said = STARTTLS + INJECTED
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda at: secured(stack, trust, [said[:at], said[at:]]), range(1, len(said))))
        # What came in one packet with STARTTLS is dropped, and the client goes on inside.
        assert all(pool.map(lambda end: secured(stack, trust, [said[:end]]), range(len(STARTTLS), len(said) + 1)))
    # Split before STARTTLS is whole, the rest comes in the packet that completes it.
    assert all(done[: len(STARTTLS) - 1])
    wait_until(lambda: backend.open == 0, "the proxy has left its backend")
    assert {message.sender for message in backend.messages} == {b"MAIL FROM:<a@example.com>"}
    assert len(backend.messages) == sum(done) + len(INJECTED) + 1
    assert b"smug" not in b"".join(bytes(one.octets) for one in backend.conversations)


@pytest.mark.parametrize("injected", [b"", INJECTED], ids=["alone", "behind commands"])
def test_a_handshake_that_was_begun_too_early_hears_nothing_in_clear(
    injected: bytes, stack: Stack, backend: Recorder, trust: ssl.SSLContext
) -> None:
    with RawClient(stack.proxy) as client:
        client.greeted().send(STARTTLS + injected + client_hello(trust))
        assert client.reply() == b"220 2.0.0 Start TLS\r\n"
        client.send(b"QUIT\r\n" * 20)  # no TLS either: it ends what may still wait for a handshake
        heard = client.reply()
    assert not heard[:1].isdigit()
    assert backend.conversations == []


# --- a backend that is made to say more --------------------------------------------------------------------------

HELLO: Final = b"250-mta\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
GO: Final = b"220 go\r\n"


class Injecting:
    """A TLS mail server in whose 220 to STARTTLS, said in `pieces`, somebody puts more. Behind it, it goes on as if
    nothing had happened. secret: what it heard inside TLS."""

    def __init__(self, certificates: Certificates) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificates.server)
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.pieces: list[bytes] = [GO]
        self.asked = 0
        self.secret: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(5)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    self._speak(sock)
                except OSError:
                    pass

    def _speak(self, sock: socket.socket) -> None:
        for answer in (b"220 mta\r\n", HELLO):
            sock.sendall(answer)
            sock.recv(4096)
        self.asked += 1
        for piece in self.pieces:
            sock.sendall(piece)
            time.sleep(GAP)
        with self._context.wrap_socket(sock, server_side=True) as inside:
            while line := inside.recv(4096):
                self.secret.append(line)
                inside.sendall(b"250 inside\r\n" * line.count(b"\r\n"))


@pytest.fixture(scope="module")
def injecting(certificates: Certificates) -> Iterator[Injecting]:
    server = Injecting(certificates)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def towards(start_module_stack: Callable[..., Stack], certificates: Certificates, injecting: Injecting) -> Stack:
    pool = {
        **UNSHARED,
        "tls": {"mode": "required", "ca": str(certificates.ca), "server_name": "mail.example.com"},
        "failover": {"attempts": 1, "deadline": "5s"},
    }
    return start_module_stack([(HOST, injecting.port)], listeners=[RELAY], auth_url=None, pool=pool)


def first_rcpt(stack: Stack) -> bytes:
    with RawClient(stack.proxy) as client:
        client.greeted().ask(b"MAIL FROM:<a@example.com>")
        return client.ask(b"RCPT TO:<b@example.com>")


@pytest.mark.parametrize(
    "injected", [b"250-mta\r\n250 AUTH PLAIN\r\n", b"250 x\r\n", b"2", b"\r\n", b"220 again\r\n", b"421 bye\r\n"]
)
def test_what_stands_behind_a_backends_220_is_no_reply(injected: bytes, towards: Stack, injecting: Injecting) -> None:
    injecting.pieces = [GO]
    assert first_rcpt(towards) == b"250 inside\r\n"
    assert injecting.secret[0].startswith(b"EHLO ")
    wait_until(lambda: injecting.secret[-1] == b"QUIT\r\n", "the session inside TLS has ended")
    injecting.secret.clear()
    said = GO + injected
    for at in range(1, len(said) + 1):
        before = injecting.asked
        injecting.pieces = [said[:at], said[at:]] if at < len(said) else [said]
        assert first_rcpt(towards).startswith(b"451 4."), at
        assert injecting.asked > before, at
        assert injecting.secret == [], at
