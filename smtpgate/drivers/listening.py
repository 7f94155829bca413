"""Listening sockets: bound, inherited, found again by their address, closed.

Owns what is listened on for all workers of a process group. A socket that is held already is never bound anew: the
connections in its queue would be lost. Refuses to know processes, and what is spoken on a connection.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gevent.monkey import get_original

from smtpgate.units import HostPort, UnixPath

BACKLOG: Final = 2048  # connections that may wait to be accepted; gunicorn's default, nginx has 511
UNIX_MODE: Final = 0o666  # who may enter is the folder's matter, as with nginx
UPGRADE_FDS: Final = "GUNICORN_FD"  # gunicorn's: descriptors that an earlier master hands over, "5,6"
SYSTEMD_FDS: Final = "LISTEN_FDS"  # sd_listen_fds(3): how many descriptors from SYSTEMD_FIRST on
SYSTEMD_PID: Final = "LISTEN_PID"
SYSTEMD_FIRST: Final = 3

# Looking up a name must not start gevent's threads in a process that is going to fork.
_getaddrinfo: Final = get_original("socket", "getaddrinfo")

Place = tuple[int, Any]
"""Address family, and the address as the kernel tells it (getsockname)."""


@dataclass(frozen=True, slots=True)
class Bind:
    """Where a listener listens; one of its addresses."""

    listener: str
    address: HostPort | UnixPath


class CannotBind(Exception):
    """`str()` tells listener, address and reason."""

    def __init__(self, bind: Bind, error: OSError) -> None:
        super().__init__(f"listener {bind.listener}: {bind.address} cannot be bound: {error.strerror or error}")


class ListeningSocket:
    """One of them, with the attributes that gunicorn's arbiter and workers look for (FAMILY, sock)."""

    def __init__(self, sock: socket.socket) -> None:
        self.FAMILY = sock.family
        self.sock = sock
        self.place: Place = (sock.family, sock.getsockname())
        self._inode = _inode(self.place)

    def __str__(self) -> str:
        family, address = self.place
        return f"unix:{address}" if family == socket.AF_UNIX else str(HostPort(*address[:2]))

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self, *, unlink: bool) -> None:
        """unlink: and remove a unix socket's path, unless it is somebody else's socket by now."""
        self.sock.close()
        if unlink and self._inode is not None and _inode(self.place) == self._inode:
            os.unlink(self.place[1])


def inherited(environ: MutableMapping[str, str], pid: int) -> list[ListeningSocket]:
    """The sockets that this process, `pid`, was started with: by a master that is upgraded, or by systemd.

    The variables that name them are taken out, or a child would believe them; LISTEN_FDS stays, as a sign that
    their paths are systemd's.
    """
    upgrade = environ.pop(UPGRADE_FDS, "")
    systemd = environ.pop(SYSTEMD_PID, "") == str(pid)
    if upgrade:
        numbers = [int(number) for number in upgrade.split(",")]
    elif systemd:
        numbers = list(range(SYSTEMD_FIRST, SYSTEMD_FIRST + int(environ.get(SYSTEMD_FDS, "0"))))
    else:
        numbers = []
    return [ListeningSocket(_for_workers(socket.socket(fileno=number))) for number in numbers]


def listen(binds: Sequence[Bind], held: Iterable[ListeningSocket]) -> list[ListeningSocket]:
    """A listening socket for each bind, in their order: the one that is held there, or a new one.

    Raises CannotBind; what was opened before it is closed again.
    """
    there = {one.place: one for one in held}
    listening: list[ListeningSocket] = []
    opened: list[ListeningSocket] = []
    try:
        for bind in binds:
            one = there.pop(_place(bind), None)
            if one is None:
                one = _open(bind)
                opened.append(one)
            listening.append(one)
    except CannotBind:
        for one in opened:
            one.close(unlink=True)
        raise
    return listening


def _place(bind: Bind) -> Place:
    address = bind.address
    if isinstance(address, UnixPath):
        return socket.AF_UNIX, address.path
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        found = _getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise CannotBind(bind, error) from None
    return family, found[0][4]


def _open(bind: Bind) -> ListeningSocket:
    family, address = _place(bind)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_UNIX:
            _remove_stale(address)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # As nginx: [::]:25 and 0.0.0.0:25 are two listeners, and no client is ::ffff:192.0.2.1.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        if family == socket.AF_UNIX:
            os.chmod(address, UNIX_MODE)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotBind(bind, error) from None
    return ListeningSocket(_for_workers(sock))


def _for_workers(sock: socket.socket) -> socket.socket:
    """They share it: whoever comes too late to a connection must not wait for the next one."""
    sock.setblocking(False)
    sock.set_inheritable(True)  # to the program after an upgrade
    return sock


def _remove_stale(path: str) -> None:
    """A unix socket that nobody listens on any more, as a crash leaves it. Raises OSError where somebody does."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full: somebody listens
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _inode(place: Place) -> tuple[int, int] | None:
    family, address = place
    if family != socket.AF_UNIX or not isinstance(address, str):  # bytes: Linux' abstract names have no path
        return None
    try:
        found = os.stat(address)
    except OSError:
        return None
    return found.st_dev, found.st_ino
