"""The mail transactions of one session: MAIL, its recipients, its text, its record.

Owns the order in which a message is asked about: route, then limits, then the backend; what is logged of it; and
whose fault it is where it fails, on which depends what is given back of what it paid. How the backend is reached is
`relay`, what the client is told in which packet is `flow`, how limits are asked is `policing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from smtpgate.policy.fields import canonical_domain
from smtpgate.policy.model import Event, Facts, grown
from smtpgate.session.auth import Login, target_of
from smtpgate.session.client import Client
from smtpgate.session.intake import Intake
from smtpgate.session.policing import Account, Policing
from smtpgate.session.ports import AuthGranted, Identity, PoolTarget, Ports, Target
from smtpgate.session.records import DenialRecord, Timings, TransactionRecord
from smtpgate.session.relay import Relay
from smtpgate.smtp import replies
from smtpgate.smtp.events import BodyEnd, BodyFault, Mail, Rcpt
from smtpgate.smtp.queueid import queue_id
from smtpgate.smtp.replies import Reply

MAX_LISTED_RECIPIENTS: Final = 10  # a log line stays readable; the count tells the rest


@dataclass(slots=True)
class Transaction:
    """One MAIL and what became of it so far. started: monotonic seconds; size: octets of the message.

    account: what was paid for it. failed: that is given back, as the mail server's refusal (False) or our outage
    (True). way: where the first accepted recipient goes and as whom, and all others with it. chunked: the text comes
    in BDAT chunks. verdict: the reply that a text which cannot be relayed will get at its end. intake: how its text
    is read, from the 354 on. denial: the limit that ended it. before: what had gone by for others when it began.
    """

    id: str
    mail: Mail
    facts: Facts
    started: float
    account: Account
    before: tuple[float, float, float]
    way: tuple[Target, Identity] | None = None
    recipients: list[str] = field(default_factory=list)
    refused: int = 0
    size: int = 0
    chunked: bool = False
    verdict: Reply | None = None
    failed: bool | None = None
    intake: Intake | None = None
    denial: DenialRecord | None = None


class Mailing:
    """Transactions, one after the other. min_data_rate: octets a second, as Intake has it."""

    def __init__(
        self,
        ports: Ports,
        client: Client,
        policing: Policing,
        relay: Relay,
        login: Login,
        envelope: str,
        min_data_rate: float,
    ) -> None:
        self._ports = ports
        self._client = client
        self._policing = policing
        self._relay = relay
        self._login = login
        self._envelope = envelope
        self._min_data_rate = min_data_rate
        self._current: Transaction | None = None
        self.count = 0

    @property
    def under_way(self) -> bool:
        """A sender has been accepted, and its message is neither committed nor given up."""
        return self._current is not None

    @property
    def transaction(self) -> str | None:
        """The id of the one that is under way."""
        return None if self._current is None else self._current.id

    @property
    def phase(self) -> str:
        """In the words of live.SessionView."""
        if self._current is None:
            return "idle"
        return "mail" if self._current.intake is None else "data"

    @property
    def intake(self) -> Intake | None:
        """How the text that is under way is read."""
        return None if self._current is None else self._current.intake

    def begin(self, event: Mail) -> Reply:
        """MAIL. The backend hears of it with the first recipient, when the route is known."""
        sender = event.sender
        transaction = f"{self._client.session}.{self.count + 1}"
        facts = grown(
            self._client.facts,
            time=self._ports.clock.now(),
            messages=self.count,
            sender=str(sender),
            sender_domain=canonical_domain(sender.domain),
            method=self._client.facts.method or "none",
            size=event.params.size,
            transaction=transaction,
        )
        account, before = Account(), self._gone_by()
        refused = self._policing.ask(Event.MAIL, facts, account)
        if refused is not None:
            return refused.reply
        self.count += 1
        self._relay.begin(event)
        self._current = Transaction(transaction, event, facts, self._ports.clock.monotonic(), account, before)
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
        facts = grown(
            current.facts,
            time=self._ports.clock.now(),
            recipients=len(current.recipients),
            rcpt=str(recipient),
            rcpt_domain=canonical_domain(recipient.domain),
        )
        target = self._target(current.mail, event, facts)
        if isinstance(target, Reply):
            return target
        way = (target, self._client.identity())
        if current.way is not None and way != current.way:
            if not self._may_go_along(way, current.way):
                return replies.OTHER_ROUTE
            way = current.way
        account = Account()
        refused = self._policing.ask(Event.RCPT, facts, account)
        if refused is not None:
            if refused.reply.close or not current.recipients:
                current.denial = refused.denial
            return refused.reply
        reply = self._relay.rcpt(*way, event)
        if reply.positive:
            current.way, current.failed, current.denial = way, None, None
            current.account.take_over(account)
        else:
            self._policing.settle(account, ours=self._relay.outage)
            if self._relay.outage or not current.recipients:
                current.failed = self._relay.outage
        return reply

    def _may_go_along(self, way: tuple[Target, Identity], first: tuple[Target, Identity]) -> bool:
        """Whether a recipient that has a route of its own may take the first one's: never as somebody else, and never
        where auth_http, and not a route, chose the way.
        """
        routed = all(isinstance(one[0], PoolTarget) and one[0].route is not None for one in (way, first))
        return routed and way[1] == first[1] and self._ports.policy.mixed_recipients == "first"

    def data(self, owed: int) -> Reply:
        """DATA: 354 only after the backend's own. owed: octets that have been read behind it."""
        current = self._transaction
        reply = self._open_text(current)
        if reply.code == 354:
            self._take_in(current, owed)
        return reply

    def _take_in(self, current: Transaction, owed: int) -> None:
        lane = self._policing.lane(current.facts, owed)
        current.intake = Intake(self._ports.clock, self._min_data_rate, lane)

    def chunk(self, owed: int) -> None:
        """BDAT. The first chunk opens the text. owed: as in data()."""
        current = self._transaction
        if not current.chunked:
            current.chunked = True
            self._take_in(current, owed)
            if current.verdict is None:
                reply = self._open_text(current)
                current.verdict = None if reply.code == 354 else reply
            self._doom_if_vain(current)

    def _open_text(self, current: Transaction) -> Reply:
        reply = self._relay.data(chunked=current.chunked)
        current.failed = None if reply.code == 354 else self._relay.outage
        return reply

    def body(self, data: bytes, *, last: bool = False) -> None:
        """A piece of the text; last: its end has been read as well."""
        current = self._transaction
        if current.verdict is None:
            # Where a limit has the last word the backend has the whole text before, however the client cut it.
            self._relay.write(data, last=last and not self._ports.policy.asks(Event.EOD))
            self._doom_if_vain(current)

    def _doom_if_vain(self, current: Transaction) -> None:
        """What follows of a text that nobody will have is read to its end, within the bounds of Intake."""
        if current.intake is not None and (current.verdict is not None or self._relay.refused):
            current.intake.doom()

    def give_up(self) -> Reply:
        """A text that nobody will have does not end: its verdict, before its time."""
        reply = self._transaction.verdict or self._relay.finish()
        assert not reply.positive, "only what was refused is read in vain"
        self._relay.abort()
        self._close("refused", reply)
        return reply

    def faulted(self, fault: BodyFault) -> None:
        """The text may not be committed; the client is told after its real end."""
        current = self._transaction
        current.verdict = replies.BODY_FAULTS[fault]
        self._relay.abort()
        self._doom_if_vain(current)

    def end_of_body(self, event: BodyEnd) -> Reply:
        """The end of the text, or of a chunk: the message's final reply, 250 only after the backend's."""
        current = self._transaction
        current.size = event.size
        if current.verdict is not None:
            reply = current.verdict
        elif not event.last:
            return replies.OK
        else:
            reply = self._commit(current)
        self._close("delivered" if reply.positive else "refused", reply)
        return reply

    def _commit(self, current: Transaction) -> Reply:
        """The limits' last word, then the final dot, and the backend's."""
        if self._ports.policy.asks(Event.EOD):
            facts = grown(
                current.facts,
                time=self._ports.clock.now(),
                recipients=len(current.recipients),
                octets=current.size,
            )
            refused = self._policing.ask(Event.EOD, facts, current.account)
            if refused is not None:
                self._relay.abort()
                current.denial = refused.denial
                return refused.reply
        reply = self._relay.finish()
        if not reply.positive and not self._relay.unknown_outcome:
            current.failed = self._relay.outage
        return reply

    def reset(self, why: str) -> None:
        """The client gave the transaction up (RSET, HELO, EHLO)."""
        if self._current is not None:
            self._close(why)
            self._relay.reset()

    def lost(self, why: str) -> None:
        """The session ends, whatever is under way."""
        if self._current is not None:
            self._close(why)

    @property
    def _transaction(self) -> Transaction:
        assert self._current is not None, "the protocol lets nobody come here without MAIL"
        return self._current

    def _target(self, mail: Mail, rcpt: Rcpt, facts: Facts) -> Target | Reply:
        """Where this recipient goes: as auth_http said, else as the routes say."""
        granted = self._client.granted
        if granted is None and self._ports.authenticator is not None and self._envelope != "never":
            answer = self._login.ask(self._client.envelope(mail, rcpt), replies.LOOKUP_FAILED)
            if not isinstance(answer, AuthGranted):
                return answer
            self._client.admitted(answer, keep=self._envelope == "first")
            granted = answer
        named = None if granted is None else target_of(granted)
        if named is not None:
            return named
        routed = self._ports.policy.route(facts)
        if routed is None:
            reason = "auth_http names no way, and no route"
            self._ports.journal.error("no_route", **self._client.who().fields(), reason=reason)
            return replies.INTERNAL_ERROR
        return routed

    def _close(self, outcome: str, reply: Reply | None = None) -> None:
        current, self._current = self._transaction, None
        now, intake = self._ports.clock.monotonic(), current.intake
        auth, policy, connect = (
            after - before for after, before in zip(self._gone_by(), current.before, strict=True)
        )
        if intake is not None:
            intake.close()
        self._policing.settle(current.account, ours=current.failed)
        target = current.way[0] if current.way else None
        record = TransactionRecord(
            who=self._client.who(),
            transaction=current.id,
            sender=current.facts.sender or "",
            recipients=tuple(current.recipients[:MAX_LISTED_RECIPIENTS]),
            accepted=len(current.recipients),
            rejected=current.refused,
            size=current.size,
            seconds=now - current.started,
            timings=Timings(auth, policy, connect, data=0.0 if intake is None else now - intake.began),
            pool=target.pool if isinstance(target, PoolTarget) else None,
            route=target.route if isinstance(target, PoolTarget) else None,
            backend=self._relay.backend,
            replays=self._relay.replays,
            reply=reply,
            queue_id=None if reply is None else queue_id(reply),
            outcome="unknown" if self._relay.unknown_outcome else outcome,
            denial=current.denial,
            forwarded=self._client.forwarded(),
        )
        self._ports.records.transaction(record)

    def _gone_by(self) -> tuple[float, float, float]:
        """Seconds that have gone by in this session for auth_http, the limits, and the search for backends."""
        return self._login.asked, self._policing.waited, self._relay.sought
