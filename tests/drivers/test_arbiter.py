"""The arbiter's decisions, with workers that are only names; the processes themselves are in e2e/test_reload.py."""

import os
import signal
import socket
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.errors import HaltServer

from smtpgate.drivers import arbiter as module
from smtpgate.drivers.arbiter import EXIT_TAKEN, RESPAWN_PAUSE, START_LIMIT, ProxyArbiter
from smtpgate.drivers.listening import Bind
from smtpgate.drivers.worker import RETIRE
from smtpgate.units import HostPort, UnixPath

GRACE = 35
BOOT_ERROR = 3 << 8  # a status of waitpid(2): exit code 3


class Log:
    """gunicorn's logger, silent."""

    def __init__(self, cfg):
        self.cfg = cfg

    def __getattr__(self, _name):
        return lambda *_args, **_keys: None


class Worker:
    def __init__(self, pid, cfg):
        self.age, self.cfg, self.serving = pid, cfg, False
        self.tmp = SimpleNamespace(close=lambda: None, last_update=lambda: 0.0)


class App:
    """Also its own configuration: `started` is a tuple of binds and the number of workers."""

    def __init__(self, started):
        self.started = self.next = started
        self.told = []
        self.settled = 0
        self.reload()

    def binds(self):
        return self.started[0]

    def renew(self):
        if self.next is None:
            return False
        self.started = self.next
        return True

    def settle(self):
        self.settled += 1

    def refuse(self, problem):
        self.told.append(problem)

    def reload(self):
        if self.started[1] == "broken":
            raise SystemExit(1)
        self.cfg = Config()
        self.cfg.set("logger_class", Log)
        self.cfg.set("workers", self.started[1])
        self.cfg.set("graceful_timeout", GRACE)


class Desk(ProxyArbiter):
    """An arbiter whose workers are born, killed and buried on paper."""

    def __init__(self, app):
        self.born, self.sent, self.dead = 0, [], {}
        super().__init__(app, app)
        self.manage_workers()

    def spawn_worker(self):
        self.born += 1
        self.WORKERS[self.born] = Worker(self.born, self.cfg)

    def kill_worker(self, pid, sig):
        self.sent.append((pid, sig))

    def serve(self, *pids):
        for pid in pids:
            self.WORKERS[pid].serving = True
        self.manage_workers()

    def bury(self, pid, status=0):
        self.dead[pid] = status
        self.reap_workers()
        self.manage_workers()

    def hup(self, started):
        self.app.next = started
        self.reload()


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(monotonic=lambda: now.at, time=lambda: now.at, sleep=lambda _seconds: None, at=1000.0)
    monkeypatch.setattr(module, "time", now)
    monkeypatch.setattr("gunicorn.arbiter.time", now)
    return now


@pytest.fixture
def desk(monkeypatch, clock):
    for name in ("SERVER_SOFTWARE", "GUNICORN_PID", "LISTEN_FDS", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    made = []

    def waitpid(pid, _options):
        [one] = made
        if pid == -1:
            pid = next(iter(one.dead), 0)
        return (pid, one.dead.pop(pid)) if pid in one.dead else (0, 0)

    monkeypatch.setattr(os, "waitpid", waitpid)

    def start(*binds, workers=2):
        made.append(Desk(App((binds, workers))))
        return made[0]

    yield start
    for one in made:
        for sock in one._held:
            sock.close(unlink=True)


@pytest.fixture
def bind():
    """Free addresses, as binds."""

    def find(listener="mx"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return Bind(listener, HostPort("127.0.0.1", probe.getsockname()[1]))

    return find


def listening(bind):
    with socket.socket() as probe:
        return probe.connect_ex((bind.address.host, bind.address.port)) == 0


# --- HUP -----------------------------------------------------------------------------------------------------


def test_old_workers_retire_when_all_new_ones_serve(desk, bind):
    stays, goes, comes = bind(), bind(), bind()
    one = desk(stays, goes)
    one.serve(1, 2)
    kept = one.LISTENERS[0]
    one.hup(((comes, stays), 3))
    assert (sorted(one.WORKERS), one.LISTENERS[1], one.app.settled) == ([3, 4, 5], kept, 1)
    one.serve(3, 4)
    assert one.sent == []
    assert [listening(each) for each in (stays, goes, comes)] == [True, True, True]
    one.serve(5)
    assert {pid for pid, sig in one.sent if sig == RETIRE} == {1, 2}
    assert [listening(each) for each in (stays, goes, comes)] == [True, False, True]
    # One that dies is replaced, however many old ones live on.
    one.bury(4)
    assert sorted(one.WORKERS) == [3, 5, 6]


def test_a_second_reload_replaces_one_that_has_not_come_to_serve(desk, bind):
    first, second, third = bind(), bind(), bind()
    one = desk(first)
    one.serve(1, 2)
    one.hup(((second,), 2))
    one.hup(((third,), 2))
    assert {pid for pid, _ in one.sent} == {3, 4}
    assert [listening(each) for each in (first, second, third)] == [True, False, True]
    one.serve(5, 6)
    assert {pid for pid, _ in one.sent} == {1, 2, 3, 4}
    assert [listening(each) for each in (first, third)] == [False, True]


def test_workers_that_do_not_come_to_serve_are_given_up(desk, bind, clock):
    before, after = bind(), bind()
    one = desk(before)
    started, settings = one.app.started, one.app.cfg
    one.serve(1, 2)
    one.hup(((after,), 1))
    clock.at += START_LIMIT
    one.manage_workers()
    assert one.app.told == []
    clock.at += 0.1
    one.manage_workers()
    assert one.app.told == ["its workers do not serve after 30 s; the configuration of before stays in force"]
    assert (one.app.started, one.app.cfg, one.num_workers) == (started, settings, 2)
    assert (sorted(one.WORKERS), listening(before), listening(after)) == ([1, 2], True, False)
    one.bury(1)
    assert sorted(one.WORKERS) == [2, 4]


def test_workers_that_cannot_start_are_given_up_at_once(desk, bind):
    before = bind()
    one = desk(before)
    one.serve(1, 2)
    one.bury(1)  # the old ones are not complete themselves
    one.serve(3)
    one.hup(((before,), 2))
    one.bury(5, BOOT_ERROR)
    assert one.app.told == ["its workers cannot start; the configuration of before stays in force"]
    assert sorted(one.WORKERS) == [2, 3]
    assert listening(before)


@pytest.mark.parametrize("fault", ["read", "bind", "settings"])
def test_what_fails_before_changes_nothing(desk, bind, fault):
    before, new, taken = bind(), bind(), bind("submission")
    one = desk(before)
    one.serve(1, 2)
    kept = (one.app.started, one.app.cfg, one.LISTENERS, one.WORKERS)
    with socket.create_server((taken.address.host, taken.address.port)):
        one.hup({"read": None, "bind": ((new, taken), 2), "settings": ((new,), "broken")}[fault])
    assert (one.app.started, one.app.cfg, one.LISTENERS, one.WORKERS) == kept
    assert (one.sent, one.born, listening(new)) == ([], 2, False)
    assert one.app.settled == 0  # nothing of it is in use, not even certificates that have changed
    problem = f"listener submission: {taken.address} cannot be bound: Address already in use; nothing has changed"
    assert one.app.told == ([problem] if fault == "bind" else [])


# --- workers -------------------------------------------------------------------------------------------------


def test_the_first_workers_of_all_have_to_start(desk, bind):
    one = desk(bind())
    one.dead[1] = BOOT_ERROR
    with pytest.raises(HaltServer):
        one.reap_workers()


def test_later_ones_are_tried_again_after_a_pause(desk, bind, clock):
    one = desk(bind())
    one.serve(1, 2)
    one.bury(1)
    one.bury(3, BOOT_ERROR)
    assert sorted(one.WORKERS) == [2]
    clock.at += RESPAWN_PAUSE
    one.manage_workers()
    assert sorted(one.WORKERS) == [2, 4]


def test_who_retires_is_told_until_its_time_is_over(desk, bind, clock):
    one = desk(bind(), workers=1)
    one.serve(1)
    one.hup(one.app.started)
    one.serve(2)
    assert set(one.sent) == {(1, RETIRE)}
    one.sent.clear()
    clock.at += GRACE - 1
    one.manage_workers()
    assert one.sent == [(1, RETIRE)]
    clock.at += 1
    one.manage_workers()
    assert one.sent[1:] == [(1, signal.SIGKILL)]
    one.bury(1)
    one.sent.clear()
    one.manage_workers()
    assert one.sent == []


def test_one_worker_less_is_the_oldest_and_no_crash_hides_behind_it(desk, bind):
    one = desk(bind(), workers=3)
    one.serve(1, 2, 3)
    one.handle_ttou()
    assert (sorted(one.WORKERS), set(one.sent)) == ([2, 3], {(1, RETIRE)})
    one.bury(3)
    assert sorted(one.WORKERS) == [2, 4]


@pytest.mark.parametrize(("terminal", "left"), [(True, [1, 2]), (False, [])])
def test_winch_is_for_operators_not_for_windows(desk, bind, monkeypatch, terminal, left):
    monkeypatch.setattr(module, "_has_terminal", lambda: terminal)
    one = desk(bind())
    one.serve(1, 2)
    one.handle_winch()
    assert sorted(one.WORKERS) == left
    one.hup(one.app.started)
    assert sorted(one.WORKERS) == [3, 4]


def test_the_end_reaches_all(desk, bind, monkeypatch):
    one = desk(bind(), workers=1)
    one.serve(1)
    one.hup(one.app.started)
    one.serve(2)
    one.hup(one.app.started)
    one.sent.clear()
    assert sorted(one.WORKERS) == [3]
    one.dead = {1: 0, 2: 0, 3: BOOT_ERROR}
    one.stop()
    assert {pid for pid, sig in one.sent if sig == signal.SIGTERM} == {1, 2, 3}
    assert (one.WORKERS, one.LISTENERS) == ({}, [])


# --- sockets -------------------------------------------------------------------------------------------------


def test_an_address_that_is_taken_at_the_start(desk, bind, capsys):
    free, taken = bind(), bind("submission")
    app = App(((free, taken), 1))
    with socket.create_server((taken.address.host, taken.address.port)), pytest.raises(SystemExit) as ended:
        Desk(app)
    assert ended.value.code == EXIT_TAKEN
    assert app.told == [f"listener submission: {taken.address} cannot be bound: Address already in use"]
    assert not listening(free)


@pytest.mark.parametrize(
    ("shared", "stays"),
    [({}, False), ({"master_pid": 4711}, True), ({"reexec_pid": 4711}, True), ({"LISTEN_FDS": "1"}, True)],
)
def test_a_path_goes_with_the_last_program_that_uses_it(desk, tmp_path, monkeypatch, shared, stays):
    path = tmp_path / "smtp.sock"
    one = desk(Bind("local", UnixPath(str(path))))
    for name, value in shared.items():
        if name.isupper():
            monkeypatch.setenv(name, value)
        else:
            setattr(one, name, value)
    one.dead = {1: 0, 2: 0}
    one.stop()
    assert path.exists() is stays


def test_systemd_hears_where_the_service_goes_on(desk, bind, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        one = desk(bind())
        one.reexec_pid = 4711
        one.dead = {1: 0, 2: 0}
        one.stop()
        assert systemd.recv(100) == b"MAINPID=4711"


def test_a_worker_lets_go_of_what_it_does_not_serve(desk, bind):
    gone, stays = bind(), bind()
    one = desk(gone, stays)
    one.serve(1, 2)
    one.hup(((stays,), 2))
    [open_still] = one._before.sockets[:1]
    module.let_go(one, None)
    assert (open_still.fileno(), listening(gone), listening(stays)) == (-1, False, True)
