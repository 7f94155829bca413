"""A Redis that comes back where it was, and empty: for tests in which it is killed more than once."""

from __future__ import annotations

from pathlib import Path

import redis
from peers.process import HOST, Process, free_port, require

TIMEOUT = 5  # seconds for a command
LOADED, LOADED_SIZE = 1000, 1024  # keys, and octets of each, that make a start take long


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

    def start(self, **more: object) -> None:
        """Returns when its port answers. more: options of redis.conf, with _ for -."""
        options = {"bind": HOST, "port": str(self.port), "dir": str(self._folder), "save": "", "protected-mode": "no"}
        options |= {key.replace("_", "-"): str(value) for key, value in more.items()}
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        self.process = Process("redis", [require("redis-server"), *words], self._folder)
        self.process.wait_for_port(self.port)

    def say(self, *command: str) -> None:
        """One command, whose answer is no error."""
        with redis.Redis(HOST, self.port, socket_timeout=TIMEOUT) as client:
            client.execute_command(*command)

    def start_loading(self, seconds: float) -> None:
        """As `start`, but it has so much to load that it answers nothing else than -LOADING for that long."""
        with redis.Redis(HOST, self.port, socket_timeout=TIMEOUT) as client:
            client.mset({f"load:{number}": "x" * LOADED_SIZE for number in range(LOADED)})
            client.save()
        self.process.kill()
        delay = int(seconds / LOADED * 1e6)  # after each key, and it looks at its clients as often
        self.start(key_load_delay=delay, loading_process_events_interval_bytes=LOADED_SIZE)

    def leases(self, beyond: float) -> list[str]:
        """Places of limits that are taken for longer than until `beyond`, Unix seconds."""
        with redis.Redis(HOST, self.port, socket_timeout=TIMEOUT, decode_responses=True) as client:
            keys = client.keys("smtpgate:cc:*")
            return [name for key in keys for name in client.zrangebyscore(key, beyond, "+inf")]
