"""Accepted connections become sessions: one greenlet each.

Owns the listeners' TLS contexts, the set of live sessions, and the drain. Refuses to know what a session does
(`session.flow`) and which process it runs in (`worker`).
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import gevent
import gevent.socket
import gevent.ssl

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers.stream import SocketStream
from smtpgate.journal import Journal
from smtpgate.session import flow
from smtpgate.session.ports import Ports, StreamLost, StreamTimeout
from smtpgate.smtp import replies

TLS_HANDSHAKE_TIMEOUT: Final = flow.TLS_HANDSHAKE_TIMEOUT
# The worst answer to a client is silence: even a bug of ours says this much (reference/security.md I).
LAST_RESORT: Final = replies.reply(421, "4.3.0 Internal server error")
LAST_WORDS_TIMEOUT: Final = 1.0


@dataclass(frozen=True, slots=True)
class Listener:
    """One configured listener. certificates: (certificate chain, key) files, PEM."""

    settings: flow.SessionSettings
    certificates: tuple[tuple[Path, Path], ...] = ()


class Gate:
    """What one worker process does with its connections.

    listeners are in the order of the process's sockets (one entry a bind). graceful_timeout: seconds that a drain
    lets sessions finish.
    """

    def __init__(self, listeners: Sequence[Listener], ports: Ports, graceful_timeout: float) -> None:
        self.graceful_timeout = graceful_timeout
        self._listeners = [(listener, _context(listener)) for listener in listeners]
        self._draining = False
        self._ports = replace(ports, draining=lambda: self._draining)
        self._journal: Journal = ports.journal
        self._clock: Clock = ports.clock
        self._live: set[SocketStream] = set()

    @property
    def sessions(self) -> int:
        """Sessions alive now."""
        return len(self._live)

    def __call__(self, index: int, sock: gevent.socket.socket, _address: object = None) -> None:
        """Serve one accepted connection to its end. Never raises; the socket is closed on return."""
        listener, context = self._listeners[index]
        try:
            stream = SocketStream(sock, context)
        except StreamLost:
            sock.close()  # the client has gone between connect and accept
            return
        self._live.add(stream)
        try:
            if listener.settings.protocol.tls == "implicit":
                stream.start_tls(Deadline(self._clock, TLS_HANDSHAKE_TIMEOUT))
            flow.run(stream, listener.settings, self._ports)
        except (StreamLost, StreamTimeout) as lost:
            self._journal.info("connection_lost", client=stream.peer.host, reason=str(lost) or "timed out")
        except Exception:  # noqa: BLE001 - the one place where a bug meets its session: the others live on
            self._journal.error("bug", client=stream.peer.host, traceback=traceback.format_exc(limit=-6))
            self._last_words(stream, LAST_RESORT)
        except gevent.GreenletExit:
            self._last_words(stream, replies.SHUTTING_DOWN)  # the drain's time is over
        finally:
            self._live.discard(stream)
            stream.close()

    def _last_words(self, stream: SocketStream, reply: replies.Reply) -> None:
        try:
            stream.write(reply.wire(), Deadline(self._clock, LAST_WORDS_TIMEOUT))
        except (StreamLost, StreamTimeout):
            pass

    def drain(self) -> None:
        """Sessions finish the transaction they are in and get 421; those at rest get it now."""
        self._draining = True
        for stream in list(self._live):
            stream.interrupt()


def _context(listener: Listener) -> gevent.ssl.SSLContext | None:
    if listener.settings.protocol.tls == "off":
        return None
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = gevent.ssl.TLSVersion.TLSv1_2
    context.options |= gevent.ssl.OP_NO_RENEGOTIATION
    for certificate, key in listener.certificates:
        context.load_cert_chain(certificate, key)
    return context
