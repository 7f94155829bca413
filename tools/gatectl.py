"""The commands of tools/gatectl: what an operator does besides editing files."""

from __future__ import annotations

import sys

import click

from authsvc import crammd5
from authsvc.passwords import Passwords


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def gatectl() -> None:
    """The operator's command of smtpgate."""


@gatectl.group()
def user() -> None:
    """The users of the auth service."""


@user.command("hash")
def hash_password() -> None:
    """Ask for a password and print its hashes, as two lines for a user in conf/users.yaml.

    A pipe may give the password as one line: echo secret | gatectl user hash
    """
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.ClickException("no password given; expected one line of text")
    octets = password.encode("utf-8")
    click.echo(f'password: "{Passwords().make(octets)}"')
    click.echo(f'cram_md5: "{crammd5.make(octets)}"')
