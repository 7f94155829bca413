"""Sessions that wait for a place on a pool's backends.

Owns their order: whoever came first is served first with what is released, and is passed over only by those whom the
place suits when it does not suit him (he has tried that backend). A place that becomes free is given away before
anybody else can ask for it, so nobody overtakes. Refuses to know what a place is: `ask` is the pool's decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from gevent.event import Event

from smtpgate.routing.pool import Open, Refuse, Wait

Decision = Open | Wait | Refuse


@dataclass(slots=True)
class _Waiter:
    wants: Hashable
    ask: Callable[[], Decision]
    answered: Event = field(default_factory=Event)
    answer: Decision = field(default_factory=Wait)


class WaitingRoom:
    """The queue of one pool in one process."""

    def __init__(self) -> None:
        self._waiters: deque[_Waiter] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def wait(
        self, wants: Hashable, ask: Callable[[], Decision], seconds: float, give_back: Callable[[Open], None]
    ) -> Decision:
        """Block until `ask` has another answer than Wait, at most for `seconds`; then Wait.

        wants: who wants the same is told Wait by `ask` at the same times. give_back: for a place that was given to
        somebody who is being killed.
        """
        waiter = _Waiter(wants, ask)
        self._waiters.append(waiter)
        try:
            waiter.answered.wait(seconds)
        except BaseException:  # who is killed keeps no place that it was just given
            if isinstance(waiter.answer, Open):
                give_back(waiter.answer)
            raise
        finally:
            if not waiter.answered.is_set():
                self._waiters.remove(waiter)
        return waiter.answer

    def serve(self) -> None:
        """Something was released, or changed: ask for everybody, in order. Does not wait."""
        in_vain: set[Hashable] = set()  # or each release would ask for hundreds that cannot be served
        for _ in range(len(self._waiters)):
            waiter = self._waiters.popleft()
            if waiter.wants not in in_vain:
                waiter.answer = waiter.ask()
            if isinstance(waiter.answer, Wait):
                in_vain.add(waiter.wants)
                self._waiters.append(waiter)
            else:
                waiter.answered.set()
