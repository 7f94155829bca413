"""conf/proxy.yaml -> Config: the file, its keys, and what they mean together.

Owns the cross checks. They are asked of the tree, not of the model: a wrong value elsewhere in the file must not
hide them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from smtpgate.config.keys import ProxyKeys
from smtpgate.config.model import Config, MetricsConfig
from smtpgate.document import Document, DocumentError, Problem, check, parse, read_file
from smtpgate.document.account import account, account_problems
from smtpgate.smtp.sasl import TOKEN_MECHANISMS
from smtpgate.units import HostPort, InvalidValue, UnixPath, parse_endpoint, show

# systemd names the folders of StateDirectory= there, with a colon between them (systemd.exec(5)).
STATE_DIRECTORY: Final = "STATE_DIRECTORY"

_WITH_TLS: Final = ("starttls", "required", "implicit")


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration in `path`. environ: for `${NAME}`, and where systemd says what `state_dir` does not.

    Raises DocumentError with every problem at once.
    """
    document, problems = parse(read_file(path), str(path), environ)
    keys, more = check(document, ProxyKeys, context={"folder": path.parent}, known=problems)
    problems = [*problems, *more]
    told = {problem.path for problem in problems}
    problems += [problem for problem in _cross_checks(document) if problem.path not in told]
    if problems or keys is None:
        raise DocumentError(problems)
    return _config(keys, environ)


def _config(keys: ProxyKeys, environ: Mapping[str, str]) -> Config:
    auth_http = keys.auth_http
    envelope = "first" if auth_http is None else auth_http.envelope
    return Config(
        server_name=keys.server_name,
        workers=keys.workers,
        store=keys.store,
        policies=keys.policies,
        auth_http=None if auth_http is None else auth_http.config(),
        backend=keys.backend.config(),
        listeners=tuple(listener.config(keys.server_name, envelope) for listener in keys.listeners),
        metrics=None if keys.metrics is None else MetricsConfig(keys.metrics.bind),
        log=keys.log.config(),
        graceful_timeout=keys.graceful_timeout,
        state_dir=keys.state_dir or _given_by_systemd(environ),
        account=account(keys.user, keys.group),
        max_sessions=keys.max_sessions,
    )


def _given_by_systemd(environ: Mapping[str, str]) -> Path | None:
    first = environ.get(STATE_DIRECTORY, "").partition(":")[0]
    return Path(first) if first else None


def _cross_checks(document: Document) -> Iterator[Problem]:
    tree = document.value
    entries = tree.get("listeners")
    listeners = [
        (index, entry)
        for index, entry in enumerate(entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
    ]
    yield from account_problems(document)
    yield from _shared_names(document, listeners)
    yield from _shared_binds(document, listeners)
    for index, listener in listeners:
        yield from _without_tls(document, index, listener)
        yield from _tokens_in_clear(document, index, listener)
        if listener.get("capabilities") == "auto" and "policies" not in tree:
            message = '"auto" needs pools: only their backends are asked what they take'
            yield document.problem(("listeners", index, "capabilities"), message, "policies, or the lines themselves")
    asking = [
        index for index, listener in listeners if listener.get("auth") != ["none"] and "auth_http" not in listener
    ]
    if "auth_http" not in tree and asking:
        expected = "auth_http, or auth: [none] on every listener"
        yield document.problem(("auth_http",), f"is missing, listeners[{asking[0]}] needs it", expected)
    unasked = [index for index, listener in listeners if "auth_http" not in listener]
    if "auth_http" not in tree and "policies" not in tree and unasked and not asking:
        message = "is missing: without auth_http only the policies choose a backend"
        yield document.problem(("policies",), message, "a folder of *.yaml files")


def _without_tls(document: Document, index: int, listener: dict[str, Any]) -> Iterator[Problem]:
    """TLS needs a certificate, and what is about TLS needs TLS."""
    tls, client, auth = listener.get("tls", "off"), listener.get("client_certificate"), listener.get("auth")
    here = ("listeners", index)
    if tls in _WITH_TLS and not listener.get("certificate"):
        expected = "certificate: [{cert: chain.pem, key: key.pem}]"
        yield document.problem((*here, "tls"), f"{show(tls)} needs a certificate", expected)
    if tls == "off":
        for key in ("tls_options", "client_certificate"):
            if isinstance(listener.get(key), dict):
                expected = "tls: starttls, required or implicit"
                yield document.problem((*here, key), "is for TLS, and this listener has none", expected)
    if isinstance(auth, list) and "external" in auth and not isinstance(client, dict):
        message = '"external" needs clients\' certificates'
        expected = "client_certificate: {mode: optional, ca: ca.pem}"
        yield document.problem((*here, "auth", auth.index("external")), message, expected)


def _tokens_in_clear(document: Document, index: int, listener: dict[str, Any]) -> Iterator[Problem]:
    """Bearer tokens need TLS (RFC 7628 section 3). Whoever ends it in front of the proxy says so, and where."""
    tls, mechanisms = listener.get("tls"), listener.get("auth")
    if tls in _WITH_TLS or not isinstance(mechanisms, list):
        return
    if tls == "off" and all(_is_local(bind) for bind in _as_list(listener.get("bind"))):
        return
    for position, name in enumerate(mechanisms):
        if isinstance(name, str) and name.upper() in TOKEN_MECHANISMS:
            message = f"{show(name)} shows a token to everybody on the way without TLS"
            expected = "tls: required, or, where something on this machine ends TLS, tls: off and loopback binds"
            yield document.problem(("listeners", index, "auth", position), message, expected)


def _is_local(bind: Any) -> bool:
    try:
        endpoint = parse_endpoint(bind)
    except InvalidValue:
        return True  # told already
    if isinstance(endpoint, UnixPath):
        return True
    try:
        return ip_address(endpoint.host).is_loopback
    except ValueError:
        return endpoint.host.lower() == "localhost"  # another name may be anybody's, RFC 6761 section 6.3


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _shared_names(document: Document, listeners: list[tuple[int, dict[str, Any]]]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, listener in listeners:
        name = listener.get("name")
        if isinstance(name, str) and first.setdefault(name, index) != index:
            message = f"{show(name)} is the name of listeners[{first[name]}]"
            yield document.problem(("listeners", index, "name"), message, "a name of its own")


def _shared_binds(document: Document, listeners: list[tuple[int, dict[str, Any]]]) -> Iterator[Problem]:
    first: dict[HostPort | UnixPath, int] = {}
    for index, listener in listeners:
        binds = listener.get("bind")
        for position, text in enumerate(_as_list(binds)):
            try:
                bind = parse_endpoint(text)
            except InvalidValue:
                continue  # told already
            if bind in first:
                path = ("listeners", index, "bind", position)
                message = f"{bind} is bound by listeners[{first[bind]}]"
                yield document.problem(path[: 4 if isinstance(binds, list) else 3], message, "an address of its own")
            first.setdefault(bind, index)
    metrics = document.value.get("metrics")
    if not isinstance(metrics, dict):
        return
    try:
        bind = parse_endpoint(metrics.get("bind"))
    except InvalidValue:
        return  # told already
    if bind in first:
        message = f"{bind} is bound by listeners[{first[bind]}]"
        yield document.problem(("metrics", "bind"), message, "an address of its own")
