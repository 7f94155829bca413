"""Two applications, told apart by the address that was asked."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import pytest

from authsvc.door import Doors, socket_port


def answering(name: bytes):
    def app(environ, start_response) -> Iterable[bytes]:
        return [name]

    return app


@pytest.mark.parametrize(("port", "expected"), [(18081, b"console"), (18080, b"service"), (None, b"service")])
def test_by_port(port: int | None, expected: bytes) -> None:
    doors = Doors(answering(b"service"), answering(b"console"), 18081, local_port=lambda environ: port)
    assert list(doors({}, lambda *_: None)) == [expected]


def test_the_kernel_tells_and_not_the_request() -> None:
    claimed = {"SERVER_PORT": "18081", "HTTP_HOST": "localhost:18081"}
    assert socket_port(claimed) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert socket_port({**claimed, "gunicorn.socket": server}) == server.getsockname()[1]
    near, far = socket.socketpair()
    with near, far:
        assert socket_port({**claimed, "gunicorn.socket": near}) is None
