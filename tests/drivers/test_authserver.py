"""Where a server is. How it is asked, and what breaks, is shown through AuthHttp in test_authhttp."""

from __future__ import annotations

import ssl
from pathlib import Path

import gevent.socket
import gevent.ssl
import pytest
from certificates import make_certificates
from gevent.server import StreamServer
from peers.process import HOST

from smtpgate.drivers.authserver import EXPECTED, MAX_CONNECTIONS, READ_SIZE, AuthServer, Endpoint, parse_url
from smtpgate.session.ports import AuthQuery, AuthRefused
from smtpgate.session.streams import Peer

QUERY = AuthQuery("plain", 1, Peer("192.0.2.7", 40000, "192.0.2.1", 25), "[UNAVAILABLE]", b"ann", b"hunter2")
GRANT = b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Pool: core\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:18080/auth", Endpoint("127.0.0.1", 18080, "/auth")),
        ("http://auth.example", Endpoint("auth.example", 80, "/")),
        ("https://auth.example/a?b=c%20d", Endpoint("auth.example", 443, "/a?b=c%20d", tls=True)),
        ("http://auth.example?b=c", Endpoint("auth.example", 80, "/?b=c")),
        ("http://[::1]:8080/auth", Endpoint("[::1]", 8080, "/auth")),
        ("unix:/run/auth.sock", Endpoint("localhost", 0, "/", path="/run/auth.sock")),
        ("unix:/run/auth.sock:/auth?x", Endpoint("localhost", 0, "/auth?x", path="/run/auth.sock")),
    ],
)
def test_urls(url: str, endpoint: Endpoint) -> None:
    assert parse_url(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:18080/auth",
        "ftp://auth.example/",
        "http://",
        "http:///auth",
        "http://auth.example:0/",
        "http://auth.example:65536/",
        "http://auth.example:port/",
        "http://[::1/",
        "http://ann:hunter2@auth.example/",
        "http://auth.example/#hunter2",
        "http://auth.example/a b?hunter2",
        "http://auth.example/a\r\nX:hunter2",
        "http://j\xf6rg.example/",
        "unix:run/auth.sock",
        "unix:/run/auth.sock:auth",
    ],
)
def test_urls_that_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="^auth_http url .*; " + EXPECTED) as refused:
        parse_url(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("room", [0, 1, 20])
def test_what_a_tls_record_holds_behind_an_answer_is_no_answer(room: int, tmp_path: Path) -> None:
    """A record is decrypted as a whole: what was not read of it waits in the process, where no poll sees it."""
    files = make_certificates(tmp_path)
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files.server)
    refusal = b"HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\nX: %b\r\n\r\n"
    refusal %= b"x" * (READ_SIZE - room - len(refusal % b""))

    def serve(sock: gevent.socket.socket, _address: object) -> None:
        first = sock.recv(65536)
        sock.sendall(refusal + GRANT)
        while first and sock.recv(65536):
            sock.sendall(refusal)

    web = StreamServer((HOST, 0), serve, ssl_context=context)
    web.start()
    url = f"https://{HOST}:{web.server_port}/"
    server = AuthServer(
        url, 5.0, {}, pass_client_cert=False, max_connections=MAX_CONNECTIONS, ca=str(files.ca), certificate=None
    )
    answers = [server.ask(QUERY, began=lambda: None, done=lambda: None).answer for _ in range(3)]
    assert answers == [AuthRefused("535 5.7.0", "no", 0.0)] * 3
    server.close()
    web.stop()
