"""Shaping: the octets of a message wait for their tokens before more are read (shared policy.md, `shape`).

The tokens are the store's, so that all workers together keep to the rate. This process draws them by the slice, and
the sessions of one key take turns at what it drew: each pays for one small piece and stands behind the others again.
Keys know nothing of each other, so none delays another.

Owns how large a piece and a slice are. Refuses to know SMTP, and what the store does while it is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from smtpgate.clock import Clock
from smtpgate.drivers.holds import Lines
from smtpgate.policy.model import Paid, Shape
from smtpgate.session.streams import READ_SIZE

# Seconds of the rate: so much is read at a time, and so much is drawn. Short enough that nobody sees a stream
# stutter (it is 1.25 % of any two seconds), and long enough that 40 store calls a second are nothing beside the
# octets that they let pass.
SLICE: Final = 0.025
MIN_PIECE: Final = 1024  # octets; smaller ones cost more than they smooth
# A store that answers with less, again and again, is not to be asked in a loop.
MIN_WAIT: Final = 0.001
# Seconds of one sleep: tokens may come back earlier than the store knew when it was asked.
MAX_WAIT: Final = 5.0


class Drawing(Protocol):
    """The part of policy.engine.Engine that is needed here."""

    def draw(self, shape: Shape, octets: int) -> float: ...

    def refund(self, paid: Sequence[Paid], *, ours: bool) -> None: ...


class Purse:
    """What this process has drawn for one key and not used yet.

    lanes: messages that use it. drawn: octets of the last draw. empty: when the bucket was left empty by us, in
    monotonic seconds, once that is known; it is of no use to ask before it has filled again.
    """

    __slots__ = ("drawn", "empty", "lanes", "octets")

    def __init__(self) -> None:
        self.lanes = 0
        self.octets = 0
        self.drawn = 0
        self.empty: float | None = None


class Shaper:
    """Opens lanes: one for each message that is shaped."""

    def __init__(self, engine: Drawing, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        # One for each session at most: accepted connections are bounded, so these are.
        self._turns = Lines(most=2**31, most_a_key=2**31)
        self._purses: dict[str, Purse] = {}

    def __len__(self) -> int:
        """Keys that somebody is being shaped for."""
        return len(self._purses)

    def open(self, shapes: Sequence[Shape], owed: int) -> ShapedLane:
        """A message begins. owed: octets of it that have been read already."""
        return ShapedLane(self, shapes, owed)

    # --- for lanes ---

    def enter(self, shape: Shape) -> Purse:
        purse = self._purses.setdefault(shape.key, Purse())
        purse.lanes += 1
        return purse

    def leave(self, shape: Shape, purse: Purse) -> None:
        """The last one gives back what was drawn and not used."""
        purse.lanes -= 1
        if purse.lanes:
            return
        del self._purses[shape.key]
        if purse.octets:
            rest = Paid(shape.limit, shape.key, shape.rate, shape.burst, purse.octets, rejected=False)
            self._engine.refund((rest,), ours=True)

    def pay(self, shape: Shape, purse: Purse, octets: int) -> None:
        """Take the octets out of the purse, behind all who came before, and as soon as it can be filled."""
        turns = self._turns
        if purse.octets >= octets and not turns.waiting(shape.key):
            purse.octets -= octets
            return
        place = turns.join(shape.key)
        assert place is not None, "as many lines as there are sessions"
        try:
            while not place.first:
                place.rest(None)
            while octets > purse.octets:
                octets -= purse.octets
                purse.octets = 0
                self._draw(shape, purse, octets)
            purse.octets -= octets
        finally:
            place.leave()

    def _draw(self, shape: Shape, purse: Purse, octets: int) -> None:
        """Fill the purse for the `octets` that are due, or for a part of them.

        A short message draws what it needs; one that goes on, twice as much each time. Nobody asks for more than a
        slice: a bucket from which others take slices never holds more. Whoever has lost a race against another worker
        asks for half: who asks for less is served earlier, so nobody is overtaken again and again.
        """
        most = min(max(MIN_PIECE, shape.rate * SLICE), shape.burst)
        amount = max(1, int(min(max(octets, 2 * purse.drawn), most)))
        purse.drawn = amount
        payable = None if purse.empty is None else purse.empty + amount / shape.rate
        refusals = 0
        while True:
            if payable is not None:
                self._sleep_until(payable)
            wait = self._engine.draw(shape, amount)
            if not wait:
                break
            refusals += 1
            if refusals == 2 and amount > MIN_PIECE:
                wait -= amount / 2 / shape.rate
                amount -= amount // 2
            payable = self._clock.monotonic() + min(max(wait, MIN_WAIT), MAX_WAIT)
        purse.empty = payable
        purse.octets += amount

    def _sleep_until(self, when: float) -> None:
        seconds = when - self._clock.monotonic()
        if seconds > 0.0:
            self._clock.sleep(seconds)


class ShapedLane:
    """One message's way through all of its shapes; the narrowest of them decides."""

    def __init__(self, shaper: Shaper, shapes: Sequence[Shape], owed: int) -> None:
        self._shaper = shaper
        self._used = [(shape, shaper.enter(shape)) for shape in shapes]
        self._owed = owed

    @property
    def piece(self) -> int:
        """Octets to read next. Where many share a key, each reads less, so that nobody's turn is long in coming."""
        share = min(shape.rate * SLICE / purse.lanes for shape, purse in self._used)
        return max(MIN_PIECE, min(READ_SIZE, int(share)))

    def owe(self, octets: int) -> None:
        """So many have been read."""
        self._owed += octets

    def settle(self) -> bool:
        """Pay for what was read, and wait for as long as that takes. Whether there was anything to pay."""
        owed, self._owed = self._owed, 0
        if owed:
            for shape, purse in self._used:
                self._shaper.pay(shape, purse, owed)
        return owed > 0

    def close(self) -> None:
        """The message has ended, or was given up. May be called twice."""
        used, self._used = self._used, []
        for shape, purse in used:
            self._shaper.leave(shape, purse)
