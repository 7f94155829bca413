"""TLS towards backends: contexts that are built once, and sessions that are taken up again.

Owns what is asked of a backend's TLS: version, ALPN, whose certificates are believed, which name they must be for. A
context is built anew when one of its files changes; a file that cannot be used, half written perhaps, leaves the
context that there is. Refuses to know when TLS begins: that is the dialler's matter (implicit) or `session.link`'s
(STARTTLS).
"""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import gevent.ssl

from smtpgate.clock import Clock
from smtpgate.drivers.tlslayer import TlsLayer
from smtpgate.routing.model import BackendTls
from smtpgate.session.streams import StreamLost

# RFC 7301 wants a registered name and there is none for SMTP; this is what nginx asks of its clients against
# cross-protocol attacks (ALPACA), and servers that do not know ALPN ignore it.
ALPN: Final = "smtp"
CHECK_INTERVAL: Final = 1.0  # seconds between two looks at a context's files
# Sessions kept for resumption, a backend and process one. More backends than that are nobody's cluster.
MAX_SESSIONS: Final = 1024
# Contexts, one for each of the pools' `tls`, and what edits have left behind: the oldest goes, and is built anew if
# somebody wants it after all. The system's authorities take half a megabyte in each.
MAX_CONTEXTS: Final = 256

# What a session may be taken up for: nobody who is asked for other certificates, another name or address.
Key = tuple[BackendTls, str, str, int]
# Of each file its device, inode, size and time; None where it is not there.
Stamp = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(slots=True)
class _Built:
    """A context with the state of its files. tried: the last state that was looked at; checked: monotonic seconds."""

    context: gevent.ssl.SSLContext
    tried: Stamp
    checked: float


class ClientTls:
    """The client's side of TLS for one process. warn: told why the files of a context in use cannot be read anew."""

    def __init__(self, clock: Clock, warn: Callable[[str], None] = lambda reason: None) -> None:
        self._clock = clock
        self._warn = warn
        self._contexts: dict[BackendTls, _Built] = {}
        self._sessions: OrderedDict[Key, tuple[ssl.SSLContext, ssl.SSLSession]] = OrderedDict()

    def layer(self, key: Key) -> TlsLayer:
        """TLS for a connection whose handshake is still to be done.

        key: settings, server name, and the address that was dialled. An address as the server name is looked for
        among the certificate's addresses. Raises StreamLost where the settings' files cannot be used, ValueError for
        a name that is none.
        """
        settings, server_name, _, _ = key
        context = self.context(settings)
        known, session = self._sessions.get(key, (None, None))
        return TlsLayer(context, server_hostname=server_name or None, session=session if known is context else None)

    def remember(self, layer: TlsLayer, key: Key) -> None:
        """Keep the session of a connection that ends. TLS 1.3 sends tickets after the handshake, so not before."""
        session = layer.session()
        if session is None or (not session.has_ticket and not session.id):
            return
        self._sessions[key] = (layer.context, session)
        self._sessions.move_to_end(key)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def context(self, settings: BackendTls) -> gevent.ssl.SSLContext:
        """The context for these settings. Raises StreamLost: there is none, and its files cannot be used."""
        now = self._clock.monotonic()
        built = self._contexts.get(settings)
        if built is None:
            stamp = _stamp(settings)
            built = _Built(_build(settings), stamp, now)
            if len(self._contexts) >= MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[settings] = built
        elif now - built.checked >= CHECK_INTERVAL:
            built.checked = now
            stamp = _stamp(settings)
            if stamp != built.tried:
                built.tried = stamp
                try:
                    built.context = _build(settings)
                except StreamLost as fault:
                    self._warn(f"{fault}; what was read before stays in use")
        return built.context


def check(settings: BackendTls) -> None:
    """Whether the files that the settings name can be used. Raises StreamLost with the reason."""
    _build(settings)


def _stamp(settings: BackendTls) -> Stamp:
    found: list[tuple[int, int, int, int] | None] = []
    for path in (settings.ca, settings.cert, settings.key):
        try:
            status = os.stat(path) if path else None
        except OSError:
            status = None
        found.append(status and (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _build(settings: BackendTls) -> gevent.ssl.SSLContext:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca is None:
        context.load_default_certs()
    else:
        _read("ca", settings.ca, lambda: context.load_verify_locations(settings.ca))
    if settings.cert is not None:
        chain, key = settings.cert, settings.key
        # Without a terminal's question for a passphrase.
        _read("cert, key", chain, lambda: context.load_cert_chain(chain, key, password=lambda: ""))
    return context


def _read(what: str, path: str, load: Callable[[], object]) -> None:
    try:
        load()
    except OSError as error:  # ssl.SSLError too
        reason = "is not usable PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise StreamLost(f"tls {what} {path}: {reason}") from None
