"""PURE. The files of a policies folder -> one frozen Snapshot: limits, routes and pools that belong together.

Owns what crosses the two rooms that do not know each other: a route's match is written in the policy language
(smtpgate.policy), its pool is found by smtpgate.routing. Owns also the mapping of every fault to file, line and
column. Reads no file: names and texts are handed in, and so is whoever looks into the files that a pool names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from smtpgate import document
from smtpgate.document import Document, DocumentError, Problem
from smtpgate.policy.compile import Fault, Source, compile_policy, fault_of
from smtpgate.policy.covers import covered
from smtpgate.policy.fields import FIELDS
from smtpgate.policy.index import Index
from smtpgate.policy.match import Matcher, PatternTest, compile_match, one_of
from smtpgate.policy.model import Facts
from smtpgate.policy.replies import find_reply
from smtpgate.policy.schema import MatchKeys, PolicyKeys
from smtpgate.policy.select import Policy
from smtpgate.policy.sets import Directory
from smtpgate.routing.model import BackendSettings, PoolSpec, Route
from smtpgate.routing.poolspec import SideFiles, circle, pool_spec
from smtpgate.routing.schema import PoolKeys, RouteKeys, RoutingKeys
from smtpgate.routing.table import RouteTable
from smtpgate.units import ABSENT, InvalidValue, show

Path = tuple[str | int, ...]
PoolBuilder = Callable[[str, PoolKeys], tuple[PoolSpec, list[InvalidValue]]]

# Hex digits of the version: enough to tell a fleet's policies apart, short enough for a log line.
VERSION_DIGITS: Final = 16


# Stands for a match with faults of its own: it catches nothing, and covers nothing.
_BROKEN: Final = Matcher((PatternTest(FIELDS["user"], (lambda value: False,), ()),))


class FolderKeys(RoutingKeys[MatchKeys], PolicyKeys):
    """All top-level keys that a file may have."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a policies file, for editors: policies/schema.json.

    It knows keys, types and forms. What only the whole folder tells (names, what an event knows) is `build`'s.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_strangers(FolderKeys.model_json_schema()),
        "title": "smtpgate policies",
        "description": "A file of the policies folder: limits, routes and pools. README.md explains every key.",
    }


def _without_strangers(schema: Any) -> Any:
    """Mappings of names take nothing but names: pydantic leaves other keys open."""
    if isinstance(schema, list):
        return [_without_strangers(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "patternProperties" in schema else {}
    return {name: _without_strangers(one) for name, one in schema.items()} | closed


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the folder says. version_hash names the texts of its files: the same on every node that has them."""

    policy: Policy
    routes: RouteTable[Facts]
    pools: Mapping[str, PoolSpec]
    version_hash: str


def version_of(files: Sequence[tuple[str, bytes]], set_files: Mapping[str, bytes] | None = None) -> str:
    """Names without their folders, and texts, in order, then set files by name -> VERSION_DIGITS hex digits."""
    digest = hashlib.sha256()
    for name, text in (*files, *sorted((set_files or {}).items())):
        for part in (name.rpartition("/")[2].encode("utf-8", "surrogateescape"), text):
            digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()[:VERSION_DIGITS]


def build(
    files: Sequence[tuple[str, bytes]],
    environ: Mapping[str, str] | None = None,
    *,
    set_files: Mapping[str, bytes] | None = None,
    backend: BackendSettings | None = None,
    folder: str = "policies",
    side: SideFiles | None = None,
) -> Snapshot:
    """files: (name for messages, text), in the order in which their routes count. environ: for `${NAME}`.

    set_files: name in the folder -> text, of each file that a set may name. backend: how to speak to a pool that does
    not say (conf/proxy.yaml `backend:`). folder: its path, for the message that it is empty, and for paths that are
    relative to it. side: looks into the files that a pool names (PEM files, passwords); None leaves them unread,
    which is enough for whoever speaks to no backend.

    Raises DocumentError with every problem: first those of form, in all files, then those of meaning, which would
    mislead while a file is unreadable.
    """
    if not files:
        raise DocumentError([Problem(folder, 1, 1, (), "the folder holds no policies", "at least one *.yaml file")])
    parsed = _parse(files, environ)
    policy, faults = compile_policy([Source(keys, _locator(doc)) for doc, keys in parsed], set_files)
    way = _Way([keys for _, keys in parsed], [_locator(doc) for doc, _ in parsed], policy)
    pools = way.pools(partial(pool_spec, settings=backend or BackendSettings(), folder=folder, side=side))
    routes = way.routes(pools)
    faults += way.faults
    if faults:
        raise DocumentError(_problem([doc for doc, _ in parsed], fault) for fault in faults)
    return Snapshot(policy, routes, pools, version_of(files, set_files))


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


def _problem(docs: Sequence[Document], fault: Fault) -> Problem:
    if isinstance(fault.file, str):
        beside = docs[0].source.rpartition("/")
        return _problem_of_set_file(f"{beside[0]}{beside[1]}{fault.file}", fault)
    doc, path = docs[fault.file], fault.path
    if path not in doc.marks and path and isinstance(path[-1], int):
        path = path[:-1]  # `user: ann` is read as `user: [ann]`: there is no [0] to point at
    subject = "" if fault.value is ABSENT else f"{doc.show(path, fault.value)} "
    return doc.problem(path, f"{subject}{fault.message}", fault.expected)


def _problem_of_set_file(file: str, fault: Fault) -> Problem:
    subject = "" if fault.value is ABSENT else f"{show(fault.value)} "
    line = int(fault.path[0])
    return Problem(file, line, 1, (), f"{subject}{fault.message}", fault.expected)


class _Way:
    """Routes and pools of all files; faults gather as it goes."""

    def __init__(
        self, files: Sequence[FolderKeys], locators: Sequence[Callable[[Path], str]], policy: Policy
    ) -> None:
        self._files = files
        self._locators = locators
        self._policy = policy
        self.faults: list[Fault] = []

    def pools(self, build_pool: PoolBuilder) -> dict[str, PoolSpec]:
        pools: dict[str, PoolSpec] = {}
        places: dict[str, str] = {}
        files: dict[str, int] = {}
        for index, keys in enumerate(self._files):
            for name, pool in keys.pools.items():
                path: Path = ("pools", name)
                if self._is_first(places, name, index, path):
                    pools[name] = self._pool(index, path, name, pool, build_pool)
                    files[name] = index
        self._check_fallbacks(pools, files)
        return pools

    def _pool(self, index: int, path: Path, name: str, keys: PoolKeys, build_pool: PoolBuilder) -> PoolSpec:
        places: dict[str, str] = {}
        for at, one in enumerate(keys.backends):
            self._is_first(places, one.name, index, (*path, "backends", at, "name"))
        spec, faults = build_pool(name, keys)
        self.faults += [fault_of(index, path, fault) for fault in faults]
        return replace(spec, unavailable=self._unavailable(index, (*path, "unavailable", "reply"), spec.unavailable))

    def _check_fallbacks(self, pools: Mapping[str, PoolSpec], files: Mapping[str, int]) -> None:
        told: set[str] = set()
        for name, spec in pools.items():
            path: Path = ("pools", name, "unavailable", "pool")
            if spec.fallback is None:
                continue
            if spec.fallback not in pools:
                self._fault(files[name], path, "is not a pool", one_of(pools), spec.fallback)
            way = circle(pools, name)
            if way and name not in told:
                told.update(way)
                self._fault(files[name], path, f"leads back to itself: {' -> '.join(way)}", "a pool at the end")

    def _unavailable(self, index: int, path: Path, text: str) -> str:
        try:
            reply = find_reply(text, self._policy.replies)
            if "{" in reply.text:
                raise InvalidValue("has a placeholder", "a reply without one: no limit speaks here", value=text)
        except InvalidValue as error:
            self.faults.append(fault_of(index, path, error))
            return ""
        return f"{reply.code} {reply.enhanced} {reply.text}"

    def routes(self, pools: Mapping[str, PoolSpec]) -> RouteTable[Facts]:
        """In the order of files and lines. The last one takes everything; there are some if there are pools."""
        written = [
            (index, ("routes", at), keys)
            for index, file in enumerate(self._files)
            for at, keys in enumerate(file.routes)
        ]
        places: dict[str, str] = {}
        entries: list[tuple[Matcher, Route[Facts]]] = []
        for index, path, keys in written:
            self._is_first(places, keys.name, index, (*path, "name"))
            entries.append(self._route(index, path, keys, pools))
        directory = Directory(self._policy.sets)
        self._reach(written, entries, directory)
        if pools and not written:
            first = next(index for index, keys in enumerate(self._files) if keys.pools)
            self._fault(first, ("pools",), "no route leads to them", "routes, the last one with match: {}")
        return RouteTable((route for _, route in entries), Index(entries, directory).answers)

    def _route(
        self, index: int, path: Path, keys: RouteKeys[MatchKeys], pools: Mapping[str, PoolSpec]
    ) -> tuple[Matcher, Route[Facts]]:
        """With a fault in its match the matcher is _BROKEN."""
        sets, prefixes = self._policy.sets, self._policy.prefixes
        matcher, faults = compile_match(keys.match.spec(), tuple(FIELDS), sets, "a route", prefixes)
        self.faults += [fault_of(index, (*path, "match"), fault) for fault in faults]
        if keys.pool not in pools:
            self._fault(index, (*path, "pool"), "is not a pool", one_of(pools), keys.pool)
        route = Route(keys.name, keys.pool, matcher, self._locators[index](path))
        return _BROKEN if faults else matcher, route

    def _reach(
        self,
        written: Sequence[tuple[int, Path, RouteKeys[MatchKeys]]],
        entries: Sequence[tuple[Matcher, Route[Facts]]],
        directory: Directory,
    ) -> None:
        """Faults of routes that no session ever takes, and of a last one that does not take every session."""
        catcher = next((at for at, (matcher, _) in enumerate(entries) if matcher.catches_all), None)
        before = covered([matcher for matcher, _ in entries[:catcher]], directory)
        for at, (index, path, keys) in enumerate(written):
            by = before[at] if at < len(before) else catcher if at != catcher else None
            if by is not None:
                cover = entries[by][1]
                what = "everything" if by == catcher else "all that it matches"
                message = f"is never reached: {cover.name} at {cover.source} takes {what}"
                self._fault(index, path, message, value=keys.name)
        if written and catcher is None:
            index, path, _ = written[-1]
            self._fault(index, path, "the last route does not take everything", "a last route with match: {}")

    def _is_first(self, places: dict[str, str], name: str, index: int, path: Path) -> bool:
        if name not in places:
            places[name] = self._locators[index](path)
            return True
        self._fault(index, path, "is defined a second time", f"each name once, as at {places[name]}", name)
        return False

    def _fault(self, file: int, path: Path, message: str, expected: str = "", value: object = ABSENT) -> None:
        self.faults.append(Fault(file, path, message, expected, value))
