"""nginx's words for mail{}: how a server{} inherits, what durations and sizes mean, which directives are no settings.

Owns what nginx says and no more; what we make of it is `importnginx`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from .nginxconf import Directive

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d|)")
_SIZE = re.compile(r"(\d+)([kKmMgG]?)")
_UNITS: Final = {"": "", "k": "KiB", "m": "MiB", "g": "GiB"}
_RANGE = re.compile(r"(.*?)(\d+)-(\d+)")


class Server:
    """One server{}, with what it inherits. As in nginx a directive of its own replaces all of that name in mail{}."""

    def __init__(self, mail: Directive, server: Directive) -> None:
        self.place = server.place
        self._mail, self._server = mail, server

    def all(self, name: str) -> tuple[Directive, ...]:
        return self._server.inside(name) or self._mail.inside(name)

    def last(self, name: str) -> Directive | None:
        found = self.all(name)
        return found[-1] if found else None

    def value(self, name: str, default: str = "") -> str:
        found = self.last(name)
        return found.args[0] if found is not None and found.args else default

    def place_of(self, name: str) -> str:
        found = self.last(name)
        return self.place if found is None else found.place

    def names(self) -> Iterator[Directive]:
        """All that is in force here, each directive once."""
        own = {one.name for one in self._server.block or ()}
        yield from self._server.block or ()
        yield from (one for one in self._mail.block or () if one.name not in own and one.name != "server")


def duration(text: str) -> str:
    """nginx's "1h 30m", "60", "500ms" -> ours, in its largest whole unit."""
    factors = {"ms": 1, "s": 1000, "": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    total = sum(int(number) * factors[unit] for number, unit in _DURATION.findall(text))
    for unit in ("d", "h", "m", "s"):
        if total and total % factors[unit] == 0:
            return f"{total // factors[unit]}{unit}"
    return f"{total}ms" if total else "0s"


def size(text: str) -> int | str:
    """nginx's "4096", "4k" -> ours."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return text
    unit = _UNITS[found[2].lower()]
    return int(found[1]) if not unit else f"{found[1]}{unit}"


def addresses(listen: str, *, ipv6only: bool = True) -> list[str]:
    """The address of a `listen` -> host:port each, or unix:/path.

    A port alone is one of IPv4; a range is all its ports; [::] takes IPv4 too where ipv6only is off.
    """
    if listen.startswith("unix:"):
        return [listen]
    if found := _RANGE.fullmatch(listen):
        return [
            one
            for port in range(int(found[2]), int(found[3]) + 1)
            for one in addresses(f"{found[1]}{port}", ipv6only=ipv6only)
        ]
    if listen.isdigit():
        return [f"0.0.0.0:{listen}"]
    if listen.startswith("[::]:") and not ipv6only:
        return [f"0.0.0.0:{listen[5:]}", listen]
    return [f"0.0.0.0:{listen[2:]}" if listen.startswith("*:") else listen]


# Directives that become settings.
KNOWN: Final = frozenset(
    (
        *("listen", "protocol", "server_name", "timeout", "max_errors", "resolver", "resolver_timeout"),
        *("smtp_auth", "smtp_capabilities", "smtp_client_buffer", "smtp_greeting_delay"),
        *("auth_http", "auth_http_timeout", "auth_http_header", "auth_http_pass_client_cert"),
        *("proxy_timeout", "proxy_pass_error_message", "xclient", "proxy_smtp_auth", "proxy_protocol"),
        *("set_real_ip_from", "starttls", "ssl_certificate", "ssl_certificate_key", "ssl_password_file"),
        *("ssl_protocols", "ssl_ciphers", "ssl_ecdh_curve", "ssl_session_tickets", "ssl_verify_client"),
        *("ssl_client_certificate", "ssl_trusted_certificate", "ssl_crl"),
    )
)

REMARKS: Final[Mapping[str, str]] = {
    "error_log": "error_log: smtpgate writes to its standard error, see log; level by log.level",
    "proxy": "proxy: has no effect in nginx either",
    "proxy_buffer": "proxy_buffer: replies have bounds of their own",
    "ssl_prefer_server_ciphers": "ssl_prefer_server_ciphers: always on",
    "ssl_dhparam": "ssl_dhparam: finite-field key exchange is not offered",
    "ssl_session_cache": "ssl_session_cache: sessions are resumed by tickets, which all workers share",
    "ssl_session_timeout": "ssl_session_timeout: OpenSSL's default holds",
    "ssl_session_ticket_key": "ssl_session_ticket_key: keys are drawn at start and shared by all workers",
    "ssl_verify_depth": "ssl_verify_depth: OpenSSL's default holds",
    "ssl_conf_command": "ssl_conf_command: not supported; set it in OpenSSL's own configuration",
    "ssl_certificate_compression": "ssl_certificate_compression: not supported",
    **{
        name: f"{name}: concerns pop3 or imap, which stay with nginx"
        for name in ("pop3_auth", "pop3_capabilities", "imap_auth", "imap_capabilities", "imap_client_buffer")
    },
}
"""Directives that do not, and what to know of them."""
