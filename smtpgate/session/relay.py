"""One session's way to a backend: choose, introduce, replay, fail over, carry the message.

Owns the promise towards the client: what was answered 250 stays true on whichever backend it ends up, and a
message is 250 only after the backend's 250. Up to the moment that the pool's `failover.until` names a lost backend
is replaced by another, and what the client said is said again there; behind the final dot nothing is ever sent twice
(RFC 5321 section 6.1, RFC 1047). Refuses to know limits, sockets and the client's protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from smtpgate.clock import Deadline
from smtpgate.policy.fields import canonical_domain
from smtpgate.routing.model import BackendSettings
from smtpgate.session import handshake
from smtpgate.session.faults import ReplayRefused, is_personal, refusal_of, told, words_of
from smtpgate.session.handshake import HandshakeRefused, IdentityUntellable, TlsMissing
from smtpgate.session.link import MAX_UNANSWERED, BackendLink, LinkLost
from smtpgate.session.ports import (
    Attending,
    BackendRefused,
    DialFailed,
    Identity,
    Lease,
    Ports,
    Seeker,
    Spool,
    Target,
)
from smtpgate.session.text import Text, open_text
from smtpgate.session.tries import Stage, Tries
from smtpgate.smtp import encode, replies
from smtpgate.smtp.events import Mail, Rcpt
from smtpgate.smtp.replies import Reply


class Relay:
    """The backend's side of one client session; at most one backend connection at a time.

    Calls come in SMTP's order: begin, rcpt (once or more), data, write*, finish; or abort; or reset at any time.
    Between transactions the connection is kept for the session's next one, and at the session's end for another
    session, if its last word was that it took a message: whoever comes next shall not pay for anybody's errors.

    attending(): a context for waits in a pool's queue, with nothing left unsent. abort_on_close(): one for all waits
    before the text. Both end, with StreamLost, when the client has gone: others may want its place. sought: seconds
    that went into the search for backends, up to their accepted handshakes.
    """

    def __init__(
        self,
        ports: Ports,
        server_name: str,
        session_id: str,
        attending: Attending = nullcontext,
        abort_on_close: Attending = nullcontext,
    ) -> None:
        self._ports = ports
        self._attending = attending
        self._abort_on_close = abort_on_close
        self.sought = 0.0
        self._server_name = server_name
        self._session_id = session_id
        self._lease: Lease | None = None
        self._settings = BackendSettings()  # of the last lease
        self._bound: tuple[Target, Identity] | None = None
        self._rested = False  # the connection has been idle since an earlier transaction, of this session or another
        self._remains = False  # the backend still holds an abandoned transaction
        self._reusable = False  # the last that happened on the connection is that it took a message
        self._text: Text | None = None  # the backend is reading the message
        self._spool: Spool | None = None
        self._forget()

    def _forget(self) -> None:
        self._mail: Mail | None = None
        self._seeker: Seeker | None = None
        self._begun = False  # this connection has accepted our MAIL
        self._accepted: list[Rcpt] = []
        self._chunked = False
        self._verdict: Reply | None = None  # the answer to all that follows in this transaction
        self._tries = Tries(self._ports.clock)
        self._drop_spool()
        self.backend: str | None = None  # name of the backend last spoken to in this transaction
        self.replays = 0  # how often all of it was said again
        self.unknown_outcome = False
        self.outage = False  # the last refusal was for want of a mail server, and not in a mail server's words

    @property
    def refused(self) -> bool:
        """Nobody will have the text that is being written."""
        return self._text is None or self._text.refused

    def begin(self, mail: Mail) -> None:
        """MAIL was accepted by the proxy. The backend hears of it with the first recipient."""
        self._forget()
        self._mail = mail
        self._rested = self._lease is not None

    def rcpt(self, target: Target, identity: Identity, rcpt: Rcpt) -> Reply:
        """The backend's answer to a recipient, or to the MAIL that went before it.

        All accepted recipients of a transaction have one target and one identity: the caller sees to it.
        """
        if self._bound != (target, identity):
            assert not self._accepted, "recipients that were accepted cannot go elsewhere"
            self.close()
            self._bound = (target, identity)
            self._verdict = None
            self._tries = Tries(self._ports.clock)
        if self._verdict is not None:
            return self._verdict
        if not self._accepted:
            domain = canonical_domain(rcpt.recipient.domain)
            self._seeker = Seeker(identity.addr, identity.login, domain, identity.peer, identity.tls)
        with self._abort_on_close():
            reply = self._attempt("rcpt", lambda link: self._send_rcpt(link, rcpt))
        if reply.positive and self._verdict is None:
            self._accepted.append(rcpt)
        return reply

    def data(self, *, chunked: bool = False) -> Reply:
        """354 once the backend is ready for the text; any other reply ends the transaction.

        chunked: write() will bring plain content from BDAT, not DATA's text with its dots stuffed.
        """
        if self._verdict is not None:
            return self._verdict
        self._chunked = chunked
        with self._abort_on_close():
            reply = self._attempt("data_start", self._start_text)
        self._remains = self._text is None and self._lease is not None
        if self._text is not None and self._tries.allowed("buffered"):
            self._spool = self._ports.spool(self._tries.failover.buffer)
        return reply

    def write(self, data: bytes, *, last: bool = False) -> None:
        """A piece of the text; last: the last one. A backend lost here is replaced, or told by finish()."""
        try:
            if self._spool is not None:
                self._spool.write(data)
            if self._text is not None:
                # Where another backend may be next, the end goes by itself: before it nothing is in doubt.
                self._text.write(data, last=last and self._spool is None)
        except OSError as fault:
            self._spool_failed(fault)
        except LinkLost as lost:
            self._lose(lost)

    def finish(self) -> Reply:
        """Commit the message: the backend's own reply, or a 451 that claims nothing."""
        while self._text is not None:
            try:
                refusal = self._text.settle()
                if refusal is not None:
                    self._text, self._remains = None, True
                    self._drop_spool()
                    return refusal
                self.unknown_outcome = True  # from here on the backend may commit, whatever we hear of it
                return self._committed(self._text.commit())
            except LinkLost as lost:
                self._lose(lost)
        return self._verdict or replies.BACKEND_LOST

    def abort(self) -> None:
        """The text must not be committed: close the backend connection without the final dot."""
        self._release()
        self._drop_spool()

    def reset(self) -> None:
        """Forget the transaction; the backend is told before its next one, or left if it is reading a text."""
        if self._text is not None:
            self._release()
        self._remains = self._remains or self._begun
        self._forget()

    def close(self) -> None:
        """Leave the backend, if there is one: for another client if it may be, else politely."""
        lease = self._lease
        try:
            if lease is not None and self._text is None:
                if self._reusable and lease.link.resting:
                    lease.keep()
                    self._lease = None
                else:
                    lease.link.quit()
        finally:
            self.abort()

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        self._begun = self._rested = self._remains = self._reusable = False
        self._text = None
        if lease is not None:
            lease.release()

    def _drop_spool(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    # --- the text --------------------------------------------------------------------------------------------------

    def _start_text(self, link: BackendLink) -> Reply:
        self._text = open_text(link, chunked=self._chunked)  # nothing else may be said now, until it is refused
        reply = self._text.start()
        if reply.code != 354:
            self._text = None
        return reply

    def _committed(self, reply: Reply) -> Reply:
        assert self._lease is not None
        self.unknown_outcome = self._begun = False
        self._remains = self._chunked and not reply.positive  # RFC 3030 section 2: in doubt until RSET
        self._text, self._reusable = None, reply.positive
        self._drop_spool()
        if reply.positive:
            self._lease.served()
        return reply

    def _lose(self, lost: LinkLost) -> None:
        """The backend is lost while it has the text, or its end. What was kept goes to another, unless it was told
        the end, or has said what it thinks of the text.
        """
        final = self.unknown_outcome
        if lost.farewell is not None and not lost.farewell.positive:
            self.unknown_outcome = False
        outcome = "unknown" if self.unknown_outcome else "not delivered"
        self._warn("backend_lost", reason=str(lost), outcome=outcome)
        refusal = refusal_of(lost)
        if refusal is None:
            self._leave_failed(str(lost))
        else:
            self._release()  # it has read the text, and said what it thinks of it
        if refusal is None and not final and self._spool is not None:
            self._resume()
        else:
            self._verdict, self.outage = refusal or told(lost), refusal is None
        if self._text is None:
            self._drop_spool()

    def _resume(self) -> None:
        """Say envelope and text again to another backend."""
        try:
            self._attempt("buffered", self._restart_text)
        except OSError as fault:
            self._spool_failed(fault)

    def _restart_text(self, link: BackendLink) -> Reply:
        reply = self._start_text(link)
        if self._text is None:
            raise ReplayRefused(f"{reply.code} {reply.text}")
        assert self._spool is not None
        for piece in self._spool.chunks():
            self._text.write(piece)
        return reply

    def _spool_failed(self, fault: OSError) -> None:
        """What could not be kept cannot be promised: nothing is committed, and the client may come again."""
        self._ports.journal.error("spool_failed", session=self._session_id, reason=str(fault))
        self.abort()
        self._verdict, self.outage = replies.NO_STORAGE, True

    # --- any step may move to another backend, while the stage allows it -------------------------------------------

    def _attempt(self, stage: Stage, step: Callable[[BackendLink], Reply]) -> Reply:
        """Run a step on the backend; when the backend fails, on the next one, until all tries are used up."""
        assert self._bound is not None
        # Words, and not the exception: its traceback has this frame, and the circle would hold the whole session.
        lost, words, personal = replies.BACKEND_LOST, None, False
        self.outage = False
        tries = self._tries
        try:
            # A transaction ends where it began, whatever has been edited since.
            tries.begin(tries.failover if self._begun else self._ports.backends.plan(self._bound[0]))
            while tries.left:
                reached: Stage = "connect"
                try:
                    link = self._connected(*self._bound)
                    reached, self._reusable = stage, False
                    reply = step(link)
                    self._rested = False
                    return reply
                except (LinkLost, HandshakeRefused, TlsMissing, DialFailed) as failed:
                    lost, words, personal = told(failed), words_of(failed), is_personal(failed)
                    replaceable = self._rested or tries.allowed(reached)
                    refusal = refusal_of(failed) if reached == "buffered" else None
                    self._give_up(failed, refused=refusal is not None or personal)
                    if refusal is not None or not replaceable:
                        self._verdict, self.outage = refusal or lost, refusal is None
                        return self._verdict
            # Whoever was told that a recipient is fine had a mail server, and hears that it was lost.
            nobody = lost if self._accepted else self._ports.backends.unavailable(self._bound[0])
            self._verdict, self.outage = nobody, not personal
        except BackendRefused as refused:
            self._warn("no_backend", reason=str(refused))
            self._verdict, self.outage = refused.reply, True
        except ReplayRefused as replay:  # a name of its own: mypyc gives a name one type
            self._warn("replay_refused", reason=str(replay))
            self._release()
            self._verdict, self.outage = replies.BACKEND_LOST, True
        except IdentityUntellable as untellable:
            self._warn("identity_untellable", reason=str(untellable))
            self._release()
            self._verdict = replies.INTERNAL_ERROR  # whose name fits no command could try for ever: no outage
        except encode.ExtensionMissing:
            self._verdict = replies.SMTPUTF8_MISSING
        # Whoever was told that a recipient is fine hears of our trouble as ours, never as a refusal.
        if words is not None and words.code >= 400 and self._settings.pass_error_message and not self._accepted:
            self._verdict = words.closing()
        return self._verdict

    def _connected(self, target: Target, identity: Identity) -> BackendLink:
        """A connection whose backend knows this client, and all that was accepted of the transaction."""
        turn = self._tries.next()
        if self._lease is not None:
            self.backend = self._lease.backend
            return self._lease.link
        began = self._ports.clock.monotonic()
        try:
            return self._connect(target, identity, turn)
        finally:
            self.sought += self._ports.clock.monotonic() - began

    def _connect(self, target: Target, identity: Identity, turn: Deadline) -> BackendLink:
        assert self._seeker is not None
        lease = self._ports.backends.lease(target, self._seeker, self._tries.tried, turn, self._attending)
        self._lease = lease
        self.backend, self._settings = lease.backend, lease.settings
        link = lease.link
        if lease.greeted:
            self._rested = self._remains = True
            handshake.renew(link, identity, lease.settings, turn)
        else:
            handshake.greet(link, self._server_name, lease.host, identity, lease.settings, turn)
        if self._accepted:
            self._replay(link, turn)
        return link

    def _replay(self, link: BackendLink, turn: Deadline) -> None:
        """Say again what the lost backend had accepted. Pipelined where offered (RFC 2920)."""
        self.replays += 1
        commands = [encode.RSET] if self._remains else []
        try:
            commands.append(self._mail_command(link))
            commands += [encode.rcpt(rcpt.recipient, rcpt.params, link.extensions) for rcpt in self._accepted]
        except encode.ExtensionMissing as missing:
            raise ReplayRefused(str(missing)) from None
        size = MAX_UNANSWERED if link.extensions.pipelining else 1
        for start in range(0, len(commands), size):
            for answer in link.ask(*commands[start : start + size], deadline=turn):
                if not answer.positive:
                    raise ReplayRefused(f"{answer.code} {answer.text}")
        self._begun, self._remains, self._rested = True, False, False

    def _mail_command(self, link: BackendLink) -> bytes:
        assert self._mail is not None
        return encode.mail(self._mail.sender, self._mail.params, link.extensions)

    def _send_rcpt(self, link: BackendLink, rcpt: Rcpt) -> Reply:
        command = encode.rcpt(rcpt.recipient, rcpt.params, link.extensions)
        if self._begun:
            return link.ask(command)[0]
        # A backend that has accepted nothing yet can be left at no cost: it has no more than its part of the search.
        # DATA never joins the group: the client says it only once it knows its recipients, and so no backend can say
        # 354 to a transaction without one (RFC 2920 section 3.1).
        opening = [encode.RSET] if self._remains else []
        opening.append(self._mail_command(link))
        turn = self._tries.turn
        if link.extensions.pipelining:
            *opened, answer = link.ask(*opening, command, deadline=turn)
        else:
            opened, answer = [link.ask(step, deadline=turn)[0] for step in opening], None
        self._remains = False
        mailed = opened[-1]
        if not mailed.positive:
            self._verdict = mailed
            return mailed
        answer = answer or link.ask(command, deadline=turn)[0]
        self._begun = True
        return answer

    def _give_up(self, fault: Exception, *, refused: bool) -> None:
        """Leave a backend that failed, or that refused this client or its text. A connection that had ended while it
        rested says nothing of its backend, which is dialled anew; one that is there and does not answer does.
        """
        name = fault.backend if isinstance(fault, DialFailed) else self.backend
        stale = self._rested and not (refused or (isinstance(fault, LinkLost) and fault.silent))
        if stale or refused:
            event = "backend_left" if stale else "backend_refused"
            self._warn(event, backend=name, reason=str(fault))
            self._release()
        else:
            self._warn("backend_failed", backend=name, reason=str(fault))
            self._leave_failed(str(fault))
        if name is not None and not stale:
            self._tries.tried.add(name)

    def _leave_failed(self, reason: str) -> None:
        if self._lease is not None:
            self._tries.tried.add(self._lease.backend)
            self._lease.failed(reason=reason)
        self._release()

    def _warn(self, event: str, **fields: object) -> None:
        self._ports.journal.warning(event, **{"session": self._session_id, "backend": self.backend, **fields})
