"""The auth service as a command, for an installed package: gunicorn with authsvc.gunicornconf's settings.

`gunicorn -c conf/gunicorn.authsvc.py authsvc.wsgi:app` does the same from a checkout, and takes settings of
gunicorn's own besides.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402 - nothing may be imported before the patch
import sys  # noqa: E402 - as above
from pathlib import Path  # noqa: E402 - as above
from typing import Any  # noqa: E402 - as above

import click  # noqa: E402 - as above
from gunicorn.app.base import BaseApplication  # noqa: E402 - as above
from gunicorn.util import import_app  # noqa: E402 - as above

from authsvc import gunicornconf, startup  # noqa: E402 - as above
from smtpgate import __version__  # noqa: E402 - as above
from smtpgate.document import DocumentError  # noqa: E402 - as above

APP = "authsvc.wsgi:app"


class Service(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's view of us: its settings are read again at each HUP."""

    def load_config(self) -> None:
        for key, value in gunicornconf.settings().items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        return import_app(APP)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=lambda: Path(os.environ.get(startup.CONF_VARIABLE, startup.DEFAULT_CONF)),
    show_default=startup.DEFAULT_CONF,
    help="The configuration file.",
)
@click.option("--check", "only_check", is_flag=True, help="Validate the configuration and all it names, and exit.")
@click.version_option(__version__)
def main(path: Path, only_check: bool) -> None:
    """The auth service: answers nginx's auth_http protocol.

    HUP reads the configuration, the policies and the users again. TERM ends when the questions under way have their
    answers.
    """
    if only_check:
        try:
            startup.read(path, os.environ)
        except DocumentError as error:
            click.echo(str(error), err=True)
            sys.exit(startup.EXIT_BAD_CONFIG)
        click.echo(f"{path}: valid")
        return
    os.environ[startup.CONF_VARIABLE] = str(path)
    Service(prog="smtpgate-authsvc").run()


if __name__ == "__main__":
    main(prog_name="smtpgate-authsvc")
