"""`backend:` of conf/proxy.yaml: how to speak to a backend where its pool says nothing, and to an Auth-Server.

Owns the keys, their forms (`tls: required` is `tls: {mode: required}`) and what they are as BackendSettings. The keys
are those of a pool in policies/*.yaml; files are relative to conf/proxy.yaml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from smtpgate.config.model import BackendConfig
from smtpgate.config.paths import FileField
from smtpgate.config.pem import check_authorities, check_pair
from smtpgate.routing.model import BackendAuth, BackendSettings, BackendTls
from smtpgate.routing.schema import Credential, Switch
from smtpgate.units import CidrField, HostnameField, InvalidValue, StrictModel

Mode = Literal["off", "starttls", "required", "implicit"]


class TlsKeys(StrictModel):
    """`tls` as a mapping. ca, cert, key: PEM files; without key it is in the file of cert."""

    mode: Mode = Field(description="off, starttls, required or implicit")
    verify: Switch = True
    server_name: HostnameField | None = None
    ca: FileField | None = None
    cert: FileField | None = None
    key: FileField | None = None

    @model_validator(mode="after")
    def _fits(self) -> TlsKeys:
        if self.key is not None and self.cert is None:
            raise InvalidValue("is given without a certificate", "cert too", path=("key",))
        if self.ca is not None:
            check_authorities(self.ca, ("ca",))
        if self.cert is not None:
            check_pair(self.cert, self.key, at=("cert",))
        return self


class LoginKeys(StrictModel):
    """`smtp_auth` as a mapping: whom the proxy logs in as, instead of the client."""

    user: Annotated[Credential, Field(description="the name that the proxy logs in with")]
    password: Annotated[Credential, Field(repr=False, description='its password, e.g. "${BACKEND_PASSWORD}"')]


def _form(value: Any) -> str:
    return "long" if isinstance(value, dict | list) else "short"


def _off(value: Any) -> Any:
    return "off" if value is False else value


class BackendKeys(StrictModel):
    """`backend`: where no pool says otherwise."""

    xclient: Literal["auto", "on", "off"] = "auto"
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    # Tagged unions: each form's faults are told by themselves.
    smtp_auth: Annotated[
        Annotated[Switch, Tag("short")] | Annotated[LoginKeys, Tag("long")],
        Discriminator(_form),
    ] = False
    pass_error_message: Switch = False
    tls: Annotated[
        Annotated[Mode, Tag("short")] | Annotated[TlsKeys, Tag("long")],
        Discriminator(_form),
        BeforeValidator(_off),
    ] = "off"
    allow: list[CidrField] = Field(default_factory=list)

    def config(self) -> BackendConfig:
        settings = BackendSettings(
            xclient=self.xclient,
            proxy_protocol=self.proxy_protocol,
            auth=_auth(self.smtp_auth),
            pass_error_message=self.pass_error_message,
            tls=_tls(self.tls),
        )
        return BackendConfig(settings, tuple(self.allow))


def _auth(keys: bool | LoginKeys) -> BackendAuth | None:
    if isinstance(keys, LoginKeys):
        return BackendAuth(user=keys.user, password=keys.password)
    return BackendAuth(replay=True) if keys else None


def _tls(keys: Mode | TlsKeys) -> BackendTls:
    if not isinstance(keys, TlsKeys):
        return BackendTls(keys)
    ca, cert, key = (None if path is None else str(path) for path in (keys.ca, keys.cert, keys.key))
    return BackendTls(keys.mode, keys.verify, keys.server_name, ca, cert, key)
