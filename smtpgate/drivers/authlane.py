"""Guessers have a lane of their own: questions about them go to the auth service a few at a time.

The service answers one question after the other, and a flood of wrong passwords is hundreds of them before the one
of an honest client. Which login is wrong is not known before it is asked; but a flood comes from where the last guess
has failed, and an honest client does not, or has logged in from there since. So whoever comes from a network that has
failed, with a name that has not succeeded there, waits for its turn (`turns`); everybody else is asked about at once.
In peace there is nobody in the lane, and it costs a look into two dictionaries. In a flood the lane has a twentieth
of what it could use: the service is there for the honest.

Owns who is suspected of guessing, and for how long. Refuses to know what is asked, and of whom.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Generic, TypeVar

from smtpgate.clock import Clock
from smtpgate.drivers.turns import Turns, network_of
from smtpgate.session.ports import AuthAnswer, AuthGranted, AuthQuery, AuthRefused

# Questions at once of all in the lane together, of each worker process. One would leave the service idle while its
# answer travels.
PLACES: Final = 2
# A place rests for so many times as long as its question took.
REST: Final = 19.0
# More of them wait: what a worker that is full of guessers (listener.MAX_SESSIONS) has, a tenth at once.
WAITING: Final = 1000
# Seconds, half of auth_http's timeout: beyond them the service is too slow for as many as there are.
MAX_WAIT: Final = 5.0
# Seconds for which a refusal, and a success, is remembered. What fail2ban calls findtime has 10 minutes.
MEMORY: Final = 600.0
# Some 200 octets each.
MAX_KEPT: Final = 10_000

K = TypeVar("K", bound=Hashable)


class Lane:
    """Of one process."""

    def __init__(
        self,
        clock: Clock,
        places: int = PLACES,
        waiting: int = WAITING,
        max_wait: float = MAX_WAIT,
        rest: float = REST,
    ) -> None:
        self._turns = Turns(at_once=places, waiting=waiting, max_wait=max_wait, rest=rest)
        self._failed: _Recent[str] = _Recent(clock)
        self._known: _Recent[str] = _Recent(clock)
        self._welcome: _Recent[tuple[str, bytes]] = _Recent(clock)

    def turn(self, query: AuthQuery) -> AbstractContextManager[None]:
        """To be held while the question is asked. Entering it may wait; raises OverloadError."""
        if query.method == "none":  # no login, so nothing is guessed
            return nullcontext()
        network = network_of(query.peer.host)
        if network not in self._failed or (network, query.user) in self._welcome:
            return nullcontext()
        return self._turns.attempt(network)

    def is_known(self, query: AuthQuery) -> bool:
        """Whether anybody has logged in from this client's network."""
        return network_of(query.peer.host) in self._known

    def heard(self, query: AuthQuery, answer: AuthAnswer) -> None:
        """What the service said. A 4xx may be its own fault, and says nothing of the client."""
        if query.method == "none":
            return
        if isinstance(answer, AuthGranted):
            network = network_of(query.peer.host)
            self._known.add(network)
            self._welcome.add((network, query.user))
        elif isinstance(answer, AuthRefused) and answer.code.startswith("5"):
            network = network_of(query.peer.host)
            self._failed.add(network)
            self._welcome.discard((network, query.user))


class _Recent(Generic[K]):
    """Keys that were added within MEMORY; the oldest of MAX_KEPT goes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: OrderedDict[K, float] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        until = self._until.get(key)
        return until is not None and self._clock.monotonic() < until

    def add(self, key: K) -> None:
        self._until.pop(key, None)
        while len(self._until) >= MAX_KEPT:
            self._until.popitem(last=False)
        self._until[key] = self._clock.monotonic() + MEMORY

    def discard(self, key: K) -> None:
        self._until.pop(key, None)
