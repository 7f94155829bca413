"""A look into PEM files that conf/proxy.yaml names, so that --check and a reload find a fault, and not a worker.

Keeps nothing of them: whoever uses a file reads it again.
"""

from __future__ import annotations

import ssl
from pathlib import Path as File
from typing import Final

from cryptography import x509

from smtpgate.units import InvalidValue

# nginx's ssl_password_file has a line for each key; more are no list of passphrases.
MAX_PASSPHRASES: Final = 64

At = tuple[str | int, ...]


def check_pair(cert: File, key: File | None, *, passwords: File | None = None, at: At = ()) -> None:
    """A chain and its key; without key it is in the chain's file. passwords: a file with a passphrase a line, of
    which one opens the key. at: the key of the file that is told of. Raises InvalidValue.
    """
    words = [""] if passwords is None else _passphrases(passwords, at)
    for word in words:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=word.encode)
        except ssl.SSLError as error:
            fault = error
        except OSError as error:
            message = f"cert or key cannot be read: {error.strerror}"
            raise InvalidValue(message, "readable files", path=at) from None
        else:
            return
    mismatch = fault.reason == "KEY_VALUES_MISMATCH"
    locked = "the key has a passphrase" if passwords is None else "no passphrase of password_file opens the key"
    reason = "they do not belong together" if mismatch else f"one is not PEM, or {locked}"
    raise InvalidValue(f"cert and key cannot be used: {reason}", "a PEM chain and its key", path=at) from None


def check_authorities(path: File, at: At) -> None:
    """Certificates to believe. Raises InvalidValue."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise InvalidValue("holds no certificate", "a PEM file of certificates", path=at) from None
    except OSError as error:
        raise InvalidValue(f"cannot be read: {error.strerror}", "a readable file", path=at) from None


def check_revocations(path: File, at: At) -> None:
    """A list of revoked certificates (RFC 5280 section 5). Raises InvalidValue."""
    try:
        x509.load_pem_x509_crl(path.read_bytes())
    except ValueError:
        raise InvalidValue("holds no revocation list", "a PEM file, -----BEGIN X509 CRL-----", path=at) from None
    except OSError as error:
        raise InvalidValue(f"cannot be read: {error.strerror}", "a readable file", path=at) from None


def _passphrases(path: File, at: At) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InvalidValue("password_file cannot be read", "a readable file of text", path=at) from None
    if not 0 < len(lines) <= MAX_PASSPHRASES:
        expected = f"a passphrase a line, at most {MAX_PASSPHRASES}"
        raise InvalidValue(f"password_file has {len(lines)} lines", expected, path=at)
    return lines
