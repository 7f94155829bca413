"""The commands of tools/gatectl: what an operator does besides editing files."""

from __future__ import annotations

import click

from tools.usercommands import user


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def gatectl() -> None:
    """The operator's command of smtpgate."""


gatectl.add_command(user)
