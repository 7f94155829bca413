"""A Prometheus of our own: it scrapes what a test names, every second, and answers queries."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from peers.process import HOST, Process, free_port, require, wait_until

INTERVAL = 1.0
"""Seconds between two scrapes."""


class Prometheus(Process):
    """jobs: name -> targets, "host:port" each."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[str]]) -> None:
        self.port = free_port()
        conf = {
            "global": {"scrape_interval": f"{INTERVAL:g}s", "scrape_timeout": f"{INTERVAL:g}s"},
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": list(targets)}]} for name, targets in jobs.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.dump(conf))
        argv = [
            require("prometheus"),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={HOST}:{self.port}",
        ]
        super().__init__("prometheus", argv, folder)
        wait_until(self._ready, "Prometheus is ready")

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and value of each series of an instant vector, now."""
        url = f"http://{HOST}:{self.port}/api/v1/query?{urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        assert answer["status"] == "success", answer
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def value(self, expression: str) -> float | None:
        """Of a query with one series; None where it has none yet."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/-/ready", timeout=10) as response:
                return bool(response.status == 200)
        except OSError:  # not there yet, or 503
            return False
