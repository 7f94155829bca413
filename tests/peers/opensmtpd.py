"""OpenSMTPD as a backend: no PIPELINING, no CHUNKING, no SMTPUTF8. Takes everything into one Maildir.

Without TLS: the version of Debian 12 (6.8) signs through an engine that OpenSSL 3.0 does not call as it expects, and
no handshake succeeds, whoever the client is.
"""

from __future__ import annotations

import os
from pathlib import Path

from peers import unpacked
from peers.process import HOST, Process, free_port, require_root, require_unpacked

OWNER = 65534  # nobody

CONF = """\
table everybody {{ "@" = nobody }}
listen on {host} port {port} hostname opensmtpd.example.net
action "deliver" maildir "{folder}/maildir" virtual <everybody>
match from any for any action "deliver"
"""

# What the package's installation would make.
PREPARE = "mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty\nchmod 711 /var/spool/smtpd\n"


class OpenSMTPD(Process):
    """`port` answers SMTP on HOST."""

    def __init__(self, folder: Path) -> None:
        require_unpacked("opensmtpd")
        require_root("OpenSMTPD runs as several users")
        self.port = free_port()
        self._maildir = folder / "maildir"
        folder.chmod(0o755)
        self._maildir.mkdir()
        os.chown(self._maildir, OWNER, OWNER)
        conf = folder / "smtpd.conf"
        conf.write_text(CONF.format(host=HOST, port=self.port, folder=folder))
        argv = unpacked.command("opensmtpd", folder, ["smtpd", "-d", "-f", str(conf)], PREPARE)
        super().__init__("opensmtpd", argv, folder)
        self.wait_for_port(self.port)

    def messages(self) -> list[bytes]:
        """All that was delivered, in no order."""
        new = self._maildir / "new"
        return [path.read_bytes() for path in new.iterdir()] if new.is_dir() else []
