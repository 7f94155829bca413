"""PURE. The files of a policies folder -> one frozen Snapshot: limits, routes and pools that belong together.

Owns what crosses the two rooms that do not know each other: a route's match is written in the policy language
(smtpgate.policy), its pool is found by smtpgate.routing. Owns also the mapping of every fault to file, line and
column. Reads no file: names and texts are handed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from smtpgate import document
from smtpgate.document import Document, DocumentError, Problem
from smtpgate.policy.compile import Fault, Source, compile_policy, fault_of, find_reply
from smtpgate.policy.fields import FIELDS
from smtpgate.policy.match import compile_match, one_of
from smtpgate.policy.model import Facts
from smtpgate.policy.rules import Policy
from smtpgate.policy.schema import MatchKeys, PolicyKeys
from smtpgate.routing.model import BackendSettings, BackendSpec, Balance, Failover, PoolSpec, Route
from smtpgate.routing.schema import BackendKeys, PoolKeys, RouteKeys, RoutingKeys
from smtpgate.units import ABSENT, InvalidValue

Path = tuple[str | int, ...]

# Hex digits of the version: enough to tell a fleet's policies apart, short enough for a log line.
VERSION_DIGITS: Final = 16


class FolderKeys(RoutingKeys[MatchKeys], PolicyKeys):
    """All top-level keys that a file may have."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the folder says. version_hash names the texts of its files: the same on every node that has them."""

    policy: Policy
    routes: tuple[Route[Facts], ...]
    pools: Mapping[str, PoolSpec]
    version_hash: str


def version_of(files: Sequence[tuple[str, bytes]]) -> str:
    """Names without their folders, and texts, in order -> VERSION_DIGITS hex digits."""
    digest = hashlib.sha256()
    for name, text in files:
        for part in (name.rpartition("/")[2].encode("utf-8", "surrogateescape"), text):
            digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()[:VERSION_DIGITS]


def build(
    files: Sequence[tuple[str, bytes]],
    environ: Mapping[str, str] | None = None,
    *,
    backend: BackendSettings | None = None,
    folder: str = "policies",
) -> Snapshot:
    """files: (name for messages, text), in the order in which their routes count. environ: for `${NAME}`.

    backend: how to speak to a pool that does not say (conf/proxy.yaml `backend:`). folder: its name, for the
    message that it is empty. Raises DocumentError with every problem: first those of form, in all files, then
    those of meaning, which would mislead while a file is unreadable.
    """
    if not files:
        raise DocumentError([Problem(folder, 1, 1, (), "the folder holds no policies", "at least one *.yaml file")])
    parsed = _parse(files, environ)
    policy, faults = compile_policy([Source(keys, _locator(doc)) for doc, keys in parsed])
    way = _Way([keys for _, keys in parsed], [_locator(doc) for doc, _ in parsed], policy)
    pools = way.pools(backend or BackendSettings())
    routes = way.routes(pools)
    faults += way.faults
    if faults:
        raise DocumentError(_problem(parsed[fault.file][0], fault) for fault in faults)
    return Snapshot(policy, routes, pools, version_of(files))


def _parse(
    files: Sequence[tuple[str, bytes]], environ: Mapping[str, str] | None
) -> list[tuple[Document, FolderKeys]]:
    parsed = []
    problems: list[Problem] = []
    for name, text in files:
        try:
            parsed.append(document.read(text, FolderKeys, source=name, environ=environ))
        except DocumentError as error:
            problems.extend(error.problems)
    if problems:
        raise DocumentError(problems)
    return parsed


def _locator(doc: Document) -> Callable[[Path], str]:
    def locate(path: Path) -> str:
        mark = doc.locate(path)
        return f"{mark.file}:{mark.line}"

    return locate


def _problem(doc: Document, fault: Fault) -> Problem:
    path = fault.path
    if path not in doc.marks:
        path = path[:-1]  # `user: ann` is read as `user: [ann]`: there is no [0] to point at
    subject = "" if fault.value is ABSENT else f"{doc.show(path, fault.value)} "
    return doc.problem(path, f"{subject}{fault.message}", fault.expected)


class _Way:
    """Routes and pools of all files; faults gather as it goes."""

    def __init__(
        self, files: Sequence[FolderKeys], locators: Sequence[Callable[[Path], str]], policy: Policy
    ) -> None:
        self._files = files
        self._locators = locators
        self._policy = policy
        self.faults: list[Fault] = []

    def pools(self, backend: BackendSettings) -> dict[str, PoolSpec]:
        pools: dict[str, PoolSpec] = {}
        places: dict[str, str] = {}
        for index, keys in enumerate(self._files):
            for name, pool in keys.pools.items():
                path: Path = ("pools", name)
                if self._is_first(places, name, index, path):
                    pools[name] = self._pool(index, path, name, pool, backend)
        return pools

    def _pool(self, index: int, path: Path, name: str, keys: PoolKeys, backend: BackendSettings) -> PoolSpec:
        own = {key: getattr(keys, key) for key in _SETTINGS if key in keys.model_fields_set}
        places: dict[str, str] = {}
        for at, one in enumerate(keys.backends):
            self._is_first(places, one.name, index, (*path, "backends", at, "name"))
        return PoolSpec(
            name=name,
            backends=tuple(_backend(one) for one in keys.backends),
            balance=Balance(keys.balance),
            settings=replace(backend, **own),
            failover=Failover(keys.failover.attempts, keys.failover.deadline),
            unavailable=self._unavailable(index, (*path, "unavailable", "reply"), keys.unavailable.reply),
        )

    def _unavailable(self, index: int, path: Path, text: str) -> str:
        try:
            reply = find_reply(text, self._policy.replies)
            if "{" in reply.text:
                raise InvalidValue("has a placeholder", "a reply without one: no limit speaks here", value=text)
        except InvalidValue as error:
            self.faults.append(fault_of(index, path, error))
            return ""
        return f"{reply.code} {reply.enhanced} {reply.text}"

    def routes(self, pools: Mapping[str, PoolSpec]) -> tuple[Route[Facts], ...]:
        """In the order of files and lines. The last one takes everything; there are some if there are pools."""
        routes: list[Route[Facts]] = []
        places: dict[str, str] = {}
        catcher = ""
        last: tuple[int, Path] = (0, ())
        for index, keys in enumerate(self._files):
            for at, route in enumerate(keys.routes):
                path: Path = ("routes", at)
                last = (index, path)
                if catcher:
                    self._fault(index, path, f"is never reached: {catcher} takes everything", value=route.name)
                self._is_first(places, route.name, index, (*path, "name"))
                compiled, catches_all = self._route(index, path, route, pools)
                routes.append(compiled)
                if catches_all and not catcher:
                    catcher = f"{route.name} at {compiled.source}"
        if routes and not catcher:
            self._fault(*last, "the last route does not take everything", "a last route with match: {}")
        elif pools and not routes:
            first = next(index for index, keys in enumerate(self._files) if keys.pools)
            self._fault(first, ("pools",), "no route leads to them", "routes, the last one with match: {}")
        return tuple(routes)

    def _route(
        self, index: int, path: Path, keys: RouteKeys[MatchKeys], pools: Mapping[str, PoolSpec]
    ) -> tuple[Route[Facts], bool]:
        matcher, faults = compile_match(keys.match.spec(), tuple(FIELDS), self._policy.sets, "a route")
        self.faults += [fault_of(index, (*path, "match"), fault) for fault in faults]
        if keys.pool not in pools:
            self._fault(index, (*path, "pool"), "is not a pool", one_of(pools), keys.pool)
        source = self._locators[index](path)
        return Route(keys.name, keys.pool, matcher, source), matcher.catches_all and not faults

    def _is_first(self, places: dict[str, str], name: str, index: int, path: Path) -> bool:
        if name not in places:
            places[name] = self._locators[index](path)
            return True
        self._fault(index, path, "is defined a second time", f"each name once, as at {places[name]}", name)
        return False

    def _fault(self, file: int, path: Path, message: str, expected: str = "", value: object = ABSENT) -> None:
        self.faults.append(Fault(file, path, message, expected, value))


# A pool's keys that stand in conf/proxy.yaml's `backend:` too, with the names of BackendSettings.
_SETTINGS: Final = ("xclient", "smtp_auth", "pass_error_message")


def _backend(keys: BackendKeys) -> BackendSpec:
    max_conns = keys.max_conns if "max_conns" in keys.model_fields_set else None
    return BackendSpec(keys.name, keys.addr.host, keys.addr.port, keys.weight, max_conns)
