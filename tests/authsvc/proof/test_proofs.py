"""proofs.py by itself; that each method lets the right client in is in test_service.py."""

from __future__ import annotations

from dataclasses import replace

import argon2
import pytest
from logins import Tokens, apop, cram, external, oauth, plain

from authsvc.proof import apop as apop_module
from authsvc.proof import crammd5, md5state
from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.methods import Methods
from authsvc.proof.passwords import Passwords
from authsvc.proof.proofs import Proofs
from authsvc.proof.remembered import Remembered
from authsvc.users.model import User

CRAM = crammd5.make(b"1234")


@pytest.fixture
def make(clock, bulkhead: Bulkhead):
    """A function from settings to Proofs."""

    def make(*, plain_passwords: bool = True, tokens: Tokens | None = None) -> Proofs:
        methods = Methods(plain_passwords=plain_passwords)
        passwords = Passwords(argon2.profiles.CHEAPEST, plain=plain_passwords)
        return Proofs(methods, passwords, Remembered(clock, 300.0, b"k" * 64), bulkhead, tokens)

    return make


@pytest.mark.parametrize(
    ("protocol", "served"),
    [
        ("smtp", {"plain", "cram-md5", "external", "none", "xoauth2", "oauthbearer"}),
        ("pop3", {"plain", "apop", "cram-md5", "external"}),
        ("imap", {"plain", "cram-md5", "external"}),
        ("http", set()),
    ],
)
def test_what_each_protocol_may_ask_for(make, protocol: str, served: set[str]) -> None:
    every = {"plain", "apop", "cram-md5", "external", "none", "xoauth2", "oauthbearer", "login", ""}
    everything = make(tokens=Tokens())
    assert {method for method in every if everything.serves(protocol, method)} == served
    little = make(plain_passwords=False)
    assert {m for m in every if little.serves(protocol, m)} == served - {"apop", "xoauth2", "oauthbearer"}


def test_only_hashing_is_slow(make) -> None:
    proofs = make()
    slow = [m for m in ("plain", "cram-md5", "apop", "external", "xoauth2", "oauthbearer") if proofs.is_slow(m)]
    assert slow == ["plain"]


def test_only_plain_is_remembered_and_only_for_who_may_log_in(make, bulkhead: Bulkhead) -> None:
    proofs, user = make(), User("test", ("{PLAIN}1234",))
    for request in (plain(), cram(), apop(b"test")):
        with bulkhead.attempt("a"):
            assert proofs.check(request, user)
    assert proofs.remembers(plain(), user)
    assert not proofs.remembers(plain(), None)
    assert not proofs.remembers(plain(), replace(user, enabled=False))
    assert not proofs.remembers(replace(plain(), method="external"), user)
    assert not proofs.remembers(plain(password=b"12345"), user)


def test_the_right_password_of_a_disabled_user_is_not_remembered(make, bulkhead: Bulkhead) -> None:
    proofs, user = make(), User("test", ("{PLAIN}1234",))
    with bulkhead.attempt("a"):
        assert proofs.check(plain(), replace(user, enabled=False))
    assert not proofs.remembers(plain(), user)


@pytest.mark.parametrize("request_", [plain(), cram(), apop(), external(), oauth()])
def test_nobody_is_proven(make, bulkhead: Bulkhead, request_) -> None:
    with bulkhead.attempt("a"):
        assert not make(tokens=Tokens()).check(request_, None)


def test_nobody_is_proven_by_the_digest_of_a_state_that_everyone_knows(make) -> None:
    """What stands in for nobody's hash is no secret: whoever reads the source can answer challenges for it."""
    salt = b"<1.2@mail.example.com>"
    zeros = (0, 0, 0, 0)
    once = md5state.finish(zeros, salt, before=64)
    digest = md5state.finish(zeros, once, before=64).hex().encode()
    assert crammd5.verify(crammd5.PREFIX + "0" * 64, salt, digest)
    assert not make().check(replace(cram(b"nobody"), salt=salt, password=digest), None)


@pytest.mark.parametrize(
    ("passwords", "compared"),
    [((), 1), (("{SSHA}fA3ujFAeJB9vLS0DypkD0CK1pbwOQfMx",), 1), ((CRAM,), 1), (("{PLAIN}x",), 1), ((CRAM, CRAM), 2)],
)
def test_a_wrong_digest_is_compared_with_something_in_any_case(
    make, monkeypatch: pytest.MonkeyPatch, passwords: tuple[str, ...], compared: int
) -> None:
    calls: list[object] = []
    original = crammd5.verify

    def verify(stored: str | None, challenge: bytes, digest: bytes) -> bool:
        calls.append(stored)
        return original(stored, challenge, digest)

    monkeypatch.setattr(crammd5, "verify", verify)
    assert not make().check(cram(password=b"wrong"), User("test", passwords))
    assert len(calls) == compared


def test_a_wrong_timestamp_is_compared_with_something_in_any_case(make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(apop_module, "verify", lambda password, *_: calls.append(password))
    for user in (None, User("test", (CRAM,)), User("test", ("{PLAIN}x",))):
        make().check(apop(), user)
    assert calls == [None, None, b"x"]


def test_one_password_of_several_answers_a_challenge(make) -> None:
    user = User("test", (crammd5.make(b"other"), "{PLAIN}third", CRAM))
    for password in (b"1234", b"other", b"third"):
        assert make().check(cram(password=password), user)
    assert not make(plain_passwords=False).check(cram(password=b"third"), user)


def test_a_token_is_looked_at_for_the_name(make) -> None:
    proofs = make(tokens=Tokens())
    assert proofs.name(oauth()) == ("test", None)
    assert proofs.name(oauth(user=b"")) == ("test", None)
    assert proofs.name(oauth(user=b"other")) == (None, "token refused: it is another user's")
    assert proofs.name(oauth(b"bad")) == (None, "token refused: bad_signature")
    assert proofs.name(plain()) == ("test", None)


def test_the_clear_password_of_a_user(make) -> None:
    clear = User("test", (CRAM, "{PLAIN}1234"))
    assert make().clear_password(clear) == "1234"
    assert make(plain_passwords=False).clear_password(clear) is None
    assert make().clear_password(User("test", (CRAM,))) is None


def test_what_is_wrong_with_stored_forms(make) -> None:
    proofs = make(plain_passwords=False)
    assert proofs.faults(None) is None
    assert proofs.faults(User("test", (CRAM,))) is None
    assert proofs.faults(User("test", ("{PLAIN}1234",))) == (
        "PLAIN is not allowed here; expected plain_passwords: true, or a hash"
    )
