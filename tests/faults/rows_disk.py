"""Rows about a disk without room: for a text that is kept for the next backend, for the policies of the next start.

The disk is a small tmpfs, so the ENOSPC is the kernel's own. Mounting one needs root, and a machine that permits it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from faults.cells import Cell, Expected, Phase, Seen
from faults.player import Node, Scene, play
from faults.rows_backend import sender
from faults.rows_policy import limits
from peers.process import require_root
from rawclient import RawClient
from stack import RELAY, UNSHARED, Stack

SIZE: Final = 4 * 1024 * 1024  # octets of the disk
TEXT: Final = 1024 * 1024  # octets of a message that has no room in memory


class SmallDisk:
    """A proxy with one backend. What it keeps for a while (TMPDIR) and for its next start (state_dir) is there."""

    def __init__(self, folder: Path) -> None:
        require_root("a file system of our own is mounted")
        self._disk = folder / "disk"
        self._disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self._disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("needs mount(8), which is not permitted here")
        (self._disk / "state").mkdir()
        self.node = Node()
        self.stack = Stack(
            folder,
            [self.node.address],
            pool={**UNSHARED, "failover": {"until": "buffered", "buffer": "1KiB"}},
            auth_url=None,
            listeners=[RELAY],
            policy={"limits.yaml": limits("good")},
            proxy={"state_dir": str(self._disk / "state")},
            env={"TMPDIR": str(self._disk)},
        )
        # Python decides once where temporary files are, and not for a folder that is full.
        with RawClient(self.stack.proxy) as client:
            assert client.greeted().deliver(b"x" * 1022 + b"\r\n").startswith(b"250 ")

    def fill(self) -> None:
        """Not an octet more."""
        with (self._disk / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def fill_and_edit(self) -> None:
        self.fill()
        loaded = len(self.stack.log_events("policies_loaded"))
        self.stack.edit_policy("limits.yaml", limits("better"))
        self.stack.wait_for_event("policies_loaded", loaded + 1)

    def heal(self) -> None:
        self.node.up()
        (self._disk / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        self.stack.stop()
        self.node.down()
        subprocess.run(["umount", self._disk], check=False)

    def show(self) -> str:
        return self.stack.show()


def _played(phase: Phase, fault: Callable[[SmallDisk], None], *, padding: int = 0) -> Callable[[SmallDisk], Seen]:
    def run(world: SmallDisk) -> Seen:
        scene = Scene(phase, world.stack, world.node, sender(), padding=padding)
        told = len(world.stack.log_events("policies_not_kept"))

        def note() -> str:
            return "said that it is not kept" if len(world.stack.log_events("policies_not_kept")) > told else ""

        return play(scene, lambda: fault(world), world.heal, [world.node], note)

    return run


def cells() -> Iterator[Cell]:
    kept = Expected("452 4.3.1", outcome="refused", event="spool_failed")
    run = _played(Phase.TEXT, SmallDisk.fill, padding=TEXT)
    yield Cell("disk full (spool)", Phase.TEXT, "no room for the text", "disk", run, kept)
    edited = Expected("250, 250, 354, 250", committed=1, outcome="delivered", note="said that it is not kept")
    run = _played(Phase.BEFORE, SmallDisk.fill_and_edit)
    yield Cell("disk full (state_dir)", Phase.BEFORE, "a policy is edited", "disk", run, edited)
