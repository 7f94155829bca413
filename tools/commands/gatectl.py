"""The commands of tools/gatectl: what an operator does besides editing files.

Owns which module has which command. One is imported when it is called: the users' stores bring a database library
that a look at the policies does not need.
"""

from __future__ import annotations

import importlib
from typing import Final

import click

from smtpgate import __version__

# Name -> the module, whose attribute of the same name (with _ for -) is the command.
COMMANDS: Final = {
    "status": "livecommands",
    "sessions": "livecommands",
    "pools": "livecommands",
    "top": "livecommands",
    "denials": "livecommands",
    "trace": "tracecommand",
    "drain": "draincommands",
    "undrain": "draincommands",
    "quota": "quotacommands",
    "policy": "policycommands",
    "user": "usercommands",
    "import-nginx": "importcommand",
    "completion": "completioncommand",
}


class _OnDemand(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name]}", __package__)
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=_OnDemand, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gatectl")
def gatectl() -> None:
    """The operator's command of smtpgate.

    It reads the configuration that the proxy has (-c, else SMTPGATE_CONF, else conf/proxy.yaml) and finds what all
    nodes share from there: policies, the store of the limits, what the workers report. Whatever lists something
    prints JSON with --json.

    Exit status: 0 fine; 1 the answer is no, or something is wrong; 2 the command or the configuration is wrong; 3 a
    store gave no answer.
    """
