"""gunicorn's gevent worker, without root's privileges, and with an answer of auth_http for requests that HTTP itself
does not allow; and its logger, without access lines.

Owns that one answer. nginx sends some octets of a client raw (DEL in a password, controls in a MAIL command:
reference/auth_http.md sections 3 and 4). gunicorn refuses them with a page that has no Auth-Status, for which
nginx tells the mail client of an internal error and hangs up; a syntax error is what it was.
"""

from __future__ import annotations

from typing import Any, Final

from gunicorn import util
from gunicorn.glogging import Logger
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName, ParseException
from gunicorn.workers.ggevent import GeventWorker

from authsvc.answer.contract import Refused, write_answer
from smtpgate.drivers import garbage, privileges

# RFC 5321 section 4.2.3 and RFC 3463: a syntax error in what was sent; the client may try again.
MALFORMED: Final = Refused("501 5.5.2", "Malformed credentials or command", wait=1)


class ProcessLogger(Logger):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's own lines, and none of requests: the service writes those itself (answer.auth). Where there is a
    logconfig_dict gunicorn makes an access line for each request although nobody asked for one, a tenth of its time.
    """

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        return None


class AuthWorker(GeventWorker):  # type: ignore[misc] # gunicorn has no types
    """One worker process of the auth service."""

    def init_process(self) -> None:
        privileges.drop(self.cfg.uid, self.cfg.gid)
        super().init_process()

    def run(self) -> None:
        garbage.settle()
        super().run()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be parsed; the rest is gunicorn's."""
        ours = isinstance(exc, InvalidResponseHeader | InvalidResponseHeaderName)
        if ours or not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        # The class only: the text of some of these holds the header that was sent.
        self.log.warning("bad request from %s: %s", addr[0] if addr else "unix:", type(exc).__name__)
        headers = [*write_answer(MALFORMED), ("Content-Length", "0"), ("Connection", "close")]
        block = "".join(f"{name}: {value}\r\n" for name, value in headers)
        try:
            util.write_nonblock(client, f"HTTP/1.1 400 Bad Request\r\n{block}\r\n".encode("ascii"))
        except OSError:
            self.log.debug("the peer of a bad request is gone")
