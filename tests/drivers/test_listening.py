"""Listening sockets on loopback: opened all or none, kept, inherited, closed."""

import os
import socket
import stat

import pytest

from smtpgate.drivers.listening import Bind, CannotBind, ListeningSocket, inherited, listen
from smtpgate.units import HostPort, UnixPath


@pytest.fixture
def opened():
    """`opened(bind, ...)`: listen(), closed with the test."""
    made = []

    def opening(*binds, held=()):
        sockets = listen(binds, held)
        made.extend(sockets)
        return sockets

    yield opening
    for one in made:
        one.close(unlink=True)


def free(host="127.0.0.1", family=socket.AF_INET):
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return Bind("mx", HostPort(host, probe.getsockname()[1]))


def unix(path):
    return Bind("local", UnixPath(str(path)))


def test_each_address_is_listened_on_in_order(opened, tmp_path):
    binds = [free(), unix(tmp_path / "a.sock"), free("::1", socket.AF_INET6)]
    sockets = opened(*binds)
    assert [str(one) for one in sockets] == [str(bind.address) for bind in binds]
    assert [one.FAMILY for one in sockets] == [socket.AF_INET, socket.AF_UNIX, socket.AF_INET6]
    for one in sockets:
        with socket.socket(one.FAMILY) as client:
            client.connect(one.sock.getsockname())
            accepted, _ = one.sock.accept()
            accepted.close()
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o666


def test_what_is_held_is_kept(opened, tmp_path):
    one, two, path = free(), free(), unix(tmp_path / "a.sock")
    before = opened(one, path)
    after = opened(path, two, one, held=before)
    assert (after[0], after[2]) == (before[1], before[0])


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_name_is_the_address_that_it_has(opened, name):
    bind = free()
    before = opened(bind)
    assert opened(Bind("mx", HostPort(name, bind.address.port)), held=before) == before


def test_one_address_under_two_names_is_bound_once(opened):
    bind = free()
    with pytest.raises(CannotBind, match=f"^listener b: localhost:{bind.address.port} cannot be bound: Address al"):
        listen([bind, Bind("b", HostPort("localhost", bind.address.port))], opened(bind))


def test_both_kinds_of_any_address_go_together(opened):
    port = free("0.0.0.0").address.port
    assert len(opened(Bind("four", HostPort("0.0.0.0", port)), Bind("six", HostPort("::", port)))) == 2


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (HostPort("192.0.2.1", 25), "Cannot assign requested address"),
        (UnixPath("/nonexistent/a.sock"), "No such file or directory"),
        (UnixPath("/etc/passwd"), "there is a file that is no socket"),
    ],
)
def test_all_or_none(tmp_path, address, reason):
    path = tmp_path / "a.sock"
    port = free()
    with pytest.raises(CannotBind) as failed:
        listen([port, unix(path), Bind("last", address)], [])
    assert str(failed.value) == f"listener last: {address} cannot be bound: {reason}"
    assert not path.exists()
    with socket.socket() as probe:
        assert probe.connect_ex((port.address.host, port.address.port)) != 0


def test_an_unknown_name(monkeypatch):
    def unknown(*_args):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("smtpgate.drivers.listening._getaddrinfo", unknown)
    with pytest.raises(CannotBind, match=r"^listener mx: mx\.invalid:25 cannot be bound: Name or service not known$"):
        listen([Bind("mx", HostPort("mx.invalid", 25))], [])


def test_a_path_that_a_crash_has_left_is_taken_over_and_one_in_use_is_not(opened, tmp_path):
    bind = unix(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(bind.address.path)
    [one] = opened(bind)
    with pytest.raises(CannotBind, match="Address already in use"):
        listen([bind], [])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(bind.address.path)
    assert str(one) == f"unix:{bind.address.path}"


@pytest.mark.parametrize("unlink", [True, False])
def test_a_path_is_removed_by_whose_it_is(tmp_path, unlink):
    path = tmp_path / "a.sock"
    [one] = listen([unix(path)], [])
    one.close(unlink=unlink)
    assert path.exists() is not unlink


def test_somebody_elses_path_stays(tmp_path):
    path = tmp_path / "a.sock"
    [one] = listen([unix(path)], [])
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        one.close(unlink=True)
        assert path.exists()


def test_sockets_of_an_earlier_master(opened, tmp_path):
    binds = [free(), unix(tmp_path / "a.sock")]
    descriptors = [os.dup(one.fileno()) for one in opened(*binds)]
    environ = {"GUNICORN_FD": ",".join(map(str, descriptors)), "LISTEN_FDS": "2", "LISTEN_PID": "1"}
    handed = inherited(environ, os.getpid())
    assert [one.fileno() for one in handed] == descriptors
    assert environ == {"LISTEN_FDS": "2"}
    kept = opened(*reversed(binds), held=handed)
    assert kept == handed[::-1]


def test_sockets_of_systemd(opened, monkeypatch):
    bind = free()
    [descriptor] = [os.dup(one.fileno()) for one in opened(bind)]
    monkeypatch.setattr("smtpgate.drivers.listening.SYSTEMD_FIRST", descriptor)
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "99"}
    assert inherited(environ, 98) == []
    environ["LISTEN_PID"] = "99"
    handed = inherited(environ, 99)
    assert opened(bind, held=handed) == handed
    assert environ == {"LISTEN_FDS": "1"}


def test_an_abstract_socket_has_no_path_to_remove():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(b"\0smtpgate-test-%d" % os.getpid())
        ListeningSocket(sock).close(unlink=True)
