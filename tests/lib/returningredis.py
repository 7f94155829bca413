"""A Redis that comes back where it was, and empty: for tests in which it is killed more than once."""

from __future__ import annotations

from pathlib import Path

import redis
from peers.process import HOST, Process, free_port, require

TIMEOUT = 5  # seconds for a command


class ReturningRedis:
    """Runs from construction. process: the one that runs now, or ran last; `start()` makes the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.start()

    @property
    def uri(self) -> str:
        """What `store:` takes."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers."""
        options = {"bind": HOST, "port": str(self.port), "dir": str(self._folder), "save": "", "protected-mode": "no"}
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        self.process = Process("redis", [require("redis-server"), *words], self._folder)
        self.process.wait_for_port(self.port)

    def say(self, *command: str) -> None:
        """One command, whose answer is no error."""
        with redis.Redis(HOST, self.port, socket_timeout=TIMEOUT) as client:
            client.execute_command(*command)

    def leases(self, beyond: float) -> list[str]:
        """Places of limits that are taken for longer than until `beyond`, Unix seconds."""
        with redis.Redis(HOST, self.port, socket_timeout=TIMEOUT, decode_responses=True) as client:
            keys = client.keys("smtpgate:cc:*")
            return [name for key in keys for name in client.zrangebyscore(key, beyond, "+inf")]
