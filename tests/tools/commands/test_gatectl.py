"""The command as a whole: what there is, and that each is found when it is called."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from tools.commands.gatectl import COMMANDS, gatectl


def test_help_tells_of_all() -> None:
    told = CliRunner().invoke(gatectl, ["-h"]).output
    assert [line.split()[0] for line in told.partition("Commands:\n")[2].splitlines()] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_all_below_it_have_help(name: str) -> None:
    command = gatectl.get_command(click.Context(gatectl), name)
    assert command is not None
    for below in command.commands.values() if isinstance(command, click.Group) else (command,):
        assert below.help
        assert all(option.help for option in below.params if isinstance(option, click.Option))


def test_no_such_command() -> None:
    done = CliRunner().invoke(gatectl, ["polcy"])
    assert (done.exit_code, "No such command 'polcy'" in done.output) == (2, True)
