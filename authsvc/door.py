"""Which application answers: the service for mail servers, or the operator's page, by the address that was asked.

Each knows nothing of the other: a path of one is not found at the other's address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class Doors:
    """A WSGI application of two. port: where `console` answers; `service` does everywhere else.

    local_port: of a request's connection; None where it is no TCP.
    """

    def __init__(
        self,
        service: WSGIApplication,
        console: WSGIApplication,
        port: int,
        local_port: Callable[[WSGIEnvironment], int | None] | None = None,
    ) -> None:
        self._service = service
        self._console = console
        self._port = port
        self._local_port = local_port or socket_port

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        chosen = self._console if self._local_port(environ) == self._port else self._service
        return chosen(environ, start_response)


def socket_port(environ: WSGIEnvironment) -> int | None:
    """As the kernel knows it. SERVER_PORT may be what a Host header said, where gunicorn serves a unix socket."""
    connection: Any = environ.get("gunicorn.socket")
    if connection is None:
        return None
    name = connection.getsockname()
    return name[1] if isinstance(name, tuple) else None
