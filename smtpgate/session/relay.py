"""One session's way to a backend: choose, introduce, replay, fail over, carry the message.

Owns the promise towards the client: what was answered 250 stays true on whichever backend it ends up, and a
message is 250 only after the backend's 250. Until the backend's 354 a lost backend is replaced by another and what
the client said is said again there; after it nothing is ever sent twice (RFC 5321 section 6.1, RFC 1047).
Refuses to know limits, sockets and the client's protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from smtpgate.clock import Clock, Deadline
from smtpgate.journal import Journal
from smtpgate.routing.model import BackendSettings, Failover
from smtpgate.session.link import BackendLink, HandshakeRefused, IdentityUntellable, LinkLost
from smtpgate.session.ports import (
    BackendRefused,
    Backends,
    DialFailed,
    Identity,
    Lease,
    Target,
)
from smtpgate.smtp import encode, replies
from smtpgate.smtp.events import Mail, Rcpt
from smtpgate.smtp.replies import Reply

# RFC 2920 section 3.1: whoever sends must be able to read, or both ends wait. So many replies fit every buffer.
REPLAY_GROUP: Final = 100


class _ReplayRefused(Exception):
    """The replacement backend does not accept what the lost one had accepted and the client was told."""


class Relay:
    """The backend's side of one client session; at most one backend connection at a time.

    Calls come in SMTP's order: begin, rcpt (once or more), data, write*, finish; or abort; or reset at any time.
    Between transactions the connection is kept for the session's next one.
    """

    def __init__(self, backends: Backends, clock: Clock, journal: Journal, server_name: str, session_id: str) -> None:
        self._backends = backends
        self._clock = clock
        self._journal = journal
        self._server_name = server_name
        self._session_id = session_id
        self._lease: Lease | None = None
        self._bound: tuple[Target, Identity] | None = None
        self._rested = False  # the connection has been idle since an earlier transaction
        self._remains = False  # the backend still holds an abandoned transaction
        self._mid_text = False  # the backend is reading the message
        self._search: Deadline | None = None  # for the search of a backend, once a command has begun one
        self._forget()

    def _forget(self) -> None:
        self._mail: Mail | None = None
        self._begun = False  # this connection has accepted our MAIL
        self._accepted: list[Rcpt] = []
        self._verdict: Reply | None = None  # the answer to all that follows in this transaction
        self._lost: LinkLost | None = None  # how the backend was lost mid-body
        self._tried: set[str] = set()
        self.backend: str | None = None  # name of the backend last spoken to in this transaction
        self.unknown_outcome = False

    def begin(self, mail: Mail) -> None:
        """MAIL was accepted by the proxy. The backend hears of it with the first recipient."""
        self._forget()
        self._mail = mail

    def rcpt(self, target: Target, identity: Identity, rcpt: Rcpt) -> Reply:
        """The backend's answer to a recipient, or to the MAIL that went before it.

        All accepted recipients of a transaction have one target and one identity: the caller sees to it.
        """
        if self._bound != (target, identity):
            assert not self._accepted, "recipients that were accepted cannot go elsewhere"
            self.close()
            self._bound = (target, identity)
            self._verdict = None
            self._tried.clear()
        if self._verdict is not None:
            return self._verdict
        reply = self._attempt(lambda link: self._send_rcpt(link, rcpt))
        if reply.positive and self._verdict is None:
            self._accepted.append(rcpt)
        return reply

    def data(self) -> Reply:
        """354 once the backend is ready for the text; any other reply ends the transaction."""
        if self._verdict is not None:
            return self._verdict
        reply = self._attempt(self._start_data)
        self._remains = not self._mid_text and self._lease is not None
        return reply

    def write(self, data: bytes) -> None:
        """A piece of the text, as it goes on the wire. A backend lost here is told by finish()."""
        if self._lease is None:
            return
        try:
            self._lease.link.write_body(data)
        except LinkLost as lost:
            self._lose(lost)

    def finish(self, terminator: bytes = encode.FINAL_DOT) -> Reply:
        """Commit the message: the backend's own reply, or a 451 that claims nothing."""
        try:
            if self._lease is not None:
                self._lease.link.check_silent()
                self.unknown_outcome = True  # from here on the backend may commit, whatever we hear of it
                reply = self._lease.link.end_data(terminator)
                self.unknown_outcome = self._begun = self._remains = self._mid_text = False
                self._rested = True
                return reply
        except LinkLost as lost:
            if lost.farewell is not None:
                self.unknown_outcome = False
            self._lose(lost)
        farewell = self._lost.farewell if self._lost else None
        if farewell is not None and farewell.code >= 400 and farewell.code != 421:
            return farewell  # the reason why the backend hung up on the text
        return replies.BACKEND_LOST

    def abort(self) -> None:
        """The text must not be committed: close the backend connection without the final dot."""
        self._release()

    def reset(self) -> None:
        """Forget the transaction; the backend is told before its next one, or left if it is reading a text."""
        if self._mid_text:
            self._release()
        self._remains = self._remains or self._begun
        self._rested = self._lease is not None
        self._forget()

    def close(self) -> None:
        """Leave the backend politely, if there is one."""
        try:
            if self._lease is not None and not self._mid_text:
                self._lease.link.quit()
        finally:
            self._release()

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        self._begun = self._rested = self._remains = self._mid_text = False
        if lease is not None:
            lease.release()

    def _lose(self, lost: LinkLost) -> None:
        self._lost = lost
        self._journal.warning(
            "backend_lost",
            session=self._session_id,
            backend=self.backend,
            reason=str(lost),
            outcome="unknown" if self.unknown_outcome else "not delivered",
        )
        self._release()

    # --- before the 354: any step may move to another backend ----------------------------------------------------

    def _attempt(self, step: Callable[[BackendLink], Reply]) -> Reply:
        """Run a step on the backend; when the backend fails, on the next one, until all tries are used up."""
        assert self._bound is not None
        target, identity = self._bound
        fault: Exception | None = None
        self._search = None  # a command's own: what the client took for its last one is not our delay
        try:
            settings, failover = self._backends.plan(target)
            while len(self._tried) <= failover.attempts and not self._out_of_time:
                rested = self._rested
                try:
                    return step(self._connected(target, identity, settings, failover))
                except (LinkLost, HandshakeRefused, DialFailed) as failed:
                    fault = failed
                    self._give_up(failed, count=not rested)
            self._verdict = self._backends.unavailable(target)
        except BackendRefused as refused:
            self._journal.warning("no_backend", session=self._session_id, reason=str(refused))
            self._verdict = refused.reply
        except _ReplayRefused as refused:
            self._journal.warning(
                "replay_refused", session=self._session_id, backend=self.backend, reason=str(refused)
            )
            self._release()
            self._verdict = replies.BACKEND_LOST
        except IdentityUntellable as untellable:
            self._journal.warning("identity_untellable", session=self._session_id, reason=str(untellable))
            self._release()
            self._verdict = replies.INTERNAL_ERROR
        except encode.ExtensionMissing:
            self._verdict = replies.SMTPUTF8_MISSING
        words = fault.reply if isinstance(fault, HandshakeRefused) else None
        # Whoever was told that a recipient is fine hears of our trouble as ours, never as a refusal.
        if words is not None and words.code >= 400 and settings.pass_error_message and not self._accepted:
            self._verdict = words.closing()
        return self._verdict

    @property
    def _out_of_time(self) -> bool:
        return self._search is not None and self._search.expired

    def _connected(
        self, target: Target, identity: Identity, settings: BackendSettings, failover: Failover
    ) -> BackendLink:
        if self._lease is not None:
            self.backend = self._lease.backend
            if self._rested:
                self._lease.link.check_rested()
                self._rested = False
            return self._lease.link
        if self._search is None:
            self._search = Deadline(self._clock, failover.deadline)
        # An equal part for each try that is left: one backend that hangs must not use up the others' time.
        tries = failover.attempts + 1 - len(self._tried)
        deadline = Deadline(self._clock, self._search.remaining() / tries)
        self._lease = self._backends.lease(target, self._tried, deadline)
        self.backend = self._lease.backend
        link = self._lease.link
        link.handshake(self._server_name, identity, settings, deadline)
        if self._accepted:
            self._replay(link)
        return link

    def _replay(self, link: BackendLink) -> None:
        """Say again what the lost backend had accepted. Pipelined where offered (RFC 2920)."""
        try:
            commands = [self._mail_command(link)]
            commands += [encode.rcpt(rcpt.recipient, rcpt.params, link.extensions) for rcpt in self._accepted]
        except encode.ExtensionMissing as missing:
            raise _ReplayRefused(str(missing)) from None
        size = REPLAY_GROUP if link.extensions.pipelining else 1
        for start in range(0, len(commands), size):
            for answer in link.ask(*commands[start : start + size]):
                if not answer.positive:
                    raise _ReplayRefused(f"{answer.code} {answer.text}")
        self._begun = True

    def _mail_command(self, link: BackendLink) -> bytes:
        assert self._mail is not None
        return encode.mail(self._mail.sender, self._mail.params, link.extensions)

    def _send_rcpt(self, link: BackendLink, rcpt: Rcpt) -> Reply:
        command = encode.rcpt(rcpt.recipient, rcpt.params, link.extensions)
        if self._begun:
            return link.ask(command)[0]
        opening = [encode.RSET] if self._remains else []
        opening.append(self._mail_command(link))
        if link.extensions.pipelining:
            *opened, answer = link.ask(*opening, command)
        else:
            opened, answer = [link.ask(step)[0] for step in opening], None
        self._remains = False
        mailed = opened[-1]
        if not mailed.positive:
            self._remains = answer is not None and answer.positive
            self._verdict = mailed
            return mailed
        self._begun = True
        return answer or link.ask(command)[0]

    def _start_data(self, link: BackendLink) -> Reply:
        self._mid_text = True  # nothing but the text may be said from now on, until the backend refuses it
        reply = link.start_data()
        self._mid_text = reply.code == 354
        return reply

    def _give_up(self, fault: Exception, *, count: bool) -> None:
        """Leave a backend that failed. One that had only rested too long may be dialled again."""
        name = fault.backend if isinstance(fault, DialFailed) else self.backend
        if count and name is not None:
            self._tried.add(name)
        self._journal.warning("backend_failed", session=self._session_id, backend=name, reason=str(fault))
        self._release()
