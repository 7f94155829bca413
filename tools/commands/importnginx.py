"""nginx's mail{} -> conf/proxy.yaml: every directive that concerns SMTP becomes a key of ours, or a remark.

Owns the meaning of nginx's directives (reference/nginx_mail.md section 1): inheritance of mail{} into server{},
defaults, and where we differ. Pure: a tree of directives in, settings and remarks out. `tools.proxyyaml` writes them.

A remark is what an operator has to know or do. A setting that has the same effect here needs none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from smtpgate.config.listeners import (
    MAX_ERRORS,
    MAX_GREETING_DELAY,
    MAX_LINE,
    MAX_RESOLVER_TIMEOUT,
    MAX_RESOLVERS,
    MIN_LINE,
)
from smtpgate.units import MAX_WORKERS, format_duration, parse_duration, parse_size

from .importtls import TLS_KEYS, tls_keys
from .nginxconf import Directive
from .nginxwords import KNOWN, REMARKS, Server, addresses, duration, size

Setting = Any  # what YAML can say: text, numbers, truth values, lists, mappings

SMTP_PORTS: Final = (25, 465, 587)
MAIL_PORTS: Final = {**dict.fromkeys(SMTP_PORTS, "smtp"), 110: "pop3", 995: "pop3", 143: "imap", 993: "imap"}
MECHANISMS: Final = ("plain", "login", "cram-md5", "external", "none")
# nginx's defaults that differ from ours, and that a session would notice.
DEFAULT_AUTH_HTTP_TIMEOUT: Final = "60s"
DEFAULT_RESOLVER_TIMEOUT: Final = "30s"
# What the proxy says by itself, or cannot carry: see config/listeners.
OWN_CAPABILITIES: Final = ("AUTH", "STARTTLS", "XCLIENT", "XFORWARD")
NO_CAPABILITIES: Final = (
    *("ATRN", "BINARYMIME", "BURL", "DELIVERBY", "ETRN", "FUTURERELEASE", "MT-PRIORITY", "REQUIRETLS"),
)
_CAPABILITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?: [!-~]+)*")  # RFC 5321 section 4.1.1.1, ehlo-line
# Headers that frame the request or that auth_http owns: see config/authhttp.
_OWN_HEADER = re.compile(
    r"host|connection|content-length|transfer-encoding|expect|upgrade|(?:auth|client)-.*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Remark:
    """place: "file:line" of the directive, or of its server. text: what to know, and what to do."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(slots=True)
class Imported:
    """top: the keys of the file but for listeners. listeners: one mapping each. remarks, in the order of the file."""

    top: dict[str, Setting] = field(default_factory=dict)
    listeners: list[dict[str, Setting]] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


class NothingToImport(ValueError):
    """No server of mail{} speaks SMTP."""


def convert(tree: tuple[Directive, ...], *, folder: Path, hostname: str) -> Imported:
    """folder: what relative paths are relative to (that of nginx.conf). hostname: nginx's server_name by default.

    Raises NothingToImport.
    """
    mails = [directive for directive in tree if directive.name == "mail"]
    if not mails:
        raise NothingToImport("there is no mail{} in it")
    importer = _Importer(mails[0], folder, hostname)
    importer.main(tree)
    for server in mails[0].inside("server"):
        importer.server(server)
    if not importer.result.listeners:
        raise NothingToImport("no server of mail{} speaks SMTP")
    importer.share()
    importer.result.remarks.sort(key=lambda remark: _by_place(remark.place))
    return importer.result


def _by_place(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    return file, int(line)


class _Importer:
    """Gathers the result, server by server."""

    def __init__(self, mail: Directive, folder: Path, hostname: str) -> None:
        self.result = Imported()
        self._mail = mail
        self._folder = folder
        self._hostname = hostname
        self._told: set[Remark] = set()

    def _remark(self, place: str, text: str) -> None:
        remark = Remark(place, text)
        if remark not in self._told:  # what is inherited concerns several servers
            self._told.add(remark)
            self.result.remarks.append(remark)

    # --- the whole process ---

    def main(self, tree: tuple[Directive, ...]) -> None:
        for one in tree:
            if one.name == "worker_processes" and one.args[0] != "auto":
                self.result.top["workers"] = self._within(one.place, one.name, int(one.args[0]), 1, MAX_WORKERS)
            elif one.name == "worker_processes":
                self._remark(one.place, "worker_processes auto: set workers to the number of cores")
            elif one.name == "worker_shutdown_timeout":
                self.result.top["graceful_timeout"] = duration(one.args[0])
            elif one.name in ("http", "stream"):
                self._remark(one.place, f"{one.name}{{}} stays with nginx")
            elif one.name == "user":
                self._remark(one.place, f"user {one.args[0]}: the service manager's matter (systemd: User=)")

    # --- a server ---

    def server(self, directive: Directive) -> None:
        server = Server(self._mail, directive)
        protocol = self._protocol(server)
        if protocol != "smtp":
            self._remark(server.place, f"a server for {protocol or 'an unknown protocol'} stays with nginx")
            return
        common = self._common(server)
        # `ssl` and `proxy_protocol` are options of an address there, and of a listener here.
        kinds: dict[tuple[bool, bool], list[str]] = {}
        for listen in server.all("listen"):
            kind = ("ssl" in listen.args, "proxy_protocol" in listen.args)
            kinds.setdefault(kind, []).extend(self._binds(listen))
        for (ssl, proxied), binds in kinds.items():
            listener: dict[str, Setting] = {"name": self._name(binds[0])}
            listener["bind"] = binds[0] if len(binds) == 1 else binds
            listener |= common
            if ssl:
                listener["tls"] = "implicit"
            if proxied:
                listener["proxy_protocol"] = self._proxies(server)
            if listener.get("tls", "off") == "off":
                for key in TLS_KEYS:
                    listener.pop(key, None)
            if "external" in listener["auth"] and "client_certificate" not in listener:
                listener["auth"] = self._without_external(server, listener["auth"])
            self.result.listeners.append(listener)
        for one in server.names():
            self._leftover(one)

    def _protocol(self, server: Server) -> str:
        said = server.value("protocol")
        if said:
            return said
        for listen in server.all("listen"):
            port = re.search(r"([0-9]+)\Z", listen.args[0])
            if port and int(port[1]) in MAIL_PORTS:
                return MAIL_PORTS[int(port[1])]
        return ""

    def _binds(self, listen: Directive) -> list[str]:
        address, *options = listen.args
        for option in options:
            if option not in ("ssl", "proxy_protocol", "bind", "ipv6only=on", "ipv6only=off"):
                self._remark(listen.place, f"listen … {option}: not needed here, left out")
        return addresses(address, ipv6only="ipv6only=off" not in options)

    def _name(self, bind: str) -> str:
        """A name of its own, by the port."""
        word = bind.rpartition(":")[2] if not bind.startswith("unix:") else Path(bind[5:]).stem
        name = f"smtp-{re.sub(r'[^A-Za-z0-9._-]', '-', word)}"
        taken = {listener["name"] for listener in self.result.listeners}
        return next(one for one in (name, *(f"{name}-{n}" for n in range(2, 1000))) if one not in taken)

    def _common(self, server: Server) -> dict[str, Setting]:
        """The keys of a listener that do not depend on its address. Those that are shared move up later."""
        keys: dict[str, Setting] = {"server_name": server.value("server_name", self._hostname)}
        keys["auth"] = self._auth(server)
        keys["capabilities"] = self._capabilities(server)
        keys |= tls_keys(server, self._path, self._remark)
        for ours, theirs in (("timeout", "timeout"), ("idle_timeout", "proxy_timeout")):
            if value := server.value(theirs):
                keys[ours] = duration(value)
        if found := server.last("max_errors"):
            keys["max_errors"] = self._within(found.place, found.name, int(found.args[0]), 1, MAX_ERRORS)
        if found := server.last("smtp_client_buffer"):
            octets = size(found.args[0])
            bounded = self._within(found.place, found.name, parse_size(octets), MIN_LINE, MAX_LINE)
            keys["max_line"] = octets if bounded == parse_size(octets) else bounded
        if found := server.last("smtp_greeting_delay"):
            keys["greeting_delay"] = self._at_most(found, MAX_GREETING_DELAY)
        keys |= self._resolver(server)
        keys["auth_http"] = self._auth_http(server)
        keys["backend"] = self._backend(server)
        return keys

    def _within(self, place: str, name: str, value: int, least: int, most: int) -> int:
        if least <= value <= most:
            return value
        bounded = max(least, min(value, most))
        self._remark(place, f"{name} {value}: {least} to {most} is supported; {bounded} is taken")
        return bounded

    def _at_most(self, directive: Directive, most: float) -> str:
        text = duration(directive.args[0])
        if parse_duration(text) <= most:
            return text
        longest = format_duration(most)
        self._remark(directive.place, f"{directive.name} {text}: at most {longest} is supported, and taken")
        return longest

    def _auth(self, server: Server) -> list[str]:
        found = server.last("smtp_auth")
        if found is None:
            return ["plain", "login"]
        methods: list[str] = [method for method in MECHANISMS if method in found.args]
        if not {"plain", "login"} <= set(methods):
            text = "smtp_auth: nginx takes PLAIN and LOGIN also where they are not listed, smtpgate does not"
            self._remark(found.place, text)
        return methods

    def _without_external(self, server: Server, auth: list[str]) -> list[str]:
        """EXTERNAL is the client's certificate and nothing else. nginx, too, takes PLAIN where nothing is left."""
        text = "smtp_auth external without ssl_verify_client: nobody has proven who he is; left out"
        self._remark(server.place_of("smtp_auth"), text)
        return [method for method in auth if method != "external"] or ["plain"]

    def _capabilities(self, server: Server) -> list[str]:
        place = server.place_of("smtp_capabilities")
        found = server.last("smtp_capabilities")
        kept: dict[str, str] = {}
        for line in found.args if found else ():
            keyword = line.partition(" ")[0].upper()
            if not _CAPABILITY.fullmatch(line):
                self._remark(place, f'smtp_capabilities "{line}": is no line of EHLO\'s reply, left out')
            elif keyword in OWN_CAPABILITIES:
                self._remark(place, f"smtp_capabilities {keyword}: said by itself when true")
            elif keyword in NO_CAPABILITIES:
                self._remark(place, f"smtp_capabilities {keyword}: cannot be kept, left out")
            elif keyword in kept:
                self._remark(place, f"smtp_capabilities {keyword}: there twice, the first one is taken")
            else:
                kept[keyword] = line
        return list(kept.values())

    def _proxies(self, server: Server) -> list[str]:
        networks = []
        for one in server.all("set_real_ip_from"):
            if one.args[0] == "unix:":  # whoever may open the socket is believed
                continue
            try:
                networks.append(str(ip_network(one.args[0], strict=False)))
            except ValueError:
                text = (
                    f"set_real_ip_from {one.args[0]}: a host name; left out, list its addresses under proxy_protocol"
                )
                self._remark(one.place, text)
        if networks:
            text = "set_real_ip_from: others may not connect here at all; nginx lets them, and does not believe them"
            self._remark(server.place_of("set_real_ip_from"), text)
            return networks
        text = "listen … proxy_protocol without set_real_ip_from: list what stands in front under proxy_protocol"
        self._remark(server.place, f"{text}; only this machine may connect now, and its header is believed")
        return ["127.0.0.0/8", "::1/128"]

    def _resolver(self, server: Server) -> dict[str, Setting]:
        found = server.last("resolver")
        if found is None or found.args[0] == "off":
            return {}
        servers = []
        for word in found.args:
            # A port of its own may stand behind an address; one of IPv6 has brackets then.
            address = word if re.fullmatch(r"\[.*\]:\d+", word) else word.strip("[]")
            if "=" in word:
                self._remark(found.place, f"resolver … {word}: not needed, answers are kept for their TTL")
            elif re.search("[g-zG-Z]", word):
                self._remark(found.place, f"resolver {word}: a host name; left out, list its addresses")
            else:
                servers.append(address)
        if len(servers) > MAX_RESOLVERS:
            self._remark(found.place, f"resolver: the first {MAX_RESOLVERS} are taken")
        if not servers:
            return {}
        timeout = server.last("resolver_timeout")
        return {
            "resolver": servers[:MAX_RESOLVERS],
            "resolver_timeout": DEFAULT_RESOLVER_TIMEOUT
            if timeout is None
            else self._at_most(timeout, MAX_RESOLVER_TIMEOUT),
        }

    def _auth_http(self, server: Server) -> dict[str, Setting] | None:
        url = server.value("auth_http")
        if not url:
            self._remark(server.place, "no auth_http: nginx does not start with it")
            return None
        if not url.startswith(("http://", "unix:")):
            url = f"http://{url}"
        keys: dict[str, Setting] = {
            "url": url,
            "timeout": duration(server.value("auth_http_timeout", DEFAULT_AUTH_HTTP_TIMEOUT)),
        }
        headers = self._headers(server)
        if headers:
            keys["headers"] = headers
        if server.value("auth_http_pass_client_cert") == "on":
            keys["pass_client_cert"] = True
        return keys

    def _headers(self, server: Server) -> dict[str, str]:
        headers: dict[str, str] = {}
        for header in server.all("auth_http_header"):
            name, value = header.args
            if _OWN_HEADER.fullmatch(name):
                text = f"auth_http_header {name}: a header of the protocol; left out, give it a name like X-{name}"
                self._remark(header.place, text)
                continue
            if name in headers:
                self._remark(header.place, f"auth_http_header {name}: there twice, the last one is taken")
            headers[name] = value
        return headers

    def _backend(self, server: Server) -> dict[str, Setting]:
        return {
            "xclient": server.value("xclient", "on"),
            "proxy_protocol": {"on": "v1", "v2": "v2"}.get(server.value("proxy_protocol"), "off"),
            "smtp_auth": server.value("proxy_smtp_auth", "off"),
            "pass_error_message": server.value("proxy_pass_error_message") == "on",
        }

    def _path(self, text: str) -> str:
        return str(self._folder / text)

    def _leftover(self, one: Directive) -> None:
        if one.name in KNOWN:
            return
        self._remark(one.place, REMARKS.get(one.name, f"{one.name}: unknown to smtpgate, left out"))

    # --- what all listeners share ---

    def share(self) -> None:
        """Move what all listeners agree on to the top of the file; the first one's where they do not."""
        listeners = self.result.listeners
        for key in ("server_name", "auth_http", "backend"):
            first = listeners[0][key]
            if first is not None:
                self.result.top[key] = first
            for listener in listeners:
                value = listener.pop(key)
                if value is not None and value != first:
                    listener[key] = value
        order = ["server_name", "workers", "auth_http", "backend", "graceful_timeout"]
        self.result.top = {key: self.result.top[key] for key in order if key in self.result.top}
