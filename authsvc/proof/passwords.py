"""A user's stored passwords: made as argon2id (RFC 9106), checked in whatever form they are (`schemes`).

Owns the cost of new forms, which stored forms may prove at all, the order in which they are tried, when one is
out of date, and how much work a refusal takes. Refuses to know where the work runs (`bulkhead`), where forms are
kept (`users`) and that a success may be remembered (`remembered`).

The work of a refusal: an unknown user costs one argon2id computation of our own parameters, by a stand-in. So does
a user of argon2id with these parameters, and, apart from microseconds, one whose form is of a scheme that takes no
longer. A user of another slow scheme, or with several slow forms, costs these and the stand-in, and can be told from
an unknown user by a clock that is good enough; upgrading the stored forms, or a limit on failed logins, is what
there is against it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import argon2

from authsvc.proof import crammd5, schemes
from authsvc.proof.schemes import ARGON2ID, CRAM_MD5, MAX_PASSWORD, PLAIN, StoredForm, StoredFormError

PREFIX: Final = f"{{{ARGON2ID}}}"
EXPECTED: Final = schemes.EXPECTED

# RFC 9106 section 4, second recommended option: 3 passes, 64 MiB, 4 lanes. The first takes 2 GiB a login.
PROFILE: Final = argon2.profiles.RFC_9106_LOW_MEMORY
# Stored forms of one user: a password, its CRAM-MD5 twin, and some passwords for single devices. Each slow one
# is a computation more for every wrong guess.
MAX_FORMS: Final = 8

NOT_ALLOWED: Final = "PLAIN is not allowed here; expected plain_passwords: true, or a hash"
# What cram-md5 and apop need stays as it is.
_KEPT: Final = frozenset({CRAM_MD5, PLAIN})


def is_stored_form(text: str) -> bool:
    """Whether `schemes.parse` takes it."""
    try:
        schemes.parse(text)
    except StoredFormError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Readable:
    """A user's stored forms as far as they can prove something. faults: why others cannot, for the log."""

    forms: tuple[tuple[str, StoredForm], ...]
    faults: tuple[str, ...] = ()


# Calls a function with a form and a password, and returns what it says.
Run = Callable[[Callable[[StoredForm, bytes], bool], StoredForm, bytes], bool]


def _here(work: Callable[[StoredForm, bytes], bool], form: StoredForm, password: bytes) -> bool:
    return work(form, password)


class Passwords:
    """Makes and checks stored passwords.

    parameters: the cost of new forms, and of the stand-in. plain: whether {PLAIN} proves anything.
    """

    def __init__(self, parameters: argon2.Parameters = PROFILE, *, plain: bool = False) -> None:
        self._hasher = argon2.PasswordHasher.from_parameters(parameters)
        self._work = parameters.memory_cost * parameters.time_cost
        self._plain = plain
        stand_in = self.make(secrets.token_bytes(16))
        self._stand_in = schemes.parse(stand_in)
        self._nobody = stand_in, crammd5.PREFIX + _CRAM_STAND_IN.value

    def make(self, password: bytes) -> str:
        """The stored form of a password, with a random salt. Takes as long as `verify`.

        Raises ValueError for one that is longer than MAX_PASSWORD, because none such is ever accepted.
        """
        if len(password) > MAX_PASSWORD:
            raise ValueError(f"a password of {len(password)} octets; at most {MAX_PASSWORD} are taken")
        return PREFIX + self._hasher.hash(password)

    @property
    def nobody(self) -> tuple[str, ...]:
        """Stored forms to do the work of the usual user with, where there is none. No password is behind them."""
        return self._nobody

    def read(self, stored: Sequence[str]) -> Readable:
        """Which of a user's stored forms can be checked, as they are stored and as they are read."""
        forms, faults = [], []
        for text in stored[:MAX_FORMS]:
            try:
                form = schemes.parse(text)
            except StoredFormError as error:
                faults.append(str(error))
                continue
            if form.scheme == PLAIN and not self._plain:
                faults.append(NOT_ALLOWED)
                continue
            forms.append((text, form))
        if len(stored) > MAX_FORMS:
            faults.append(f"{len(stored)} stored passwords; the first {MAX_FORMS} are tried")
        return Readable(tuple(forms), tuple(faults))

    def verify(self, stored: Sequence[str], password: bytes, run: Run = _here) -> str | None:
        """The stored form that `password` is behind, None if there is none. run: does the slow part of it elsewhere.

        That takes 50 to 200 ms of CPU and 64 MiB with PROFILE, also where `stored` is empty, as for an unknown user;
        what other schemes take is bounded by `schemes`.
        """
        # Looked at first, so that a refusal for the length does the work of an unknown user.
        readable = () if len(password) > MAX_PASSWORD else self.read(stored).forms
        forms = sorted(readable, key=lambda pair: not pair[1].quick)
        for text, form in forms:
            if schemes.matches(form, password) if form.quick else run(schemes.matches, form, password):
                return text
        if not any(form.scheme == CRAM_MD5 for _, form in forms):
            schemes.matches(_CRAM_STAND_IN, password)
        if not any(form.scheme == ARGON2ID and not self._is_outdated(form) for _, form in forms):
            run(schemes.matches, self._stand_in, password[:MAX_PASSWORD])
        return None

    def outdated(self, stored: Sequence[str]) -> bool:
        """Whether one of the forms should become argon2id of our parameters. Quick."""
        return any(self._is_outdated(form) for _, form in self.read(stored).forms)

    def upgraded(self, stored: Sequence[str], password: bytes) -> tuple[str, ...] | None:
        """The forms with the outdated ones that `password` is behind made new; None if there is none. Slow.

        Forms that cannot be read, or that are another password's, stay.
        """
        old = [t for t, f in self.read(stored).forms if self._is_outdated(f) and schemes.matches(f, password)]
        if not old:
            return None
        new = self.make(password)
        return tuple(new if text == old[0] else text for text in stored if text not in old[1:])

    def _is_outdated(self, form: StoredForm) -> bool:
        if form.scheme != ARGON2ID:
            return form.scheme not in _KEPT
        parameters = argon2.extract_parameters(form.value)
        return parameters.memory_cost * parameters.time_cost < self._work


_CRAM_STAND_IN: Final = StoredForm(CRAM_MD5, "0" * 64, quick=True)
