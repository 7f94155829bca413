"""conf/proxy.yaml as gatectl's commands read it: which policies, and which store.

Owns the option `-c` that they share. A configuration is read when a command needs something of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from smtpgate import config
from smtpgate.document import DocumentError

from .outcomes import Configuration
from .places import default_conf

# As smtpgate.main has it, which a command need not load for that.
CONF_VARIABLE: Final = "SMTPGATE_CONF"

DEFAULT_CONF: Final = default_conf("proxy.yaml")

F = TypeVar("F", bound=Callable[..., Any])


def conf_option(command: F) -> F:
    """`-c FILE`, as of proxy.py."""
    return click.option(
        "-c",
        "--config",
        "conf",
        type=click.Path(path_type=Path),
        envvar=CONF_VARIABLE,
        default=DEFAULT_CONF,
        show_default="conf/proxy.yaml of a checkout, else /etc/smtpgate/proxy.yaml",
        help=f"The proxy's configuration. {CONF_VARIABLE} names another one, too.",
    )(command)


def json_option(command: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def read_conf(path: Path) -> config.Config:
    """Ends the command with status 2 where the file is broken."""
    try:
        return config.load(path, os.environ)
    except DocumentError as error:
        raise Configuration.of(error) from None


def policies_of(conf: config.Config, path: Path) -> Path:
    """The folder that the configuration names. Without one there is nothing to look at: status 2."""
    if conf.policies is None:
        raise Configuration(f"{path}: names no policies; expected policies: FOLDER in it, or a folder as argument")
    # conf/../policies reads badly in every message.
    return Path(os.path.normpath(conf.policies))
