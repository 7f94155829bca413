"""What a backend is told before MAIL (TLS, who the client is, credentials), and how a kept connection is told anew.

Owns the order of the steps (reference/nginx_mail.md section 6, with STARTTLS before anything is told) and the rule
that no client ever speaks as another: a connection serves a second client only if all that was said of the first
can be taken back. Refuses to know sockets, waits, and why the backend was chosen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smtpgate.clock import Deadline
from smtpgate.routing.model import BackendAuth, BackendSettings, BackendTls
from smtpgate.session.ports import Identity
from smtpgate.smtp import encode
from smtpgate.smtp.extensions import Extensions
from smtpgate.smtp.replies import Reply

if TYPE_CHECKING:
    from smtpgate.session.link import BackendLink


class HandshakeRefused(Exception):
    """The backend answered a step of the handshake with a reply that does not let us go on.

    personal: it refused what the client is or has chosen (its address, name or password), which says nothing of the
    backend.
    """

    def __init__(self, step: str, reply: Reply, *, personal: bool = False) -> None:
        super().__init__(f"{step} answered {reply.code} {reply.text}")
        self.reply = reply
        self.personal = personal


class TlsMissing(Exception):
    """The settings demand STARTTLS, and this backend does not offer it."""


class IdentityUntellable(Exception):
    """The client's identity fits no command: no backend can be told it, and a shortened one is somebody else's."""


@dataclass(slots=True)
class Introduction:
    """What one connection was told. begun: its server has accepted our EHLO or HELO. attributes: names of all that
    XCLIENT ever told. fresh: an EHLO came behind the last XCLIENT, so that the extensions tell what may be said now.
    authenticated: by AUTH.
    """

    begun: bool = False
    attributes: set[str] = field(default_factory=set)
    fresh: bool = False
    authenticated: bool = False

    def renewable(self, extensions: Extensions) -> bool:
        """Whether another client could be introduced.

        Postfix asks again who may say XCLIENT after each one, by the address that it was told: a client from outside
        smtpd_authorized_xclient_hosts is the last one that its connection serves. What XCLIENT does to a login by
        AUTH, each server decides for itself.
        """
        if not self.attributes:
            return True
        return self.fresh and not self.authenticated and self.attributes.issubset(extensions.xclient)


def greet(
    link: BackendLink, server_name: str, host: str, identity: Identity, settings: BackendSettings, deadline: Deadline
) -> None:
    """From the greeting to a session that may send MAIL. server_name: ours; host: the backend's, for TLS.

    Raises LinkLost, HandshakeRefused, TlsMissing, IdentityUntellable. One deadline covers all steps.
    """
    _require("greeting", link.greeting(deadline), 220)
    _say_hello(link, server_name, deadline)
    if settings.tls.mode in ("starttls", "required"):
        _secure(link, server_name, host, settings.tls, deadline)
    _introduce(link, identity, settings, deadline)
    if settings.auth is not None:
        _authenticate(link, identity, settings.auth, deadline)


def renew(link: BackendLink, identity: Identity, settings: BackendSettings, deadline: Deadline) -> None:
    """Make a connection that served another client this one's. The RSET goes with the next MAIL.

    Raises as `greet`.
    """
    _introduce(link, identity, settings, deadline)


def _say_hello(link: BackendLink, server_name: str, deadline: Deadline) -> None:
    hello = link.ask(encode.ehlo(server_name), deadline=deadline)[0]
    if hello.code >= 500:
        hello = link.ask(encode.helo(server_name), deadline=deadline)[0]
    _require("EHLO", hello, 250)
    link.introduction.begun = True


def _secure(link: BackendLink, server_name: str, host: str, tls: BackendTls, deadline: Deadline) -> None:
    """STARTTLS and what follows from it. Once it was offered there is no way on in clear: who can make it fail would
    otherwise read along.
    """
    if not link.extensions.starttls:
        if tls.mode == "required":
            raise TlsMissing("TLS is required, and the backend offers no STARTTLS")
        return
    _require("STARTTLS", link.ask(encode.STARTTLS, deadline=deadline)[0], 220)
    link.start_tls(tls, tls.server_name or host, deadline)
    _say_hello(link, server_name, deadline)


def _introduce(link: BackendLink, identity: Identity, settings: BackendSettings, deadline: Deadline) -> None:
    """Tell of the client what the settings let us tell, and take back what only held for the one before."""
    told = link.introduction
    attributes = _attributes(identity, settings, link.extensions.xclient)
    for name in told.attributes - attributes.keys():
        attributes[name] = "SMTP" if name == "PROTO" else encode.UNAVAILABLE
    if not attributes:
        return  # the client's HELO is not told either: no XCLIENT could take it back
    try:
        commands = encode.xclient(attributes)
    except ValueError as unsendable:
        raise IdentityUntellable(str(unsendable)) from None
    told.attributes.update(attributes)
    told.fresh = False
    for command in commands:
        reply = link.ask(command, deadline=deadline)[0]
        # 501: a value that this server does not take, as a Postfix without IPv6 an IPv6 client's address.
        _require("XCLIENT", reply, 220, 250, personal=reply.code == 501)
    if identity.helo is not None:
        # Always: XCLIENT put the backend back to its greeting, and this is how it learns the client's name.
        hello = encode.ehlo(identity.helo) if identity.extended else encode.helo(identity.helo)
        _require("client HELO/EHLO", link.ask(hello, deadline=deadline)[0], 250, personal=True)
        told.fresh = identity.extended


def _attributes(identity: Identity, settings: BackendSettings, offered: Collection[str]) -> dict[str, str]:
    """What is told of a client, raw. `on` is nginx's own set, for backends that advertise nothing; `auto` all that
    is known, of what is offered.
    """
    if settings.xclient == "off":
        return {}
    attributes = {"ADDR": identity.addr, "NAME": identity.name}
    if identity.login and settings.auth is None:
        attributes["LOGIN"] = identity.login
    if settings.xclient == "on":
        return attributes
    if identity.addr == "unix:":  # nginx's word, which Postfix refuses
        attributes["ADDR"] = encode.UNAVAILABLE
    elif identity.peer is not None and identity.peer.local_host != "unix:":
        attributes["PORT"] = str(identity.peer.port)
        attributes["DESTADDR"] = identity.peer.local_host
        attributes["DESTPORT"] = str(identity.peer.local_port)
    if identity.helo is not None:
        attributes["HELO"] = identity.helo
        attributes["PROTO"] = "ESMTP" if identity.extended else "SMTP"
    return {name: value for name, value in attributes.items() if name in offered}


def _authenticate(link: BackendLink, identity: Identity, auth: BackendAuth, deadline: Deadline) -> None:
    if not auth.replay:
        user, password = (auth.user or "").encode(), (auth.password or "").encode()
    elif not identity.login or identity.method == "none":
        return
    elif identity.password is None:
        raise IdentityUntellable("no password available for smtp_auth")
    else:
        user, password = identity.login.encode("utf-8", "surrogateescape"), identity.password
    try:
        command = encode.auth_plain(user, password)
    except ValueError as unsendable:
        raise IdentityUntellable(str(unsendable)) from None
    link.introduction.authenticated = True
    _require("AUTH", link.ask(command, deadline=deadline)[0], 235, personal=auth.replay)


def _require(step: str, reply: Reply, *codes: int, personal: bool = False) -> None:
    if reply.code not in codes:
        raise HandshakeRefused(step, reply, personal=personal)
