"""Bearer tokens of XOAUTH2 and OAUTHBEARER: a JWT (RFC 7519) checked against an issuer, an audience and its keys.

Owns which claims are looked at (the rules of RFC 8725 that concern a resource server) and what is said of a token
that does not pass; nothing of the token is in it. Signatures and claims are joserfc's work, keys are `jwks`'s.
Refuses to know users: the claim that names one may name nobody.
"""

from __future__ import annotations

from typing import Final

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from authsvc.answer.contract import is_user_name
from authsvc.proof.jwks import Jwks
from authsvc.proof.methods import OAuth
from smtpgate.clock import Clock

# Octets: what our proxy takes (smtpgate.smtp.sasl.MAX_TOKEN), and nginx's and gunicorn's lines allow.
MAX_TOKEN: Final = 8000
# Seconds between our clock and the issuer's. RFC 7519 section 4.1.4: "usually no more than a few minutes".
CLOCK_SKEW: Final = 30


class TokenError(Exception):
    """The token proves nothing. `str()` is for the log, not for the client."""


class Tokens:
    """Says whose token it is. May wait while keys are fetched."""

    def __init__(self, oauth: OAuth, keys: Jwks, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._claim = oauth.user_claim
        # RFC 7515 section 4: header parameters that are not understood are ignored; `crit` is still obeyed.
        self._registry = JWSRegistry(algorithms=oauth.algorithms, strict_check_header=False)
        self._rules: dict[str, jwt.ClaimsOption] = {
            "iss": {"essential": True, "value": oauth.issuer},
            "aud": {"essential": True, "values": list(oauth.audiences)},
            # RFC 7519 leaves it to us; a token that is good for ever is a password.
            "exp": {"essential": True},
        }

    def user(self, token: bytes) -> str:
        """The name in the user claim of a good token. Raises TokenError, KeysUnavailableError."""
        if len(token) > MAX_TOKEN:
            raise TokenError(f"token of {len(token)} octets; at most {MAX_TOKEN} are taken")
        try:
            claims = self._decode(token).claims
            # A registry for each token: it holds the time.
            jwt.JWTClaimsRegistry(now=int(self._clock.now()), leeway=CLOCK_SKEW, **self._rules).validate(claims)
        except JoseError as error:
            # The class and its code; descriptions may quote the token.
            raise TokenError(f"token refused: {error.error or type(error).__name__}{_claim_of(error)}") from None
        except (ValueError, TypeError, RecursionError):
            raise TokenError("token refused: not a JWT") from None
        name = claims.get(self._claim)
        if not isinstance(name, str) or not is_user_name(name):
            raise TokenError(f"token refused: its claim {self._claim} is not a user's name")
        if self._claim == "email" and claims.get("email_verified") is False:
            # OpenID Connect Core section 5.7: anyone can have typed it.
            raise TokenError("token refused: its email is not verified")
        return name

    def _decode(self, token: bytes) -> jwt.Token:
        try:
            return self._with(self._keys.keys(), token)
        except InvalidKeyIdError:
            if not self._keys.renew():
                raise
            return self._with(self._keys.keys(), token)

    def _with(self, keys: KeySet, token: bytes) -> jwt.Token:
        return jwt.decode(token, keys, registry=self._registry)


def _claim_of(error: JoseError) -> str:
    claim = getattr(error, "claim", None)
    return f" ({claim})" if isinstance(claim, str) else ""
