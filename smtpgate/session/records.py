"""What a session tells of itself when something has ended: itself, a login, a transaction, a refusal by a limit.

One frozen record each, for the log, the metrics and the operator's view alike; who makes which of them is `drivers`'
matter. Secrets never stand in one. Texts of clients are as they said them: whoever writes them down escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smtpgate.smtp.replies import Reply


@dataclass(frozen=True, slots=True)
class Who:
    """The client, as far as it was known when the record was made.

    client: textual address; name: its verified host name or nginx's word for its absence. tls: the protocol's name.
    via: who has spoken for it, the nearest to it first; "" where nobody has.
    """

    session: str
    listener: str
    client: str
    name: str
    user: str | None
    helo: str | None
    tls: str | None
    via: str = ""

    def fields(self) -> dict[str, object]:
        """The fields that every log line of a session has; an empty `via` is left out."""
        fields: dict[str, object] = {
            "session": self.session,
            "client": self.client,
            "listener": self.listener,
            "user": self.user,
        }
        if self.via:
            fields["via"] = self.via
        return fields


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of one transaction that went by for others. auth: auth_http's questions; policy: the limits, with
    waits in line and before refusals; connect: the search for a backend, up to its accepted handshake; data: from
    the first octet of the text to the final reply.
    """

    auth: float = 0.0
    policy: float = 0.0
    connect: float = 0.0
    data: float = 0.0


@dataclass(frozen=True, slots=True)
class DenialRecord:
    """A limit refused, or in shadow would have. at: the event. subject: the bucket's. retry: seconds until it could
    pay; balance: its tokens. rule: "file:line". held: seconds for which the session was kept waiting before.
    """

    who: Who
    transaction: str | None
    at: str
    limit: str
    subject: str
    retry: float
    balance: float
    rule: str
    held: float = 0.0
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class AuthRecord:
    """A login came to an end. login: the name that the client gave; reply: what it was told. seconds: of auth_http
    and its waits.
    """

    who: Who
    login: str
    method: str
    reply: Reply
    seconds: float


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """One MAIL and what became of it. transaction: its id. recipients: those that were accepted, the first few;
    accepted and rejected: how many. size: octets. pool, route and backend: None where it came to none. replays: how
    often all of it was said again to another backend. reply: the last word to the client; queue_id: under which the
    backend has it, where its reply tells. denial: the limit that ended it.

    outcome: "delivered", "refused", "unknown" (nobody knows whether the backend has it), or why it was given up.
    """

    who: Who
    transaction: str
    sender: str
    recipients: tuple[str, ...]
    accepted: int
    rejected: int
    size: int
    seconds: float
    timings: Timings
    pool: str | None
    route: str | None
    backend: str | None
    replays: int
    reply: Reply | None
    queue_id: str | None
    outcome: str
    denial: DenialRecord | None = None
    forwarded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One connection from the greeting to its end. impostures: how often it has tried to speak for others. end: why,
    in words.
    """

    who: Who
    transactions: int
    impostures: int
    seconds: float
    end: str
