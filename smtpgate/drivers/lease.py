"""The right to speak to one backend, and what its pool hears of it.

Owns that every slot is given back once, whatever happened, and what counts as whose failure. Refuses to choose a
backend and to make connections (`drivers.backends`), and to know what is said on one (`session.relay`).
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from smtpgate.clock import Clock
from smtpgate.drivers.idle import IdleLinks, Way
from smtpgate.routing.model import BackendSettings
from smtpgate.routing.pool import Open, PoolState

if TYPE_CHECKING:
    from smtpgate.session.link import BackendLink

# The networks that the breaker tells apart. An attacker has a /48 for nothing, and a customer's whole /24 behind one
# firewall fails in one way: neither may put a backend out for the others.
NETWORK_V4: Final = 24
NETWORK_V6: Final = 48


class PoolSlot:
    """A place that a pool has counted. What it tells the pool comes before `free`, which comes once.

    changed: told of the backend, and whether it is up, when the breaker has turned. freed: told when the place may be
    another's.
    """

    def __init__(
        self,
        clock: Clock,
        pool: PoolState,
        opened: Open,
        changed: Callable[[str, bool], None],
        freed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._opened = opened
        self._changed = changed
        self._freed = freed
        self._name = opened.backend.name

    def connected(self) -> None:
        self._pool.connected(self._name)

    def connect_failed(self) -> None:
        if self._pool.connect_failed(self._name, self._clock.monotonic()):
            self._changed(self._name, False)

    def session_failed(self, network: str) -> None:
        if self._pool.session_failed(self._name, network, self._clock.monotonic()):
            self._changed(self._name, False)

    def served(self) -> None:
        if self._pool.served(self._name, self._clock.monotonic()):
            self._changed(self._name, True)

    def free(self) -> None:
        self._pool.release(self._name, trial=self._opened.trial)
        self._freed()


class BackendLease:
    """A Lease (session.ports).

    backend: its label for logs and for `tried`. slot: None for an address that no pool counts. idle: where the
    connection may rest afterwards, None if it may not.
    made: when it was connected, monotonic seconds. messages: that it has carried already.
    """

    def __init__(
        self,
        backend: str,
        way: Way,
        slot: PoolSlot | None,
        link: BackendLink,
        idle: Callable[[], IdleLinks | None],
        *,
        client: str,
        made: float,
        messages: int = 0,
        greeted: bool = False,
    ) -> None:
        self.backend = backend
        self.host: str = way.host
        self.settings: BackendSettings = way.settings
        self.link = link
        self.greeted = greeted
        self._way = way
        self._slot = slot
        self._idle = idle
        self._client = client
        self._made = made
        self._messages = messages
        self._failed = False
        self._over = False

    def failed(self, *, reason: str) -> None:
        """A backend that does not get as far as its EHLO has seen nothing of the client: that counts as a connection
        that could not be made. With a PROXY header it has seen the address, and may have refused that.
        """
        if self._over or self._failed:
            return
        self._failed = True
        if self._slot is None:
            return
        if self.greeted or self._heard or self.settings.proxy_protocol != "off":
            self._tell_connected()
            self._slot.session_failed(network_of(self._client))
        else:
            self._slot.connect_failed()

    def served(self) -> None:
        self._messages += 1
        if self._slot is not None and not self._over:
            self._slot.served()

    def release(self) -> None:
        self._end(resting=False)

    def keep(self) -> None:
        """Only where nothing that this client was told of stays behind: settings that let its identity be told anew,
        or tell nothing of it.
        """
        idle = self._idle() if self.settings.identity_renewable and self._way.reuse.idle > 0 else None
        kept = not self._over and idle is not None and idle.put(self._way, self.link, self._made, self._messages)
        if not kept and not self._over:
            self.link.quit()
        self._end(resting=kept)

    @property
    def _heard(self) -> bool:
        """The backend has accepted our EHLO or HELO."""
        return self.link.introduction.begun

    def _tell_connected(self) -> None:
        # A connection that had rested was made long ago: it does not tell whether another could be made now.
        if self._slot is not None and self._heard and not self.greeted:
            self._slot.connected()

    def _end(self, *, resting: bool) -> None:
        if self._over:
            return
        self._over = True
        if not resting:
            self.link.close()
        if not self._failed:
            self._tell_connected()
        if self._slot is not None:
            self._slot.free()


def network_of(client: str) -> str:
    """The network of a textual address, as the breaker tells clients apart; "unix:" stands for itself."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    return str(ip_network((address, NETWORK_V4 if address.version == 4 else NETWORK_V6), strict=False))
