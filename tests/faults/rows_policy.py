"""Rows about policies that are edited badly: what was in force stays, and a folder never means "no limits"."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from faults.cells import Cell, Expected, Phase, Seen
from faults.player import Node, Scene, play, short
from faults.rows_backend import sender
from rawclient import RawClient
from stack import RELAY, UNSHARED, Stack


def limits(word: str) -> str:
    """limits.yaml: one message an hour for each sender's domain; whoever comes second is told that word."""
    return (
        'version: 1\nlimits:\n  few: {event: mail, rate: 1/1h, burst: 1, key: "{sender_domain}", '
        f'match: {{sender_domain: "*.once.example"}}, deny: {{reply: "450 4.7.1 {word}"}}}}\n'
    )


class Policies:
    """A proxy with that limit and one backend."""

    def __init__(self, folder: Path) -> None:
        self.node = Node()
        self.stack = Stack(
            folder,
            [self.node.address],
            pool=UNSHARED,
            auth_url=None,
            listeners=[RELAY],
            policy={"limits.yaml": limits("good")},
        )
        self.file = self.stack.policies / "limits.yaml"
        self._kept = folder / "kept"
        shutil.copytree(self.stack.policies, self._kept)

    def edited(self, event: str, edit: Callable[[], None]) -> None:
        """Edit, and wait until the proxy has said what it thinks of it."""
        before = len(self.stack.log_events(event))
        edit()
        self.stack.wait_for_event(event, before + 1)

    def heal(self) -> None:
        """Every file as it was, each by a rename."""
        self.node.up()

        def restore() -> None:
            for file in self._kept.iterdir():
                place = self.stack.policies / file.name
                if place.is_dir() and not place.is_symlink():
                    place.rmdir()
                self.stack.edit_policy(file.name, file.read_text())

        if self._broken() or self.file.read_text() != limits("good"):
            self.edited("policies_loaded", restore)

    def _broken(self) -> bool:
        lines = [line["event"] for line in self.stack.log_events() if str(line.get("event")).startswith("policies_")]
        return bool(lines[-1] == "policies_rejected")

    def word(self, domain: str) -> str:
        """What somebody from outside is told who comes second."""
        with RawClient(self.stack.proxy) as client:
            reply = client.greeted().ask(f"MAIL FROM:<other@{domain}>".encode())
        return f"{short(reply)} {reply.decode().split()[-1]}"

    def close(self) -> None:
        self.stack.stop()
        self.node.down()

    def show(self) -> str:
        return self.stack.show()


# --- edits; `wanted` is the event that says that the proxy has seen it ----------------------------------------------


def _write(text: str) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        file.write_text(text)

    return write


def _delete_all(file: Path) -> None:
    for one in file.parent.glob("*.yaml"):
        one.unlink()


def _dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "nowhere")


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _binary(file: Path) -> None:
    file.write_bytes(b"version: 1\n\xff\xfe\0")


def _swap(file: Path) -> None:
    target = file.parent.parent / "better.yaml"
    target.write_text(limits("better"))
    link = file.parent / ".link"
    link.symlink_to(target)
    link.replace(file)


def _rename(file: Path) -> None:
    draft = file.parent / ".draft"
    draft.write_text(limits("better"))
    draft.replace(file)


BROKEN: Final[dict[str, tuple[str, Callable[[Path], None]]]] = {
    "not YAML": ("YAML broken / partial on reload", _write("version: 1\nlimits: [\n")),
    "half written": ("YAML broken / partial on reload", _write(limits("half")[:60])),
    "empty": ("YAML broken / partial on reload", _write("")),
    "unknown key": ("YAML broken / partial on reload", _write(limits("wrong").replace("rate:", "rat:"))),
    "not text": ("YAML broken / partial on reload", _binary),
    "all files deleted": ("file replaced / deleted / unreadable", _delete_all),
    "dangling symlink": ("file replaced / deleted / unreadable", _dangling),
    "a folder in its place": ("file replaced / deleted / unreadable", _folder),
}
REPLACED: Final[dict[str, Callable[[Path], None]]] = {"rename": _rename, "symlink swap": _swap}
ONCE: Final = ("not YAML", "all files deleted")  # those that are played in each phase


def _run(phase: Phase, event: str, edit: Callable[[Path], None]) -> Callable[[Policies], Seen]:
    def run(world: Policies) -> Seen:
        scene = Scene(phase, world.stack, world.node, sender("once.example"))

        def inject() -> None:
            world.edited(event, lambda: edit(world.file))

        domain = scene.sender.partition("@")[2]
        return play(scene, inject, world.heal, [world.node], lambda: f"the next: {world.word(domain)}")

    return run


TOLD: Final = {
    Phase.BEFORE: "250, 250, 354, 250",
    Phase.AFTER: "250, 354, 250",
    Phase.TEXT: "250",
    Phase.DOT: "250",
}


def cells() -> Iterator[Cell]:
    for fault, (row, edit) in BROKEN.items():
        for phase, told in TOLD.items():
            if phase is Phase.BEFORE or fault in ONCE:
                run = _run(phase, "policies_rejected", edit)
                expected = Expected(told, committed=1, outcome="delivered", note="the next: 450 4.7.1 good")
                yield Cell(row, phase, fault, "policies", run, expected, long=phase is not Phase.BEFORE)
    for fault, edit in REPLACED.items():
        for phase, told in TOLD.items():
            # A session goes by the policy in force at each of its questions.
            expected = Expected(told, committed=1, outcome="delivered", note="the next: 450 4.7.1 better")
            run = _run(phase, "policies_loaded", edit)
            row, long = "file replaced / deleted / unreadable", phase is not Phase.BEFORE
            yield Cell(row, phase, fault, "policies", run, expected, long=long)
