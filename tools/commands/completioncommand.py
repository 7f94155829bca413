"""`gatectl completion`: what a shell needs to complete commands, options and names."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

SHELLS: Final = ("bash", "zsh", "fish")
# With it set, click answers the shell instead of running a command.
VARIABLE: Final = "_GATECTL_COMPLETE"


@click.command(short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete gatectl's commands, options, and backends as they are now.

    \b
    bash: gatectl completion bash > /etc/bash_completion.d/gatectl
    zsh:  gatectl completion zsh > "${fpath[1]}/_gatectl"
    fish: gatectl completion fish > ~/.config/fish/completions/gatectl.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    root = context.find_root()
    click.echo(kind(root.command, {}, "gatectl", VARIABLE).source())
