"""Looks for what must not grow and what must not be told: a process's memory, credentials in a log.

The demo users' passwords are words that a log holds anyway ("1234"), so whoever looks for leaks makes users of
its own, with the weakest hashes that are still argon2id: a test is not about their cost.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Final

import argon2
import yaml

from authsvc.proof import crammd5
from authsvc.proof.passwords import Passwords

CHEAP: Final = argon2.Parameters(argon2.Type.ID, 19, 16, 32, time_cost=1, memory_cost=8, parallelism=1)


def users_yaml(passwords: dict[str, str]) -> str:
    """users.yaml for these names and passwords."""
    hasher = Passwords(CHEAP)
    users = {
        name: {"password": hasher.make(word.encode()), "cram_md5": crammd5.make(word.encode())}
        for name, word in passwords.items()
    }
    return yaml.safe_dump({"users": users})


def leaked(log: str, *passwords: str) -> list[str]:
    """The passwords that a log tells, in clear or in base64 at any alignment (so also inside AUTH PLAIN)."""
    return [word for word in passwords if any(shape in log for shape in _shapes(word))]


def _shapes(password: str) -> set[str]:
    shapes = {password, password.encode().hex()}
    for before in range(3):
        encoded = b64encode(b"\0" * before + password.encode())
        # The first and last groups depend on the neighbours: what is between them does not.
        first, last = (0 if before == 0 else 4), len(encoded) - (4 if (before + len(password)) % 3 else 0)
        shapes.add(encoded[first:last].decode())
    return shapes


class Memory:
    """How much a process has grown since now, at its most."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        # proc(5): 5 sets the peak back to what is resident.
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._before = self._peak()

    def growth(self) -> int:
        """Octets."""
        return self._peak() - self._before

    def _peak(self) -> int:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{self._pid}/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
