"""The answer to what HTTP does not allow, octet for octet, and what is left to gunicorn."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidHeader, InvalidHTTPVersion, InvalidResponseHeader, LimitRequestHeaders
from gunicorn.workers.ggevent import GeventWorker

from authsvc.worker import AuthWorker, ProcessLogger
from smtpgate.drivers import garbage

MALFORMED = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Auth-Status: Malformed credentials or command\r\n"
    b"Auth-Error-Code: 501 5.5.2\r\n"
    b"Auth-Wait: 1\r\n"
    b"Content-Length: 0\r\n"
    b"Connection: close\r\n"
    b"\r\n"
)


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *args: object) -> None:
        self.lines.append("warning: " + text % args)

    def debug(self, text: str, *args: object) -> None:
        self.lines.append("debug: " + text % args)


class Client:
    """A socket, as far as it is written to."""

    def __init__(self, error: OSError | None = None) -> None:
        self.sent = b""
        self.error = error

    def gettimeout(self) -> float:
        return 0.0

    def setblocking(self, flag: int) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.sent += data


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that was never started; `left` is what it leaves to gunicorn."""
    made: Any = AuthWorker.__new__(AuthWorker)
    made.log, made.left = Log(), []
    monkeypatch.setattr(GeventWorker, "handle_error", lambda self, req, client, addr, exc: made.left.append(exc))
    return made


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (InvalidHeader("Auth-Pass: hunter2\x01"), "InvalidHeader"),
        (LimitRequestHeaders("hunter2"), "LimitRequestHeaders"),
        (InvalidHTTPVersion("hunter2"), "InvalidHTTPVersion"),
    ],
)
def test_a_request_that_http_does_not_allow_is_a_syntax_error(worker: Any, error: Exception, name: str) -> None:
    client = Client()
    worker.handle_error(None, client, ("127.0.0.1", 40000), error)
    assert client.sent == MALFORMED
    assert worker.log.lines == [f"warning: bad request from 127.0.0.1: {name}"]
    assert worker.left == []


def test_on_a_unix_socket_there_is_no_address(worker: Any) -> None:
    worker.handle_error(None, Client(), "", InvalidHeader("x"))
    assert worker.log.lines == ["warning: bad request from unix:: InvalidHeader"]


def test_a_peer_that_is_gone_is_no_second_fault(worker: Any) -> None:
    worker.handle_error(None, Client(BrokenPipeError()), ("127.0.0.1", 40000), InvalidHeader("x"))
    assert worker.log.lines[1:] == ["debug: the peer of a bad request is gone"]


@pytest.mark.parametrize("error", [InvalidResponseHeader("x"), RuntimeError("a bug"), OSError(9, "EBADF")])
def test_what_is_not_the_clients_doing_is_left_to_gunicorn(worker: Any, error: Exception) -> None:
    client = Client()
    worker.handle_error(None, client, ("127.0.0.1", 40000), error)
    assert (client.sent, worker.left, worker.log.lines) == (b"", [error], [])


def test_what_was_loaded_is_not_looked_through_while_it_serves(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(garbage, "settle", lambda: done.append("settled"))
    monkeypatch.setattr(GeventWorker, "run", lambda self: done.append("served"))
    worker.run()
    assert done == ["settled", "served"]


def test_gunicorn_makes_no_line_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    config = Config()
    config.set("logger_class", "authsvc.worker.ProcessLogger")
    config.set("logconfig_dict", {"version": 1, "loggers": {"gunicorn.error": {"level": "INFO"}}})
    log = config.logger_class(config)
    assert isinstance(log, ProcessLogger)
    records: list[logging.LogRecord] = []
    log.access_log.addFilter(lambda record: records.append(record) or False)
    assert log.access_log_enabled  # gunicorn's own would make one
    log.access(None, None, {}, None)
    assert records == []
