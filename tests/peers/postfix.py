"""Postfix instances of our own, beside each other and beside the machine's: real backends.

Each has its configuration, queue, log and Maildir in one folder. All recipients are delivered by virtual(8)
into that one Maildir, a file a recipient, so that what arrived can be counted and compared octet by octet.
Nothing but SMTP gets in (no pickup), nothing gets out (no smtp client).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers.process import HOST, Process, free_port, require, require_root, wait_until

OWNER = 65534
"""uid and gid (nobody, nogroup) of the Maildir: virtual(8) refuses to deliver as root."""

MAIN_CF = """\
compatibility_level = 3.6
myhostname = {name}.example.net
mydestination =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
syslog_name = postfix/{name}
alias_maps =
local_recipient_maps =
fast_flush_domains =
smtputf8_enable = yes
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:maildir/
virtual_mailbox_base = {folder}
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
local_header_rewrite_clients =
in_flow_delay = 0
# Deliver whatever is left of a killed instance soon after its next start.
minimal_backoff_time = 1s
queue_run_delay = 1s
"""

# service type private unpriv chroot wakeup maxproc command
MASTER_CF = """\
{host}:{port} inet n - n - 200 smtpd
cleanup    unix n - n - 0 cleanup
qmgr       unix n - n 300 1 qmgr
rewrite    unix - - n - - trivial-rewrite
tlsmgr     unix - - n 1000? 1 tlsmgr
bounce     unix - - n - 0 bounce
defer      unix - - n - 0 bounce
trace      unix - - n - 0 bounce
error      unix - - n - - error
retry      unix - - n - - error
virtual    unix - n n - - virtual
anvil      unix - - n - 1 anvil
postlog    unix-dgram n - n - 1 postlogd
"""

# What `postfix check` would make; the modes are those of Debian's /var/spool/postfix.
QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "hold", "incoming", "private", "saved", "trace")

# What a delivery puts before the content that the client sent, in this order, each once.
TRACE_HEADERS = (b"Return-Path", b"X-Original-To", b"Delivered-To", b"Received")


@dataclass(frozen=True, slots=True)
class Delivered:
    """One file of the Maildir.

    content: what the client sent as message, line ends as LF, Postfix's own headers removed. trace: those
    headers, by lower-case name: return-path, x-original-to, delivered-to, received.
    """

    content: bytes
    trace: Mapping[str, str]


class Postfix:
    """One instance. `port` answers SMTP on HOST while it runs; it may be stopped and started again.

    `main` adds to main.cf, or replaces what is there.
    """

    def __init__(self, name: str, main: Mapping[str, str] | None = None) -> None:
        self._program = require("postfix")
        require_root("Postfix's master runs its daemons as several users")
        self.name = name
        self.port = free_port()
        # Not pytest's own tmp_path, which its owner alone may enter: Postfix's daemons run as other users.
        self.folder = Path(tempfile.mkdtemp(prefix=f"smtpgate-{name}-"))
        self.folder.chmod(0o755)
        self._config = self.folder / "etc"
        self._maildir = self.folder / "maildir"
        self._queue = self.folder / "queue"
        for folder in (self._config, self._queue, self._queue / "pid"):
            folder.mkdir()
        for folder in (self.folder / "data", *(self._queue / name for name in QUEUES)):
            folder.mkdir(mode=0o700)
            shutil.chown(folder, "postfix", "postfix")
        (self._queue / "public").mkdir(mode=0o710)
        shutil.chown(self._queue / "public", "postfix", "postdrop")
        self._maildir.mkdir()
        shutil.chown(self._maildir, OWNER, OWNER)
        values = {"name": name, "host": HOST, "port": self.port, "folder": self.folder, "owner": OWNER}
        extra = "".join(f"{key} = {value}\n" for key, value in (main or {}).items())
        self._configure("main.cf", MAIN_CF.format_map(values) + extra)
        self._configure("master.cf", MASTER_CF.format_map(values))
        self._master: Process | None = None

    @property
    def master(self) -> Process:
        """The running master and its daemons, for pause(), resume() and members()."""
        if self._master is None:
            pytest.fail(f"{self.name} is not running")
        return self._master

    def start(self) -> None:
        """Returns when the port answers."""
        program = str(Path(self.postconf("daemon_directory")) / "master")
        # -d keeps it in the foreground, as our child.
        self._master = Process(self.name, [program, "-c", str(self._config), "-d"], self.folder)
        self._master.wait_for_port(self.port)

    def stop(self) -> None:
        """As `postfix stop`: sessions are cut, what was accepted stays in the queue."""
        if self._master is not None:
            self._master.stop()
            self._master = None

    def kill(self) -> None:
        """SIGKILL to every process of the instance."""
        if self._master is not None:
            self._master.kill()
            self._master = None

    def remove(self) -> None:
        """Stop, and delete the folder with all mail in it. May be called twice."""
        self.stop()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _configure(self, name: str, text: str) -> None:
        path = self._config / name
        path.write_text(text)
        # Every Postfix program waits until a file that it reads is two seconds old, lest it be half written.
        os.utime(path, (0, 0))

    def flush(self) -> None:
        """Have qmgr look at the whole queue now."""
        self.master.signal(signal.SIGHUP)

    def log(self) -> str:
        path = self.folder / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def queued(self) -> int:
        """Messages that were accepted and not yet delivered."""
        return sum(
            _complete(path)
            for name in ("incoming", "active", "deferred")
            for path in (self._queue / name).rglob("*")
            if path.is_file()
        )

    def count(self) -> int:
        """Files in the Maildir: one a recipient of a message."""
        new = self._maildir / "new"
        return sum(1 for _ in new.iterdir()) if new.is_dir() else 0

    def messages(self) -> list[Delivered]:
        """All that was delivered, in no order."""
        new = self._maildir / "new"
        return [_parse(path.read_bytes()) for path in new.iterdir()] if new.is_dir() else []

    def wait_for(self, count: int, timeout: float = 60.0) -> list[Delivered]:
        """Until `count` files are in the Maildir and the queue is empty; more than `count` fails too."""
        wait_until(lambda: self.count() >= count and self.queued() == 0, f"{count} messages in {self.name}", timeout)
        messages = self.messages()
        if len(messages) != count:
            pytest.fail(f"{self.name} delivered {len(messages)} messages; expected {count}")
        return messages

    def postconf(self, parameter: str) -> str:
        """The value that the instance uses."""
        program = str(Path(self._program).with_name("postconf"))
        argv = [program, "-c", str(self._config), "-h", parameter]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def _complete(path: Path) -> bool:
    """Whether a queue file is a message, or what a killed cleanup(8) left: it sets the x bit when all is written."""
    try:
        return path.stat().st_mode & 0o100 != 0
    except FileNotFoundError:  # moved on while we looked
        return False


def _parse(text: bytes) -> Delivered:
    trace: dict[str, str] = {}
    rest = text
    for name in TRACE_HEADERS:
        if not rest.startswith(name + b":"):
            raise ValueError(f"no {name.decode()} where Postfix writes it: {text[:400]!r}")
        end = rest.index(b"\n")
        while rest[end + 1 : end + 2] in (b" ", b"\t"):
            end = rest.index(b"\n", end + 1)
        trace[name.decode().lower()] = rest[len(name) + 1 : end].decode("utf-8", "replace").strip()
        rest = rest[end + 1 :]
    return Delivered(rest, trace)
