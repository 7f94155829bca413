"""How a command of gatectl ends: its exit status, and the exceptions that lead to it."""

from __future__ import annotations

from typing import Any, Final

import click

from smtpgate.document import DocumentError

NO: Final = 1  # the answer is no: nothing there, or a difference
WRONG: Final = 2  # the command or the configuration is wrong; click's own status for a usage error
NO_ANSWER: Final = 3  # a store gave no answer


class NoAnswer(click.ClickException):
    """A store gave no answer."""

    exit_code = NO_ANSWER


class Configuration(click.ClickException):
    """A configuration that cannot be used, one line a problem."""

    exit_code = WRONG

    @classmethod
    def of(cls, error: DocumentError) -> Configuration:
        return cls(str(error))

    def show(self, file: Any = None) -> None:
        """Each problem has its own place in front."""
        click.echo(self.message, err=True)
