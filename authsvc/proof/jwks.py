"""The issuer's public keys: a JWKS (RFC 7517 section 5) from a file or a URL, read anew as time goes by.

Owns when it is fetched, what stays in force while it cannot be, and which keys are taken: public ones for signatures
alone. Refuses to know tokens. Where it comes from is handed in as a function; `fetch_url` is the one for URLs.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gevent import Timeout
from gevent.lock import BoundedSemaphore
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet, OctKey, RSAKey

from smtpgate.clock import Clock
from smtpgate.journal import Journal

# Octets. A key is half a KiB, with its certificates 4; issuers publish a few.
MAX_TEXT: Final = 256 * 1024
MAX_KEYS: Final = 64
# RFC 7518 section 3.3, and what that many bits are in base64url.
MIN_RSA_BITS: Final = 2048
_MIN_MODULUS: Final = math.ceil(MIN_RSA_BITS / 6)
# Seconds, all together. Our proxy waits 10 s for an answer, and this is a part of it.
FETCH_TIMEOUT: Final = 3.0
# Seconds for which keys from a URL are not asked for again, and for which a file is not looked at again: an edit is
# in force within 2 s, as everything that is read live.
URL_LIFETIME: Final = 300.0
FILE_LIFETIME: Final = 1.0
# A token with a key's name that is not known makes the keys be fetched earlier, because issuers rotate them; but not
# oftener than this, because anyone can make up a name. The same after a failure.
MIN_INTERVAL: Final = 10.0
# Keys that can no longer be fetched are good for so long: an issuer's bad day is not ours.
MAX_STALE: Final = 86_400.0


class FetchError(Exception):
    """The keys could not be read. `str()` is for the log."""


class KeysUnavailableError(Exception):
    """There are no keys to check a token with; nothing is known of the token. `str()` is for the log."""


def fetch_url(url: str) -> bytes:
    """What a GET gives, at most MAX_TEXT octets, within FETCH_TIMEOUT. Raises FetchError. Follows no redirects: who
    may name the keys is who is configured. Certificates are checked against the system's (or SSL_CERT_FILE's).
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=FETCH_TIMEOUT, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=FETCH_TIMEOUT)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        with Timeout(FETCH_TIMEOUT, FetchError(f"no answer in {FETCH_TIMEOUT:g} s")):
            connection.request("GET", target, headers={"Accept": "application/jwk-set+json, application/json"})
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise FetchError(f"answered with status {response.status}; expected 200")
            return response.read(MAX_TEXT + 1)
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"cannot be fetched: {_reason(error)}") from None
    finally:
        connection.close()


def read_file(path: Path) -> bytes:
    """At most MAX_TEXT + 1 octets of a file. Raises FetchError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT + 1)
    except OSError as error:
        raise FetchError(f"cannot be read: {error.strerror or type(error).__name__}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "timed out"
    return str(error) or type(error).__name__


def read_keys(text: bytes) -> KeySet:
    """The keys in a JWKS that can check a signature. Raises FetchError.

    Left out are: keys for encryption, symmetric ones, RSA below MIN_RSA_BITS, types that joserfc does not know.
    """
    if len(text) > MAX_TEXT:
        raise FetchError(f"more than {MAX_TEXT} octets")
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FetchError('not a JWKS; expected {"keys": [...]}') from None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise FetchError(f"not a JWKS; expected a list of at most {MAX_KEYS} keys")
    keys = [key for key in map(_key, entries) if key is not None]
    if not keys:
        raise FetchError("no key for signatures among the keys")
    return KeySet(keys)


def _key(entry: Any) -> Key | None:
    # RFC 7517 section 5: what is not understood is left out.
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") == OctKey.key_type:
        return None
    if entry.get("kty") == RSAKey.key_type and len(str(entry.get("n"))) < _MIN_MODULUS:
        # Before joserfc sees it, which prints a warning of its own.
        return None
    try:
        return JWKRegistry.import_key(entry)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


class Jwks:
    """The keys in force. Asking may wait for a fetch; one runs at a time.

    fetch: the text; raises FetchError. lifetime: seconds for which a fetch holds. source: for the log.
    """

    def __init__(
        self, fetch: Callable[[], bytes], clock: Clock, journal: Journal, *, source: str, lifetime: float
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._journal = journal
        self._source = source
        self._lifetime = lifetime
        self._one = BoundedSemaphore(1)
        self._keys: KeySet | None = None
        self._text: bytes | None = None
        self._fault: str | None = None
        # Monotonic: when the last fetch that worked ended, and when the last one did that worked or not.
        self._good = self._tried = -math.inf

    @property
    def valid(self) -> bool:
        """Whether the last fetch, if there was one, gave keys."""
        return self._fault is None

    def load(self) -> None:
        """Fetch now; what is wrong is in the log."""
        self._update(wait=True)

    def keys(self) -> KeySet:
        """Raises KeysUnavailableError."""
        interval = self._lifetime if self._fault is None else min(self._lifetime, MIN_INTERVAL)
        if self._clock.monotonic() - self._tried >= interval:
            # While there are old keys, only the one who fetches waits.
            self._update(wait=self._keys is None)
        if self._keys is None or self._clock.monotonic() - self._good > max(MAX_STALE, self._lifetime):
            raise KeysUnavailableError(f"no keys from {self._source}: {self._fault}")
        return self._keys

    def renew(self) -> bool:
        """A key was not among them: fetch, if that is not too soon. Whether there is something new."""
        before = self._text
        if self._clock.monotonic() - self._tried >= min(self._lifetime, MIN_INTERVAL):
            self._update(wait=True)
        return self._text != before

    def _update(self, *, wait: bool) -> None:
        """Fetch, unless another greenlet does; then wait for it to end, or not."""
        before = self._tried
        if not self._one.acquire(blocking=wait):
            return
        try:
            if self._tried == before:
                self._load()
        finally:
            self._one.release()

    def _load(self) -> None:
        try:
            text = self._fetch()
            if text != self._text:
                self._keys = read_keys(text)
                self._text = text
                self._journal.info("oauth_keys_loaded", source=self._source, keys=len(self._keys.keys))
            self._fault = None
            self._good = self._clock.monotonic()
        except FetchError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                self._journal.error("oauth_keys_rejected", source=self._source, reason=self._fault)
        finally:
            self._tried = self._clock.monotonic()


def open_jwks(keys: Path | str, clock: Clock, journal: Journal) -> Jwks:
    """The keys of a file or a URL. Reads nothing yet."""
    if isinstance(keys, Path):
        return Jwks(partial(read_file, keys), clock, journal, source=str(keys), lifetime=FILE_LIFETIME)
    # A query may hold a secret, and the log is no place for one.
    return Jwks(partial(fetch_url, keys), clock, journal, source=keys.partition("?")[0], lifetime=URL_LIFETIME)
