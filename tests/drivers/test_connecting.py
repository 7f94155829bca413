"""Connections that are not made, and whose fault that is."""

import errno
import socket
import time

import gevent.socket
import pytest

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers.connecting import OutOfResources, connect
from smtpgate.session.streams import StreamLost, StreamTimeout


def soon(seconds=5.0):
    return Deadline(SystemClock(), seconds)


def test_connect_to_nobody_is_lost():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(StreamLost, match="ECONNREFUSED"):
            connect("127.0.0.1", port, soon())


def test_connect_to_a_black_hole_times_out():
    """A listening socket whose backlog is full drops further SYNs."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        held = [socket.socket() for _ in range(4)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        time.sleep(0.05)
        with pytest.raises(StreamTimeout):
            connect(*full.getsockname(), soon(0.2))
        for one in held:
            one.close()


def test_without_time_nobody_is_called():
    with pytest.raises(StreamTimeout):
        connect("127.0.0.1", 1, soon(0))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_a_descriptor_it_is_our_own_fault(monkeypatch, number):
    def full(family):
        raise OSError(number, "Too many open files")

    monkeypatch.setattr(gevent.socket, "socket", full)
    with pytest.raises(OutOfResources, match=f"{errno.errorcode[number]}: Too many open files"):
        connect("192.0.2.1", 25, soon())
