"""Validated policy files -> one frozen Policy, or every fault of all of them at once.

Owns the meaning of names: replies, sets and limits over all files, placeholders, the defaults that depend on
other values. A fault is a path in one of the files; whoever read the files turns it into a line (`snapshot`),
and `locate` gives the line that a limit carries for the log.

Refuses to know YAML and documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from smtpgate.policy.fields import known_at
from smtpgate.policy.keys import KeyTemplate, Prefixes, compile_key
from smtpgate.policy.match import BROKEN_SET, Matcher, NamedSet, compile_match, named_set, one_of
from smtpgate.policy.model import Event
from smtpgate.policy.rules import LONGEST_RETRY, Limit, Policy, ReplyTemplate
from smtpgate.policy.schema import DenyKeys, LimitKeys, MatchKeys, PolicyKeys
from smtpgate.units import ABSENT, MAX_AMOUNT, MAX_DURATION, MAX_HOSTNAME, MAX_NAME, InvalidValue, Rate

Path = tuple[str | int, ...]

# Characters of a reply's text as written: what a mail program shows of it in a window.
MAX_REPLY_TEXT: Final = 200
# Octets of the line with its CRLF, its placeholders filled in (RFC 5321 section 4.5.3.1.5).
MAX_REPLY_LINE: Final = 512
EXPECTED_REPLY: Final = 'code, enhanced code and text, e.g. "450 4.7.1 rate limit {limit}, retry in {retry}s"'
# Each with the octets that it may become.
PLACEHOLDERS: Final = {
    "limit": MAX_NAME,
    "retry": len(str(LONGEST_RETRY)),
    "rate": len(f"{MAX_AMOUNT}/{MAX_DURATION * 1000:.0f}ms"),
    "host": MAX_HOSTNAME,
}
_REPLY = re.compile(r"([45])([0-9]{2}) ([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}) ([ -~]+)")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# Seconds of the rate that a bucket holds where no burst is written: 2000/1d must not be sent in one go.
DEFAULT_BURST_PERIOD: Final = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """One validated file. locate: a path in it -> "file:line"."""

    keys: PolicyKeys
    locate: Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, in which of the files, at which path, and what was expected ("" if the message says).

    With `value` the message is a predicate of it, as in units.InvalidValue.
    """

    file: int
    path: Path
    message: str
    expected: str = ""
    value: object = ABSENT


def fault_of(file: int, path: Path, error: InvalidValue) -> Fault:
    """An InvalidValue at a path, or below it where the error says so, as a fault."""
    return Fault(file, (*path, *error.path), error.message, error.expected, error.value)


def compile_policy(files: Sequence[Source]) -> tuple[Policy, list[Fault]]:
    """The policy and every fault. With a fault the policy is not to be used, but for its names."""
    compiler = _Compiler(files)
    return compiler.run(), compiler.faults


def compile_reply(text: str) -> ReplyTemplate:
    """A literal reply. Raises InvalidValue: not a reply, not 4xx or 5xx, too long, a placeholder that is unknown or
    there twice.
    """
    found = _REPLY.fullmatch(text)
    if found is None:
        raise InvalidValue("is not a 4xx or 5xx reply", EXPECTED_REPLY, value=text)
    severity, digits, enhanced, words = found.groups()
    if not enhanced.startswith(f"{severity}."):
        expected = f"an enhanced code that begins with {severity} (RFC 3463)"
        raise InvalidValue(f"has {enhanced} after {severity}{digits}", expected, value=text)
    if len(words) > MAX_REPLY_TEXT:
        raise InvalidValue("is too long", f"at most {MAX_REPLY_TEXT} characters of text", value=text)
    known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    names = _PLACEHOLDER.findall(words)
    for name in names:
        if name not in PLACEHOLDERS:
            raise InvalidValue(f"has the unknown placeholder {{{name}}}", known, value=text)
        if names.count(name) > 1:
            raise InvalidValue(f"has {{{name}}} twice", "each placeholder once", value=text)
    rest = _PLACEHOLDER.sub("", text)
    if set(rest) & set("{}"):
        raise InvalidValue("has a brace that is no placeholder", known, value=text)
    longest = len(rest) + sum(PLACEHOLDERS[name] for name in names) + len("\r\n")
    if longest > MAX_REPLY_LINE:
        message = f"may become a line of {longest} octets"
        raise InvalidValue(message, f"at most {MAX_REPLY_LINE} with its placeholders filled in", value=text)
    return ReplyTemplate(int(severity + digits), enhanced, words)


def find_reply(text: str, replies: Mapping[str, ReplyTemplate]) -> ReplyTemplate:
    """A literal (it begins with a digit) or a name. Raises InvalidValue."""
    if text[:1].isdigit():
        return compile_reply(text)
    if text not in replies:
        expected = f'a literal, e.g. "450 4.7.1 text", or {one_of(replies)}'
        raise InvalidValue("is not a reply", expected, value=text)
    return replies[text]


def default_burst(rate: Rate) -> float:
    """One minute's worth, at most the rate's amount, at least 1."""
    return max(1.0, min(float(rate.amount), rate.per_second * DEFAULT_BURST_PERIOD))


T = TypeVar("T")


class _Compiler:
    """One run over all files; faults gather as it goes, and what has a fault is left out."""

    def __init__(self, files: Sequence[Source]) -> None:
        self.files = files
        self.faults: list[Fault] = []
        self._replies: dict[str, ReplyTemplate] = {}
        self._sets: dict[str, NamedSet] = {}

    def run(self) -> Policy:
        self._settings()
        self._compile_sets()
        self._compile_replies()
        return Policy(self._compile_limits(), self._local_share, self._replies, self._sets)

    # --- over all files ---

    def _settings(self) -> None:
        if not any("version" in source.keys.model_fields_set for source in self.files):
            self._fault(0, (), "no file says which version of the policy language this is", "version: 1")
        prefix = self._only("ip_prefix", [source.keys.ip_prefix for source in self.files])
        self._prefixes = Prefixes(prefix.v4, prefix.v6)
        limiter = self._only("limiter", [source.keys.limiter for source in self.files])
        self._local_share = limiter.local_share

    def _only(self, key: str, values: Sequence[T]) -> T:
        """The value of a key that one file may set."""
        setters = [i for i, source in enumerate(self.files) if key in source.keys.model_fields_set]
        for extra in setters[1:]:
            first = self.files[setters[0]].locate((key,))
            self._fault(extra, (key,), "is set a second time", f"it once, as at {first}")
        return values[setters[0] if setters else 0]

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

    # --- sets and replies ---

    def _compile_sets(self) -> None:
        for index, name, keys in self._named("sets", lambda keys: keys.sets):
            path: Path = ("sets", name)
            types = keys.types()
            try:
                if len(types) != 1:
                    raise InvalidValue(f"has {len(types)} types", "exactly one of user, domain, cidr")
                path = (*path, types[0])
                self._sets[name] = named_set(types[0], getattr(keys, types[0]))
            except InvalidValue as error:
                self._sets[name] = BROKEN_SET
                self._report(index, path, error)

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

    # --- limits ---

    def _compile_limits(self) -> dict[Event, tuple[Limit, ...]]:
        limits: dict[Event, list[Limit]] = {}
        for index, name, keys in self._named("limits", lambda keys: keys.limits):
            limit = self._limit(index, name, keys)
            if limit is not None:
                limits.setdefault(limit.event, []).append(limit)
        return {event: tuple(of_event) for event, of_event in limits.items()}

    def _limit(self, index: int, name: str, keys: LimitKeys) -> Limit | None:
        path: Path = ("limits", name)
        event = Event(keys.event)
        key = self._key(index, (*path, "key"), keys.key, event)
        match = self._match(index, (*path, "match"), keys.match, event)
        reply = self._deny(index, (*path, "deny"), keys.deny)
        if key is None or match is None or reply is None:
            return None
        return Limit(
            name=name,
            event=event,
            rate=keys.rate.per_second,
            burst=float(keys.burst) if "burst" in keys.model_fields_set else default_burst(keys.rate),
            key=key,
            reply=reply,
            source=self.files[index].locate(path),
            rate_text=str(keys.rate),
            match=match,
            # RFC 5321 section 3.8: 421 announces that the channel closes.
            close=keys.deny.close or reply.code == 421,
            delay=keys.deny.delay,
            max_delay=keys.deny.max_delay if "max_delay" in keys.deny.model_fields_set else None,
        )

    def _key(self, index: int, path: Path, template: str, event: Event) -> KeyTemplate | None:
        try:
            return compile_key(template, event, self._prefixes)
        except InvalidValue as error:
            self._report(index, path, error)
            return None

    def _match(self, index: int, path: Path, keys: MatchKeys, event: Event) -> Matcher | None:
        matcher, faults = compile_match(keys.spec(), known_at(event), self._sets, event.value)
        for fault in faults:
            self._report(index, path, fault)
        return None if faults else matcher

    def _deny(self, index: int, path: Path, keys: DenyKeys) -> ReplyTemplate | None:
        if "max_delay" in keys.model_fields_set and keys.max_delay < keys.delay:
            self._fault(index, (*path, "max_delay"), "is below delay", "delay or more")
        try:
            return find_reply(keys.reply, self._replies)
        except InvalidValue as error:
            self._report(index, (*path, "reply"), error)
            return None

    # --- faults ---

    def _fault(self, file: int, path: Path, message: str, expected: str = "") -> None:
        self.faults.append(Fault(file, path, message, expected))

    def _report(self, file: int, path: Path, error: InvalidValue) -> None:
        self.faults.append(fault_of(file, path, error))
