"""The documentation's code blocks, and the machine on which a page is tried.

A fence's first word says what it is, and so what is done with it:

    console                       each line that begins with "$ " is run; what stands below it is what it prints:
                                  "…" stands for anything, and a line "…" for any number of lines; what a line
                                  `export NAME=VALUE` says holds to the page's end
    console background=TEXT       one command that goes on; the next one waits until it has printed TEXT
    console status=N              its last command exits with N
    console elsewhere             for the reader's own machine: not run here, only read by a shell
    yaml KIND                     KIND is proxy.yaml, authsvc.yaml or policies: valid as it stands, or, with `part`,
                                  laid over a whole one
    yaml other                    of another program
    TYPE file=PATH                besides: written to that file of the page's copy of the project
    nginx, ini, json, text, promql, lua, mermaid    shown, and nothing else
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from peers.process import Process, wait_until

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN: Final = {"nginx", "ini", "json", "text", "promql", "lua"}
COMMAND_TIMEOUT: Final = 60.0
UP_TIMEOUT: Final = 60.0
ANYTHING: Final = "…"
LEFT_OUT: Final = shutil.ignore_patterns(".git", ".venv", "build", "tests", "var", "site", ".*_cache", "__pycache__")


@dataclass(frozen=True, slots=True)
class Block:
    """A fence. line: of its first mark; words: of its info string."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str

    @property
    def kind(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def options(self) -> dict[str, str]:
        """`name=value`, and `name` alone as "". "_" in a value is a space."""
        pairs = (word.partition("=") for word in self.words[1:])
        return {name: value.replace("_", " ") for name, _, value in pairs}

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fences of a page, those in lists and quotations too."""
    found = []
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            found.append(Block(page, token.map[0] + 1, tuple(token.info.split()), token.content))
    return found


@dataclass(slots=True)
class Command:
    """A line to run, and what is promised that it prints."""

    text: str
    promised: list[str] = field(default_factory=list)


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    going_on = False
    for line in block.text.splitlines():
        if going_on:
            found[-1].text += "\n" + line
        elif line.startswith("$ "):
            found.append(Command(line[2:]))
        else:
            assert found, f"{block}: something is printed before anything is run"
            found[-1].promised.append(line)
            continue
        going_on = line.endswith("\\")
    return found


def missing(promised: list[str], printed: str) -> str | None:
    """The first promised line that is not there in its place; "…" stands for any text, a line of it for any lines."""
    lines = iter(printed.splitlines())
    for wanted in promised:
        if not wanted.strip() or wanted.strip() == ANYTHING:
            continue
        pattern = re.compile(".*".join(map(re.escape, wanted.strip().split(ANYTHING))))
        if not any(pattern.fullmatch(line.strip()) for line in lines):
            return wanted
    return None


class Machine:
    """A copy of the project in `folder`, and a network of its own, in which the default ports are free."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "smtpgate"
        shutil.copytree(ROOT, self.project, ignore=LEFT_OUT, symlinks=True)
        (self.project / ".venv").symlink_to((ROOT / ".venv").resolve())
        self._folder = folder
        self._processes: list[Process] = []
        self._exported: dict[str, str] = {}
        self._network = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._network.stdout is not None
        self.usable = self._network.stdout.readline() == "up\n"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """To its end; both outputs in one, as a terminal shows them."""
        exported = re.fullmatch(r"export ([A-Z_]+)=(\S+)", command)
        if exported is not None:
            self._exported[exported[1]] = exported[2]
        return subprocess.run(
            self._inside(command),
            cwd=self.project,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT,
        )

    def start(self, command: str, ready: str) -> None:
        """Until it has printed `ready`."""
        inside = f"cd {self.project} && exec {command}"
        process = Process(f"background{len(self._processes)}", self._inside(inside), self._folder, self._environ())
        self._processes.append(process)
        wait_until(lambda: ready in process.output() or not process.running, f"{command}: {ready!r}", UP_TIMEOUT)
        assert process.running, process.output()

    def write(self, name: str, text: str) -> None:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.running:
                process.signal(signal.SIGINT)
                try:
                    wait_until(lambda process=process: not process.running, f"the end of {process.name}", 10.0)  # type: ignore[misc]
                finally:
                    process.stop()
        self._network.kill()
        self._network.communicate()

    def _inside(self, command: str) -> list[str]:
        return ["nsenter", f"--target={self._network.pid}", "--net", "--", "bash", "-c", command]

    def _environ(self) -> dict[str, str]:
        """Nothing of ours but the way to programs: what a page needs it says."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "PATH") if name in os.environ}
        return {
            **kept,
            "PATH": kept.get("PATH", os.defpath) + ":/usr/sbin:/sbin",
            "COLUMNS": "120",
            "TERM": "dumb",
            **self._exported,
        }
