"""One of `pools` as its keys say -> a PoolSpec, and whatever is wrong with it.

Owns what two keys of one pool mean together, and where the files lie that it names. Refuses to know what they hold
(`SideFiles`, which a driver hands in), other pools, and named replies: `snapshot` knows those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final, Protocol

from smtpgate.routing.model import (
    BackendAuth,
    BackendSettings,
    BackendSpec,
    BackendTls,
    Balance,
    BreakerSpec,
    Failover,
    HealthSpec,
    PoolSpec,
    QueueSpec,
    ReuseSpec,
    State,
)
from smtpgate.routing.schema import BackendKeys, LoginKeys, PoolKeys, TlsKeys
from smtpgate.units import ABSENT, InvalidValue, StrictModel

Path = tuple[str | int, ...]

# A pool's keys that stand in conf/proxy.yaml's `backend:` too and have the same name and value in BackendSettings.
_PLAIN_SETTINGS: Final = ("xclient", "proxy_protocol", "pass_error_message")


class SideFiles(Protocol):
    """What the files hold that a pool names by their path. Only who speaks to backends needs to look."""

    def check_tls(self, tls: BackendTls) -> None:
        """Whether ca, cert and key can be used. Raises InvalidValue with the key at fault as its path."""

    def secret(self, path: str) -> str:
        """The text of a file with one password, without its line's end. Raises InvalidValue."""


def pool_spec(
    name: str, keys: PoolKeys, *, settings: BackendSettings, folder: str, side: SideFiles | None
) -> tuple[PoolSpec, list[InvalidValue]]:
    """The pool, and what is wrong with it, each fault with its path below the pool. With a fault the pool is not to
    be used, but for its names.

    `unavailable` is left as a text, a literal or a name, for the caller to resolve. settings: how to speak to a
    pool that does not say. folder: what relative paths are relative to. side: None leaves the files unread, and a
    password that stands in one out.
    """
    builder = _Builder(settings, folder, side)
    return builder.build(name, keys), builder.faults


class _Builder:
    """One pool; faults gather as it goes."""

    def __init__(self, settings: BackendSettings, folder: str, side: SideFiles | None) -> None:
        self._settings = settings
        self._folder = PurePosixPath(folder)
        self._side = side
        self.faults: list[InvalidValue] = []

    def build(self, name: str, keys: PoolKeys) -> PoolSpec:
        self._check(keys)
        return PoolSpec(
            name=name,
            backends=tuple(_backend(one) for one in keys.backends),
            balance=Balance(keys.balance),
            hash_key=keys.hash_key,
            settings=self._speak(keys),
            failover=Failover(**_values(keys.failover)),
            health=HealthSpec(**_values(keys.health)),
            breaker=BreakerSpec(**_values(keys.breaker)),
            slow_start=keys.slow_start,
            reuse=ReuseSpec(**_values(keys.reuse)),
            queue=QueueSpec(**_values(keys.queue)),
            unavailable=keys.unavailable.reply,
            fallback=keys.unavailable.pool or None,
        )

    def _check(self, keys: PoolKeys) -> None:
        """A key without effect would be a promise that is not kept; a pool that never takes anybody is a slip."""
        if "hash_key" in keys.model_fields_set and keys.balance != "hash":
            self._fault(("hash_key",), "is for balance: hash", "no hash_key, or balance: hash", keys.hash_key)
        if "buffer" in keys.failover.model_fields_set and keys.failover.until != "buffered":
            self._fault(("failover", "buffer"), "buffer is for until: buffered", "no buffer, or until: buffered")
        said = keys.unavailable.model_fields_set
        if "unavailable" in keys.model_fields_set and len(said) != 1:
            message = "says both reply and pool" if said else "says neither reply nor pool"
            self._fault(("unavailable",), f"it {message}", "exactly one of reply, pool")
        if all(one.backup for one in keys.backends):
            self._fault(("backends",), "all are backups", "at least one that is not")
        elif all(one.state != "active" for one in keys.backends) and "pool" not in said:
            # With another pool behind it, a whole site may be drained.
            expected = "at least one with state: active, or unavailable: {pool: …}"
            self._fault(("backends",), "none is active: all are drained or off", expected)

    def _speak(self, keys: PoolKeys) -> BackendSettings:
        own: dict[str, Any] = {key: getattr(keys, key) for key in _PLAIN_SETTINGS if key in keys.model_fields_set}
        if "smtp_auth" in keys.model_fields_set:
            own["auth"] = self._auth(keys.smtp_auth)
        if "tls" in keys.model_fields_set:
            own["tls"] = self._tls(keys.tls if isinstance(keys.tls, TlsKeys) else TlsKeys(mode=keys.tls))
        return replace(self._settings, **own)

    def _auth(self, keys: bool | LoginKeys) -> BackendAuth | None:
        if not isinstance(keys, LoginKeys):
            return BackendAuth(replay=True) if keys else None
        path: Path = ("smtp_auth",)
        if (keys.password == "") is (keys.password_file == ""):
            message = "has two passwords" if keys.password else "has no password"
            self._fault(path, f"the login {message}", "exactly one of password, password_file")
            return None
        password = keys.password or None
        if keys.password_file and self._side is not None:
            try:
                password = self._side.secret(self._below(keys.password_file))
            except InvalidValue as error:
                self._refer((*path, "password_file"), error)
        return BackendAuth(user=keys.user, password=password)

    def _tls(self, keys: TlsKeys) -> BackendTls:
        tls = BackendTls(
            mode=keys.mode,
            verify=keys.verify,
            server_name=keys.server_name or None,
            ca=self._below(keys.ca) or None,
            cert=self._below(keys.cert) or None,
            key=self._below(keys.key) or None,
        )
        if keys.key and not keys.cert:
            self._fault(("tls", "key"), "a key without a certificate", "cert too")
        elif self._side is not None:
            try:
                self._side.check_tls(tls)
            except InvalidValue as error:
                self._refer(("tls",), error)
        return tls

    def _below(self, path: str) -> str:
        return str(self._folder / path) if path else ""

    def _fault(self, path: Path, message: str, expected: str, value: object = ABSENT) -> None:
        self._refer(path, InvalidValue(message, expected, value=value))

    def _refer(self, path: Path, error: InvalidValue) -> None:
        self.faults.append(InvalidValue(error.message, error.expected, value=error.value, path=(*path, *error.path)))


def circle(pools: Mapping[str, PoolSpec], start: str) -> tuple[str, ...]:
    """The pools that `start` falls back to, in their order, if they lead back to it; else nothing."""
    way = [start]
    while (after := pools[way[-1]].fallback) in pools and after is not None:
        if after == start:
            return (*way, start)
        if after in way:
            return ()  # a circle that others make
        way.append(after)
    return ()


def _backend(keys: BackendKeys) -> BackendSpec:
    return BackendSpec(
        name=keys.name,
        host=keys.addr.host,
        port=keys.addr.port,
        weight=keys.weight,
        max_conns=keys.max_conns if "max_conns" in keys.model_fields_set else None,
        state=State(keys.state),
        backup=keys.backup,
    )


def _values(keys: StrictModel) -> dict[str, Any]:
    """For a value whose fields are named as the keys are."""
    return {name: getattr(keys, name) for name in type(keys).model_fields}
