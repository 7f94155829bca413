"""conf/users.yaml: users in YAML.

Owns the keys of a user there and what they may hold. How its text is changed is `yamledit`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from authsvc.answer.contract import is_user_name
from authsvc.proof import crammd5, schemes
from authsvc.proof.schemes import StoredFormError
from authsvc.users import yamledit
from authsvc.users.fileform import FileForm
from authsvc.users.model import User
from authsvc.users.userrecord import EXPECTED_NAME
from smtpgate import document
from smtpgate.document import Document, DocumentError, Problem
from smtpgate.document.reader import MAX_TEXT
from smtpgate.units import InvalidValue, NameField, OneOrMany, StrictModel, show


def _stored(value: Any) -> str:
    # The value stays out of each message: it may be the password itself.
    if not isinstance(value, str):
        raise InvalidValue("this is not a stored password", schemes.EXPECTED)
    try:
        schemes.parse(value)
    except StoredFormError as error:
        raise InvalidValue(str(error)) from None
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not crammd5.is_stored_form(value):
        raise InvalidValue("this is not a stored password", crammd5.EXPECTED)
    return value


class _Entry(StrictModel):
    password: Annotated[OneOrMany[Annotated[str, PlainValidator(_stored)]], Field(default_factory=list)]
    cram_md5: Annotated[str | None, PlainValidator(_digest)] = None
    plan: NameField | None = None
    pool: NameField | None = None
    enabled: bool = True


class _Keys(StrictModel):
    users: dict[str, _Entry]


def form(*, plain: bool = False) -> FileForm:
    """plain: whether {PLAIN} passwords are taken."""
    return FileForm(MAX_TEXT, lambda text, source: parse(text, source, plain=plain), yamledit.put, yamledit.remove)


def parse(text: bytes, source: str, *, plain: bool = False) -> Mapping[str, User]:
    """The users in a file's text, by name. Raises DocumentError with every problem. source: for messages."""
    tree, keys = document.read(text, _Keys, source=source)
    problems = [problem for name in keys.users for problem in _problems(tree, name, keys.users[name], plain)]
    if problems:
        raise DocumentError(problems)
    return {name: _user(name, entry) for name, entry in keys.users.items()}


def _problems(tree: Document, name: str, entry: _Entry, plain: bool) -> list[Problem]:
    problems = []
    if not is_user_name(name):
        problems.append(tree.problem(("users", name), f"{show(name)} cannot be a user's name", EXPECTED_NAME))
    if not plain and any(schemes.parse(stored).scheme == schemes.PLAIN for stored in entry.password):
        expected = "a hash, or plain_passwords: true in conf/authsvc.yaml"
        problems.append(tree.problem(("users", name, "password"), "{PLAIN} passwords are not taken", expected))
    return problems


def _user(name: str, entry: _Entry) -> User:
    digests = () if entry.cram_md5 is None else (entry.cram_md5,)
    return User(name, (*entry.password, *digests), entry.plan, entry.pool, entry.enabled)
