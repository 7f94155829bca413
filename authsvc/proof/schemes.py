"""Stored forms of passwords: what `{SCHEME}…` texts are read, what each costs to check, and the check itself.

Owns the names (Dovecot's, in any case, with .B64 and .HEX), the bare forms that /etc/shadow, htpasswd, passlib and
Django write, and the bounds: a form whose check would hold a thread for more than about two seconds is refused when
it is read, not when somebody logs in. Checking is libpass's and argon2-cffi's work, apart from Dovecot's own PBKDF2
text and the two forms that prove by octets (PLAIN) and by MD5 states (CRAM-MD5).

Refuses to know users, which form is tried first, and which is good enough (`passwords`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import argon2
from argon2.exceptions import InvalidHashError, VerificationError
from passlib import hash as libpass  # type: ignore[import-untyped] # libpass ships no types

from authsvc.proof import crammd5

ARGON2ID: Final = "ARGON2ID"
CRAM_MD5: Final = "CRAM-MD5"
PLAIN: Final = "PLAIN"

# Octets. libxcrypt's CRYPT_MAX_PASSPHRASE_SIZE; some schemes cost time in proportion to it.
MAX_PASSWORD: Final = 512
# Characters of a stored form: the longest that a program writes, SSHA512 in hexadecimal, has 170; PLAIN.HEX 1036.
MAX_STORED: Final = 1100

# The work of one check, each about two seconds of one core (measured on 2 GHz, CPython 3.11), all well above what
# any program picks by itself: OWASP's cheat sheet asks for at most 47 MiB (argon2id), cost 10 (bcrypt) and 1.4
# million SHA-1 iterations (PBKDF2); passlib writes 656,000 rounds of SHA-512-crypt, Django 6 1.2 million of PBKDF2.
MAX_ARGON2_KIB: Final = 256 * 1024  # times bulkhead.AT_ONCE, in memory
MAX_ARGON2_WORK: Final = 1024 * 1024  # KiB times passes
MAX_BCRYPT_COST: Final = 14
MAX_SHACRYPT_ROUNDS: Final = 1_000_000
MAX_PBKDF2_ROUNDS: Final = 2_000_000

EXPECTED: Final = (
    "{ARGON2ID}, {BLF-CRYPT}, {SHA512-CRYPT}, {PBKDF2}, {SSHA512}, {CRAM-MD5} and the like with a hash of that "
    "kind, as `tools/gatectl user hash` or `doveadm pw` prints"
)

_NAMED = re.compile(r"\{([A-Za-z0-9-]{1,32})(?:\.(B64|BASE64|HEX))?\}(.*)", re.IGNORECASE | re.DOTALL)
_VISIBLE = re.compile(r"[!-~]+")
# Dovecot, password-scheme-pbkdf2.c: $1$SALT$ROUNDS$ and 20 octets of PBKDF2-HMAC-SHA1 in hexadecimal.
_DOVECOT_PBKDF2 = re.compile(r"\$1\$([./0-9A-Za-z]{1,64})\$([1-9][0-9]{0,8})\$([0-9a-f]{40})")


class StoredFormError(ValueError):
    """Not a stored form that can be checked. `str()` says why and what was expected, and holds nothing secret."""


@dataclass(frozen=True, slots=True)
class StoredForm:
    """scheme: its canonical name, e.g. BLF-CRYPT. value: as that scheme's check takes it. quick: whether the check
    takes microseconds; all others belong in a thread.
    """

    scheme: str
    value: str = field(repr=False)
    quick: bool


def parse(stored: str) -> StoredForm:
    """Read a stored form, with every bound looked at. Raises StoredFormError."""
    if len(stored) > MAX_STORED:
        raise StoredFormError(f"a stored password has at most {MAX_STORED} characters, this one {len(stored)}")
    named = _NAMED.fullmatch(stored)
    if named is None:
        name, value = _crypt_scheme(stored), stored
    else:
        name = _ALIASES.get(named[1].upper(), named[1].upper())
        value = named[3]
        if name == "CRYPT":
            value = _decoded(value, named[2])
            name = _crypt_scheme(value)
        elif name not in _SCHEMES:
            raise StoredFormError(f"{{{named[1]}}} is not a scheme that is known; expected {EXPECTED}")
        elif _SCHEMES[name].digest:
            value = _digest_text(name, value, named[2])
        else:
            value = _decoded(value, named[2], hexadecimal=name == CRAM_MD5)
    scheme = _SCHEMES[name]
    if name != PLAIN and not _VISIBLE.fullmatch(value):
        raise StoredFormError(f"{name}: expected visible ASCII characters behind the scheme")
    try:
        scheme.read(value)
    except StoredFormError:
        raise
    except (ValueError, TypeError, InvalidHashError):
        # The library's message may quote the hash.
        raise StoredFormError(f"{name}: this is not a hash of that scheme") from None
    return StoredForm(name, value, scheme.quick)


def matches(form: StoredForm, password: bytes) -> bool:
    """Whether `password` is the one behind the form. Raises nothing; what a scheme cannot hold matches nothing."""
    if len(password) > MAX_PASSWORD:
        return False
    try:
        return _SCHEMES[form.scheme].check(form.value, password)
    except (ValueError, TypeError, VerificationError, InvalidHashError):
        # NUL in a crypt scheme; a hash that its reader let pass.
        return False


def plain_password(form: StoredForm) -> bytes | None:
    """The password itself, where it is stored as such."""
    return form.value.encode("utf-8", "surrogateescape") if form.scheme == PLAIN else None


# --- reading ------------------------------------------------------------------------------------------------


def _crypt_scheme(value: str) -> str:
    """The scheme of a form without a name. Raises StoredFormError."""
    for ident, name in _IDENTS.items():
        if value.startswith(ident):
            return name
    raise StoredFormError(f"this is not a stored password; expected {EXPECTED}")


def _decoded(value: str, encoding: str | None, *, hexadecimal: bool = False) -> str:
    """Dovecot's .B64 and .HEX undone. hexadecimal: the scheme's text is itself that of octets."""
    if encoding is None:
        return value
    octets = _octets(value, encoding)
    return octets.hex() if hexadecimal else octets.decode("utf-8", "surrogateescape")


def _digest_text(name: str, value: str, encoding: str | None) -> str:
    """The form in which libpass takes {SSHA} and the like: the name and base64."""
    digest_and_salt = _octets(value, encoding or "B64")
    return f"{{{name}}}{base64.b64encode(digest_and_salt).decode('ascii')}"


def _octets(value: str, encoding: str) -> bytes:
    try:
        if encoding.upper() == "HEX":
            return binascii.unhexlify(value)
        return base64.b64decode(value, validate=True)
    except ValueError:
        what = "hexadecimal digits" if encoding.upper() == "HEX" else "base64"
        raise StoredFormError(f"the hash is not {what}") from None


def _read_argon2(value: str) -> None:
    parameters = argon2.extract_parameters(value)
    if parameters.type is not argon2.Type.ID:
        raise StoredFormError("argon2 is taken as argon2id only")
    _bound("argon2id memory in KiB", parameters.memory_cost, MAX_ARGON2_KIB)
    _bound("argon2id memory in KiB times passes", parameters.memory_cost * parameters.time_cost, MAX_ARGON2_WORK)


def _reader(handler: Any, what: str, most: int) -> Callable[[str], None]:
    """handler: of libpass, with rounds."""

    def read(value: str) -> None:
        parsed = handler.from_string(value)
        if parsed.checksum is None:
            raise StoredFormError(f"{what.partition(' ')[0]}: the hash has no digest, only a salt")
        _bound(what, parsed.rounds, most)

    return read


def _read_bcrypt(value: str) -> None:
    # libpass looks for bcrypt's library at the first use, which must not be in several threads at once.
    libpass.bcrypt.get_backend()
    _reader(libpass.bcrypt, "bcrypt cost", MAX_BCRYPT_COST)(value)


def _read_pbkdf2(value: str) -> None:
    dovecot = _DOVECOT_PBKDF2.fullmatch(value)
    if dovecot is not None:
        _bound("PBKDF2 rounds", int(dovecot[2]), MAX_PBKDF2_ROUNDS)
        return
    _reader(_pbkdf2_handler(value), "PBKDF2 rounds", MAX_PBKDF2_ROUNDS)(value)


def _read_salted(handler: Any) -> Callable[[str], None]:
    def read(value: str) -> None:
        if handler.from_string(value).checksum is None:
            raise StoredFormError("the hash has no digest")

    return read


def _read_sha1(value: str) -> None:
    if len(base64.b64decode(value.removeprefix("{SHA}"))) != hashlib.sha1(usedforsecurity=False).digest_size:
        raise ValueError


def _read_cram_md5(value: str) -> None:
    if not crammd5.is_stored_form(crammd5.PREFIX + value):
        raise StoredFormError(f"expected {crammd5.EXPECTED}")


def _read_plain(value: str) -> None:
    if not value or len(value.encode("utf-8", "surrogateescape")) > MAX_PASSWORD:
        raise StoredFormError(f"PLAIN: expected 1 to {MAX_PASSWORD} octets")


def _bound(what: str, value: int, most: int) -> None:
    if value > most:
        raise StoredFormError(f"{what}: {value} is too much work for a login; at most {most} is taken")


def _pbkdf2_handler(value: str) -> Any:
    for ident, handler in _PBKDF2_HANDLERS.items():
        if value.startswith(ident):
            return handler
    raise StoredFormError("PBKDF2: expected Dovecot's $1$…, passlib's $pbkdf2-…$ or Django's pbkdf2_sha256$…")


# --- checking -----------------------------------------------------------------------------------------------


def _check_argon2(value: str, password: bytes) -> bool:
    return argon2.PasswordHasher().verify(value, password)


def _checker(handler: Any) -> Callable[[str, bytes], bool]:
    def check(value: str, password: bytes) -> bool:
        return bool(handler.verify(password, value))

    return check


def _check_bcrypt(value: str, password: bytes) -> bool:
    # bcrypt never looked at more than 72 octets; the library of that name refuses more since 5.0, and hashes that
    # PHP, htpasswd or Dovecot made of a longer password are there.
    return bool(libpass.bcrypt.verify(password[:72], value))


def _check_pbkdf2(value: str, password: bytes) -> bool:
    dovecot = _DOVECOT_PBKDF2.fullmatch(value)
    if dovecot is None:
        return bool(_pbkdf2_handler(value).verify(password, value))
    derived = hashlib.pbkdf2_hmac("sha1", password, dovecot[1].encode("ascii"), int(dovecot[2]), 20)
    return hmac.compare_digest(derived, bytes.fromhex(dovecot[3]))


def _check_cram_md5(value: str, password: bytes) -> bool:
    return hmac.compare_digest(crammd5.make(password), crammd5.PREFIX + value)


def _check_plain(value: str, password: bytes) -> bool:
    return hmac.compare_digest(value.encode("utf-8", "surrogateescape"), password)


# --- the table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scheme:
    """read: raises where the value is none, or costs too much. check: may raise ValueError for False. digest:
    whether the value is octets, in base64 unless it says otherwise.
    """

    read: Callable[[str], None]
    check: Callable[[str, bytes], bool]
    quick: bool = False
    digest: bool = False


def _salted(handler: Any) -> _Scheme:
    return _Scheme(_read_salted(handler), _checker(handler), quick=True, digest=True)


def _shacrypt(handler: Any) -> _Scheme:
    return _Scheme(_reader(handler, "SHA-crypt rounds", MAX_SHACRYPT_ROUNDS), _checker(handler))


_SCHEMES: Final[Mapping[str, _Scheme]] = {
    ARGON2ID: _Scheme(_read_argon2, _check_argon2),
    "BLF-CRYPT": _Scheme(_read_bcrypt, _check_bcrypt),
    "SHA512-CRYPT": _shacrypt(libpass.sha512_crypt),
    "SHA256-CRYPT": _shacrypt(libpass.sha256_crypt),
    "PBKDF2": _Scheme(_read_pbkdf2, _check_pbkdf2),
    "SSHA": _salted(libpass.ldap_salted_sha1),
    "SSHA256": _salted(libpass.ldap_salted_sha256),
    "SSHA512": _salted(libpass.ldap_salted_sha512),
    # htpasswd's -s and -m, for files that are still there.
    "SHA": _Scheme(_read_sha1, _checker(libpass.ldap_sha1), quick=True, digest=True),
    "APR1": _Scheme(_read_salted(libpass.apr_md5_crypt), _checker(libpass.apr_md5_crypt)),
    CRAM_MD5: _Scheme(_read_cram_md5, _check_cram_md5, quick=True),
    PLAIN: _Scheme(_read_plain, _check_plain, quick=True),
}
_ALIASES: Final = {"CLEAR": PLAIN, "CLEARTEXT": PLAIN, "SHA1": "SHA", "HMAC-MD5": CRAM_MD5, "BCRYPT": "BLF-CRYPT"}
# $2x$ is left out: it marks hashes of crypt_blowfish's sign bug.
_IDENTS: Final = {
    "$argon2id$": ARGON2ID,
    "$2a$": "BLF-CRYPT",
    "$2b$": "BLF-CRYPT",
    "$2y$": "BLF-CRYPT",
    "$6$": "SHA512-CRYPT",
    "$5$": "SHA256-CRYPT",
    "$apr1$": "APR1",
    "$pbkdf2": "PBKDF2",
    "pbkdf2_sha": "PBKDF2",
}
_PBKDF2_HANDLERS: Final[Mapping[str, Any]] = {
    "$pbkdf2$": libpass.pbkdf2_sha1,
    "$pbkdf2-sha256$": libpass.pbkdf2_sha256,
    "$pbkdf2-sha512$": libpass.pbkdf2_sha512,
    "pbkdf2_sha1$": libpass.django_pbkdf2_sha1,
    "pbkdf2_sha256$": libpass.django_pbkdf2_sha256,
}
