"""Mail servers that cannot be installed beside Postfix: Debian packages, unpacked and run in place.

They conflict in apt, so their packages are only taken apart into FOLDER (`python tests/peers/unpacked.py` as root
does that, where it was not done). A server then runs in a mount namespace of its own, in which its files lie over
/usr, its users are in /etc/passwd, and /run, /var/lib and /var/spool are empty: it finds all at the places that it
was built for, and the machine does not see it.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path("/var/cache/smtpgate-peers")  # of root, as who runs what lies there

PACKAGES = {
    "exim": ("exim4-daemon-light", "libidn12"),
    "opensmtpd": ("opensmtpd",),
}
"""By the server's name: the packages that it needs beyond what Postfix and its libraries bring."""

USERS = {"Debian-exim": 64901, "opensmtpd": 64902, "opensmtpq": 64903}
"""With the ids that Debian keeps free for this (policy manual, section 9.2.2)."""

# $1: the unpacked tree; $2: where passwd and group are; the rest is the command.
ENTER = """\
set -e
tree=$1 own=$2
shift 2
mount --bind "$own/passwd" /etc/passwd
mount --bind "$own/group" /etc/group
for folder in /run /var/lib /var/spool; do mount -t tmpfs tmpfs "$folder"; done
[ ! -f "$own/prepare.sh" ] || . "$own/prepare.sh"
mount -t overlay overlay -o "lowerdir=$tree/usr:/usr" /usr
exec "$@"
"""


@functools.cache
def can_run() -> bool:
    """Whether this machine lets us have a file system view of our own: containers often do not."""
    with tempfile.TemporaryDirectory() as lower:
        script = f"mount -t tmpfs tmpfs /run && mount -t overlay overlay -o lowerdir={lower}:/usr /usr"
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, check=False)
    return done.returncode == 0


def tree(name: str) -> Path | None:
    """Where a server was unpacked, None if it was not."""
    folder = FOLDER / name
    return folder if (folder / "complete").exists() else None


def command(name: str, own: Path, argv: Sequence[str], prepare: str = "") -> list[str]:
    """How to run `argv` in the server's own view. own: a folder for passwd, group and the script.

    prepare: shell commands for the empty /run, /var/lib and /var/spool.
    """
    for file, line in (("passwd", "{0}:x:{1}:{1}::/nonexistent:/usr/sbin/nologin"), ("group", "{0}:x:{1}:")):
        users = "".join(line.format(*user) + "\n" for user in USERS.items())
        (own / file).write_text(Path("/etc", file).read_text() + users)
    (own / "prepare.sh").write_text(prepare)
    (own / "enter.sh").write_text(ENTER)
    return ["unshare", "--mount", "sh", str(own / "enter.sh"), str(FOLDER / name), str(own), *argv]


def unpack() -> None:
    """Fetch and take apart what is not there yet."""
    for name, packages in PACKAGES.items():
        if tree(name) is not None:
            continue
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as fetched:
            download = ["apt-get", "download", "-qq", *packages]
            if subprocess.run(download, cwd=fetched, capture_output=True, check=False).returncode != 0:
                # A fresh machine has no package lists yet.
                subprocess.run(["apt-get", "update", "-qq"], check=True)
                subprocess.run(download, cwd=fetched, check=True)
            for package in Path(fetched).glob("*.deb"):
                subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
        (folder / "complete").touch()


if __name__ == "__main__":
    unpack()
