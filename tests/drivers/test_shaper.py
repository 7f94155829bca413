"""Shaping in virtual time: the rate that is kept, whoever takes part in it, and who is not touched by it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import gevent
import pytest
from virtualtime import VirtualClock

from smtpgate.drivers.shaper import MIN_PIECE, Shaper
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.model import Paid, Shape
from smtpgate.policy.store import Charge
from smtpgate.session.streams import READ_SIZE

KIB = 1024
MIB = 1024 * KIB
UPLOAD = Shape("user.upload", "user.upload:ann", rate=MIB, burst=4 * MIB)
WINDOW = 2.0


class Store:
    """What the engine does with draws and refunds, on buckets in this process. draws: octets of each call."""

    def __init__(self, clock: VirtualClock) -> None:
        self.buckets = MemoryBuckets(clock)
        self.draws: list[float] = []
        self.refunds: list[float] = []

    def draw(self, shape: Shape, octets: int) -> float:
        self.draws.append(octets)
        return self.buckets.take([Charge(shape.key, shape.rate, shape.burst, octets)]).waits[0]

    def refund(self, paid: Sequence[Paid], *, ours: bool) -> None:
        assert ours
        self.refunds += [one.cost for one in paid]
        self.buckets.give([Charge(one.key, one.rate, one.burst, one.cost) for one in paid])

    def balance(self, shape: Shape) -> float:
        return self.buckets.take([Charge(shape.key, shape.rate, shape.burst)], debit=False).balances[0]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(clock: VirtualClock) -> Store:
    return Store(clock)


class Upload:
    """A client that always has more to send. read: (when, octets) of each piece."""

    def __init__(self, clock: VirtualClock, shaper: Shaper, *shapes: Shape, size: int = 1 << 40) -> None:
        self.read: list[tuple[float, int]] = []
        self._clock = clock
        self._left = size
        self.lane = shaper.open(shapes, 0)
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        try:
            while self._left:
                self.lane.settle()
                octets = min(self._left, self.lane.piece)
                self._left -= octets
                self.read.append((self._clock.time, octets))
                self.lane.owe(octets)
            self.lane.settle()
        finally:
            self.lane.close()

    @property
    def longest_gap(self) -> float:
        times = [when for when, _ in self.read]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


@pytest.fixture
def upload(clock: VirtualClock) -> Iterator[Callable[..., Upload]]:
    begun: list[Upload] = []

    def begin(shaper: Shaper, *shapes: Shape, size: int = 1 << 40) -> Upload:
        begun.append(Upload(clock, shaper, *shapes, size=size))
        return begun[-1]

    yield begin
    gevent.killall([one.greenlet for one in begun])


def windows(uploads: Sequence[Upload], begin: float, end: float) -> list[float]:
    """Octets a second in every window of two seconds, one beginning at each tenth of a second."""
    pieces = [piece for one in uploads for piece in one.read]
    starts = [begin + n / 10 for n in range(int((end - begin - WINDOW) * 10))]
    return [sum(n for when, n in pieces if start <= when < start + WINDOW) / WINDOW for start in starts]


@pytest.mark.parametrize(("workers", "sessions"), [(1, 1), (1, 4), (4, 1), (4, 2)])
def test_after_the_burst_the_rate_is_kept_in_any_window(
    clock: VirtualClock, store: Store, upload: Callable[..., Upload], workers: int, sessions: int
) -> None:
    shapers = [Shaper(store, clock) for _ in range(workers)]
    began = clock.time
    uploads = [upload(shaper, UPLOAD) for shaper in shapers for _ in range(sessions)]
    clock.run(20.0)
    at_once = sum(n for one in uploads for when, n in one.read if when < began + 0.01)
    assert 3.9 * MIB < at_once < 4.5 * MIB
    measured = windows(uploads, began + 1.0, began + 20.0)
    assert min(measured) > 0.95 * MIB
    assert max(measured) < 1.05 * MIB
    # Smooth, and fair: nobody's stream stands still, nobody's is the others' remainder.
    assert max(one.longest_gap for one in uploads) < 1.0
    parts = [sum(n for when, n in one.read if when > began + 1.0) for one in uploads]
    assert min(parts) > 0.6 * max(parts)


def test_the_sessions_of_one_process_take_turns(
    clock: VirtualClock, store: Store, upload: Callable[..., Upload]
) -> None:
    shaper = Shaper(store, clock)
    first = upload(shaper, UPLOAD)
    clock.run(10.0)
    others = [upload(shaper, UPLOAD) for _ in range(3)]
    began = clock.time
    clock.run(10.0)
    parts = [sum(n for when, n in one.read if when > began) for one in (first, *others)]
    assert min(parts) > 0.95 * max(parts)
    assert sum(parts) == pytest.approx(10 * MIB, rel=0.02)


def test_other_keys_are_not_delayed(clock: VirtualClock, store: Store, upload: Callable[..., Upload]) -> None:
    shaper = Shaper(store, clock)
    for _ in range(10):
        upload(shaper, UPLOAD)
    clock.run(5.0)
    before = clock.time
    lane = shaper.open([Shape("user.upload", "user.upload:bob", MIB, MIB)], 50 * KIB)
    assert lane.settle()
    lane.close()
    assert clock.time == before


@pytest.mark.parametrize(
    ("rate", "lanes", "piece"),
    [
        (MIB, 1, 26214),  # 25 ms of the rate
        (MIB, 4, 6553),  # shared by four, so that a turn comes as often
        (100 * MIB, 1, READ_SIZE),
        (KIB, 1, MIN_PIECE),
        (MIB, 100, MIN_PIECE),
    ],
)
def test_how_much_is_read_at_a_time(clock: VirtualClock, store: Store, rate: float, lanes: int, piece: int) -> None:
    shaper = Shaper(store, clock)
    opened = [shaper.open([Shape("l", "l:k", rate, rate)], 0) for _ in range(lanes)]
    assert {lane.piece for lane in opened} == {piece}


def test_the_narrowest_of_several_shapes_decides(
    clock: VirtualClock, store: Store, upload: Callable[..., Upload]
) -> None:
    narrow = Shape("net.upload", "net.upload:192.0.2.0/24", rate=100 * KIB, burst=100 * KIB)
    one = upload(Shaper(store, clock), UPLOAD, narrow)
    assert one.lane.piece == 2560
    clock.run(10.0)
    assert sum(n for _, n in one.read) == pytest.approx(1100 * KIB, rel=0.02)


def test_a_short_message_draws_what_it_needs(clock: VirtualClock, store: Store) -> None:
    shaper = Shaper(store, clock)
    lane = shaper.open([UPLOAD], 2000)
    assert lane.settle()
    assert not lane.settle()
    lane.close()
    assert (store.draws, store.refunds) == ([2000], [])
    assert store.balance(UPLOAD) == 4 * MIB - 2000
    assert len(shaper) == 0


def test_a_long_one_draws_slices_and_gives_back_what_is_left(
    clock: VirtualClock, store: Store, upload: Callable[..., Upload]
) -> None:
    one = upload(Shaper(store, clock), UPLOAD, size=1_000_000)
    gevent.idle()
    assert one.greenlet.dead
    assert set(store.draws) == {26214}
    assert sum(store.draws) - sum(store.refunds) == 1_000_000
    assert store.balance(UPLOAD) == 4 * MIB - 1_000_000


def test_more_than_the_burst_is_paid_in_parts(clock: VirtualClock, store: Store) -> None:
    """What was read before the text began may be more than a small bucket ever holds."""
    small = Shape("l", "l:k", rate=KIB, burst=2 * KIB)
    lane = Shaper(store, clock).open([small], 10 * KIB)
    paying = gevent.spawn(lane.settle)
    clock.run(7.9)
    assert not paying.dead
    clock.run(0.2)
    assert paying.value is True


def test_what_was_read_before_the_text_began_does_not_starve(
    clock: VirtualClock, store: Store, upload: Callable[..., Upload]
) -> None:
    """64 KiB at once, while another worker takes all that comes by the slice."""
    slow = Shape("l", "l:k", rate=100 * KIB, burst=100 * KIB)
    upload(Shaper(store, clock), slow)
    clock.run(5.0)
    lane = Shaper(store, clock).open([slow], READ_SIZE)
    paying = gevent.spawn(lane.settle)
    clock.run(1.6)
    assert paying.value is True
    assert max(store.draws) == 2560


def test_one_that_is_cut_off_holds_up_nobody(
    clock: VirtualClock, store: Store, upload: Callable[..., Upload]
) -> None:
    shaper = Shaper(store, clock)
    cut, other = upload(shaper, UPLOAD), upload(shaper, UPLOAD)
    clock.run(8.0)
    cut.greenlet.kill()
    before = sum(n for _, n in other.read)
    clock.run(4.0)
    assert sum(n for _, n in other.read) - before == pytest.approx(4 * MIB, rel=0.03)


def test_closing_twice_is_once(clock: VirtualClock, store: Store) -> None:
    shaper = Shaper(store, clock)
    one, other = shaper.open([UPLOAD], 0), shaper.open([UPLOAD], 0)
    one.close()
    one.close()
    assert len(shaper) == 1
    other.close()
    assert len(shaper) == 0
