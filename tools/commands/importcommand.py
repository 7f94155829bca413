"""`gatectl import-nginx`: nginx.conf -> conf/proxy.yaml, and what an operator has to know of it.

Owns the command: what is read, where the result goes, what is told where. What a directive means is `importnginx`,
how the file looks is `proxyyaml`. Exit status: 0 done, 1 nothing to import, 2 a file cannot be read or written.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

import click

from . import nginxconf
from .importnginx import Imported, NothingToImport, convert
from .outcomes import NO, Configuration
from .proxyyaml import render

FILE_MODE: Final = 0o640  # auth_http_header may hold a secret


class _Nothing(click.ClickException):
    """There is no SMTP server in it."""

    exit_code = NO


@click.command("import-nginx", short_help="Turn an nginx.conf into a configuration.")
@click.argument("nginx_conf", metavar="NGINX_CONF", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file to write; without it, standard output."
)
@click.option("--force", is_flag=True, help="Write over an existing file.")
@click.option("--hostname", help="server_name where nginx.conf has none.  [default: this machine's name, as nginx's]")
def import_nginx(nginx_conf: Path, output: Path | None, force: bool, hostname: str | None) -> None:
    """The SMTP servers in mail{} of NGINX_CONF, as a configuration of the proxy.

    What has no equal here, or another meaning, is told on standard error as file:line: text, and again at the top of
    the result. POP3 and IMAP servers stay with nginx. Paths become absolute.
    """
    imported = _imported(nginx_conf, hostname or socket.gethostname())
    for remark in imported.remarks:
        click.echo(str(remark), err=True)
    text = render(imported, str(nginx_conf))
    if output is None:
        click.echo(text, nl=False)
        return
    _write(output, text, force=force)
    click.echo(f"{output}: written. Next: python proxy.py -c {output} --check", err=True)


def _imported(path: Path, hostname: str) -> Imported:
    try:
        # Absolute, so that the result does not depend on where the command ran.
        return convert(nginxconf.read(path), folder=path.resolve().parent, hostname=hostname)
    except nginxconf.NginxSyntaxError as error:
        raise Configuration(str(error)) from None
    except OSError as error:
        raise Configuration(f"{error.filename or path}: cannot be read: {error.strerror}") from None
    except NothingToImport as nothing:
        raise _Nothing(f"{path}: {nothing}") from None


def _write(path: Path, text: str, *, force: bool) -> None:
    """Whole or not at all: a proxy that is told to reload meanwhile reads the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w", encoding="utf-8"
        ) as file:
            os.fchmod(file.fileno(), FILE_MODE)  # whatever the umask
            file.write(text)
        try:
            if force:
                draft.replace(path)
            else:
                os.link(draft, path)  # unlike a rename it fails where there is one
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise Configuration(f"{path}: is there already; expected a new file, or --force") from None
    except OSError as error:
        raise Configuration(f"{path}: cannot be written: {error.strerror}") from None
