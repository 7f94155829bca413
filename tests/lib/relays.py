"""A relay before scripted backends, and the words of one small transaction."""

from __future__ import annotations

from typing import Any

from fakes import FakeBackends, FakeSpools, ListJournal, ManualClock, ScriptedBackend, ports

from smtpgate.session.ports import Identity, PoolTarget
from smtpgate.session.relay import Relay
from smtpgate.smtp.events import Address, Mail, MailParams, Rcpt, RcptParams
from smtpgate.smtp.replies import Reply

Step = tuple[bytes, bytes | None]

TARGET = PoolTarget("core")
ANN = Identity("192.0.2.7", "[UNAVAILABLE]", "c.test", True, None)
MAIL = Mail(Address("a", "a.test"), MailParams(), b"MAIL FROM:<a@a.test>")

MAILED: Step = (b"MAIL FROM:<a@a.test>\r\n", b"250 ok\r\n")
TOLD_B: Step = (b"RCPT TO:<b@b.test>\r\n", b"250 ok b\r\n")
DATA: Step = (b"DATA\r\n", b"354 go\r\n")
DONE: Step = (b"text\r\n.\r\n", b"250 queued\r\n")
LOST = "451 4.4.2 Mail server lost, try again later"


def rcpt(local: str) -> Rcpt:
    return Rcpt(Address(local, "b.test"), RcptParams(), b"RCPT TO:<%b@b.test>" % local.encode())


def greeted(*script: Step, pipelining: bool = False) -> ScriptedBackend:
    offer = b"250-mta\r\n250 PIPELINING\r\n" if pipelining else b"250 mta\r\n"
    return ScriptedBackend([(b"", b"220 mta\r\n"), (b"EHLO mx.test\r\n", offer), *script])


def relay(
    *backends: tuple[str, ScriptedBackend | str], spool: FakeSpools | None = None, **kwargs: Any
) -> tuple[Relay, FakeBackends, ListJournal, ManualClock]:
    """kwargs: of FakeBackends."""
    clock = ManualClock()
    world = FakeBackends(clock, backends, **kwargs)
    journal = ListJournal()
    return Relay(ports(clock, world, journal=journal, spool=spool), "mx.test", "s1"), world, journal, clock


def send(one: Relay, text: bytes = b"text\r\n") -> Reply:
    """A whole transaction; the reply to its end."""
    one.begin(MAIL)
    assert one.rcpt(TARGET, ANN, rcpt("b")).code == 250
    assert one.data().code == 354
    one.write(text)
    return one.finish()


def said(reply: Reply) -> str:
    return f"{reply.code} {reply.text}"
