"""A Redis server of our own: nothing on disk, a TCP port and a unix socket."""

from __future__ import annotations

from pathlib import Path

from peers.process import HOST, Process, free_port, require


class Redis(Process):
    """`uri` and `unix_uri` are what `store:` takes. Stop, kill or pause it as a test needs."""

    def __init__(self, folder: Path) -> None:
        program = require("redis-server")
        self.port = free_port()
        self.uri = f"redis://{HOST}:{self.port}/0"
        self.unix_uri = f"redis+unix://{folder}/redis.sock"
        options = {
            "bind": HOST,
            "port": str(self.port),
            "unixsocket": f"{folder}/redis.sock",
            "dir": str(folder),
            "save": "",
            "appendonly": "no",
            "protected-mode": "no",
            "enable-debug-command": "local",
        }
        argv = [program, *(word for key, value in options.items() for word in (f"--{key}", value))]
        super().__init__("redis", argv, folder)
        self.wait_for_port(self.port)
