"""A mail server that takes everything and writes it to a Maildir: the stand-in for a cluster in `tools/run`.

Owns nothing of SMTP (aiosmtpd does). It has no authentication and delivers nowhere: keep it on loopback.
"""

from __future__ import annotations

import asyncio
import mailbox
import signal
from pathlib import Path
from typing import Final

import click
from aiosmtpd.smtp import SMTP, Envelope, Session

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 10025
DEFAULT_MAILDIR: Final = Path("var/maildir")
MAX_MESSAGE: Final = 32 * 1024 * 1024  # octets; aiosmtpd's own default


class MaildirHandler:
    """aiosmtpd's hooks. One file a message whatever the number of recipients, and one printed line."""

    def __init__(self, maildir: Path) -> None:
        self._maildir = mailbox.Maildir(maildir)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        content = envelope.original_content or b""
        # A Maildir holds text with the line ends of its machine. Writing blocks the loop for about a
        # millisecond: a sink for trying things out may do that.
        name = self._maildir.add(content.replace(b"\r\n", b"\n"))
        recipients = ",".join(f"<{_shown(to)}>" for to in envelope.rcpt_tos)
        sender = _shown(envelope.mail_from)
        click.echo(f"stored from=<{sender}> to={recipients} size={len(content)} file=new/{name}")
        return f"250 2.0.0 Ok: stored as {name}"


def _shown(address: str | None) -> str:
    """Client text, fit for a terminal."""
    return ascii(address or "")[1:-1]


async def serve(port: int, maildir: Path) -> None:
    """Serve until SIGINT or SIGTERM. Raises OSError where the port is taken."""
    loop = asyncio.get_running_loop()
    handler = MaildirHandler(maildir)
    server = await loop.create_server(
        lambda: SMTP(
            handler,
            data_size_limit=MAX_MESSAGE,
            enable_SMTPUTF8=True,
            hostname="sink.localhost",
            ident="smtpgate sink",
            loop=loop,
        ),
        HOST,
        port,
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    click.echo(f"listening on {HOST}:{port}, writing to {maildir}")
    async with server:
        await stop.wait()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True)
@click.option(
    "--maildir", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_MAILDIR, show_default=True
)
def main(port: int, maildir: Path) -> None:
    """Accept all mail on 127.0.0.1 and write each message to a Maildir."""
    maildir = maildir.resolve()
    maildir.parent.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(serve(port, maildir))
    except OSError as error:
        raise click.ClickException(f"cannot serve on {HOST}:{port}: {error.strerror or error}") from None


if __name__ == "__main__":
    main()
