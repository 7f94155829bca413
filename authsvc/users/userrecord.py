"""A user as named values, which is what a Redis hash or a row of SQL holds -> User, and back.

Owns the names (name, password, cram_md5, plan, pool, enabled), their defaults, and what other programs' databases
write for true and false. A value that is missing, NULL or empty is as if its name were not there. Passwords are
taken as they are: a form that nobody knows proves nobody. Everything else is checked here, because it goes into
headers, log lines and keys of limits. Refuses to know where records are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from authsvc.answer.contract import MAX_USER, is_user_name
from authsvc.proof import crammd5
from authsvc.users.model import StoreDownError, User
from smtpgate.units import InvalidValue, parse_name

EXPECTED_NAME: Final = f"1 to {MAX_USER} octets of printable text, no space at its ends"
# Octets of one value. The longest hash has some 200, and a user has a few of them.
MAX_VALUE: Final = 4096

_TRUE: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "off", "0"})
# A stored form has no spaces, but for a clear password, which therefore stands last.
_CLEAR: Final = ("{PLAIN", "{CLEAR")
_SPACES = re.compile(" +")


class RecordError(StoreDownError):
    """A record that makes no user: nothing can be said of this one login, though the store itself is well.

    The message names the value that is wrong, and never shows it.
    """


def read_record(login: str, record: Mapping[str, object]) -> User:
    """The user that `login` found. Names without meaning here are ignored. Raises RecordError."""
    name = _text(record, "name") or login
    if not is_user_name(name):
        raise RecordError(f"name is not a user's name; expected {EXPECTED_NAME}")
    digest = _text(record, "cram_md5")
    passwords = split_forms(_text(record, "password") or "")
    return User(
        name,
        passwords if digest is None else (*passwords, digest),
        plan=_name(record, "plan"),
        pool=_name(record, "pool"),
        enabled=_flag(record, "enabled"),
    )


def write_record(user: User) -> dict[str, str | bool | None]:
    """A user's values without its name: password is text, if only "", the others None where there is nothing."""
    return {
        "password": join_forms(user),
        "cram_md5": cram_form(user),
        "plan": user.plan,
        "pool": user.pool,
        "enabled": user.enabled,
    }


def split_forms(text: str) -> tuple[str, ...]:
    """`{ARGON2ID}… {SSHA}…` -> the stored forms in it."""
    forms = []
    rest = text.strip(" ")
    while rest:
        if rest.upper().startswith(_CLEAR):
            forms.append(rest)
            break
        form, *after = _SPACES.split(rest, maxsplit=1)
        forms.append(form)
        rest = after[0] if after else ""
    return tuple(forms)


def join_forms(user: User) -> str:
    """What `split_forms` reads as the user's passwords, without the one for CRAM-MD5."""
    forms = plain_forms(user)
    return " ".join(sorted(forms, key=lambda form: form.upper().startswith(_CLEAR)))


def cram_form(user: User) -> str | None:
    """The first of the user's passwords that is for CRAM-MD5."""
    return next((form for form in user.passwords if form.startswith(crammd5.PREFIX)), None)


def plain_forms(user: User) -> list[str]:
    """The user's passwords but `cram_form`."""
    digest = cram_form(user)
    return [form for form in user.passwords if form != digest]


def _text(record: Mapping[str, object], name: str) -> str | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, memoryview):
        value = bytes(value)
    if isinstance(value, bytes | bytearray):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            raise RecordError(f"{name} is not UTF-8") from None
    if not isinstance(value, str):
        raise RecordError(f"{name} is of the type {type(value).__name__}; expected text")
    if len(value) > MAX_VALUE:
        raise RecordError(f"{name} has {len(value)} characters; expected at most {MAX_VALUE}")
    return value or None


def _name(record: Mapping[str, object], name: str) -> str | None:
    text = _text(record, name)
    if text is None:
        return None
    try:
        return parse_name(text)
    except InvalidValue as error:
        raise RecordError(f"{name} is not a name; expected {error.expected}") from None


def _flag(record: Mapping[str, object], name: str) -> bool:
    value = record.get(name)
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    text = (_text(record, name) or "true").lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise RecordError(f"{name} is neither true nor false; expected e.g. true, false, 1, 0")
