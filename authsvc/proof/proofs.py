"""What proves that a client is a user, method by method, over one request and one record.

Owns which stored forms each method takes, what may be remembered, and that a user who does not exist costs the same
work. Plain passwords are checked in the bulkhead's threads; the others take microseconds. Refuses to know limits,
routes, answers and where the record came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from authsvc.answer.contract import AuthRequest
from authsvc.proof import apop, crammd5, schemes
from authsvc.proof.bulkhead import Bulkhead
from authsvc.proof.methods import Methods
from authsvc.proof.passwords import Passwords, Readable
from authsvc.proof.remembered import Remembered
from authsvc.proof.schemes import CRAM_MD5
from authsvc.proof.subject import SubjectError, read_subject
from authsvc.proof.tokens import TokenError, Tokens
from authsvc.proof.upgrade import Upgrader
from authsvc.users.model import User

# What a protocol can ask for (reference/auth_http.md section 8); the last two only our own proxy sends.
METHODS: Final[Mapping[str, frozenset[str]]] = {
    "smtp": frozenset({"plain", "cram-md5", "external", "none", "xoauth2", "oauthbearer"}),
    "pop3": frozenset({"plain", "apop", "cram-md5", "external"}),
    "imap": frozenset({"plain", "cram-md5", "external"}),
}
TOKEN_METHODS: Final = frozenset({"xoauth2", "oauthbearer"})


class Proofs:
    """bulkhead: its threads do the slow work; the caller holds one of its slots. tokens: None closes the methods
    that need them. upgrader: None leaves old stored forms as they are.
    """

    def __init__(
        self,
        methods: Methods,
        passwords: Passwords,
        remembered: Remembered,
        bulkhead: Bulkhead,
        tokens: Tokens | None = None,
        upgrader: Upgrader | None = None,
    ) -> None:
        self._field = methods.external
        self._passwords = passwords
        self._remembered = remembered
        self._bulkhead = bulkhead
        self._tokens = tokens
        self._upgrader = upgrader
        closed = frozenset() if methods.plain_passwords else frozenset({"apop"})
        self._closed = closed if tokens is not None else closed | TOKEN_METHODS
        self._checks: Mapping[str, Callable[[AuthRequest, User | None], bool]] = {
            "plain": self._password_matches,
            "cram-md5": self._digest_matches,
            "apop": self._timestamp_matches,
            "external": self._certificate_matches,
            # By `name`, which gives nobody's for a token that is not good.
            "xoauth2": lambda request, user: user is not None,
            "oauthbearer": lambda request, user: user is not None,
        }

    def serves(self, protocol: str, method: str) -> bool:
        """Whether this method is offered in this protocol."""
        return method in METHODS.get(protocol, ()) and method not in self._closed

    def is_slow(self, method: str) -> bool:
        """Whether `check` takes a slot's worth of work."""
        return method == "plain"

    def claimed(self, request: AuthRequest) -> str | None:
        """Who the client says to be, for limits and log; None if it can be nobody."""
        if request.method != "external":
            return request.login
        try:
            name = read_subject(request.subject, self._field)
        except SubjectError:
            return None
        # RFC 4422 appendix A: an authorization identity may be given; acting for somebody else is not offered.
        asked = request.user.decode("utf-8", "replace")
        return name if asked in ("", name) else None

    def name(self, request: AuthRequest) -> tuple[str | None, str | None]:
        """The name to look up, None for nobody; and why a token was refused, for the log.

        Raises KeysUnavailableError.
        """
        if request.method not in TOKEN_METHODS or self._tokens is None:
            return self.claimed(request), None
        try:
            name = self._tokens.user(request.password)
        except TokenError as error:
            return None, str(error)
        # RFC 7628 section 3.1: the authorization identity may be left out.
        if request.user and request.login != name:
            return None, "token refused: it is another user's"
        return name, None

    def remembers(self, request: AuthRequest, user: User | None) -> bool:
        """Whether this very login was proven a short while ago.

        Not asked for a disabled user: answered sooner, a refusal would say that the password was right.
        """
        if request.method != "plain" or user is None or not user.enabled:
            return False
        return self._remembered.holds(user, request.password)

    def check(self, request: AuthRequest, user: User | None) -> bool:
        """Whether the request proves the user; False for None, after the same work."""
        return self._checks[request.method](request, user)

    def faults(self, user: User | None) -> str | None:
        """What is wrong with a user's stored forms, for the log."""
        return "; ".join(self._read(user).faults) or None

    def clear_password(self, user: User) -> str | None:
        """The user's {PLAIN}, where that is allowed."""
        clear = self._clear(user)
        return clear[0].decode("utf-8", "surrogateescape") if clear else None

    def _password_matches(self, request: AuthRequest, user: User | None) -> bool:
        stored = () if user is None else user.passwords
        proven = self._passwords.verify(stored, request.password, self._bulkhead.run)
        if proven is None or user is None:
            return False
        if user.enabled:
            self._remembered.add(user, request.password)
            if self._upgrader is not None:
                self._upgrader.consider(user, request.password)
        return True

    def _digest_matches(self, request: AuthRequest, user: User | None) -> bool:
        forms = self._read(user).forms
        stored: list[str | None] = [crammd5.PREFIX + form.value for _, form in forms if form.scheme == CRAM_MD5]
        stored += [crammd5.make(clear) for clear in self._clear(user)]
        matches = [crammd5.verify(one, request.salt, request.password) for one in stored or [None]]
        return any(matches) and user is not None

    def _timestamp_matches(self, request: AuthRequest, user: User | None) -> bool:
        clear: list[bytes | None] = [*self._clear(user)]
        return any(apop.verify(one, request.salt, request.password) for one in clear or [None])

    def _certificate_matches(self, request: AuthRequest, user: User | None) -> bool:
        # nginx passes on certificates that it could not verify (ssl_verify_client optional_no_ca), and lets
        # EXTERNAL through where it is not configured: reference/auth_http.md section 1.
        return request.tls and request.verify == "SUCCESS" and user is not None

    def _clear(self, user: User | None) -> list[bytes]:
        clear = (schemes.plain_password(form) for _, form in self._read(user).forms)
        return [one for one in clear if one is not None]

    def _read(self, user: User | None) -> Readable:
        """The user's stored forms. For nobody, too, there are some to read: it is a good part of a digest's work."""
        return self._passwords.read(self._passwords.nobody if user is None else user.passwords)
