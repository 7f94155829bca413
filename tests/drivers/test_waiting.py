"""The order in which those are served who wait for a place."""

import gevent
import pytest

from smtpgate.drivers.waiting import WaitingRoom
from smtpgate.routing.model import BackendSpec
from smtpgate.routing.pool import Open, Refuse, Wait

PLACE = Open(BackendSpec("mta1", "10.0.0.1", 25))


class World:
    """`free`: the places that there are now."""

    def __init__(self):
        self.room = WaitingRoom()
        self.free = []
        self.served = []
        self.asked = 0
        self.back = []

    def ask(self, tried):
        self.asked += 1
        for name in self.free:
            if name not in tried:
                self.free.remove(name)
                return PLACE
        return Wait()

    def wait(self, who, tried=(), seconds=5.0):
        decision = self.room.wait(tried, lambda: self.ask(tried), seconds, self.back.append)
        self.served.append((who, decision))

    def arrive(self, *who, **kwargs):
        greenlets = [gevent.spawn(self.wait, one, **kwargs) for one in who]
        gevent.idle()
        return greenlets

    def release(self, *names):
        self.free += names
        self.room.serve()
        gevent.idle()


@pytest.fixture
def world():
    return World()


def test_first_come_first_served(world):
    world.arrive("a", "b", "c")
    world.release("mta1")
    world.release("mta1")
    assert world.served == [("a", PLACE), ("b", PLACE)]
    assert len(world.room) == 1
    world.arrive("d")
    world.release("mta1", "mta1")
    assert [who for who, _ in world.served] == ["a", "b", "c", "d"]


def test_who_has_tried_what_is_free_lets_the_others_pass_and_keeps_the_turn(world):
    world.arrive("a", tried=("mta1",))
    world.arrive("b", "c")
    world.release("mta1")
    assert world.served == [("b", PLACE)]
    world.release("mta2")
    assert world.served == [("b", PLACE), ("a", PLACE)]


def test_hundreds_that_cannot_be_served_are_not_asked_each(world):
    world.arrive(*range(300))
    world.release("mta1")
    assert world.asked == 2
    assert [who for who, _ in world.served] == [0]
    world.release(*["mta1"] * 299)
    assert [who for who, _ in world.served] == list(range(300))


def test_a_wait_ends_with_nothing(world):
    world.wait("a", seconds=0.01)
    assert world.served == [("a", Wait())]
    assert len(world.room) == 0


def test_a_refusal_ends_a_wait_too(world):
    world.ask = lambda tried: Refuse("empty")
    (one,) = world.arrive("a")
    world.release()
    one.get(timeout=10)
    assert world.served == [("a", Refuse("empty"))]


def test_one_who_is_killed_leaves_and_gives_back_what_was_given(world):
    first, second = world.arrive("a", "b")
    first.kill()
    assert len(world.room) == 1
    second.kill(block=False)
    world.release("mta1")
    assert (world.served, world.back) == ([], [PLACE])
    assert len(world.room) == 0
