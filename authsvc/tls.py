"""TLS of the auth service: the key `tls` of conf/authsvc.yaml, and the context that gunicorn's workers serve with.

Owns which versions are spoken, whether a client has to show a certificate, how long a handshake may take, and the log
line of one that failed. For our own proxy: a stock nginx asks auth_http in clear (reference/auth_http.md section 2).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import gevent
from pydantic import Field, model_validator

from authsvc.fields import path_field
from smtpgate.units import InvalidValue, StrictModel

# Seconds. Whoever connects and says nothing holds a place among gunicorn's worker_connections for so long; our proxy
# waits 10 s for an answer.
HANDSHAKE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. cert, key: the service's chain and its key. client_ca: a client has to show a certificate of one of
    these authorities; None asks for none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


_EXPECTED: Final = "a PEM chain and its key, without a passphrase"
_File = path_field(Path.is_file, "is not a file that is there", "a PEM file")


class TlsKeys(StrictModel):
    """`tls`."""

    cert: Annotated[Path, _File, Field(description="a PEM file with the certificate chain")]
    key: Annotated[Path, _File, Field(description="a PEM file with the key")]
    client_ca: Annotated[Path | None, _File] = None

    @model_validator(mode="after")
    def _can_be_used(self) -> TlsKeys:
        # Only a look, so that a start and HUP find it, and not a worker.
        try:
            context(self.tls())
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise InvalidValue("cert and key do not belong together", _EXPECTED) from None
            raise InvalidValue("has a file that cannot be used", f"{_EXPECTED}; client_ca: certificates") from None
        except OSError as error:
            raise InvalidValue(f"cannot be read: {error.strerror}", "files that this user may read") from None
        return self

    def tls(self) -> Tls:
        return Tls(self.cert, self.key, self.client_ca)


class _Context(ssl.SSLContext):
    """A context for gevent's StreamServer, which knows no end of a handshake, and prints a traceback for each that
    fails. failed: told from whom, and why.
    """

    failed: Callable[[str, str], None]

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        """After the handshake. Ends the greenlet where there is none."""
        try:
            with gevent.Timeout(HANDSHAKE, TimeoutError(f"no handshake in {HANDSHAKE:g} s")):
                return super().wrap_socket(sock, *args, **options)
        except OSError as error:
            self.failed(_peer(sock), getattr(error, "reason", None) or str(error) or type(error).__name__)
            sock.close()
            raise gevent.GreenletExit from None


def context(tls: Tls, failed: Callable[[str, str], None] = lambda peer, reason: None) -> ssl.SSLContext:
    """What to serve with. failed: told of each handshake that fails. Raises OSError, which ssl.SSLError is."""
    made = _Context(ssl.PROTOCOL_TLS_SERVER)
    made.failed = failed
    made.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    if tls.client_ca is not None:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(tls.client_ca)
    return made


def _peer(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return "gone"
    return str(name[0]) if isinstance(name, tuple) else "unix:"
