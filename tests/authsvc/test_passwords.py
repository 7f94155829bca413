from __future__ import annotations

import argon2
import pytest

from authsvc import crammd5, passwords
from authsvc.passwords import Passwords, is_stored_form

CHEAP = argon2.profiles.CHEAPEST


@pytest.fixture(scope="module")
def cheap() -> Passwords:
    return Passwords(CHEAP)


def test_verifies_what_it_made(cheap: Passwords) -> None:
    stored = cheap.make(b"p\x00\xff ss")
    assert is_stored_form(stored)
    assert cheap.verify(stored, b"p\x00\xff ss")
    assert not cheap.verify(stored, b"p\x00\xff s")
    assert not cheap.verify(stored, b"")


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(
            "{ARGON2ID}$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$1UexDQN/TZayQt6ad1P45h3ch7cbOL+8CsFEzxAiuU0",
            id="echo -n 1234 | argon2 saltsalt -id -t 2 -k 64 -p 1 -e",
        ),
        pytest.param(
            "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$KIP1lQwxZhNEVn4oh5BElg$"
            "u7iT8SFAqv53XItQa0dbdiL7a6E0rv0DxT+VOI6b2dk",
            id="doveadm pw -s ARGON2ID -p 1234",
        ),
    ],
)
def test_verifies_what_other_programs_made(cheap: Passwords, stored: str) -> None:
    assert is_stored_form(stored)
    assert cheap.verify(stored, b"1234")
    assert not cheap.verify(stored, b"12345")


def test_salts_differ(cheap: Passwords) -> None:
    assert cheap.make(b"1234") != cheap.make(b"1234")


@pytest.mark.parametrize("password", [b"", b"1234", b"x" * 10_000])
def test_no_password_fits_nobody(cheap: Passwords, password: bytes) -> None:
    assert not cheap.verify(None, password)


def test_nobody_costs_the_same_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[argon2.Parameters] = []
    original = argon2.PasswordHasher.verify

    def verify(self: argon2.PasswordHasher, hashed: str, password: bytes) -> bool:
        checked.append(argon2.extract_parameters(hashed))
        return original(self, hashed, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    service = Passwords(CHEAP)
    service.verify(service.make(b"1234"), b"wrong")
    service.verify(None, b"wrong")
    assert checked[0] == checked[1]


def test_the_profile_is_that_of_rfc_9106() -> None:
    profile = passwords.PROFILE
    assert profile.type is argon2.Type.ID
    assert (profile.time_cost, profile.memory_cost, profile.parallelism) == (3, 65536, 4)
    assert (profile.hash_len, profile.salt_len) == (32, 16)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1234",
        "{ARGON2ID}",
        "{ARGON2ID}1234",
        "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaA",
        "{argon2id}$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaA",
        "{ARGON2ID}$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaA",
        "{PLAIN}1234",
        crammd5.make(b"1234"),
    ],
)
def test_other_forms_are_refused(cheap: Passwords, text: str) -> None:
    assert not is_stored_form(text)
    assert not cheap.verify(text, b"1234")
