"""The auth service as a process, with the user stores that a test names, and its operator's command."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from peers.process import HOST, Process, free_port, pause
from stack import GATHERED

ROOT = Path(__file__).parents[2]
ARGV = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "authsvc.wsgi:app"]
GATECTL = str(ROOT / "tools/gatectl")
POLICIES = """
version: 1
routes: [{name: all, match: {}, pool: core}]
pools: {core: {backends: [{name: a, addr: "127.0.0.1:10025"}]}}
"""


class AuthService:
    """users: the value of `users:`, as YAML. more: further keys."""

    def __init__(self, folder: Path, users: str, more: str = "") -> None:
        self.folder, self.port = folder, free_port()
        (folder / "policies").mkdir()
        (folder / "policies/policies.yaml").write_text(POLICIES)
        (folder / "authsvc.yaml").write_text(f"bind: {HOST}:{self.port}\npolicies: policies\nusers: {users}\n{more}")
        self._env = {"SMTPGATE_AUTHSVC_CONF": str(folder / "authsvc.yaml"), "PYTHONUNBUFFERED": "1"}
        self.process: Process | None = None

    def start(self) -> None:
        """Returns when a worker answers."""
        self.process = Process("authsvc", ARGV, self.folder, self._env)
        self.process.wait_for_port(self.port)
        assert self.get("/healthz")[0] == 200

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()

    def login(self, user: str, password: str, timeout: float = 20.0) -> Mapping[str, str]:
        """The Auth- headers of the answer to a login."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            headers = {
                "Auth-Method": "plain",
                "Auth-User": quote(user),
                "Auth-Pass": quote(password),
                "Auth-Protocol": "smtp",
                "Auth-Login-Attempt": "1",
                "Client-IP": "192.0.2.7",
            }
            connection.request("GET", "/auth", headers=headers)
            response = connection.getresponse()
            response.read()
            return {name: value for name, value in response.getheaders() if name.startswith("Auth-")}
        finally:
            connection.close()

    def code(self, user: str, password: str) -> str:
        """OK, or the error code of the answer to a login."""
        answer = self.login(user, password)
        return "OK" if answer["Auth-Status"] == "OK" else answer["Auth-Error-Code"]

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=20) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def gatectl(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """`gatectl user …`, of this service's configuration."""
        return gatectl(self.folder / "authsvc.yaml", *arguments, given=given)

    def log(self) -> list[dict[str, object]]:
        assert self.process is not None
        pause(GATHERED)
        return [json.loads(line) for line in self.process.output().splitlines() if line.startswith("{")]


def gatectl(conf: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GATECTL, "user", "--conf", str(conf), *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
