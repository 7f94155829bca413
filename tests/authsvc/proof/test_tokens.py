from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from authsvc.proof.jwks import Jwks, KeysUnavailableError
from authsvc.proof.methods import OAuth
from authsvc.proof.tokens import CLOCK_SKEW, MAX_TOKEN, TokenError, Tokens

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"})
ROTATED = ECKey.generate_key("P-256", {"kid": "rotated"})
ISSUER = "https://login.example.com/"
OAUTH = OAuth(ISSUER, ("mail", "smtp"), "https://login.example.com/jwks")
NOW = 1_790_000_000
CLAIMS = {"iss": ISSUER, "aud": "mail", "exp": NOW + 3600, "iat": NOW, "email": "test@example.com"}


class Published:
    """What the issuer's URL gives."""

    def __init__(self, *keys: RSAKey | ECKey) -> None:
        self.keys = keys

    def __call__(self) -> bytes:
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()


@pytest.fixture
def published() -> Published:
    return Published(RSA, EC)


@pytest.fixture
def tokens(published: Published, clock, journal) -> Tokens:
    clock.time = float(NOW)
    return Tokens(OAUTH, Jwks(published, clock, journal, source="x", lifetime=300.0), clock)


def signed(claims: dict[str, object] | None = None, *, key=RSA, alg: str = "RS256", **header: object) -> bytes:
    claims = CLAIMS if claims is None else claims
    header = {"alg": alg, "kid": key.kid} | header
    return jwt.encode({k: v for k, v in header.items() if v is not None}, claims, key, algorithms=[alg]).encode()


def encoded(*parts: object) -> bytes:
    """Parts of a token that no library would sign."""
    raw = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in raw)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(), id="RS256"),
        pytest.param(signed(key=EC, alg="ES256"), id="ES256"),
        pytest.param(signed(CLAIMS | {"aud": ["other", "smtp"]}), id="one of several audiences"),
        pytest.param(signed(CLAIMS | {"exp": NOW - CLOCK_SKEW + 1}), id="our clock is ahead"),
        pytest.param(signed(CLAIMS | {"iat": NOW + CLOCK_SKEW, "nbf": NOW + CLOCK_SKEW}), id="their clock is ahead"),
        pytest.param(signed(typ="at+jwt"), id="access token of RFC 9068"),
        pytest.param(signed(CLAIMS | {"email_verified": True, "roles": ["a"], "x": {"y": None}}), id="more claims"),
    ],
)
def test_a_good_token_says_whose_it_is(tokens: Tokens, token: bytes) -> None:
    assert tokens.user(token) == "test@example.com"


def test_header_parameters_that_are_not_understood_are_ignored(tokens: Tokens) -> None:
    header = {"alg": "RS256", "kid": "rsa", "nonce": "x", "x5t": "AAAA"}
    signing = encoded(header, CLAIMS)
    signature = RSA.private_key.sign(signing, padding.PKCS1v15(), hashes.SHA256())
    assert tokens.user(signing + b"." + encoded(signature)) == "test@example.com"


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in CLAIMS.items() if key != name}


PUBLIC_PEM = RSA.as_pem(private=False)
HMAC_HEADER = encoded({"alg": "HS256", "kid": "rsa"}, CLAIMS)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (signed(CLAIMS | {"exp": NOW - CLOCK_SKEW}), "expired_token (exp)"),
        (signed(CLAIMS | {"exp": "tomorrow"}), "invalid_claim (exp)"),
        (signed(without("exp")), "missing_claim (exp)"),
        (signed(CLAIMS | {"nbf": NOW + CLOCK_SKEW + 1}), "invalid_claim (nbf)"),
        (signed(CLAIMS | {"iat": NOW + CLOCK_SKEW + 1}), "invalid_claim (iat)"),
        (signed(CLAIMS | {"iss": "https://login.example.com"}), "invalid_claim (iss)"),
        (signed(without("iss")), "missing_claim (iss)"),
        (signed(CLAIMS | {"aud": "other"}), "invalid_claim (aud)"),
        (signed(CLAIMS | {"aud": []}), "invalid_claim (aud)"),
        (signed(without("aud")), "missing_claim (aud)"),
        (signed(key=STRANGER), "bad_signature"),
        (signed()[:-8] + b"AAAAAAAA", "bad_signature"),
        (signed().rpartition(b".")[0] + b".", "bad_signature"),
        (signed(alg="RS512"), "unsupported_algorithm"),
        (signed(alg="PS256"), "unsupported_algorithm"),
        (encoded({"alg": "none"}, CLAIMS) + b".", "unsupported_algorithm"),
        (encoded({"alg": "NONE", "kid": "rsa"}, CLAIMS) + b".", "unsupported_algorithm"),
        # The oldest trick: the public key as the secret of an HMAC.
        (
            HMAC_HEADER + b"." + encoded(hmac.digest(PUBLIC_PEM, HMAC_HEADER, hashlib.sha256)),
            "unsupported_algorithm",
        ),
        (signed(kid="ec"), "invalid_key"),
        (signed(kid="gone"), "invalid_key_id"),
        (signed(kid=None), "invalid_key_id"),
        (signed(kid="../../etc/passwd"), "invalid_key_id"),
    ],
)
def test_what_is_said_of_a_bad_one(tokens: Tokens, token: bytes, message: str) -> None:
    with pytest.raises(TokenError) as caught:
        tokens.user(token)
    assert str(caught.value).startswith(f"token refused: {message}")


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b".",
        b"..",
        b"...",
        b"....",
        b"1234",
        b"\xff\xfe.\xff.\xff",
        b"\x00",
        b"!.!.!",
        b"." * MAX_TOKEN,
        b"A" * MAX_TOKEN,
        encoded(b"[" * 3000, CLAIMS) + b".AAAA",
        encoded([], CLAIMS) + b".AAAA",
        encoded({"alg": 1, "kid": "rsa"}, CLAIMS) + b".AAAA",
        encoded({"alg": ["RS256"], "kid": "rsa"}, CLAIMS) + b".AAAA",
        encoded({"alg": "RS256", "kid": {"a": 1}}, CLAIMS) + b".AAAA",
        encoded({"alg": "RS256", "kid": "rsa", "crit": ["exp"]}, CLAIMS) + b".AAAA",
        encoded({"alg": "RS256", "kid": "rsa", "b64": False, "crit": ["b64"]}, CLAIMS) + b".AAAA",
        encoded({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "rsa"}) + b".A.A.A.A",
    ],
    ids=lambda token: repr(token)[:30],
)
def test_what_is_no_token_is_refused_and_not_repeated(tokens: Tokens, token: bytes) -> None:
    with pytest.raises(TokenError) as caught:
        tokens.user(token)
    assert str(caught.value).startswith("token refused: ")
    assert "passwd" not in str(caught.value)


def test_a_token_beyond_what_a_line_may_hold(tokens: Tokens) -> None:
    with pytest.raises(TokenError, match="token of 8001 octets; at most 8000 are taken"):
        tokens.user(b"x" * 8001)


@pytest.mark.parametrize("email", [None, "", 7, ["test@example.com"], "a\r\nb", "x" * 321, " test", {"a": 1}])
def test_a_claim_that_names_nobody(tokens: Tokens, email: object) -> None:
    with pytest.raises(TokenError, match="its claim email is not a user's name"):
        tokens.user(signed(CLAIMS | {"email": email}))


def test_an_email_that_the_issuer_did_not_verify(tokens: Tokens) -> None:
    with pytest.raises(TokenError, match="its email is not verified"):
        tokens.user(signed(CLAIMS | {"email_verified": False}))


def test_payloads_that_are_no_claims(tokens: Tokens) -> None:
    for payload in (b"[]", b"1", b"\xff", b"{", b'{"exp":' + b"9" * 5000 + b"}"):
        token = jws.serialize_compact({"alg": "RS256", "kid": "rsa"}, payload, RSA).encode()
        with pytest.raises(TokenError):
            tokens.user(token)


def test_the_claim_is_the_operators_choice(published: Published, clock, journal) -> None:
    clock.time = float(NOW)
    oauth = OAuth(ISSUER, ("mail",), "x", user_claim="sub", algorithms=("ES256",))
    tokens = Tokens(oauth, Jwks(published, clock, journal, source="x", lifetime=300.0), clock)
    assert tokens.user(signed(CLAIMS | {"sub": "test"}, key=EC, alg="ES256")) == "test"
    with pytest.raises(TokenError, match="unsupported_algorithm"):
        tokens.user(signed(CLAIMS | {"sub": "test"}))


# --- keys -----------------------------------------------------------------------------------------------------


def test_a_rotated_key_is_fetched(tokens: Tokens, published: Published, clock) -> None:
    tokens.user(signed())
    published.keys = (RSA, ROTATED)
    token = signed(key=ROTATED, alg="ES256")
    with pytest.raises(TokenError, match="invalid_key_id"):
        tokens.user(token)
    clock.sleep(10)
    assert tokens.user(token) == "test@example.com"


def test_a_key_that_is_gone_is_gone(tokens: Tokens, published: Published, clock) -> None:
    tokens.user(signed())
    published.keys = (EC,)
    clock.sleep(300)
    with pytest.raises(TokenError, match="invalid_key_id"):
        tokens.user(signed())


def test_with_one_key_a_token_need_not_name_it(clock, journal) -> None:
    clock.time = float(NOW)
    tokens = Tokens(OAUTH, Jwks(Published(RSA), clock, journal, source="x", lifetime=300.0), clock)
    assert tokens.user(signed(kid=None)) == "test@example.com"


def test_without_keys_nothing_is_known_of_a_token(published: Published, tokens: Tokens) -> None:
    published.keys = ()
    with pytest.raises(KeysUnavailableError, match="no keys from x: no key for signatures among the keys"):
        tokens.user(signed())


def test_keys_are_public_ones_alone() -> None:
    assert "d" not in json.loads(Published(RSA)())["keys"][0]
    assert KeySet([RSA]).keys[0].is_private
