"""Where the log's lines go: standard output, a file, syslog. Nothing here ever waits.

Owns the descriptors and the sockets, and that a file which was rotated is opened again. What cannot be written now is
said so and stays the caller's (`logqueue`). Refuses to know what a line says.

The handlers of `logging` do not serve: a StreamHandler waits for a pipe's reader, and keeps in its stream's buffer
what a full disk did not take; SysLogHandler waits for the daemon, and knows no RFC 5424.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Callable, Sequence
from logging.handlers import SysLogHandler
from typing import Final, Protocol, TextIO

import gevent
from gevent.monkey import get_original

from smtpgate.journal import FileTarget, SyslogTarget, Target

# (level, time, text): all that a destination needs.
Line = tuple[str, str, str]

# Makes a line of what went wrong with the log itself.
Tell = Callable[[str], Line]

# Seconds between two looks at whether a file is still the one that has its name (logrotate's rename), and between two
# tries to open the new one.
LOOK_INTERVAL: Final = 1.0
# Seconds between two tries to reach a syslog server, and for one try.
CONNECT_INTERVAL: Final = 1.0
CONNECT_TIMEOUT: Final = 5.0
# As Debian's rsyslog makes its files, whatever our umask: addresses of people are in it, and a group may read it.
FILE_MODE: Final = 0o640
NAME: Final = "smtpgate"
# gevent's own poll() makes watchers for it.
_KERNEL_POLL: Final = get_original("select", "poll")


class Output(Protocol):
    def write(self, lines: Sequence[Line]) -> int:
        """Hand over as many lines as can be without waiting; how many these were.

        Raises OSError or ValueError where none can be written.
        """

    def close(self) -> None:
        """Standard output stays open."""


def open_output(target: Target, tell: Tell) -> Output:
    """Raises OSError where a file cannot be opened now; a syslog server that is away is tried again and again."""
    if isinstance(target, FileTarget):
        return FileOutput(target.path, tell)
    if isinstance(target, SyslogTarget):
        return SyslogOutput(target)
    return standard_output()


def standard_output() -> Output:
    """Standard output as it is: a file, a terminal or pipe, or journald's socket."""
    try:
        fd = sys.stdout.fileno()
    except (OSError, ValueError):  # something stands in for it
        return TextOutput(sys.stdout)
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        return SocketOutput(fd)
    return PipeOutput(fd) if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) else DescriptorOutput(fd)


class TextOutput:
    """A text stream, for tests and for what stands in for standard output."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, lines: Sequence[Line]) -> int:
        self._out.write("".join([text + "\n" for _, _, text in lines]))
        self._out.flush()
        return len(lines)

    def close(self) -> None:
        """It is somebody else's."""


class DescriptorOutput:
    """A regular file, which takes what it has room for. What is left of a line that was cut is written first."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""

    def write(self, lines: Sequence[Line]) -> int:
        return self._put(lines) if self._finished() else 0

    def close(self) -> None:
        """The descriptor is somebody else's."""

    def _put(self, lines: Sequence[Line]) -> int:
        self._send(_octets(lines))
        return len(lines)

    def _finished(self) -> bool:
        """The line that was cut has all of its octets."""
        if self._rest:
            rest, self._rest = self._rest, b""
            try:
                self._send(rest)
            except OSError:
                self._rest = rest
                raise
        return not self._rest

    def _send(self, data: bytes) -> None:
        """Raises OSError where nothing was taken."""
        self._rest = data[self._octets_taken(data) :]

    def _octets_taken(self, data: bytes) -> int:
        return os.write(self._fd, data)


class PipeOutput(DescriptorOutput):
    """A pipe or a terminal, whose reader may be slow. Workers share it: whole lines, no more than the kernel keeps
    together (PIPE_BUF).
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._poller = None
        try:
            # Not by O_NONBLOCK on ours: whoever else has it, a shell among them, would have that too.
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # no /proc, or another user's: a pipe with room takes PIPE_BUF octets without waiting
            self._poller = _KERNEL_POLL()
            self._poller.register(fd, select.POLLOUT)

    def close(self) -> None:
        if self._poller is None:
            os.close(self._fd)

    def _put(self, lines: Sequence[Line]) -> int:
        taken = 0
        while taken < len(lines) and not self._rest:
            end, size = taken, 0
            while end < len(lines) and (end == taken or size + len(lines[end][2]) < select.PIPE_BUF):
                size += len(lines[end][2]) + 1
                end += 1
            try:
                self._send(_octets(lines[taken:end]))
            except OSError:
                if taken == 0:
                    raise
                break
            taken = end
        return taken

    def _octets_taken(self, data: bytes) -> int:
        if self._poller is None:
            return os.write(self._fd, data)
        if not self._poller.poll(0):
            raise BlockingIOError(errno.EAGAIN, "nobody reads the log")
        return os.write(self._fd, data[: select.PIPE_BUF])


class SocketOutput(DescriptorOutput):
    """A stream socket, as systemd gives it to a service."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._socket = _native_socket(fileno=os.dup(fd))

    def close(self) -> None:
        self._socket.close()

    def _octets_taken(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT)


class FileOutput:
    """A file by its name. logrotate may truncate it (copytruncate), or rename it and make another.

    Where it was renamed and the new one cannot be opened (a folder in which only root makes files, and no `create`),
    the lines go on into the renamed one, the first of them tells why, and the new one is tried again. Where it was
    removed, there is nothing to go on with: the lines are the caller's.
    """

    def __init__(self, path: str, tell: Tell) -> None:
        self._path = path
        self._tell = tell
        self._file = self._open()
        self._looked = time.monotonic()
        self._told = False  # of the present trouble

    def write(self, lines: Sequence[Line]) -> int:
        now = time.monotonic()
        if now - self._looked >= LOOK_INTERVAL:
            if self._moved():
                self._follow()
            self._looked = now  # where there is no file at all, the next write looks again
        return self._file.write(lines)

    def close(self) -> None:
        os.close(self._file.fd)

    def _follow(self) -> None:
        """Take the file that has the name now. Raises OSError where there is none, nor the one of before."""
        try:
            made = self._open()
        except OSError as error:
            if os.fstat(self._file.fd).st_nlink == 0:
                raise
            if not self._told:
                reason = f"{self._path}: {error.strerror or error}; lines go on into the renamed file"
                self._told = self._file.write([self._tell(reason)]) == 1
            return
        self.close()
        self._file, self._told = made, False

    def _open(self) -> _OpenFile:
        # O_NONBLOCK: where the name is a FIFO's, whose reader may stand still.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return _OpenFile(os.open(self._path, flags))
        except FileNotFoundError:
            pass
        try:
            made = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
        except FileExistsError:  # another worker was faster, or the name is a link to what is not there yet
            return _OpenFile(os.open(self._path, flags | os.O_CREAT, FILE_MODE))
        # Ours: for whoever makes it, the mode is what it says, and not what the umask leaves of it.
        os.fchmod(made, FILE_MODE)
        return _OpenFile(made)

    def _moved(self) -> bool:
        try:
            there = os.stat(self._path)
        except OSError:  # away, or in a folder that is closed to us by now: to open it tells which
            return True
        return (there.st_dev, there.st_ino) != self._file.identity


class _OpenFile(DescriptorOutput):
    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.fd = fd
        status = os.fstat(fd)
        self.identity = (status.st_dev, status.st_ino)


class SyslogOutput:
    """A syslog server. By a unix socket in the form of the system's own log (`<PRI>name[pid]: text`), else RFC 5424:
    a datagram a line (RFC 5426), or in a TCP stream with octet counts (RFC 6587 section 3.4.1).
    """

    def __init__(self, target: SyslogTarget) -> None:
        self._target = target
        facility = SysLogHandler.facility_names[target.facility]
        self._priorities = {
            level: facility << 3 | SysLogHandler.priority_names[level]
            for level in ("debug", "info", "warning", "error", "critical")
        }
        self._socket: socket.socket | None = None
        self._rest = b""
        self._tried = -CONNECT_INTERVAL
        self._connecting = False
        self._host = socket.gethostname() or "-"
        self._connect()

    def write(self, lines: Sequence[Line]) -> int:
        taken = 0
        try:
            if self._rest:
                self._rest = self._rest[self._connected().send(self._rest) :]
            while taken < len(lines) and not self._rest:
                self._send(self._framed(lines[taken]))
                taken += 1
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            if taken == 0:
                raise
        return taken

    def _send(self, data: bytes) -> None:
        try:
            sent = self._connected().send(data)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            sent = len(data)  # a line that no datagram takes will never get through
        self._rest = data[sent:] if self._target.transport == "tcp" else b""

    def _framed(self, line: Line) -> bytes:
        level, stamp, text = line
        priority, pid = self._priorities[level], os.getpid()
        if self._target.transport == "unix":
            return f"<{priority}>{NAME}[{pid}]: {text}".encode("ascii", "backslashreplace")
        data = f"<{priority}>1 {stamp} {self._host} {NAME} {pid} - - {text}".encode("ascii", "backslashreplace")
        return b"%d %b" % (len(data), data) if self._target.transport == "tcp" else data

    def _connected(self) -> socket.socket:
        if self._socket is None:
            if not self._connecting and time.monotonic() - self._tried >= CONNECT_INTERVAL:
                self._connecting = True
                gevent.spawn(self._connect)  # a look-up or a handshake may take its time
            raise OSError(errno.ENOTCONN, "not connected to the syslog server")
        return self._socket

    def _connect(self) -> None:
        self._tried = time.monotonic()
        try:
            self._socket = _connected_socket(self._target)
        except OSError:
            pass  # until the next try, lines wait and then are lost: there is nowhere to say so
        finally:
            self._connecting = False

    def close(self) -> None:
        self._rest = b""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected_socket(target: SyslogTarget) -> socket.socket:
    """Never waits from here on. Raises OSError."""
    if target.transport == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address: str | tuple[str, int] = target.address
    else:
        kind = socket.SOCK_STREAM if target.transport == "tcp" else socket.SOCK_DGRAM
        family, _, _, _, found = socket.getaddrinfo(target.address, target.port, type=kind)[0]
        made = socket.socket(family, kind)
        address = (str(found[0]), int(found[1]))
    try:
        made.settimeout(CONNECT_TIMEOUT)
        made.connect(address)
        made.settimeout(0.0)
    except BaseException:  # a killed greenlet, too, leaves no socket behind
        made.close()
        raise
    return made


def _native_socket(fileno: int) -> socket.socket:
    """gevent's would change the descriptor to O_NONBLOCK, which is not ours alone."""
    made: socket.socket = get_original("socket", "socket")(fileno=fileno)
    return made


def _octets(lines: Sequence[Line]) -> bytes:
    texts = [text for _, _, text in lines]
    texts.append("")
    return "\n".join(texts).encode("ascii", "backslashreplace")
