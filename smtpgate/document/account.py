"""`user:` and `group:`: whom the workers are to be, in proxy.yaml and authsvc.yaml alike.

Owns these two keys, and the look into the system's users and groups that they need. Becoming one of them is
`drivers.privileges`'.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import PlainValidator

from smtpgate.document.tree import Document, Problem
from smtpgate.units import ABSENT, InvalidValue

MAX_ID: Final = 2**32 - 2  # (uid_t) -1 means "leave it as it is", setresuid(2)


@dataclass(frozen=True, slots=True)
class Account:
    """Whom workers are to be. name: as it was said, for messages."""

    name: str
    uid: int
    gid: int


def name_or_number(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ID:
        return str(value)
    if isinstance(value, str) and value and "\0" not in value:
        return value
    raise InvalidValue("is no name and no number of a user or group", "e.g. smtpgate, 990", value=value)


AccountName = Annotated[str, PlainValidator(name_or_number)]


def account(user: str | None, group: str | None) -> Account | None:
    """The account of these names or numbers; without a group it is the user's own one. None without both.

    Raises InvalidValue, whose path is the key that is wrong.
    """
    if user is None:
        if group is not None:
            raise InvalidValue("is for a user, and there is none", "user, beside it", path=("group",))
        return None
    entry = _user(user)
    if group is not None:
        gid = _gid(group)
    elif entry is not None:
        gid = entry.pw_gid
    else:
        raise InvalidValue("has no name, and so no group of its own", "group, beside it", value=user, path=("user",))
    return Account(user, int(user) if entry is None else entry.pw_uid, gid)


def account_problems(document: Document) -> Iterator[Problem]:
    """Names in `document` that this system does not know. What is no name at all is the keys' matter."""
    user, group = document.value.get("user"), document.value.get("group")
    try:
        account(*(None if one is None else name_or_number(one) for one in (user, group)))
    except InvalidValue as fault:
        if fault.path:
            subject = "" if fault.value is ABSENT else f"{document.show(fault.path, fault.value)} "
            yield document.problem(fault.path, f"{subject}{fault.message}", fault.expected)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _user(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except KeyError:
        if _is_number(user):
            return None
        raise InvalidValue("is no user of this system", "e.g. smtpgate, 990", value=user, path=("user",)) from None


def _gid(group: str) -> int:
    try:
        return int(group) if _is_number(group) else grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidValue("is no group of this system", "e.g. smtpgate, 990", value=group, path=("group",)) from None
