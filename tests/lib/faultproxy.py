"""A TCP proxy that does to a connection what networks and peers do to it, when and where a test says.

Owns a thread with a gevent loop of its own, so that tests over blocking sockets, over gevent and over real programs
can all stand on either side of it. Each direction has its `Faults`, which may be switched while connections live.
Refuses to know what is said: it counts octets.

    with FaultProxy((HOST, port), backend) as proxy:
        proxy.switch(to_client=Faults(stall=(0, 3.0)))      # the backend falls silent for three seconds
        proxy.switch()                                      # a good network again
"""

from __future__ import annotations

import math
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Self

import gevent
import gevent.event
import gevent.socket

READ_SIZE: Final = 65536
TICKS: Final = 20  # writes a second by which a bandwidth is kept
START_TIMEOUT: Final = 30.0
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

Direction = Literal["to_server", "to_client"]


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to one direction. Octets are counted for each connection, from the switch to these faults on.

    latency: seconds before what was read is passed on. bandwidth: octets a second. slice: octets a write, `gap`
    seconds apart. stall: after so many octets nothing passes for so many seconds (math.inf: until the next switch).
    limit: after so many octets both sides are closed; reset: they are reset. corrupt: octets that are replaced by
    others wherever they are read in one piece. A limit or reset at 0 ends connections at once, idle ones as well.
    """

    latency: float = 0.0
    bandwidth: int | None = None
    slice: int | None = None
    gap: float = 0.0
    stall: tuple[int, float] | None = None
    limit: int | None = None
    reset: int | None = None
    corrupt: tuple[bytes, bytes] | None = None

    def step(self, passed: int, *, stalled: bool) -> int:
        """Octets that may be written next, 0 at an edge. stalled: the stall is over."""
        bounds = [bound - passed for bound in (self.limit, self.reset) if bound is not None]
        if self.stall is not None and not stalled:
            bounds.append(self.stall[0] - passed)
        if self.slice is not None:
            bounds.append(self.slice)
        if self.bandwidth is not None:
            bounds.append(max(1, self.bandwidth // TICKS))
        return max(0, min(bounds, default=READ_SIZE))

    def pause(self, written: int) -> float:
        """Seconds after a write of so many octets."""
        return self.gap + (written / self.bandwidth if self.bandwidth is not None else 0.0)

    def end(self, passed: int) -> Literal["reset", "close"] | None:
        """How the connection ends now, if it does."""
        if self.reset is not None and passed >= self.reset:
            return "reset"
        return "close" if self.limit is not None and passed >= self.limit else None


NONE: Final = Faults()


class FaultProxy:
    """Listens from construction to stop(). connections: how many were accepted. open: how many there are now."""

    def __init__(self, address: tuple[str, int], upstream: tuple[str, int]) -> None:
        self.address = address
        self.upstream = upstream
        self.connections = 0
        self.faults: dict[Direction, Faults] = {"to_server": NONE, "to_client": NONE}
        self.switched = gevent.event.Event()
        self._links: set[_Link] = set()
        self._orders: deque[Callable[[], None]] = deque()
        self._listener = socket.create_server(address, backlog=1024)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faultproxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(START_TIMEOUT), "the fault proxy is not up"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def open(self) -> int:
        return len(self._links)

    def switch(self, *, to_server: Faults = NONE, to_client: Faults = NONE) -> None:
        """These faults from now on, for connections that live and for new ones. In force on return."""
        self._order(lambda: self._switch({"to_server": to_server, "to_client": to_client}))

    def cut(self, how: Literal["reset", "close"] = "reset") -> None:
        """End the connections that there are; new ones are served."""
        self._order(lambda: self._end_all(how))

    def stop(self) -> None:
        """No port, no connection, no thread is left. May be called twice."""
        if self._thread.is_alive():
            self._order(self._stop)
            self._thread.join()

    # --- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        hub = gevent.get_hub()
        self._stopping = gevent.event.Event()
        self._wake = hub.loop.async_()
        self._wake.start(self._obey)
        listener = gevent.socket.socket(fileno=self._listener.detach())
        acceptor = gevent.spawn(self._accept, listener)
        self._ready.set()
        self._stopping.wait()
        acceptor.kill()
        listener.close()
        self._end_all("reset")
        gevent.joinall([link.greenlet for link in list(self._links)])
        self._wake.stop()
        self._wake.close()
        hub.destroy(destroy_loop=True)

    def _order(self, order: Callable[[], None]) -> None:
        """Have the thread do something, and wait until it is done."""
        done = threading.Event()

        def obey() -> None:
            order()
            done.set()

        self._orders.append(obey)
        self._wake.send()
        assert done.wait(START_TIMEOUT), "the fault proxy does not obey"

    def _obey(self) -> None:
        while self._orders:
            self._orders.popleft()()

    def _stop(self) -> None:
        self._stopping.set()

    def _switch(self, faults: dict[Direction, Faults]) -> None:
        self.faults = faults
        switched, self.switched = self.switched, gevent.event.Event()
        switched.set()
        end = faults["to_server"].end(0) or faults["to_client"].end(0)
        if end is not None:
            self._end_all(end)

    def _end_all(self, how: Literal["reset", "close"]) -> None:
        for link in list(self._links):
            link.end(how)

    def _accept(self, listener: gevent.socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            self.connections += 1
            link = _Link(self, client)
            self._links.add(link)
            link.greenlet = gevent.spawn(self._serve, link)

    def _serve(self, link: _Link) -> None:
        try:
            link.run()
        finally:
            self._links.discard(link)


class _Link:
    """One connection through the proxy."""

    greenlet: gevent.Greenlet[..., None]

    def __init__(self, proxy: FaultProxy, client: gevent.socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = gevent.socket.socket()

    def run(self) -> None:
        try:
            self._server.connect(self._proxy.upstream)
        except OSError:
            self.end("reset")  # as if nobody listened here either
            return
        for sock in (self._client, self._server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipes = [
            gevent.spawn(self._carry, self._client, self._server, "to_server"),
            gevent.spawn(self._carry, self._server, self._client, "to_client"),
        ]
        gevent.joinall(pipes)
        self.end("close")

    def end(self, how: Literal["reset", "close"]) -> None:
        for sock in (self._client, self._server):
            if how == "reset" and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            sock.close()

    def _carry(self, source: gevent.socket.socket, sink: gevent.socket.socket, direction: Direction) -> None:
        """Everything that one side says, to its end."""
        pipe = _Pipe(self._proxy, sink, direction)
        try:
            while data := source.recv(READ_SIZE):
                ended = pipe.take(data)
                if ended is not None:
                    self.end(ended)
                    return
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.end("reset")  # one side was reset, or this link was ended


class _Pipe:
    """One direction of one connection, and how far it has come under the faults in force."""

    def __init__(self, proxy: FaultProxy, sink: gevent.socket.socket, direction: Direction) -> None:
        self._proxy = proxy
        self._sink = sink
        self._direction = direction
        self._faults = NONE
        self._passed = 0
        self._stalled = False

    def take(self, data: bytes) -> Literal["reset", "close"] | None:
        """Pass `data` on; how the connection ends, if it must."""
        faults = self._current()
        if faults.corrupt is not None:
            data = data.replace(*faults.corrupt)
        if faults.latency:
            gevent.sleep(faults.latency)
        while data:
            faults = self._current()
            ended = faults.end(self._passed)
            if ended is not None:
                return ended
            size = faults.step(self._passed, stalled=self._stalled)
            if size == 0:
                self._stall(faults)
                continue
            piece, data = data[:size], data[size:]
            self._sink.sendall(piece)
            self._passed += len(piece)
            pause = faults.pause(len(piece))
            if pause:
                gevent.sleep(pause)
        return self._current().end(self._passed)

    def _current(self) -> Faults:
        faults = self._proxy.faults[self._direction]
        if faults is not self._faults:
            self._faults, self._passed, self._stalled = faults, 0, False
        return faults

    def _stall(self, faults: Faults) -> None:
        """Until the stall is over, or other faults are in force."""
        assert faults.stall is not None
        seconds = faults.stall[1]
        self._proxy.switched.wait(None if math.isinf(seconds) else seconds)
        self._stalled = True
