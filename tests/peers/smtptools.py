"""Postfix's load tools: smtp-source sends, smtp-sink swallows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from peers.process import HOST, Process, free_port, require


def smtp_source(
    port: int,
    *,
    messages: int,
    sessions: int = 10,
    length: int = 1000,
    sender: str = "source@example.com",
    recipient: str = "sink@example.com",
    host: str = HOST,
    options: tuple[str, ...] = (),
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Send `messages` of `length` octets over `sessions` connections at once, a new one each unless ("-d",).

    Returns the finished process; its status is 0 only if every message was accepted.
    """
    program = str(Path(require("postfix")).with_name("smtp-source"))
    argv = [
        program,
        "-s",
        str(sessions),
        "-m",
        str(messages),
        "-l",
        str(length),
        "-f",
        sender,
        "-t",
        recipient,
    ]
    return subprocess.run(
        [*argv, *options, f"inet:{host}:{port}"], capture_output=True, text=True, timeout=timeout, check=False
    )


class SmtpSink(Process):
    """Accepts and forgets. `options` make it misbehave: smtp-sink(1) has -q -Q -r -f -W and more."""

    def __init__(self, folder: Path, *options: str, backlog: int = 1000) -> None:
        program = str(Path(require("postfix")).with_name("smtp-sink"))
        self.port = free_port()
        # It refuses to run as root, and needs "-u" to become somebody else.
        drop = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__("smtp-sink", [program, *drop, *options, f"inet:{HOST}:{self.port}", str(backlog)], folder)
        self.wait_for_port(self.port)
