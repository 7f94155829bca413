"""Accepted connections become sessions: one greenlet each.

Owns who is let in and what the others are told, the steps before a session (PROXY header, implicit TLS), the set of
live sessions, and the drain. Refuses to know how connections are counted (`admission`) and accepted (`acceptor`),
what a session does (`session.flow`), how a handshake goes (`listenertls`) and in which process it is (`worker`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import gevent
import gevent.socket

from smtpgate.clock import Clock, Deadline
from smtpgate.drivers.admission import AddressLimits, Crowd, Refusal, Stress
from smtpgate.drivers.descriptors import close_now
from smtpgate.drivers.ends import host_of, peer_of
from smtpgate.drivers.floodlog import FloodLog
from smtpgate.drivers.lingering import MAX_LINGERING, Lingering, unread
from smtpgate.drivers.listenertls import NO_ROOM_ALERT, ListenerTls
from smtpgate.drivers.metricsserver import WorkerMetrics
from smtpgate.drivers.peek import PeerGone, peek, take
from smtpgate.drivers.stream import SocketStream
from smtpgate.journal import Journal
from smtpgate.session import flow
from smtpgate.session.ports import Authenticator, Backends, Names, Ports
from smtpgate.session.streams import Peer, Proxied, StreamLost, StreamTimeout, TlsInfo
from smtpgate.smtp import replies
from smtpgate.smtp.proxyheader import MAX_V2, ProxyHeader, ProxyHeaderError, parse
from smtpgate.smtp.replies import Reply
from smtpgate.units import UNIX, PeerNetwork, is_among

TLS_HANDSHAKE_TIMEOUT: Final = flow.TLS_HANDSHAKE_TIMEOUT
# HAProxy's accept-proxy waits for `timeout client`; a proxy sends its header with the first packet, and 5 s let one
# retransmission of it arrive (reference/security.md E2).
PROXY_TIMEOUT: Final = 5.0
# The worst answer to a client is silence: even a bug of ours says this much (reference/security.md I).
LAST_RESORT: Final = replies.reply(421, "4.3.0 Internal server error")
LAST_WORDS_TIMEOUT: Final = 1.0
MAX_SESSIONS: Final = 10_000  # of a worker, where nobody says otherwise
USUAL_LIMITS: Final = AddressLimits()

WORDS: Final = {
    Refusal.FULL: replies.TOO_MANY_SESSIONS,
    Refusal.DESCRIPTORS: replies.TOO_MANY_SESSIONS,
    Refusal.ADDRESS: replies.TOO_MANY_OF_ADDRESS,
    Refusal.NETWORK: replies.TOO_MANY_OF_NETWORK,
}


# Beside the Refusals: who came without the PROXY header that is demanded.
NO_HEADER: Final = "proxy_protocol"


class _Unwelcome(Exception):
    """Whoever has connected gets no session. `str()` is for the log."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One configured listener. tls: where it has TLS. learn_capabilities: its EHLO lines follow the backends.

    proxies: from whom a PROXY header is demanded; without any, connections begin without one. authenticator,
    backends, names: its own, instead of those of all. limits: of one client's connections; who speaks for others
    (`proxies`, `settings.xclient`) is not one client.
    """

    settings: flow.SessionSettings
    tls: ListenerTls | None = None
    learn_capabilities: bool = False
    proxies: tuple[PeerNetwork, ...] = ()
    authenticator: Authenticator | None = None
    backends: Backends | None = None
    names: Names | None = None
    limits: AddressLimits = USUAL_LIMITS


class Gate:
    """What one worker process does with its connections.

    listeners are in the order of the process's sockets (one entry a bind). graceful_timeout: seconds that a drain
    lets sessions finish. on_retire: told when it begins. max_sessions: connections at once.

    An accepted connection is asked for with `admit`; who is admitted is served by a call, in a greenlet of its own,
    and everybody else is turned away.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        ports: Ports,
        graceful_timeout: float,
        on_retire: Callable[[], None] = lambda: None,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        self.graceful_timeout = graceful_timeout
        self.max_sessions = max_sessions
        self._on_retire = on_retire
        self._draining = False
        self._stress = Stress(max_sessions)
        self._ports = replace(ports, draining=lambda: self._draining, stressed=lambda: self._stress.on)
        self._journal: Journal = ports.journal
        self._clock: Clock = ports.clock
        self._live: set[SocketStream] = set()
        self._admitted = 0
        crowds = {one.settings.listener: Crowd(one.limits) for one in listeners}
        self._crowds = [crowds[one.settings.listener] for one in listeners]
        self._listeners = [
            (one, self._ports_of(one, crowd)) for one, crowd in zip(listeners, self._crowds, strict=True)
        ]
        self._floods = FloodLog(ports.journal)
        # Who got no session, by listener and reason; all are there from the beginning, since a rate needs one.
        self.refused = {
            (name, reason): 0 for name in crowds for reason in (*(one.value for one in Refusal), NO_HEADER)
        }
        # They have descriptors too, of which a small process has few.
        self.lingering = Lingering(min(MAX_LINGERING, max_sessions))
        # Who answers on a socket behind those of the listeners.
        self.metrics: WorkerMetrics | None = None

    @property
    def addresses(self) -> int:
        """Sockets whose connections become sessions; they are the first of the process."""
        return len(self._listeners)

    @property
    def sessions(self) -> int:
        """Sessions alive now."""
        return len(self._live)

    @property
    def stressed(self) -> bool:
        """Hardly a place is left for another session."""
        return self._stress.on

    def admit(self, index: int, address: Any) -> Refusal | None:
        """Count an accepted connection in, or say why not; address: as accept() tells it. Does not block."""
        if self._admitted >= self.max_sessions:
            return Refusal.FULL
        host = host_of(address)
        if self._is_a_client(index, host):
            refusal = self._crowds[index].enter(host, self._clock.monotonic())
            if refusal is not None:
                return refusal
        self._count(1)
        return None

    def _count(self, more: int) -> None:
        """So many more connections. Where that begins stress, those that wait reckon their time anew."""
        self._admitted += more
        if not self._stress.taken(self._admitted):
            return
        if not self._stress.on:
            self._journal.info("stress_over", sessions=self._admitted)
            return
        self._journal.warning("stress", sessions=self._admitted, max_sessions=self.max_sessions)
        for stream in list(self._live):
            stream.interrupt()

    def turn_away(self, index: int, sock: gevent.socket.socket, address: Any, refusal: Refusal) -> None:
        """Tell a client that was not admitted, and end the connection. Does not block: there is room for the first
        octets that are ever written to a socket.
        """
        self._refuse(index, sock, host_of(address), refusal)

    def __call__(self, index: int, sock: gevent.socket.socket, address: Any = None) -> None:
        """Serve one admitted connection to its end. Never raises; the socket is closed on return."""
        try:
            self._meet(index, sock, address)
        finally:
            sock.close()
            self._count(-1)
            host = host_of(address)
            if self._is_a_client(index, host):
                self._crowds[index].leave(host)

    def _is_a_client(self, index: int, host: str) -> bool:
        """Whether connections of `host` are its own, and not those of others that it speaks for."""
        listener, _ = self._listeners[index]
        others = (*listener.proxies, *listener.settings.xclient)
        return not others or not is_among(host, others)

    def _meet(self, index: int, sock: gevent.socket.socket, address: Any) -> None:
        listener, ports = self._listeners[index]
        name = listener.settings.listener
        try:
            peer = peer_of(sock, address)
            proxied = self._proxied(listener, sock, peer) if listener.proxies else None
            ends = peer if proxied is None else _behind(peer, proxied)
            # Whoever accepts has seen to TCP_NODELAY; without an address it was somebody else.
            stream = SocketStream(sock, listener.tls, peer=ends, nodelay=address is not None)
        except StreamLost as lost:
            self._journal.info("connection_lost", listener=name, reason=str(lost))
            return
        except _Unwelcome as unwelcome:
            self.refused[name, NO_HEADER] += 1
            self._journal.warning("refused", client=peer.host, listener=name, reason=str(unwelcome))
            return
        if proxied is None:
            self._serve(listener, ports, stream, None)
            return
        crowd, client = self._crowds[index], proxied.ends.host
        refusal = crowd.enter(client, self._clock.monotonic())
        if refusal is not None:
            self._refuse(index, sock, client, refusal)
            return
        try:
            self._serve(listener, ports, stream, proxied)
        finally:
            crowd.leave(client)

    def _refuse(self, index: int, sock: gevent.socket.socket, client: str, refusal: Refusal) -> None:
        listener, _ = self._listeners[index]
        words = self._crowds[index].words(client) if refusal is Refusal.BANNED else WORDS[refusal].wire()
        self.refused[listener.settings.listener, refusal.value] += 1
        self._floods.refused(listener.settings.listener, refusal, client)
        before_tls = listener.settings.protocol.tls == "implicit"
        sock.settimeout(0.0)
        try:
            sock.send(NO_ROOM_ALERT if before_tls else words)
        except OSError:
            pass
        if refusal is Refusal.DESCRIPTORS or (refusal is Refusal.BANNED and not unread(sock)):
            # The next client needs this one; or it is a flood's, and has not spoken before its turn.
            close_now(sock.detach())
        else:
            self.lingering.take(sock.detach())

    def _serve(self, listener: Listener, ports: Ports, stream: SocketStream, proxied: Proxied | None) -> None:
        self._live.add(stream)
        who = {"client": stream.peer.host, "listener": listener.settings.listener}
        if proxied is not None:
            who["via"] = proxied.via
        try:
            if listener.settings.protocol.tls == "implicit":
                patience = flow.STRESS_TIMEOUT if self._stress.on else TLS_HANDSHAKE_TIMEOUT
                stream.start_tls(Deadline(self._clock, patience))
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
            stream.close(self.lingering.take)

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

    def _ports_of(self, listener: Listener, crowd: Crowd) -> Ports:
        def banned(address: str, seconds: float, words: Reply) -> None:
            crowd.ban(address, seconds, words.wire(), self._clock.monotonic())

        ports = replace(self._ports, names=listener.names, banned=banned)
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
