from __future__ import annotations

from collections.abc import Callable

import argon2
import pytest

from authsvc.proof import crammd5, passwords, schemes
from authsvc.proof.passwords import MAX_FORMS, NOT_ALLOWED, Passwords, is_stored_form
from authsvc.proof.schemes import StoredForm

CHEAP = argon2.profiles.CHEAPEST
CRAM = crammd5.make(b"1234")
SSHA = "{SSHA}fA3ujFAeJB9vLS0DypkD0CK1pbwOQfMx"  # doveadm pw -s SSHA -p 1234
BCRYPT = "$2y$04$GENk/muDOhQ1LBK.sx3se.kBLbD6i3okFKgsOvOei9P8mx.c91mtS"  # doveadm pw -s BLF-CRYPT -r 4 -p 1234
WEAK = "$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$1UexDQN/TZayQt6ad1P45h3ch7cbOL+8CsFEzxAiuU0"  # argon2 -k 64 -t 2


@pytest.fixture(scope="module")
def cheap() -> Passwords:
    return Passwords(CHEAP)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The schemes of the forms that are checked from here on, in order."""
    seen: list[str] = []
    original = schemes.matches

    def matches(form: StoredForm, password: bytes) -> bool:
        seen.append(form.scheme)
        return original(form, password)

    monkeypatch.setattr(schemes, "matches", matches)
    return seen


def test_verifies_what_it_made(cheap: Passwords) -> None:
    stored = cheap.make(b"p\x00\xff ss")
    assert is_stored_form(stored)
    assert cheap.verify((stored,), b"p\x00\xff ss") == stored
    assert cheap.verify((stored,), b"p\x00\xff s") is None
    assert cheap.verify((stored,), b"") is None


def test_any_of_the_forms_will_do_and_it_is_told_which(cheap: Passwords) -> None:
    mine, phone = cheap.make(b"mine"), cheap.make(b"phone")
    stored = (mine, phone, SSHA, BCRYPT)
    assert cheap.verify(stored, b"mine") == mine
    assert cheap.verify(stored, b"phone") == phone
    assert cheap.verify(stored, b"1234") == SSHA
    assert cheap.verify((mine, BCRYPT), b"1234") == BCRYPT
    assert cheap.verify(stored, b"other") is None


def test_salts_differ(cheap: Passwords) -> None:
    assert cheap.make(b"1234") != cheap.make(b"1234")


def test_a_password_that_could_never_be_used_is_not_stored(cheap: Passwords) -> None:
    longest = b"x" * 512
    assert cheap.verify((cheap.make(longest),), longest) is not None
    with pytest.raises(ValueError, match="a password of 513 octets; at most 512 are taken"):
        cheap.make(longest + b"x")


# --- the work of a refusal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", [b"", b"1234", b"x" * 10_000])
def test_no_password_fits_nobody(cheap: Passwords, password: bytes) -> None:
    assert cheap.verify((), password) is None


@pytest.mark.parametrize(
    ("stored", "work"),
    [
        ((), ["CRAM-MD5", "ARGON2ID"]),
        ((CRAM,), ["CRAM-MD5", "ARGON2ID"]),
        ((WEAK, CRAM), ["CRAM-MD5", "ARGON2ID"]),
        ((WEAK,), ["ARGON2ID", "CRAM-MD5"]),
        ((SSHA,), ["SSHA", "CRAM-MD5", "ARGON2ID"]),
        # These can be told from nobody: see the module.
        ((BCRYPT,), ["BLF-CRYPT", "CRAM-MD5", "ARGON2ID"]),
        ((WEAK, WEAK), ["ARGON2ID", "ARGON2ID", "CRAM-MD5"]),
    ],
)
def test_a_wrong_password_costs_what_an_unknown_user_costs(
    cheap: Passwords, checked: list[str], stored: tuple[str, ...], work: list[str]
) -> None:
    assert cheap.verify(stored, b"wrong") is None
    assert checked == work


@pytest.mark.parametrize(
    ("stored", "slow"),
    [
        ((), ["ARGON2ID"]),
        ((SSHA, CRAM), ["ARGON2ID"]),
        ((BCRYPT,), ["BLF-CRYPT", "ARGON2ID"]),
        ((WEAK,), ["ARGON2ID"]),
    ],
)
def test_only_what_takes_long_is_done_elsewhere(cheap: Passwords, stored: tuple[str, ...], slow: list[str]) -> None:
    elsewhere: list[str] = []

    def run(work: Callable[[StoredForm, bytes], bool], form: StoredForm, password: bytes) -> bool:
        elsewhere.append(form.scheme)
        return work(form, password)

    assert cheap.verify(stored, b"wrong", run) is None
    assert elsewhere == slow


@pytest.mark.parametrize("length", [0, 8, 512, 513, 10_000])
def test_the_length_of_a_password_does_not_tell_users_from_others(
    cheap: Passwords, checked: list[str], monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    computed: list[int] = []
    original = argon2.PasswordHasher.verify

    def verify(self: argon2.PasswordHasher, hashed: str, password: bytes) -> bool:
        computed.append(argon2.extract_parameters(hashed).memory_cost)
        return original(self, hashed, password)

    stored = cheap.make(b"1234")
    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    cheap.verify((stored,), b"x" * length)
    known, computed[:] = list(computed), []
    cheap.verify((), b"x" * length)
    assert known == computed == [CHEAP.memory_cost]


def test_the_right_password_of_a_quick_form_is_found_first(cheap: Passwords, checked: list[str]) -> None:
    assert cheap.verify((WEAK, BCRYPT, CRAM), b"1234") == CRAM
    assert checked == ["CRAM-MD5"]


def test_the_profile_is_that_of_rfc_9106() -> None:
    profile = passwords.PROFILE
    assert profile.type is argon2.Type.ID
    assert (profile.time_cost, profile.memory_cost, profile.parallelism) == (3, 65536, 4)
    assert (profile.hash_len, profile.salt_len) == (32, 16)


# --- which forms prove something ------------------------------------------------------------------------------


def test_plain_proves_only_where_it_is_asked_for(cheap: Passwords) -> None:
    assert cheap.verify(("{PLAIN}1234",), b"1234") is None
    assert cheap.read(("{PLAIN}1234",)).faults == (NOT_ALLOWED,)
    allowed = Passwords(CHEAP, plain=True)
    assert allowed.verify(("{PLAIN}1234",), b"1234") == "{PLAIN}1234"
    assert allowed.read(("{PLAIN}1234",)).faults == ()


def test_what_cannot_be_read_proves_nothing_and_stands_in_nobodys_way(cheap: Passwords) -> None:
    stored = ("hunter2", BCRYPT.replace("$04$", "$31$"), SSHA)
    assert cheap.verify(stored, b"hunter2") is None
    assert cheap.verify(stored, b"1234") == SSHA
    faults = cheap.read(stored).faults
    assert len(faults) == 2
    assert faults[1] == "bcrypt cost: 31 is too much work for a login; at most 14 is taken"
    assert "hunter2" not in repr(cheap.read(stored))


def test_the_work_of_one_login_is_bounded(cheap: Passwords, checked: list[str]) -> None:
    stored = (BCRYPT,) * 20 + (SSHA,)
    assert cheap.verify(stored, b"wrong") is None
    assert checked.count("BLF-CRYPT") == MAX_FORMS
    assert cheap.read(stored).faults == ("21 stored passwords; the first 8 are tried",)


@pytest.mark.parametrize("text", ["", "1234", "{ARGON2ID}", "{ARGON2ID}1234"])
def test_other_forms_are_refused(text: str) -> None:
    assert not is_stored_form(text)


@pytest.mark.parametrize("text", [CRAM, SSHA, BCRYPT, WEAK, "{PLAIN}1234"])
def test_known_forms_are_taken(text: str) -> None:
    assert is_stored_form(text)


# --- upgrades -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "outdated"),
    [
        ((), False),
        ((SSHA,), True),
        ((BCRYPT,), True),
        ((WEAK,), True),
        ((CRAM,), False),
        (("{PLAIN}1234",), False),
        (("nonsense",), False),
        ((CRAM, SSHA), True),
    ],
)
def test_which_forms_are_outdated(stored: tuple[str, ...], outdated: bool) -> None:
    ours = Passwords(argon2.Parameters(argon2.Type.ID, 19, 16, 32, 2, 65, 1), plain=True)
    assert ours.outdated(stored) is outdated
    assert not ours.outdated((ours.make(b"1234"),))


def test_a_stronger_form_than_ours_stays(cheap: Passwords) -> None:
    assert not cheap.outdated((WEAK,))


def test_the_forms_of_the_password_become_one_and_the_others_stay(cheap: Passwords) -> None:
    other = "{SSHA256}0S9BPZQ27WrLzARJMSf2Hs24ZrlAldxfGkZrOasXU9wxUumv"
    forms = cheap.upgraded((CRAM, SSHA, other, BCRYPT, "nonsense"), b"1234")
    assert forms is not None
    new = forms[1]
    assert forms == (CRAM, new, other, "nonsense")
    assert new.startswith("{ARGON2ID}$argon2id$")
    assert cheap.verify((new,), b"1234") == new


def test_nothing_to_upgrade(cheap: Passwords) -> None:
    assert cheap.upgraded((CRAM, cheap.make(b"1234")), b"1234") is None
    assert cheap.upgraded((SSHA,), b"another device's") is None
