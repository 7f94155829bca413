"""gunicorn's settings for the auth service: gunicorn -c conf/gunicorn.authsvc.py authsvc.wsgi:app

What an operator sets is in conf/authsvc.yaml (or the file that SMTPGATE_AUTHSVC_CONF names); this file takes it
from there, checks everything that the service reads, and adds what follows from the protocol.
"""

from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402 - nothing may be imported before the patch
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from authsvc import startup, tls  # noqa: E402 - found through the line above
from smtpgate.drivers.journal import logging_config  # noqa: E402

os.environ.setdefault(startup.CONF_VARIABLE, os.path.relpath(HERE / "authsvc.yaml"))
_config = startup.start().config

bind = str(_config.bind)
workers = _config.workers
worker_class = "authsvc.worker.AuthWorker"
proc_name = "smtpgate-authsvc"

if (_tls := _config.tls) is not None:
    # gunicorn takes a certificate for the word that there is TLS; what it is, is authsvc.tls'.
    certfile, keyfile = str(_tls.cert), str(_tls.key)

    def ssl_context(config, default):  # type: ignore[no-untyped-def] # gunicorn has no types
        log = logging.getLogger("gunicorn.error")
        return tls.context(_tls, lambda peer, reason: log.warning("no TLS with %s: %s", peer, reason))


# An AUTH line has up to 12288 octets (RFC 4954 section 4), each of which may be escaped as three; a client
# certificate in Auth-SSL-Cert has more.
limit_request_field_size = 65536
# nginx sends at most 28 of its own (reference/auth_http.md section 3); the rest is for auth_http_header. The two
# bounds together are what a connection may make a worker hold.
limit_request_fields = 48

# Our proxy keeps its connections; nginx closes after each answer.
keepalive = 30
# An answer takes seconds at most. What is left then are idle connections that may be cut.
graceful_timeout = 5

# The service writes a line for each request itself (authsvc.auth), and no secret into it.
accesslog = None
# gunicorn's own lines go where the service's go, in their form.
loglevel = _config.log_level
logconfig_dict = logging_config(_config.log_format, _config.log_level)

# gunicorn's remote control is one more door; signals do the same.
control_socket_disable = True
