"""The commands of tools/gatectl: what an operator does besides editing files.

Owns which module has which command. One is imported when it is called: the users' stores bring a database library
that a look at the policies does not need.
"""

from __future__ import annotations

import importlib
from typing import Final

import click

# Name -> the module, whose attribute of the same name (with _ for -) is the command.
COMMANDS: Final = {
    "import-nginx": "tools.importcommand",
    "policy": "tools.policycommands",
    "quota": "tools.quotacommands",
    "user": "tools.usercommands",
}


class _OnDemand(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        return command


@click.group(cls=_OnDemand, context_settings={"help_option_names": ["-h", "--help"]})
def gatectl() -> None:
    """The operator's command of smtpgate."""
