"""`auth_http:` of conf/proxy.yaml, at the top or of one listener: which servers are asked, and what they are told.

Owns the keys and what each may say, and turns them into an AuthHttpConfig. Does not know what is asked.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, model_validator

from smtpgate.config.model import AuthHttpConfig, CertificateConfig
from smtpgate.config.paths import FileField
from smtpgate.config.pem import check_authorities, check_pair
from smtpgate.config.values import TimeoutField, duration_up_to
from smtpgate.routing.schema import Switch
from smtpgate.units import InvalidValue, OneOrMany, StrictModel, parse_endpoint

MAX_URLS: Final = 8  # each has its part of auth_http's timeout
MAX_CACHE: Final = 3600.0  # Dovecot's auth_cache_ttl; for so long a changed password does not matter
MAX_HEADER: Final = 4096  # a quarter of what nginx and gunicorn take for all headers

# RFC 9110 sections 5.1 and 5.5, ASCII only; the names are those that frame the request or that auth_http owns.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_HEADER_VALUE = re.compile(rf"[ -~]{{0,{MAX_HEADER}}}")
_OWN_HEADER = re.compile(
    r"host|connection|content-length|transfer-encoding|expect|upgrade|(?:auth|client)-.*", re.IGNORECASE
)
_VISIBLE = re.compile(r"[!-~]+")


def _url(value: Any) -> str:
    expected = "e.g. http://127.0.0.1:18080/auth, https://auth.example.com/, unix:/run/auth.sock:/auth"
    fault = InvalidValue("is not the URL of an auth_http service", expected)
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise fault
    try:
        if value.startswith("unix:"):
            path, _, uri = value.removeprefix("unix:").partition(":")
            parse_endpoint(f"unix:{path}")
            good = uri == "" or uri.startswith("/")
        else:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            good = good and "@" not in parts.netloc and "#" not in value
    except ValueError:
        raise fault from None
    if not good:
        raise fault
    return value


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InvalidValue("is not a mapping", "e.g. {X-Auth-Key: secret}")
    for name, text in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidValue("is not a header's name", "e.g. X-Auth-Key", path=(name,))
        if _OWN_HEADER.fullmatch(name):
            raise InvalidValue("is a header that the proxy sends itself", "e.g. X-Auth-Key", path=(name,))
        if not isinstance(text, str) or not _HEADER_VALUE.fullmatch(text):
            expected = f"at most {MAX_HEADER} printable ASCII characters, in quotes if they look like a number"
            raise InvalidValue("is not a header's value", expected, path=(name,))
    return value


UrlField = Annotated[str, PlainValidator(_url)]


class AuthHttpKeys(StrictModel):
    """`auth_http`."""

    url: Annotated[
        OneOrMany[UrlField],
        Field(min_length=1, max_length=MAX_URLS, description="e.g. http://127.0.0.1:18080/auth"),
    ]
    ca: FileField | None = None
    cert: FileField | None = None
    key: FileField | None = None
    timeout: TimeoutField = 10.0
    headers: Annotated[dict[str, str], PlainValidator(_headers)] = Field(default_factory=dict)
    cache: Annotated[float, duration_up_to(MAX_CACHE)] = 0.0
    pass_client_cert: Switch = False
    envelope: Literal["first", "every", "never"] = "first"

    @model_validator(mode="after")
    def _fits(self) -> AuthHttpKeys:
        if len(set(self.url)) < len(self.url):
            raise InvalidValue("is listed twice", "each server once", path=("url",))
        for name in ("ca", "cert", "key"):
            if getattr(self, name) is not None and not any(url.startswith("https:") for url in self.url):
                raise InvalidValue("is for https, and no url is", f"an https:// url, or no {name}", path=(name,))
        if (self.cert is None) != (self.key is None):
            missing = "cert" if self.cert is None else "key"
            raise InvalidValue("is missing: a client certificate has both", "cert and key", path=(missing,))
        if self.cert is not None and self.key is not None:
            check_pair(self.cert, self.key)
        if self.ca is not None:
            check_authorities(self.ca, ("ca",))
        return self

    def config(self) -> AuthHttpConfig:
        pair = None if self.cert is None or self.key is None else CertificateConfig(self.cert, self.key)
        return AuthHttpConfig(
            urls=tuple(self.url),
            timeout=self.timeout,
            headers=MappingProxyType(self.headers),
            envelope=self.envelope,
            cache=self.cache,
            ca=self.ca,
            certificate=pair,
            pass_client_cert=self.pass_client_cert,
        )
