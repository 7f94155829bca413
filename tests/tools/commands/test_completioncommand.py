"""`gatectl completion`: scripts that the shells themselves take, and what they are answered."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.commands.gatectl import COMMANDS, gatectl

GATECTL = Path(__file__).parents[3] / "tools" / "gatectl"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str) -> None:
    done = CliRunner().invoke(gatectl, ["completion", shell])
    assert done.exit_code == 0
    assert f"_GATECTL_COMPLETE={shell}_complete" in done.stdout
    program = shutil.which(shell)
    if program is not None:  # whether it is one, the shell knows
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True)


def test_another_shell() -> None:
    done = CliRunner().invoke(gatectl, ["completion", "tcsh"])
    assert (done.exit_code, "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.output) == (2, True)


def test_what_a_shell_is_answered() -> None:
    asked = {"_GATECTL_COMPLETE": "bash_complete", "COMP_WORDS": "gatectl ", "COMP_CWORD": "1"}
    done = subprocess.run([GATECTL], env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == list(COMMANDS)
