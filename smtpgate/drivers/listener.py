"""Accepted connections become sessions: one greenlet each.

Owns the steps before a session (PROXY header, implicit TLS), the set of live sessions, and the drain. Refuses to know
what a session does (`session.flow`), how a handshake goes (`listenertls`) and which process it runs in (`worker`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import gevent
import gevent.socket

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers.listenertls import ListenerTls
from smtpgate.drivers.peek import PeerGone, peek, take
from smtpgate.drivers.stream import SocketStream, peer_of
from smtpgate.journal import Journal
from smtpgate.session import flow
from smtpgate.session.ports import (
    Authenticator,
    Backends,
    Names,
    Peer,
    Ports,
    Proxied,
    StreamLost,
    StreamTimeout,
    TlsInfo,
)
from smtpgate.smtp import replies
from smtpgate.smtp.proxyheader import MAX_V2, ProxyHeader, ProxyHeaderError, parse
from smtpgate.units import UNIX, PeerNetwork, is_among

TLS_HANDSHAKE_TIMEOUT: Final = flow.TLS_HANDSHAKE_TIMEOUT
# HAProxy's accept-proxy waits for `timeout client`; a proxy sends its header with the first packet, and 5 s let one
# retransmission of it arrive (reference/security.md E2).
PROXY_TIMEOUT: Final = 5.0
# The worst answer to a client is silence: even a bug of ours says this much (reference/security.md I).
LAST_RESORT: Final = replies.reply(421, "4.3.0 Internal server error")
LAST_WORDS_TIMEOUT: Final = 1.0


class _Unwelcome(Exception):
    """Whoever has connected gets no session. `str()` is for the log."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One configured listener. tls: where it has TLS. learn_capabilities: its EHLO lines follow the backends.

    proxies: from whom a PROXY header is demanded; without any, connections begin without one. authenticator,
    backends, names: its own, instead of those of all.
    """

    settings: flow.SessionSettings
    tls: ListenerTls | None = None
    learn_capabilities: bool = False
    proxies: tuple[PeerNetwork, ...] = ()
    authenticator: Authenticator | None = None
    backends: Backends | None = None
    names: Names | None = None


class Gate:
    """What one worker process does with its connections.

    listeners are in the order of the process's sockets (one entry a bind). graceful_timeout: seconds that a drain
    lets sessions finish. on_retire: told when it begins.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        ports: Ports,
        graceful_timeout: float,
        on_retire: Callable[[], None] = lambda: None,
    ) -> None:
        self.graceful_timeout = graceful_timeout
        self._on_retire = on_retire
        self._draining = False
        self._ports = replace(ports, draining=lambda: self._draining)
        self._listeners = [(listener, self._ports_of(listener)) for listener in listeners]
        self._journal: Journal = ports.journal
        self._clock: Clock = ports.clock
        self._live: set[SocketStream] = set()

    @property
    def sessions(self) -> int:
        """Sessions alive now."""
        return len(self._live)

    def __call__(self, index: int, sock: gevent.socket.socket, _address: object = None) -> None:
        """Serve one accepted connection to its end. Never raises; the socket is closed on return."""
        listener, ports = self._listeners[index]
        try:
            peer = peer_of(sock)
            proxied = self._proxied(listener, sock, peer) if listener.proxies else None
            stream = SocketStream(sock, listener.tls, peer=peer if proxied is None else _behind(peer, proxied))
        except StreamLost as lost:
            self._journal.info("connection_lost", listener=listener.settings.listener, reason=str(lost))
        except _Unwelcome as unwelcome:
            name = listener.settings.listener
            self._journal.warning("refused", client=peer.host, listener=name, reason=str(unwelcome))
        else:
            self._serve(listener, ports, stream, proxied)
        finally:
            sock.close()

    def _serve(self, listener: Listener, ports: Ports, stream: SocketStream, proxied: Proxied | None) -> None:
        self._live.add(stream)
        who = {"client": stream.peer.host, "listener": listener.settings.listener}
        if proxied is not None:
            who["via"] = proxied.via
        try:
            if listener.settings.protocol.tls == "implicit":
                stream.start_tls(Deadline(self._clock, TLS_HANDSHAKE_TIMEOUT))
            flow.run(stream, listener.settings, ports, proxied)
        except (StreamLost, StreamTimeout) as lost:
            self._journal.info("connection_lost", **who, reason=str(lost) or "timed out")
        except Exception:  # noqa: BLE001 - the one place where a bug meets its session: the others live on
            self._journal.error("bug", **who, traceback=traceback.format_exc(limit=-6))
            self._last_words(stream, LAST_RESORT)
        except gevent.GreenletExit:
            self._last_words(stream, replies.SHUTTING_DOWN)  # the drain's time is over
        finally:
            self._live.discard(stream)
            stream.close()

    def _proxied(self, listener: Listener, sock: gevent.socket.socket, peer: Peer) -> Proxied | None:
        """Take the PROXY header off: whom it names, None where its sender speaks for itself. TLS stands behind it.

        Raises _Unwelcome, StreamLost.
        """
        if peer.host != UNIX and not is_among(peer.host, listener.proxies):
            raise _Unwelcome("is in none of the networks of proxy_protocol")
        deadline = Deadline(self._clock, PROXY_TIMEOUT)
        try:
            header, octets = peek(sock, parse, MAX_V2, deadline)
            take(sock, octets, deadline)
        except TimeoutError:
            raise _Unwelcome(f"has sent no whole PROXY header within {PROXY_TIMEOUT:g} s") from None
        except ProxyHeaderError as fault:
            raise _Unwelcome(f"PROXY header {fault}") from None
        except (PeerGone, OSError):
            raise StreamLost(f"{peer.host} has gone before its PROXY header") from None
        if header.source is None or header.destination is None:
            return None
        return Proxied(peer.host, Peer(*header.source, *header.destination), _tls_in_front(header))

    def _ports_of(self, listener: Listener) -> Ports:
        ports = replace(self._ports, names=listener.names)
        if listener.authenticator is not None:
            ports = replace(ports, authenticator=listener.authenticator)
        if listener.backends is not None:
            ports = replace(ports, backends=listener.backends)
        return ports

    def _last_words(self, stream: SocketStream, reply: replies.Reply) -> None:
        try:
            stream.write(reply.wire(), Deadline(self._clock, LAST_WORDS_TIMEOUT))
        except (StreamLost, StreamTimeout):
            pass

    def offer(self, capabilities: tuple[str, ...]) -> None:
        """The EHLO lines of the listeners that learn them, for the sessions to come."""
        for index, (listener, ports) in enumerate(self._listeners):
            if listener.learn_capabilities:
                protocol = replace(listener.settings.protocol, capabilities=capabilities)
                settings = replace(listener.settings, protocol=protocol)
                self._listeners[index] = (replace(listener, settings=settings), ports)

    def retire(self) -> None:
        """No more sessions will come to this process: whatever is kept for them is let go. Those under way go on."""
        self._on_retire()

    def drain(self) -> None:
        """Sessions finish the transaction they are in and get 421; those at rest get it now."""
        self._draining = True
        self._ports.holds.drain()
        for stream in list(self._live):
            stream.interrupt()


def _behind(peer: Peer, proxied: Proxied) -> Peer:
    """The client's address with our own end of the connection, as nginx puts them together (nginx_mail.md section 6).
    A unix socket has none: there it is the one that the client connected to.
    """
    if peer.local_host == UNIX:
        return proxied.ends
    return replace(proxied.ends, local_host=peer.local_host, local_port=peer.local_port)


def _tls_in_front(header: ProxyHeader) -> TlsInfo | None:
    if header.tls is None:
        return None
    return TlsInfo(header.tls.version or "", header.tls.cipher or "", header.authority)
