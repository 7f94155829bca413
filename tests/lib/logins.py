"""Logins for the tests of the auth service: users in a dictionary, tokens by their text, passwords that wait, and
requests as the contract reads them.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from authsvc.answer.contract import AuthRequest, Granted, Refused
from authsvc.proof import crammd5
from authsvc.proof.jwks import KeysUnavailableError
from authsvc.proof.passwords import Passwords, Readable
from authsvc.proof.tokens import TokenError
from authsvc.users.model import StoreDownError, User

WRONG = Refused("535 5.7.8", "Authentication credentials invalid", 1)
TEMPORARY = Refused("454 4.7.0", "Temporary authentication failure", 1)
SALT = b"<1896.697170952@mail.example.com>"
SERVER = ("127.0.0.1", 10025)
GRANTED = Granted("test", SERVER, "core", "gold")
"""What `test` gets."""


class Users:
    """A store in a dictionary. `down` makes it fail."""

    def __init__(self, *users: User) -> None:
        self._users = {user.name: user for user in users}
        self.asked: list[str] = []
        self.down = False

    def find(self, login: str) -> User | None:
        self.asked.append(login)
        if self.down:
            raise StoreDownError("connection refused")
        return self._users.get(login)

    def put(self, user: User) -> None:
        self._users[user.name] = user


def demo_users(passwords: Passwords) -> Users:
    """The users of these tests; the password of each is 1234."""
    stored = passwords.make(b"1234")
    return Users(
        User("test", (stored, crammd5.make(b"1234")), plan="gold"),
        User("jürgen", (stored,)),
        User("a+b%c{d}", (stored,)),
        User("off", (stored, crammd5.make(b"1234")), enabled=False),
        User("nohash"),
        User("clear", ("{PLAIN}1234",)),
        User("unsendable", ("{PLAIN} 1234",)),
        User("lost", (stored,), pool="gone"),
        User("own", (stored,), pool="vip"),
    )


class Tokens:
    """Good tokens by their text. `down` makes the keys be unavailable."""

    down = False

    def user(self, token: bytes) -> str:
        if self.down:
            raise KeysUnavailableError("no keys from jwks.json: cannot be read")
        if not token.startswith(b"good:"):
            raise TokenError("token refused: bad_signature")
        return token.removeprefix(b"good:").decode()


class Gate:
    """Passwords whose check takes until it is let go; notes which it checked."""

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords
        self.leave = threading.Event()
        self.checked: list[bytes] = []

    def read(self, stored: Sequence[str]) -> Readable:
        return self._passwords.read(stored)

    def verify(self, stored: Sequence[str], password: bytes, run: Callable[..., Any]) -> str | None:
        self.checked.append(password)
        assert run(self.leave.wait, 10)
        return self._passwords.verify(stored, password)


def plain(user: bytes = b"test", password: bytes = b"1234", **fields: object) -> AuthRequest:
    return replace(AuthRequest("plain", "192.0.2.7", user=user, password=password), **fields)


def cram(user: bytes = b"test", password: bytes = b"1234", salt: bytes = SALT) -> AuthRequest:
    digest = hmac.new(password, SALT, "md5").hexdigest().encode()
    return AuthRequest("cram-md5", "192.0.2.7", user=user, password=digest, salt=salt)


def external(subject: bytes = b"CN=test", verify: str = "SUCCESS", user: bytes = b"") -> AuthRequest:
    return AuthRequest("external", "192.0.2.7", user=user, tls=True, verify=verify, subject=subject)


def apop(user: bytes = b"clear", password: bytes = b"1234", salt: bytes = SALT) -> AuthRequest:
    digest = hashlib.md5(SALT + password, usedforsecurity=False).hexdigest().encode()
    return AuthRequest("apop", "192.0.2.7", user=user, password=digest, salt=salt, protocol="pop3")


def oauth(token: bytes = b"good:test", user: bytes = b"test", method: str = "xoauth2") -> AuthRequest:
    return AuthRequest(method, "192.0.2.7", user=user, password=token, tls=True)
