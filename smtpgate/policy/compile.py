"""Validated policy files -> one frozen Policy, or every fault of all of them at once.

Owns the meaning of names over all files: replies, sets, limits, and who names them. A fault is a path in one of the
files; whoever read the files turns it into a line (`snapshot`), and `locate` gives the line that a limit carries for
the log. One limit by itself is `limits`' matter.

Refuses to know YAML and documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from smtpgate.policy.addresses import Prefixes
from smtpgate.policy.fields import known_at
from smtpgate.policy.limits import Names, compile_change, compile_limit
from smtpgate.policy.match import Matcher, compile_match, one_of
from smtpgate.policy.model import Event
from smtpgate.policy.patterns import TextSet
from smtpgate.policy.replies import compile_reply
from smtpgate.policy.rules import Breaker, Limiter, OnError, ReplyTemplate
from smtpgate.policy.schema import MatchKeys, OffKeys, PolicyKeys, SetKeys
from smtpgate.policy.select import Exemption, Override, Policy, Rule
from smtpgate.policy.sets import BROKEN_SET, NamedSet, named_set, read_members
from smtpgate.policy.terms import Terms
from smtpgate.policy.times import DAYS, time_set
from smtpgate.units import ABSENT, InvalidValue

Path = tuple[str | int, ...]

EXPECTED_SET: Final = "exactly one of user, domain, cidr, time, file"


@dataclass(frozen=True, slots=True)
class Source:
    """One validated file. locate: a path in it -> "file:line"."""

    keys: PolicyKeys
    locate: Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, in which of the files, at which path, and what was expected ("" if the message says).

    With `value` the message is a predicate of it, as in units.InvalidValue. In a set file (`file` is its name) the
    path is a line.
    """

    file: int | str
    path: Path
    message: str
    expected: str = ""
    value: object = ABSENT


def fault_of(file: int | str, path: Path, error: InvalidValue) -> Fault:
    """An InvalidValue at a path, or below it where the error says so, as a fault."""
    return Fault(file, (*path, *error.path), error.message, error.expected, error.value)


def compile_policy(
    files: Sequence[Source], set_files: Mapping[str, bytes] | None = None
) -> tuple[Policy, list[Fault]]:
    """The policy and every fault. With a fault the policy is not to be used, but for its names.

    set_files: name in the folder -> text, of those that a set may name.
    """
    compiler = _Compiler(files, set_files or {})
    return compiler.run(), compiler.faults


T = TypeVar("T")


class _Compiler:
    """One run over all files; faults gather as it goes, and what has a fault is left out."""

    def __init__(self, files: Sequence[Source], set_files: Mapping[str, bytes]) -> None:
        self.files = files
        self.faults: list[Fault] = []
        self._set_files = set_files
        self._replies: dict[str, ReplyTemplate] = {}
        self._sets: dict[str, NamedSet] = {}
        # By name, in the order of the files; None where the limit has a fault of its own.
        self._rules: dict[str, Rule | None] = {}
        self._events: dict[str, Event] = {}

    def run(self) -> Policy:
        if not any("version" in source.keys.model_fields_set for source in self.files):
            self._fault(0, (), "no file says which version of the policy language this is", "version: 1")
        prefix = self._only("ip_prefix", lambda keys: keys.ip_prefix)
        self._prefixes = Prefixes(prefix.v4, prefix.v6)
        limiter = self._limiter()
        shadow = self._only("mode", lambda keys: keys.mode) == "shadow"
        self._compile_sets()
        self._compile_replies()
        names = Names(self._sets, self._replies, self._prefixes, limiter.on_error, shadow)
        self._compile_limits(names)
        return Policy(
            limiter=limiter,
            shadow=shadow,
            replies=self._replies,
            sets=self._sets,
            mixed_recipients=self._only("mixed_recipients", lambda keys: keys.mixed_recipients),
            rules=self._by_event(),
            exemptions=tuple(self._exemptions()),
            overrides=tuple(self._overrides(names)),
            prefixes=self._prefixes,
        )

    # --- over all files ---

    def _only(self, key: str, pick: Callable[[PolicyKeys], T]) -> T:
        """The value of a key that one file may set."""
        setters = [i for i, source in enumerate(self.files) if key in source.keys.model_fields_set]
        for extra in setters[1:]:
            first = self.files[setters[0]].locate((key,))
            self._fault(extra, (key,), "is set a second time", f"it once, as at {first}")
        return pick(self.files[setters[0] if setters else 0].keys)

    def _named(self, key: str, pick: Callable[[PolicyKeys], Mapping[str, T]]) -> Iterator[tuple[int, str, T]]:
        """(file, name, value) of a mapping that is spread over files; a name's second place is a fault."""
        seen: dict[str, int] = {}
        for index, source in enumerate(self.files):
            for name, value in pick(source.keys).items():
                if name in seen:
                    first = self.files[seen[name]].locate((key, name))
                    self.faults.append(
                        Fault(index, (key, name), "is defined a second time", f"each name once, as at {first}", name)
                    )
                    continue
                seen[name] = index
                yield index, name, value

    def _limiter(self) -> Limiter:
        keys = self._only("limiter", lambda keys: keys.limiter)
        return Limiter(
            timeout=keys.timeout,
            on_error=OnError(keys.on_error),
            local_share=keys.local_share,
            breaker=Breaker(keys.breaker.errors, keys.breaker.within, keys.breaker.open),
            new_keys=keys.new_keys.per_second,
            new_keys_burst=float(keys.new_keys.amount),
        )

    # --- sets and replies ---

    def _compile_sets(self) -> None:
        for index, name, keys in self._named("sets", lambda keys: keys.sets):
            path: Path = ("sets", name)
            try:
                self._sets[name] = self._set(keys)
            except InvalidValue as error:
                self._sets[name] = BROKEN_SET
                self._report(index, path, error)
            except _SetFileError as error:
                self._sets[name] = BROKEN_SET
                self.faults.append(error.fault)

    def _set(self, keys: SetKeys) -> NamedSet:
        """Raises InvalidValue, and _SetFileError for what a file holds."""
        types = keys.types()
        if len(types) != 1:
            raise InvalidValue(f"has {len(types)} types", EXPECTED_SET)
        type_ = types[0]
        for name, goes_with in (("days", "time"), ("tz", "time"), ("type", "file")):
            if name in keys.model_fields_set and type_ != goes_with:
                raise InvalidValue(f"does not go with {type_}", f"it with {goes_with} alone", path=(name,))
        if type_ == "file":
            return self._file_set(keys)
        try:
            if type_ == "time":
                days = keys.days if "days" in keys.model_fields_set else DAYS
                return NamedSet("time", time_set(keys.time, days, keys.tz))
            return named_set(type_, getattr(keys, type_))
        except InvalidValue as error:
            if error.path and isinstance(error.path[0], int):
                error.path = (type_, *error.path)
            raise

    def _file_set(self, keys: SetKeys) -> NamedSet:
        if "type" not in keys.model_fields_set:
            raise InvalidValue("is missing", "what the file holds: user, domain or cidr", path=("type",))
        text = self._set_files.get(keys.file)
        if text is None:
            expected = one_of(self._set_files) if self._set_files else "a *.txt file of this folder"
            raise InvalidValue("is not a file of this folder", expected, value=keys.file, path=("file",))
        lines: list[int] = []
        try:
            values, lines = read_members(text)
            return named_set(keys.type, values)
        except InvalidValue as error:
            at = error.path[0] if error.path else 0
            line = lines[int(at)] if lines else int(at) or 1
            fault = Fault(keys.file, (line,), error.message, error.expected, error.value)
            raise _SetFileError(fault) from None

    def _compile_replies(self) -> None:
        for index, name, text in self._named("replies", lambda keys: keys.replies):
            try:
                if name[:1].isdigit():
                    raise InvalidValue("is not a name of a reply", "a name that begins with a letter", value=name)
                self._replies[name] = compile_reply(text)
            except InvalidValue as error:
                # Using it is not a second fault.
                self._replies[name] = ReplyTemplate(450, "4.7.1", "")
                self._report(index, ("replies", name), error)

    # --- limits, and what is said of them elsewhere ---

    def _compile_limits(self, names: Names) -> None:
        for index, name, keys in self._named("limits", lambda keys: keys.limits):
            path: Path = ("limits", name)
            rule, faults = compile_limit(name, self.files[index].locate(path), keys, names)
            for fault in faults:
                self._report(index, path, fault)
            self._rules[name] = rule
            self._events[name] = Event(keys.event)

    def _by_event(self) -> dict[Event, tuple[Rule, ...]]:
        rules: dict[Event, list[Rule]] = {}
        for rule in self._rules.values():
            if rule is not None:
                rules.setdefault(rule.limit.event, []).append(rule)
        return {event: tuple(of_event) for event, of_event in rules.items()}

    def _exemptions(self) -> Iterator[Exemption]:
        for index, source in enumerate(self.files):
            for at, keys in enumerate(source.keys.exempt):
                path: Path = ("exempt", at)
                named: dict[str, None] = {}
                for which, glob in enumerate(keys.limits):
                    fits = TextSet([glob])
                    found = [name for name in self._rules if fits(name)]
                    if not found:
                        self._fault(index, (*path, "limits", which), "fits no limit", one_of(self._rules), glob)
                    named.update(dict.fromkeys(found))
                matcher = self._match(index, (*path, "match"), keys.match, tuple(named))
                yield Exemption(matcher, frozenset(named), source.locate(path))

    def _overrides(self, names: Names) -> Iterator[Override]:
        for index, source in enumerate(self.files):
            for at, keys in enumerate(source.keys.overrides):
                path: Path = ("overrides", at)
                known = tuple(name for name in keys.set if name in self._rules)
                matcher = self._match(index, (*path, "match"), keys.match, known)
                changes: dict[str, Terms | None] = {}
                for name, change in keys.set.items():
                    rule = self._rules.get(name)
                    if name not in self._rules:
                        self._fault(index, (*path, "set", name), "is not a limit", one_of(self._rules), name)
                    elif isinstance(change, OffKeys):
                        changes[name] = None
                    elif rule is not None:
                        changes[name], faults = compile_change(rule, change, names)
                        for fault in faults:
                            self._report(index, (*path, "set", name), fault)
                until = keys.until if "until" in keys.model_fields_set else None
                yield Override(matcher, until, changes, source.locate(path))

    def _match(self, index: int, path: Path, keys: MatchKeys, limits: Sequence[str]) -> Matcher:
        """A match that has to be known at the event of each of these limits."""
        spec: dict[str, Any] = {}
        for name, wanted in keys.spec().items():
            stranger = next((limit for limit in limits if name not in known_at(self._events[limit])), None)
            if stranger is None:
                spec[name] = wanted
                continue
            event = self._events[stranger]
            message = f"is not known at {event.value}, when {stranger} is asked"
            self._fault(index, (*path, name), message, one_of(known_at(event)))
        matcher, faults = compile_match(spec, tuple(spec), self._sets, "", self._prefixes)
        for fault in faults:
            self._report(index, path, fault)
        return matcher

    # --- faults ---

    def _fault(self, file: int, path: Path, message: str, expected: str = "", value: object = ABSENT) -> None:
        self.faults.append(Fault(file, path, message, expected, value))

    def _report(self, file: int, path: Path, error: InvalidValue) -> None:
        self.faults.append(fault_of(file, path, error))


class _SetFileError(Exception):
    """A fault in a set file, and not in the file that names it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault
