"""gunicorn's settings for the auth service: what follows from its configuration, and from the protocol.

Owns nothing that an operator sets: that is conf/authsvc.yaml's. `settings()` is asked at the start and at each HUP.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import Any, Final

# Also what only workers need (assembly): once, and as long as we may read it, which `user` may not.
from authsvc import assembly, startup, tls  # noqa: F401 - loaded before the fork, for all workers
from smtpgate.drivers import privileges
from smtpgate.drivers.loghandler import logging_config
from smtpgate.drivers.metricsfolder import hand_over

# An AUTH line has up to 12288 octets (RFC 4954 section 4), each of which may be escaped as three; a client
# certificate in Auth-SSL-Cert has more.
FIELD_SIZE: Final = 65536
# nginx sends at most 28 of its own (reference/auth_http.md section 3); the rest is for auth_http_header. The two
# bounds together are what a connection may make a worker hold.
FIELDS: Final = 48
# Our proxy keeps its connections; nginx closes after each answer.
KEEPALIVE: Final = 30
# An answer takes seconds at most. What is left then are idle connections that may be cut.
GRACEFUL_TIMEOUT: Final = 5


def settings() -> dict[str, Any]:
    """Reads everything that the service reads, and checks it. At a start with broken files it exits with
    startup.EXIT_BAD_CONFIG; at a HUP what is in force stays.
    """
    config = startup.start().config
    # authsvc.door tells the two apart.
    binds = [config.bind, *(one.bind for one in (config.console, config.metrics) if one is not None)]
    found: dict[str, Any] = {
        "bind": [str(bind) for bind in binds],
        "workers": config.workers,
        "worker_class": "authsvc.worker.AuthWorker",
        "proc_name": "smtpgate-authsvc",
        "limit_request_field_size": FIELD_SIZE,
        "limit_request_fields": FIELDS,
        "keepalive": KEEPALIVE,
        "graceful_timeout": GRACEFUL_TIMEOUT,
        "accesslog": None,
        "logger_class": "authsvc.worker.ProcessLogger",
        # gunicorn's own lines go where the service's go, in their form.
        "loglevel": config.log_level,
        "logconfig_dict": logging_config(config.log_format, config.log_level),
        # gunicorn's remote control is one more door; signals do the same.
        "control_socket_disable": True,
        "pre_exec": hand_over,
    }
    account = config.account
    if account is not None:
        # For the file of a worker's heartbeat, which has to be the worker's; authsvc.worker does the rest.
        found |= {"user": account.uid, "group": account.gid}
    # gunicorn's own umask stays 0: it is for a unix socket, which the proxy has to be able to enter.
    privileges.protect()
    if (advice := privileges.advice(None if account is None else account.uid)) is not None:
        found["on_starting"] = lambda server: server.log.warning("user: %s", advice)
    if config.tls is not None:
        # gunicorn takes a certificate for the word that there is TLS; what it is, is authsvc.tls'.
        found |= {"certfile": str(config.tls.cert), "keyfile": str(config.tls.key)}
        found["ssl_context"] = _context(config.tls)
    return found


def _context(chosen: tls.Tls) -> Callable[..., ssl.SSLContext]:
    """Made now, at a start and at a HUP, by the first process: workers may not be allowed to read the key."""
    log = logging.getLogger("gunicorn.error")
    made = tls.context(chosen, lambda peer, reason: log.warning("no TLS with %s: %s", peer, reason))
    return lambda _config, _default: made
