"""Files, pipes and syslog as they are: rotated, full, with nobody who reads."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from smtpgate.drivers import logoutput
from smtpgate.drivers.logoutput import (
    FILE_MODE,
    LOOK_INTERVAL,
    DescriptorOutput,
    FileOutput,
    Line,
    Output,
    PipeOutput,
    SocketOutput,
    SyslogOutput,
    open_output,
)
from smtpgate.journal import FileTarget, SyslogTarget

STAMP = "2026-11-22T21:48:57.000001Z"


def lines(*texts: str) -> list[Line]:
    return [("info", STAMP, text) for text in texts]


def told(reason: str) -> Line:
    return "warning", STAMP, f"told: {reason}"


def file_output(path: Path) -> FileOutput:
    return FileOutput(str(path), told)


# --- files ---


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write looks whether the file is still there."""
    assert LOOK_INTERVAL > 0
    monkeypatch.setattr(logoutput, "LOOK_INTERVAL", 0.0)


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    assert open_output(FileTarget(str(path)), told).write(lines("a", "b")) == 2
    assert path.read_text() == "before\na\nb\n"


@pytest.fixture(params=[0o077, 0o022, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_a_new_file_is_a_groups_to_read_whatever_the_umask(tmp_path: Path, umask: None) -> None:
    file_output(tmp_path / "log").write(lines("a"))
    assert (tmp_path / "log").stat().st_mode & 0o777 == FILE_MODE == 0o640


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    path.chmod(0o604)
    file_output(path).write(lines("a"))
    assert path.stat().st_mode & 0o777 == 0o604


def test_a_link_to_what_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    file_output(tmp_path / "log").write(lines("a"))
    assert (tmp_path / "elsewhere").read_text() == "a\n"


def test_a_file_that_was_renamed_is_made_anew(tmp_path: Path, late: None) -> None:
    path = tmp_path / "log"
    output = file_output(path)
    output.write(lines("a"))
    path.rename(tmp_path / "log.1")
    output.write(lines("b"))
    path.unlink()
    output.write(lines("c"))
    assert ((tmp_path / "log.1").read_text(), path.read_text()) == ("a\n", "c\n")


def test_where_the_new_file_cannot_be_opened_lines_go_on_into_the_old_one(tmp_path: Path, late: None) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    output = file_output(path)
    for number in range(2):  # it is told again, of the next trouble
        output.write(lines("a"))
        path.rename(old)
        path.mkdir()  # what root cannot open either
        for text in "bc":
            assert output.write(lines(text)) == 1
        reason = f"told: {path}: Is a directory; lines go on into the renamed file"
        assert old.read_text().splitlines() == ["d"] * number + ["a", reason, "b", "c"]
        path.rmdir()
        output.write(lines("d"))
        assert path.read_text() == "d\n"
    output.close()


def test_a_file_that_was_truncated_begins_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    output = file_output(path)
    output.write(lines("a"))
    os.truncate(path, 0)  # logrotate's copytruncate
    output.write(lines("b"))
    assert path.read_text() == "b\n"


def test_a_folder_that_went_away_is_an_error_until_it_is_back(tmp_path: Path, late: None) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    output = file_output(folder / "log")
    (folder / "log").unlink()
    folder.rmdir()
    for _ in range(2):
        with pytest.raises(OSError):
            output.write(lines("a"))
    folder.mkdir()
    assert output.write(lines("b")) == 1
    assert (folder / "log").read_text() == "b\n"
    output.close()


def test_a_fifo_takes_what_its_reader_leaves_room_for(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output = file_output(path)
    for _ in range(100):
        if _written(output, lines("x" * 10_000)) == 0:
            break
    else:
        pytest.fail("it takes everything")
    os.close(reading)
    output.close()


def test_a_full_disk_raises() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space left"):
            DescriptorOutput(fd).write(lines("a"))
    finally:
        os.close(fd)


# --- pipes and sockets ---


@pytest.fixture(params=["reopened", "polled"])
def pipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PipeOutput, int]]:
    reading, writing = os.pipe()
    if request.param == "polled":
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", _refused)
            output = PipeOutput(writing)
    else:
        output = PipeOutput(writing)
    yield output, reading
    output.close()
    os.close(reading)
    os.close(writing)


def _refused(*_: object) -> int:
    raise PermissionError


def _written(output: Output, given: list[Line]) -> int:
    try:
        return output.write(given)
    except BlockingIOError:
        return 0


def test_a_pipe_nobody_reads_takes_what_fits_and_whole_lines_only(pipe: tuple[PipeOutput, int]) -> None:
    output, reading = pipe
    given = lines(*[f"{n:04}" + "x" * 996 for n in range(500)])
    taken = 0
    while (more := _written(output, given[taken:])) > 0:
        taken += more
    assert 0 < taken < 500
    read = b""
    while taken < 500:
        read += os.read(reading, select.PIPE_BUF)
        taken += _written(output, given[taken:])
    os.set_blocking(reading, False)
    try:
        while piece := os.read(reading, 1 << 16):
            read += piece
    except BlockingIOError:
        pass
    assert read.decode().splitlines() == [text for _, _, text in given]


def test_a_line_longer_than_a_pipe_keeps_together_arrives(pipe: tuple[PipeOutput, int]) -> None:
    output, reading = pipe
    given = lines("a" * 3 * select.PIPE_BUF, "b")
    taken, read = 0, b""
    os.set_blocking(reading, False)
    while len(read) < 3 * select.PIPE_BUF + 3:
        taken += output.write(given[taken:])
        try:
            read += os.read(reading, 1 << 16)
        except BlockingIOError:
            pass
    assert read.decode().splitlines() == [text for _, _, text in given]


def test_the_shells_own_end_of_a_pipe_still_waits() -> None:
    """Others have the descriptor that we were given: it must not become a non-blocking one."""
    reading, writing = os.pipe()
    output = PipeOutput(writing)
    output.write(lines("a"))
    assert os.get_blocking(writing)
    output.close()
    os.close(reading)
    os.close(writing)


def test_journalds_socket_takes_lines_and_does_not_wait() -> None:
    near, far = socket.socketpair()
    output = SocketOutput(near.fileno())
    assert output.write(lines("a", "b")) == 2
    assert far.recv(100) == b"a\nb\n"
    for _ in range(1000):
        if _written(output, lines("x" * 10_000)) == 0:
            break
    else:
        pytest.fail("it takes everything")
    assert near.getblocking()
    near.close()
    far.close()
    output.close()


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_standard_output_is_what_it_is(kind: str, tmp_path: Path) -> None:
    program = (
        "from smtpgate.drivers.logoutput import standard_output as out\n"
        "made = out(); made.write([('info', '', 'said')]); made.write([('info', '', type(made).__name__)])"
    )
    near, far = socket.socketpair()
    with (tmp_path / "out").open("w+") as file:
        target = {"file": file, "pipe": subprocess.PIPE, "socket": near}[kind]
        child = subprocess.Popen([sys.executable, "-c", program], stdout=target)  # type: ignore[call-overload]
        said = child.communicate(timeout=60)[0]
        file.seek(0)
        if kind != "pipe":
            said = file.read().encode() if kind == "file" else far.recv(100)
    near.close()
    far.close()
    names = {"file": "DescriptorOutput", "pipe": "PipeOutput", "socket": "SocketOutput"}
    assert said.decode() == f"said\n{names[kind]}\n"


# --- syslog ---


def test_the_systems_own_log(tmp_path: Path) -> None:
    path = str(tmp_path / "log.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        output = open_output(SyslogTarget("unix", path), told)
        assert output.write([("info", STAMP, "{}"), ("error", STAMP, "bad")]) == 2
        # mail is 2: 2 << 3 | 6, and 2 << 3 | 3.
        assert daemon.recv(100) == b"<22>smtpgate[%d]: {}" % os.getpid()
        assert daemon.recv(100) == b"<19>smtpgate[%d]: bad" % os.getpid()
        output.close()


def test_a_server_by_udp_gets_rfc_5424() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        output = SyslogOutput(SyslogTarget("udp", "127.0.0.1", server.getsockname()[1], "local3"))
        output.write([("warning", STAMP, "text")])
        header = f"<156>1 {STAMP} {socket.gethostname()} smtpgate {os.getpid()} - - text"
        assert server.recv(1000).decode() == header
        output.close()


def test_a_server_by_tcp_gets_counted_octets_and_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logoutput, "CONNECT_INTERVAL", 0.0)
    server = socket.create_server(("127.0.0.1", 0))
    target = SyslogTarget("tcp", "127.0.0.1", server.getsockname()[1])
    output = SyslogOutput(target)
    first, _ = server.accept()
    output.write(lines("one", "two"))
    said = first.recv(1000).decode()
    size, _, rest = said.partition(" ")
    assert rest[: int(size)].endswith(" - - one")
    assert rest.count("<22>1 ") == 2
    first.close()
    deadline = time.monotonic() + 5
    second = None
    server.settimeout(0.02)
    while second is None and time.monotonic() < deadline:
        try:
            output.write(lines("again"))
        except OSError:
            pass
        gevent.sleep(0.01)
        try:
            second, _ = server.accept()
        except TimeoutError:
            pass
    assert second is not None
    second.settimeout(5)
    while True:
        try:
            if output.write(lines("there")):
                break
        except OSError:
            gevent.sleep(0.01)
    assert b"there" in second.recv(1000)
    second.close()
    server.close()
    output.close()


def test_a_syslog_that_stands_still_does_not_hold_us_up(tmp_path: Path) -> None:
    path = str(tmp_path / "log.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        output = open_output(SyslogTarget("unix", path), told)
        given = lines(*["x" * 1000] * 5000)
        began = time.monotonic()
        taken = output.write(given)
        assert 0 < taken < 5000
        assert output.write(given[taken:]) == 0
        assert time.monotonic() - began < 10.0
        output.close()


def test_a_syslog_that_is_not_there_is_an_error_each_time(tmp_path: Path) -> None:
    output = open_output(SyslogTarget("unix", str(tmp_path / "none")), told)
    for _ in range(2):
        with pytest.raises(OSError, match="not connected"):
            output.write(lines("a"))
