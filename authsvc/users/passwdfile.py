"""Users as lines of text: htpasswd's files, and Dovecot's passwd-file.

    NAME:PASSWORD
    NAME:PASSWORD:uid:gid:gecos:home:shell:EXTRA EXTRA …

Owns this form, strictly: a line that is not understood makes the file invalid, because it might say who must not log
in. PASSWORD is a stored form, `{SCHEME}…`, `$2y$…` or `$6$…`; none closes what asks for a password. The five fields
in the middle are other programs'. EXTRA is `plan=…`, `pool=…`, `cram_md5={CRAM-MD5}…`, `nologin`, or `userdb_…`,
which is for other programs again. Lines that begin with # and empty ones say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from authsvc.answer.contract import is_user_name
from authsvc.proof import schemes
from authsvc.proof.schemes import StoredFormError
from authsvc.users.fileform import FileForm
from authsvc.users.model import NotWritableError, User
from authsvc.users.userrecord import EXPECTED_NAME, cram_form, plain_forms
from smtpgate.document import DocumentError, Problem
from smtpgate.units import InvalidValue, parse_name, show

# Octets; about 30,000 users with argon2id. The file is read twice a second, and an edit is parsed at one go.
MAX_TEXT: Final = 4 * 1024 * 1024
# Characters; schemes.MAX_STORED twice, a name, and room for the fields of others.
MAX_LINE: Final = 4096

# Fields before the extra ones, which may hold colons.
_FIELDS: Final = 7
_EXPECTED_EXTRA: Final = "plan=…, pool=…, cram_md5=…, nologin or userdb_…"


@dataclass(frozen=True, slots=True)
class _FaultError(Exception):
    message: str
    expected: str = ""


def form(*, plain: bool = False) -> FileForm:
    """plain: whether {PLAIN} passwords are taken."""
    return FileForm(MAX_TEXT, lambda text, source: parse(text, source, plain=plain), put, remove)


def parse(text: bytes, source: str, *, plain: bool = False) -> Mapping[str, User]:
    """The users in a file's text, by name. Raises DocumentError with every problem. source: for messages."""
    if len(text) > MAX_TEXT:
        message = f"the file has more than {MAX_TEXT} octets"
        raise DocumentError([Problem(source, 1, 1, (), message, "Redis or SQL for so many users")])
    users: dict[str, User] = {}
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    for number, octets in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = _decoded(octets)
            if not _says_something(line):
                continue
            user = _user(line, plain)
            if user.name in users:
                raise _FaultError(f"{show(user.name)} stands here again, first in line {lines[user.name]}")
        except _FaultError as fault:
            problems.append(Problem(source, number, 1, (), fault.message, fault.expected))
            continue
        users[user.name] = user
        lines[user.name] = number
    if problems:
        raise DocumentError(problems)
    return users


def put(text: bytes, source: str, user: User) -> bytes:
    """The text with the user's line changed, or added at the end. Raises NotWritableError."""
    if ":" in user.name or user.name.startswith("#"):
        raise NotWritableError(
            f"{source}: {show(user.name)} cannot stand in a line; expected no colon, no # in front"
        )
    passwords = plain_forms(user)
    if len(passwords) > 1:
        raise NotWritableError(f"{source}: a line has room for one password; this user has {len(passwords)}")
    lines = text.split(b"\n")
    at = _find(lines, user.name)
    old = [user.name, ""] if at is None else _line_fields(lines[at])
    new = _line(old, user, passwords[0] if passwords else "").encode("utf-8")
    if at is None:
        end = b"\r\n" if b"\r\n" in text else b"\n"
        gap = b"" if not text or text.endswith(b"\n") else end
        return text + gap + new + end
    lines[at] = new + (b"\r" if lines[at].endswith(b"\r") else b"")
    return b"\n".join(lines)


def remove(text: bytes, _source: str, name: str) -> bytes:
    """The text without the user's line."""
    lines = text.split(b"\n")
    at = _find(lines, name)
    if at is not None:
        del lines[at]
    return b"\n".join(lines)


def _decoded(octets: bytes) -> str:
    try:
        line = octets.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        raise _FaultError("the line is not UTF-8") from None
    if len(line) > MAX_LINE:
        raise _FaultError(f"the line has {len(line)} characters", f"at most {MAX_LINE}")
    return line


def _says_something(line: str) -> bool:
    return bool(line.strip(" \t")) and not line.startswith("#")


def _user(line: str, plain: bool) -> User:
    """The user of a line. Raises _FaultError, which shows nothing of a password."""
    name, colon, rest = line.partition(":")
    if not colon:
        raise _FaultError("the line has no colon", "NAME:PASSWORD")
    if not is_user_name(name):
        raise _FaultError(f"{show(name)} cannot be a user's name", EXPECTED_NAME)
    fields = rest.split(":", _FIELDS - 1)
    passwords = [fields[0]] if fields[0] else []
    extras = _extras(fields[_FIELDS - 1]) if len(fields) == _FIELDS else {}
    if "cram_md5" in extras:
        passwords.append(extras["cram_md5"])
    for stored in passwords:
        _check_stored(stored, plain)
    return User(
        name,
        tuple(passwords),
        plan=_name(extras, "plan"),
        pool=_name(extras, "pool"),
        enabled="nologin" not in extras,
    )


def _extras(text: str) -> dict[str, str]:
    extras: dict[str, str] = {}
    for item in text.split():
        key, _, value = item.partition("=")
        if key.startswith("userdb_"):
            continue
        if key not in ("plan", "pool", "cram_md5", "nologin"):
            raise _FaultError(f"the extra field {show(key)} is not known", _EXPECTED_EXTRA)
        if key in extras:
            raise _FaultError(f"the extra field {key} stands there twice", "each once")
        extras[key] = value
    return extras


def _check_stored(stored: str, plain: bool) -> None:
    try:
        scheme = schemes.parse(stored).scheme
    except StoredFormError as error:
        raise _FaultError(str(error)) from None
    if scheme == schemes.PLAIN and not plain:
        raise _FaultError("{PLAIN} passwords are not taken", "a hash, or plain_passwords: true in conf/authsvc.yaml")


def _name(extras: Mapping[str, str], key: str) -> str | None:
    if key not in extras:
        return None
    try:
        return parse_name(extras[key])
    except InvalidValue as error:
        raise _FaultError(f"{key}: {show(extras[key])} {error.message}", error.expected) from None


def _find(lines: list[bytes], name: str) -> int | None:
    """The index of the user's line. A byte order mark is not part of a name."""
    start = name.encode("utf-8") + b":"
    for index, line in enumerate(lines):
        if line.removeprefix(b"\xef\xbb\xbf").startswith(start):
            return index
    return None


def _line_fields(line: bytes) -> list[str]:
    return line.removesuffix(b"\r").decode("utf-8").split(":", _FIELDS)


def _line(old: list[str], user: User, password: str) -> str:
    """The line for a user. old: its fields, of which the first and those of other programs stay."""
    extras = old[_FIELDS].split() if len(old) > _FIELDS else []
    kept = [item for item in extras if item.startswith("userdb_")]
    digest = cram_form(user)
    ours = {"plan": user.plan, "pool": user.pool, "cram_md5": digest}
    kept += [f"{key}={value}" for key, value in ours.items() if value is not None]
    if not user.enabled:
        kept.append("nologin")
    fields = [old[0], password, *old[2:_FIELDS]]
    if kept or len(old) > _FIELDS:
        fields += [""] * (_FIELDS - len(fields)) + [" ".join(kept)]
    return ":".join(fields)
