"""HAProxy as an operator would put it before or behind the proxy."""

from __future__ import annotations

from pathlib import Path

from peers.process import Process, require

DEFAULTS = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""


class HAProxy(Process):
    """`conf` holds `listen`, `frontend` and `backend` sections; `port` is one that it binds, to wait for."""

    def __init__(self, folder: Path, conf: str, port: int) -> None:
        program = require("haproxy")
        path = folder / "haproxy.cfg"
        path.write_text(f"{DEFAULTS}\n{conf}\n")
        self.port = port
        super().__init__("haproxy", [program, "-db", "-f", str(path)], folder)
        self.wait_for_port(port)
