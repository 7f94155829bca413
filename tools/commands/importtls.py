"""The ssl and starttls directives of a server{} -> `tls`, `certificate`, `tls_options`, `client_certificate`.

Owns what they mean here, and what is told of those that mean something else. Pure, as `importnginx`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .nginxwords import Server

VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
# Names that nginx's configurations have from TLS 1.3's groups, and OpenSSL's for the same curve.
_CURVES: Final = {
    "P-256": "prime256v1",
    "secp256r1": "prime256v1",
    "P-384": "secp384r1",
    "P-521": "secp521r1",
}
# The keys that have no meaning without TLS.
TLS_KEYS: Final = ("certificate", "tls_options", "client_certificate")


def tls_keys(server: Server, path: Callable[[str], str], remark: Callable[[str, str], None]) -> dict[str, Any]:
    """path: makes a file's path absolute. remark: takes a place and a text.

    `tls` is what starttls says; a listener of `listen … ssl` replaces it.
    """
    keys: dict[str, Any] = {"tls": {"on": "starttls", "only": "required"}.get(server.value("starttls", "off"), "off")}
    if keys["tls"] == "required":
        text = "starttls only: smtpgate refuses MAIL in clear too, nginx does not"
        remark(server.place_of("starttls"), text)
    pairs, passwords = [], server.value("ssl_password_file")
    for chain, key in zip(server.all("ssl_certificate"), server.all("ssl_certificate_key"), strict=False):
        pair = {"cert": path(chain.args[0]), "key": path(key.args[0])}
        if passwords:
            pair["password_file"] = path(passwords)
        pairs.append(pair)
    if pairs:
        keys["certificate"] = pairs
    if options := _options(server, remark):
        keys["tls_options"] = options
    if client := _client_certificate(server, path, remark):
        keys["client_certificate"] = client
    return keys


def _options(server: Server, remark: Callable[[str, str], None]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if found := server.last("ssl_protocols"):
        old = [version for version in found.args if version not in VERSIONS]
        if old:
            remark(found.place, f"ssl_protocols {' '.join(old)}: not spoken, TLSv1.2 is the oldest")
        options["versions"] = [version for version in VERSIONS if version in found.args] or ["TLSv1.2"]
    if ciphers := server.value("ssl_ciphers"):
        options["ciphers"] = ciphers
    if (found := server.last("ssl_ecdh_curve")) and found.args[0] != "auto":
        first, _, rest = found.args[0].partition(":")
        if rest:
            remark(found.place, f"ssl_ecdh_curve: only the first, {first}, is taken")
        options["curve"] = _CURVES.get(first, first)
    if server.value("ssl_session_tickets") == "off":
        options["tickets"] = False
    return options


def _client_certificate(
    server: Server, path: Callable[[str], str], remark: Callable[[str, str], None]
) -> dict[str, Any] | None:
    found = server.last("ssl_verify_client")
    if found is None or found.args[0] == "off":
        return None
    mode = {"on": "required", "optional": "optional"}.get(found.args[0])
    ca = server.value("ssl_client_certificate") or server.value("ssl_trusted_certificate")
    if mode is None or not ca:
        remark(found.place, f"ssl_verify_client {found.args[0]}: not supported, left out")
        return None
    text = "ssl_verify_client: a certificate that is not accepted ends the handshake here, without a 421 after it"
    remark(found.place, text)
    keys: dict[str, Any] = {"mode": mode, "ca": path(ca)}
    if crl := server.value("ssl_crl"):
        keys["crl"] = path(crl)
    return keys
