"""Everybody is accepted: who may come in is served, who may not is told, and what fails does not stop the next."""

import errno
import time

import gevent
import gevent.socket
import pytest

from smtpgate.drivers import acceptor
from smtpgate.drivers.acceptor import Acceptor
from smtpgate.drivers.admission import Refusal
from smtpgate.drivers.descriptors import ReserveDescriptor


class Door:
    """Admits `room` connections, and says who it was to everybody."""

    def __init__(self, room=100):
        self.room = room
        self.served = []
        self.refused = []

    def admit(self, index, address):
        if not self.room:
            return Refusal.FULL
        self.room -= 1
        return None

    def turn_away(self, index, sock, address, refusal):
        self.refused.append((index, refusal))
        sock.sendall(b"no\r\n")
        sock.close()

    def serve(self, index, sock, address):
        self.served.append((index, address))
        sock.sendall(b"yes\r\n")
        sock.close()


class Failing:
    """A listening socket whose next accepts fail with these errors."""

    def __init__(self, sock, *errors):
        self.sock, self.errors = sock, list(errors)

    def __getattr__(self, name):
        if name == "_sock":
            raise AttributeError(name)  # StreamServer would accept from it
        return getattr(self.sock, name)

    def _accept(self):
        if self.errors:
            raise OSError(self.errors.pop(0), "injected")
        return self.sock._accept()


@pytest.fixture
def opened():
    """A function: an Acceptor that has started, for a door. errors: of the first accepts."""
    made = []

    def start(door, *errors, most=acceptor.MAX_ACCEPT):
        sock = gevent.socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        reserve = ReserveDescriptor()
        one = Acceptor(Failing(sock, *errors), 7, door, door.serve, reserve, most)
        one.start()
        made.append((one, reserve))
        return sock.getsockname()

    yield start
    for one, reserve in made:
        one.close()
        reserve.close()


def connect(address):
    client = gevent.socket.create_connection(address, timeout=5)
    try:
        return client.recv(100)
    finally:
        client.close()


def test_who_is_admitted_is_served_and_the_others_are_told(opened):
    door = Door(room=2)
    address = opened(door)
    assert [connect(address) for _ in range(4)] == [b"yes\r\n", b"yes\r\n", b"no\r\n", b"no\r\n"]
    assert [index for index, _ in door.served] == [7, 7]
    assert all(client[0] == "127.0.0.1" for _, client in door.served)
    assert door.refused == [(7, Refusal.FULL)] * 2


@pytest.mark.parametrize("most", [1, 100])
def test_many_at_once(opened, most):
    address = opened(Door(), most=most)
    clients = [gevent.spawn(connect, address) for _ in range(50)]
    gevent.joinall(clients, timeout=5)
    assert [client.value for client in clients] == [b"yes\r\n"] * 50


@pytest.mark.parametrize("number", sorted(acceptor.GONE))
def test_a_client_that_has_gone_while_it_waited_is_nobodys_matter(opened, number, capfd):
    address = opened(Door(), number)
    assert connect(address) == b"yes\r\n"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_descriptors_the_reserve_answers_and_the_next_one_is_served(opened, number, capfd):
    door = Door()
    address = opened(door, number)
    assert [connect(address) for _ in range(2)] == [b"no\r\n", b"yes\r\n"]
    assert door.refused == [(7, Refusal.DESCRIPTORS)]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("errors", [[errno.ENOMEM], [errno.ENOBUFS] * 3, [errno.EMFILE] * 4])
def test_what_cannot_be_answered_is_tried_again_soon(opened, errors, capfd):
    door = Door()
    address = opened(door, *errors)
    started = time.monotonic()
    assert connect(address) == b"yes\r\n"
    assert time.monotonic() - started < len(errors) * acceptor.PAUSE + 10.0
    assert capfd.readouterr() == ("", "")


def test_it_does_not_spin_while_it_pauses(opened):
    sock = gevent.socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    failing = Failing(sock, *[errno.ENOMEM] * 1000)
    reserve, door = ReserveDescriptor(), Door()
    one = Acceptor(failing, 0, door, door.serve, reserve)
    one.start()
    with gevent.socket.create_connection(sock.getsockname()):
        gevent.sleep(3.5 * acceptor.PAUSE)
    assert 1000 - len(failing.errors) == 4
    one.close()
    reserve.close()


def test_after_close_nobody_is_accepted(opened):
    sock = gevent.socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    address = sock.getsockname()
    reserve = ReserveDescriptor()
    one = Acceptor(sock, 0, Door(), lambda *connection: None, reserve)
    one.start()
    one.close()
    reserve.close()
    with pytest.raises(ConnectionRefusedError):
        gevent.socket.create_connection(address)


def test_a_connection_that_another_process_has_taken_is_not_waited_for(opened):
    door = Door()
    address = opened(door, errno.EAGAIN)
    assert connect(address) == b"yes\r\n"  # the next wake-up is at once: it is still there
