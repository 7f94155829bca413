"""Dovecot as the mailbox server behind nginx's mail proxy: POP3 and IMAP, users with clear passwords.

Each user has a mailbox of their own, so that a client can see into whose it was let.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from peers.process import HOST, Process, free_port, require, require_root

OWNER = 65534
"""uid and gid (nobody, nogroup) of the mailboxes: Dovecot refuses to read mail as root."""

CONF = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
auth_verbose = yes
protocols = imap pop3
listen = {host}
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_location = maildir:{folder}/mail/%u
first_valid_uid = {owner}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={folder}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""


class Dovecot:
    """Running from construction to remove(). `imap` and `pop3` are its ports on HOST; users: name -> password."""

    def __init__(self, users: Mapping[str, str]) -> None:
        program = require("dovecot-core")
        for protocol in ("dovecot-imapd", "dovecot-pop3d"):
            require(protocol)
        require_root("Dovecot's master runs its processes as several users")
        self.imap, self.pop3 = free_port(), free_port()
        # Not pytest's own tmp_path, which its owner alone may enter; and short: sun_path holds 107 octets.
        self.folder = Path(tempfile.mkdtemp(prefix="smtpgate-dovecot-"))
        self.folder.chmod(0o755)
        (self.folder / "users").write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
        for name in users:
            self._fill(self.folder / "mail" / name, name)
        conf = self.folder / "dovecot.conf"
        conf.write_text(CONF.format(folder=self.folder, host=HOST, owner=OWNER, imap=self.imap, pop3=self.pop3))
        self._process = Process("dovecot", [program, "-F", "-c", str(conf)], self.folder)
        for port in (self.imap, self.pop3):
            self._process.wait_for_port(port)

    def log(self) -> str:
        return (self.folder / "dovecot.log").read_text(errors="replace")

    @property
    def process(self) -> Process:
        """The master and its children."""
        return self._process

    def remove(self) -> None:
        """Stop, and delete the folder. May be called twice."""
        self._process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fill(self, maildir: Path, name: str) -> None:
        """One message that says whose mailbox it is in."""
        for part in ("new", "cur", "tmp"):
            (maildir / part).mkdir(parents=True)
        (maildir / "new" / "1.1.test").write_text(f"From: a@example.com\nSubject: mail of {name}\n\nx\n")
        for path in (maildir, *maildir.rglob("*")):
            shutil.chown(path, OWNER, OWNER)
