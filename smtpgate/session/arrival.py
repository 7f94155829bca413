"""Whether a client may have a session at all: before its greeting, and again where it has become another one.

Owns the order of what is asked: the limits on connections, the client's name, its certificate, and that it does not
speak before its turn. Refuses to know what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smtpgate.clock import Deadline
from smtpgate.policy.model import Event
from smtpgate.session.client import Client
from smtpgate.session.policing import Account, Policing
from smtpgate.session.ports import Attending, Ports
from smtpgate.session.streams import Stream, StreamInterrupted, StreamLost, StreamTimeout
from smtpgate.smtp import replies
from smtpgate.smtp.replies import Reply

MAX_SHOWN: Final = 64  # octets of what an early talker said, in the log
# Seconds for which a ban is known without asking the limits' store again: for so long one that was lifted goes on.
BAN_MEMORY: Final = 5.0


@dataclass(frozen=True, slots=True)
class Rejection:
    """The last words to a client that gets no session, and why, for the log."""

    reply: Reply
    reason: str


class Arrival:
    """One connection's. certificate_required: of clients, under TLS. greeting_delay: seconds in which a client may
    not speak yet.
    """

    def __init__(
        self,
        ports: Ports,
        stream: Stream,
        client: Client,
        policing: Policing,
        attending: Attending,
        *,
        certificate_required: bool,
        greeting_delay: float,
    ) -> None:
        self._ports = ports
        self._stream = stream
        self._client = client
        self._policing = policing
        self._attending = attending
        self._certificate_required = certificate_required
        self._greeting_delay = greeting_delay
        self._account = Account()

    def before_greeting(self) -> Rejection | None:
        """A client has connected."""
        return self._limited() or self._uncertified() or self._early()

    def secured(self, served: str) -> Rejection | None:
        """TLS has begun, with whoever really is there. served: the address that was spoken for until then."""
        return self._uncertified() or self.replaced(served)

    def replaced(self, served: str) -> Rejection | None:
        """Another client may have come in the place of the one at `served`. Another address has other limits: the
        places that the last one had are free, this one needs its own.
        """
        if self._client.peer.host == served:
            return None
        self.leave()
        return self._limited()

    def leave(self) -> None:
        """The places of the connection are free."""
        self._policing.settle(self._account)

    def _limited(self) -> Rejection | None:
        """The limits on connections, then the client's name: who is refused is not looked up."""
        refused = self._policing.ask(Event.CONNECT, self._client.facts, self._account)
        if refused is not None:
            if refused.banned > 0.0:
                known = min(refused.banned, BAN_MEMORY)
                self._ports.banned(self._client.peer.host, known, refused.reply.closing())
            return Rejection(refused.reply.closing(), f"refused by {refused.denial.limit}")
        names = self._ports.names
        if names is not None and not self._client.introduced:
            with self._attending():
                self._client.named(names.name_of(self._client.peer.host))
        return None

    def _uncertified(self) -> Rejection | None:
        """nginx's verdict: one that shows no certificate hears so, and does not wonder why the handshake failed."""
        if self._stream.tls is None or not self._certificate_required or self._client.certified:
            return None
        return Rejection(replies.NO_CERTIFICATE, "client sent no required SSL certificate")

    def _early(self) -> Rejection | None:
        """Wait with the greeting: who speaks before it does not listen either (nginx_mail.md section 3)."""
        if self._greeting_delay <= 0.0:
            return None
        wait = Deadline(self._ports.clock, self._greeting_delay)
        said: bytes | None = None
        while said is None:
            try:
                said = self._stream.read(wait)
            except StreamTimeout:
                return None
            except StreamInterrupted:
                if self._ports.draining():
                    return Rejection(replies.SHUTTING_DOWN, f"closed with {replies.SHUTTING_DOWN.code}")
        if not said:
            raise StreamLost("client closed the connection before the greeting")
        shown = said[:MAX_SHOWN].decode("ascii", "backslashreplace")
        self._ports.journal.info("early_talker", **self._client.who().fields(), said=shown)
        return Rejection(replies.EARLY_TALKER, "client was rejected before greeting")
