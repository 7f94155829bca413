"""Failed logins against the policy's `auth_fail` limits, and how a refusal is told to nginx.

Owns the order: look before a password is verified, charge after it was wrong. A throttled client learns
nothing of its password, not even by time. Refuses to know what limits there are (smtpgate.policy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

from authsvc.contract import MAX_ATTEMPTS, Refused
from smtpgate.policy.model import Decision, Denial, Event, Facts

# RFC 4954 section 6.
WRONG_CODE: Final = "535 5.7.8"
WRONG_TEXT: Final = "Authentication credentials invalid"


class Engine(Protocol):
    """smtpgate.policy.engine.Engine, as far as it is used here."""

    def decide(self, event: Event, facts: Facts, *, debit: bool = True) -> Decision: ...


@dataclass(frozen=True, slots=True)
class Throttled:
    """A refusal and the limit that spoke, None where it is only a wrong password."""

    refused: Refused
    denial: Denial | None


class Throttle:
    """failed_login_wait: seconds before the reply to a wrong password when no limit speaks."""

    def __init__(self, engine: Engine, failed_login_wait: float) -> None:
        self._engine = engine
        self._wait = failed_login_wait

    def look(self, facts: Facts, attempt: int) -> Throttled | None:
        """Whether this client has tokens left for a failed login. Takes none."""
        denial = self._engine.decide(Event.AUTH_FAIL, facts, debit=False).denial
        return None if denial is None else _denied(denial, attempt)

    def failed(self, facts: Facts, attempt: int) -> Throttled:
        """Charge a failed login; the reply is the limit's, or that of a wrong password."""
        denial = self._engine.decide(Event.AUTH_FAIL, facts).denial
        if denial is not None:
            return _denied(denial, attempt)
        return Throttled(Refused(WRONG_CODE, WRONG_TEXT, pause(self._wait, attempt)), None)


def pause(seconds: float, attempt: int) -> int:
    """Auth-Wait: whole seconds, rounded up; 0, which ends the session, after MAX_ATTEMPTS."""
    return 0 if attempt >= MAX_ATTEMPTS else math.ceil(seconds)


def _denied(denial: Denial, attempt: int) -> Throttled:
    reply = denial.reply
    # A limit that does not close lets the client try again, which takes an Auth-Wait of at least 1.
    wait = 0 if denial.close else pause(max(denial.delay, 1.0), attempt)
    return Throttled(Refused(f"{reply.code} {reply.enhanced}", reply.text, wait), denial)
