"""The mail transactions of one session: MAIL, its recipients, its text, its record.

Owns the order in which a message is asked about: route, then limits, then the backend; and what is logged of it.
How the backend is reached is `relay`, what the client is told in which packet is `flow`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from smtpgate.policy.model import Denial, Event, Facts
from smtpgate.session.auth import Login
from smtpgate.session.client import Client
from smtpgate.session.ports import AddressTarget, AuthGranted, Identity, PoolTarget, Ports, Target
from smtpgate.session.relay import Relay
from smtpgate.smtp import replies
from smtpgate.smtp.datascan import DotStuffer
from smtpgate.smtp.encode import FINAL_DOT
from smtpgate.smtp.events import BodyEnd, BodyFault, Mail, Rcpt
from smtpgate.smtp.replies import Reply

MAX_LISTED_RECIPIENTS: Final = 10  # a log line stays readable; the count tells the rest


@dataclass(slots=True)
class Transaction:
    """One MAIL and what became of it so far. started: monotonic seconds; size: octets of the message.

    way: where the first accepted recipient goes and as whom, and all others with it. stuffer: set once the text
    comes in BDAT chunks. verdict: the reply that a text which cannot be relayed will get at its end.
    """

    mail: Mail
    facts: Facts
    started: float
    way: tuple[Target, Identity] | None = None
    recipients: list[str] = field(default_factory=list)
    refused: int = 0
    size: int = 0
    stuffer: DotStuffer | None = None
    verdict: Reply | None = None


class Mailing:
    """Transactions, one after the other. `pause(seconds)` lets time pass with nothing left unsent."""

    def __init__(
        self,
        ports: Ports,
        client: Client,
        relay: Relay,
        login: Login,
        envelope: str,
        pause: Callable[[float], None],
    ) -> None:
        self._ports = ports
        self._client = client
        self._relay = relay
        self._login = login
        self._envelope = envelope
        self._pause = pause
        self._current: Transaction | None = None
        self.count = 0

    @property
    def under_way(self) -> bool:
        """A sender has been accepted, and its message is neither committed nor given up."""
        return self._current is not None

    def begin(self, event: Mail) -> Reply:
        """MAIL. The backend hears of it with the first recipient, when the route is known."""
        sender = event.sender
        facts = replace(
            self._client.facts,
            sender=str(sender),
            sender_domain=sender.domain.lower(),
            method=self._client.facts.method or "none",
            size=event.params.size,
            transaction=f"{self._client.session}.{self.count + 1}",
        )
        denial = self._ports.policy.decide(Event.MAIL, facts).denial
        if denial is not None:
            return self.refusal(denial)
        self.count += 1
        self._relay.begin(event)
        self._current = Transaction(event, facts, self._ports.clock.monotonic())
        return replies.OK

    def rcpt(self, event: Rcpt) -> Reply:
        """RCPT: where it goes, whether it may, what the backend says."""
        current = self._transaction
        reply = self._judge(current, event)
        if reply.positive:
            current.recipients.append(str(event.recipient))
        else:
            current.refused += 1
        return reply

    def _judge(self, current: Transaction, event: Rcpt) -> Reply:
        recipient = event.recipient
        facts = replace(current.facts, rcpt=str(recipient), rcpt_domain=recipient.domain.lower())
        target = self._target(current.mail, event, facts)
        if isinstance(target, Reply):
            return target
        way = (target, self._client.identity())
        if current.way is not None and way != current.way:
            return replies.OTHER_ROUTE
        denial = self._ports.policy.decide(Event.RCPT, facts).denial
        if denial is not None:
            return self.refusal(denial)
        reply = self._relay.rcpt(*way, event)
        if reply.positive:
            current.way = way
        return reply

    def data(self) -> Reply:
        """DATA: 354 only after the backend's own."""
        return self._relay.data()

    def chunk(self) -> None:
        """BDAT. It reaches the backend as one DATA, which the first chunk opens."""
        current = self._transaction
        if current.stuffer is None:
            current.stuffer = DotStuffer()
            if current.verdict is None:
                reply = self._relay.data()
                current.verdict = None if reply.code == 354 else reply

    def body(self, data: bytes) -> None:
        """A piece of the text."""
        current = self._transaction
        if current.verdict is None:
            self._relay.write(data if current.stuffer is None else current.stuffer.feed(data))

    def faulted(self, fault: BodyFault) -> None:
        """The text may not be committed; the client is told after its real end."""
        self._transaction.verdict = replies.BODY_FAULTS[fault]
        self._relay.abort()

    def end_of_body(self, event: BodyEnd) -> Reply:
        """The end of the text, or of a chunk: the message's final reply, 250 only after the backend's."""
        current = self._transaction
        current.size = event.size
        if current.verdict is not None:
            reply = current.verdict
        elif not event.last:
            return replies.OK
        else:
            reply = self._relay.finish(FINAL_DOT if current.stuffer is None else current.stuffer.end())
        self._close("delivered" if reply.positive else "refused", reply)
        return reply

    def reset(self, why: str) -> None:
        """The client gave the transaction up (RSET, HELO, EHLO)."""
        if self._current is not None:
            self._relay.reset()
            self._close(why)

    def lost(self, why: str) -> None:
        """The session ends, whatever is under way."""
        if self._current is not None:
            self._close(why)

    def refusal(self, denial: Denial) -> Reply:
        """A limit said no: log why, wait its delay, answer in its words."""
        self._ports.journal.warning(
            "denied",
            **self._client.who(),
            limit=denial.limit,
            subject=denial.subject,
            retry=round(denial.retry, 3),
            balance=round(denial.balance, 3),
            rule=denial.source,
        )
        if denial.delay > 0:
            self._pause(denial.delay)
        text = denial.reply
        return Reply(text.code, (f"{text.enhanced} {text.text}",), close=denial.close)

    @property
    def _transaction(self) -> Transaction:
        assert self._current is not None, "the protocol lets nobody come here without MAIL"
        return self._current

    def _target(self, mail: Mail, rcpt: Rcpt, facts: Facts) -> Target | Reply:
        """Where this recipient goes: as auth_http said, else as the routes say."""
        granted = self._client.granted
        if granted is None and self._ports.authenticator is not None and self._envelope != "never":
            answer = self._login.ask(self._client.envelope(mail, rcpt))
            if not isinstance(answer, AuthGranted):
                return answer
            self._client.admitted(answer, keep=self._envelope == "first")
            granted = answer
        if granted is not None and granted.pool is not None:
            return PoolTarget(granted.pool)
        if granted is not None and granted.server is not None and not granted.own_routes:
            return AddressTarget(*granted.server)
        routed = self._ports.policy.route(facts)
        if routed is None:
            self._ports.journal.error("no_route", **self._client.who(), reason="auth_http names no way, and no route")
            return replies.INTERNAL_ERROR
        return routed

    def _close(self, outcome: str, reply: Reply | None = None) -> None:
        current, self._current = self._transaction, None
        target = current.way[0] if current.way else None
        self._ports.journal.info(
            "transaction",
            **self._client.who(),
            transaction=current.facts.transaction,
            sender=current.facts.sender,
            rcpts=len(current.recipients),
            recipients=current.recipients[:MAX_LISTED_RECIPIENTS],
            rcpts_refused=current.refused,
            size=current.size,
            seconds=round(self._ports.clock.monotonic() - current.started, 3),
            pool=target.pool if isinstance(target, PoolTarget) else None,
            route=target.route if isinstance(target, PoolTarget) else None,
            backend=self._relay.backend,
            reply=f"{reply.code} {reply.text}" if reply else None,
            outcome="unknown" if self._relay.unknown_outcome else outcome,
        )
