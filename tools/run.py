"""`tools/run`: the auth service, the proxy and a sink mail server on this machine, until Ctrl-C.

Owns which programs make up the whole and what a newcomer is told about them. Addresses are those of
conf/proxy.yaml and conf/authsvc.yaml.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

import authsvc.config
from smtpgate import config
from smtpgate.document import DocumentError, Problem
from smtpgate.policy.storeuri import parse_store_uri
from smtpgate.units import MAX_WORKERS, HostPort, UnixPath
from tools import sink
from tools.supervisor import Endpoint, Service, ServiceError, Supervisor, check_free

ROOT: Final = Path(__file__).resolve().parents[1]
PROXY_CONF: Final = Path("conf/proxy.yaml")
AUTHSVC_CONF: Final = Path("conf/authsvc.yaml")
POLICIES: Final = Path("policies")
EXIT_BAD_CONFIG: Final = 2  # as proxy.py

GUIDE: Final = """\

smtpgate is up. Ctrl-C ends it.

  proxy         {proxy}   users: test / 1234 and test2 / password
  auth service  http://{auth}/auth
  sink          {sink}   writes each message to {maildir}/new
  store         {store}

Send a message, from another terminal:

  {swaks}

or without swaks:

  {snippet}

Limits are in {policies}/limits.yaml: user.msgs.min lets a user send 10 messages at once, and one more every
6 s. Run the line some 15 times in a row and the reply is 450, with the time to wait. Raise the rate in the file:
it holds within 2 s, without a restart.
"""

SWAKS: Final = (
    "swaks --server {proxy} --auth PLAIN --auth-user test --auth-password 1234 "
    "--from a@example.com --to b@example.com"
)
# smtplib takes the strongest mechanism offered, which is CRAM-MD5.
SNIPPET: Final = (
    """python3 -c 'import smtplib; s = smtplib.SMTP("{host}", {port}); s.login("test", "1234"); """
    """s.sendmail("a@example.com", "b@example.com", "Subject: hello\\n\\nhello\\n"); s.quit()'"""
)


def services(environ: Mapping[str, str]) -> tuple[Service, ...]:
    """The programs, with the addresses that their configurations give them under `environ`.

    Raises DocumentError with every problem of either configuration, ServiceError without a TCP listener.
    """
    problems: list[Problem] = []
    try:
        proxy = _endpoints_of_proxy(environ)
    except DocumentError as error:
        problems += error.problems
    try:
        auth = _endpoints_of_authsvc(environ)
    except DocumentError as error:
        problems += error.problems
    if problems:
        raise DocumentError(problems)
    if not proxy:
        raise ServiceError(f"no listener in {PROXY_CONF} has a TCP address; expected one, e.g. 127.0.0.1:20025")
    python = sys.executable
    # Children write to a pipe; unbuffered, or their lines come in lumps.
    env = {**environ, "PYTHONUNBUFFERED": "1"}
    wanted = Endpoint(sink.HOST, sink.DEFAULT_PORT, "smtp", "the backend of the demo pool in policies/")
    return (
        Service("sink", (python, "-m", "tools.sink"), (wanted,), env),
        Service(
            "auth",
            (python, "-m", "gunicorn", "-c", "conf/gunicorn.authsvc.py", "authsvc.wsgi:app"),
            auth,
            env,
        ),
        Service("proxy", (python, "proxy.py", "-c", str(PROXY_CONF)), proxy, env),
    )


def _endpoints_of_proxy(environ: Mapping[str, str]) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(
            bind.host,
            bind.port,
            "tcp" if listener.protocol.tls == "implicit" else "smtp",
            f"listener {listener.name} in {PROXY_CONF}",
        )
        for listener in config.load(PROXY_CONF, environ).listeners
        for bind in listener.binds
        if isinstance(bind, HostPort)
    )


def _endpoints_of_authsvc(environ: Mapping[str, str]) -> tuple[Endpoint, ...]:
    bind = authsvc.config.load(AUTHSVC_CONF, environ).bind
    if isinstance(bind, UnixPath):
        return ()
    return (Endpoint(bind.host, bind.port, "http", f"bind in {AUTHSVC_CONF}"),)


def guide(running: tuple[Service, ...], store: str) -> str:
    """What a newcomer is told once everything answers; of the store not its password."""
    first = {service.name: service.endpoints[0] for service in running if service.endpoints}
    proxy = first["proxy"]
    return GUIDE.format(
        proxy=proxy,
        auth=first.get("auth", "(a unix socket)"),
        sink=first["sink"],
        maildir=ROOT / sink.DEFAULT_MAILDIR,
        store=parse_store_uri(store).public,
        policies=ROOT / POLICIES,
        swaks=SWAKS.format(proxy=proxy),
        snippet=SNIPPET.format(host=proxy.host, port=proxy.port),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--store",
    default="memory://",
    show_default=True,
    help="Where limits are counted, a URI: redis://127.0.0.1:6379/0 shares them between workers.",
)
@click.option("--workers", type=click.IntRange(1, MAX_WORKERS), default=1, show_default=True)
def main(store: str, workers: int) -> None:
    """The auth service, the proxy and a sink mail server on this machine, until Ctrl-C."""
    os.chdir(ROOT)
    environ = {**os.environ, "SMTPGATE_STORE": store, "SMTPGATE_WORKERS": str(workers)}
    if workers > 1 and store.startswith("memory:"):
        note = f"note: memory:// is counted by each worker for itself; {workers} workers admit more"
        click.echo(note, err=True)
    try:
        wanted = services(environ)
        check_free(wanted)
        with Supervisor(wanted, _show) as supervisor:
            if supervisor.wait_ready():
                click.echo(guide(wanted, store))
                supervisor.wait()
    except DocumentError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        sys.exit(EXIT_BAD_CONFIG)
    except ServiceError as failure:
        for line in str(failure).splitlines():
            click.echo(f"tools/run: {line}", err=True)
        sys.exit(1)
    click.echo("ended")


def _show(name: str, line: str) -> None:
    click.echo(f"{name:<5} | {line}")


if __name__ == "__main__":
    main(prog_name="tools/run")
