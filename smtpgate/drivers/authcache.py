"""Grants that need not be asked for again for a while (Auth-Cache).

Owns what counts as the same question, how many grants are kept and for how long. Refuses to know who answers,
and whether an answer may be kept at all.

The key is a MAC over everything that the service would be shown, the attempt's number apart: whatever a service
may decide by (user, password, address, TLS, certificate) makes another key. Its secret is this process's own, so a
core dump's keys can be compared with nothing. Kept are grants only: a refusal has to reach the service, which
counts it. So does, after a refusal, whatever else comes for that user from that address: whoever is throttled there
would otherwise be told of the right password by its being let in, however often it guesses.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from typing import Final

from smtpgate.clock import Clock
from smtpgate.drivers.authwire import write_request
from smtpgate.session.ports import AuthGranted, AuthQuery

# Some 700 octets each, so 7 MB: Dovecot's advice for auth_cache_size is 10 MB.
MAX_GRANTS: Final = 10_000
MAC_OCTETS: Final = 32
# cram-md5 answers another challenge each time, so its digest never comes back; a token may be revoked, and has its
# own end; external and none show nothing that was proven to us.
KEPT_METHOD: Final = "plain"


class GrantCache:
    """longest: seconds, the operator's bound; 0 keeps nothing. secret: 16 to 64 random octets."""

    def __init__(self, clock: Clock, longest: float, secret: bytes, *, size: int = MAX_GRANTS) -> None:
        self._clock = clock
        self._longest = longest
        self._secret = secret
        self._size = size
        self._grants: OrderedDict[bytes, tuple[AuthGranted, float]] = OrderedDict()
        # User and address of refusals, and until when.
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._grants)

    @property
    def epoch(self) -> int:
        """How often everything was forgotten. To be noted before a question is asked, see keep()."""
        return self._epoch

    def find(self, query: AuthQuery) -> AuthGranted | None:
        """The grant that still answers `query`."""
        if not self._may_keep(query) or self._is_refused(query):
            return None
        key = self._key(query)
        granted, until = self._grants.get(key, (None, 0.0))
        if granted is not None and self._clock.monotonic() >= until:
            del self._grants[key]
            return None
        return granted

    def keep(self, query: AuthQuery, granted: AuthGranted, lifetime: float, epoch: int) -> None:
        """Answer `query` with `granted` for `lifetime` seconds, at most `longest`.

        epoch: when the question was asked. An answer from before a forget() is not kept.
        """
        seconds = min(lifetime, self._longest)
        if seconds <= 0 or epoch != self._epoch or not self._may_keep(query):
            return
        key = self._key(query)
        self._grants.pop(key, None)
        while len(self._grants) >= self._size:
            self._grants.popitem(last=False)
        self._grants[key] = granted, self._clock.monotonic() + seconds

    def refuse(self, query: AuthQuery) -> None:
        """The service said no: as long as an older grant may live, it is asked about this user at this address."""
        if not self._may_keep(query):
            return
        pair = self._pair(query)
        self._refused.pop(pair, None)
        while len(self._refused) >= self._size:
            self._refused.popitem(last=False)
        self._refused[pair] = self._clock.monotonic() + self._longest

    def forget(self) -> None:
        """Everything: what was granted may not hold any more."""
        self._grants.clear()
        self._epoch += 1

    def _may_keep(self, query: AuthQuery) -> bool:
        return self._longest > 0 and query.method == KEPT_METHOD

    def _is_refused(self, query: AuthQuery) -> bool:
        until = self._refused.get(self._pair(query))
        return until is not None and self._clock.monotonic() < until

    def _pair(self, query: AuthQuery) -> bytes:
        return self._mac(b"%b %b" % (query.peer.host.encode("utf-8", "surrogateescape"), query.user))

    def _mac(self, octets: bytes) -> bytes:
        return hashlib.blake2b(octets, key=self._secret, digest_size=MAC_OCTETS).digest()

    def _key(self, query: AuthQuery) -> bytes:
        # The port behind a PROXY header is another one on each connection, and nobody decides by it.
        proxied = None if query.proxied is None else replace(query.proxied, port=0)
        shown = write_request("", "", replace(query, attempt=1, proxied=proxied), pass_client_cert=True)
        return self._mac(shown)
