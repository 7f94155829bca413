"""The files that a pool names: certificates, keys, passwords.

Owns one look at each when the policies are read, so that a fault is told with the line that names the file, and not
by the first session that needs it. Keeps nothing of the PEM files: whoever makes TLS contexts reads them again.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from smtpgate.routing.model import BackendTls
from smtpgate.routing.schema import MAX_CREDENTIAL
from smtpgate.units import InvalidValue

# A password, CR and LF, and one octet more to tell that there is more.
_MOST: Final = MAX_CREDENTIAL + 3


class FilesOnDisk:
    """routing.poolspec.SideFiles on a file system. Paths are absolute, or relative to the working directory."""

    def check_tls(self, tls: BackendTls) -> None:
        for key, path in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
            if path is not None:
                _look(Path(path), (key,))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if tls.ca is not None:
            try:
                context.load_verify_locations(tls.ca)
            except (ssl.SSLError, OSError):
                raise InvalidValue("holds no certificate", "a PEM file of certificates", path=("ca",)) from None
        if tls.cert is not None:
            try:
                # Without a terminal's passphrase.
                context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
            except (ssl.SSLError, OSError) as error:
                mismatch = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
                reason = "they do not belong together" if mismatch else "one is not PEM, or the key has a passphrase"
                message = f"cert and key cannot be used: {reason}"
                raise InvalidValue(message, "a PEM chain and its key", path=("cert",)) from None

    def secret(self, path: str) -> str:
        octets = _look(Path(path), ())[:_MOST]
        lines = octets.removesuffix(b"\n").removesuffix(b"\r")
        expected = f"one line of 1 to {MAX_CREDENTIAL} octets, UTF-8"
        if not 1 <= len(lines) <= MAX_CREDENTIAL or any(octet in b"\0\r\n" for octet in lines):
            raise InvalidValue("the file holds no password", expected)
        try:
            return lines.decode()
        except UnicodeDecodeError:
            raise InvalidValue("the file holds no password", expected) from None


def _look(path: Path, key: tuple[str, ...]) -> bytes:
    """The beginning of a regular file; a FIFO would keep the process waiting. Raises InvalidValue."""
    if not path.is_file():
        raise InvalidValue(f"is not a file that is there ({path})", "a readable file", path=key)
    try:
        with path.open("rb") as file:
            return file.read(_MOST)
    except OSError as error:
        raise InvalidValue(f"cannot be read: {error.strerror} ({path})", "a readable file", path=key) from None
