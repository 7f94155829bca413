"""The two real programs, started as an operator would, with configurations written for one test.

Owns a folder (proxy.yaml, authsvc.yaml, users.yaml, policies/), the processes of the proxy and of the auth
service, and what they logged. Everything listens on ports of this test process's own loopback address. Refuses
to know backends: a test brings their addresses.

    stack = Stack(tmp_path, [(HOST, port)])        # the demo users: test / 1234 and test2 / password
    smtplib.SMTP(*stack.proxy).login("test", "1234")
    stack.stop()

In tests/e2e the fixture `start_stack` does the last line, and shows what the programs printed when a test fails.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from peers.process import HOST, START_TIMEOUT, Process, free_port, pause, wait_until

ROOT = Path(__file__).resolve().parents[2]

OWN = "own"
"""`auth_url`: an auth service of the stack's own. Also: a URL, or None for a proxy without auth_http."""

AUTH = ("plain", "login", "cram-md5")
CAPABILITIES = ("SIZE 10485760", "PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN")
SUBMISSION: Mapping[str, Any] = {"name": "submission"}
RELAY: Mapping[str, Any] = {"name": "relay", "auth": ["none"]}
"""Two listeners; `Stack` adds bind, auth and capabilities to what a test leaves out."""

UNSHARED: Mapping[str, Any] = {"health": {"probe": "off"}, "reuse": {"idle": "0s"}}
"""`pool` where a backend's connections are looked at: one for each session, and none that is nobody's."""

NO_LIMITS = {"limits.yaml": "version: 1\n"}

GRACE = "2s"
"""graceful_timeout, unless a test sets its own: sessions that a test left open do not hold up its end."""

CHEAP = {"memory": "8KiB", "passes": 1, "lanes": 1}
"""argon2id as in watch.users_yaml: a wrong password costs no more than a right one, and nothing is upgraded."""

GATHERED = 0.025
"""Seconds within which a line that was said is written; five times drivers.logqueue.GATHER."""

EDIT_TIMEOUT = 2.0
"""Seconds in which an edited policy takes effect; the promise of policies/README.md."""

# Our own settings would reach the programs through ${NAME}. Which modules they run is the tester's choice.
_ENV = {name: "" for name in os.environ if name.startswith("SMTPGATE_") and name != "SMTPGATE_COMPILED"}

Backend = tuple[str, int] | Mapping[str, Any]


class Stack:
    """The running programs. Returns from the constructor when every worker has its policies and auth answers.

    backends: (host, port) each, or a mapping as in policies/ (`addr`, `weight`, `max_conns`); they make the pool
    `core`, with the settings of `pool`, and every route leads there. listeners: mappings as in conf/proxy.yaml;
    the first one is `proxy`. policy: file name -> text, files of policies/; a routes.yaml replaces the stack's.
    proxy, authsvc: top-level keys that replace the stack's. auth_url: OWN, a URL, or None; auth_http: more of
    the proxy's keys about it. users: text of users.yaml. python: what runs both programs, the beginning of a command
    line. command: the program that serves SMTP, instead of proxy.py under it. env: for the proxy. patience: seconds
    for it to be up.
    """

    def __init__(
        self,
        folder: Path,
        backends: Sequence[Backend],
        *,
        store: str = "memory://",
        workers: int = 1,
        listeners: Sequence[Mapping[str, Any]] = (SUBMISSION,),
        policy: Mapping[str, str] = NO_LIMITS,
        pool: Mapping[str, Any] | None = None,
        proxy: Mapping[str, Any] | None = None,
        authsvc: Mapping[str, Any] | None = None,
        auth_url: str | None = OWN,
        auth_http: Mapping[str, Any] | None = None,
        users: str | None = None,
        python: Sequence[str] = (sys.executable,),
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        patience: float = START_TIMEOUT,
    ) -> None:
        self.folder = folder
        self.policies = folder / "policies"
        self.proxy_conf = folder / "proxy.yaml"
        self.users = folder / "users.yaml"
        self.auth = (HOST, free_port())
        self.workers = workers
        self._python = tuple(python)
        self.policies.mkdir()
        self.edit_policy("routes.yaml", routes(backends, pool))
        for name, text in policy.items():
            self.edit_policy(name, text)
        if users is None:
            shutil.copy(ROOT / "conf/users.yaml", self.users)
        else:
            self.users.write_text(users)
        complete = [_listener(one) for one in listeners]
        self.listeners: dict[str, tuple[str, int]] = {
            one["name"]: _address(one["bind"]) for one in complete if isinstance(one["bind"], str)
        }
        self.keys: dict[str, Any] = {
            "server_name": "proxy.example.net",
            "workers": workers,
            "store": store,
            "policies": "policies/",
            "graceful_timeout": GRACE,
            "listeners": complete,
        }
        if auth_url is not None:
            self.keys["auth_http"] = {"url": self.auth_url if auth_url == OWN else auth_url, **(auth_http or {})}
        self.write_proxy_conf(**(proxy or {}))
        self.auth_process: Process | None = None
        if auth_url == OWN:
            keys = {"bind": f"{HOST}:{self.auth[1]}", "store": store, "policies": "policies/", "argon2id": CHEAP}
            keys |= authsvc or {}
            (folder / "authsvc.yaml").write_text(_yaml({**keys, "users": {"file": "users.yaml"}}))
            self.auth_process = self._start_auth()
        program = list(command or (*self._python, str(ROOT / "proxy.py"), "-c", str(self.proxy_conf)))
        self.process = Process("proxy", program, folder, env={**_ENV, **(env or {})})
        try:
            self._wait_ready(patience)
        except BaseException:
            self.stop()
            raise

    @property
    def proxy(self) -> tuple[str, int]:
        """Where the first TCP listener answers."""
        return next(iter(self.listeners.values()))

    @property
    def auth_url(self) -> str:
        """What `auth_http: url` names; nginx's `auth_http` takes the same."""
        return f"http://{self.auth[0]}:{self.auth[1]}/auth"

    # --- configuration, edited live -----------------------------------------------------------------------

    def write_proxy_conf(self, **keys: Any) -> None:
        """proxy.yaml with these top-level keys changed; takes effect with HUP."""
        self.keys.update(keys)
        self.proxy_conf.write_text(_yaml(self.keys))

    def edit_policy(self, name: str, text: str) -> None:
        """Replace or make a file of policies/ by renaming a finished one into place."""
        draft = self.policies / f".{name}.new"
        draft.write_text(text)
        draft.rename(self.policies / name)

    # --- what the programs say ------------------------------------------------------------------------------

    def output(self) -> str:
        """All that the proxy printed."""
        pause(GATHERED)
        return self.process.output()

    def auth_output(self) -> str:
        """All that the auth service printed."""
        pause(GATHERED)
        return self.auth_process.output() if self.auth_process is not None else ""

    def log_events(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """The proxy's log lines in order; only those of that event and with those values, where given."""
        return _events(self.output(), event, fields)

    def auth_log_events(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """As `log_events`, of the auth service."""
        return _events(self.auth_output(), event, fields)

    def wait_for_event(
        self, event: str, count: int = 1, timeout: float = START_TIMEOUT, **fields: Any
    ) -> list[dict[str, Any]]:
        """Until the proxy has logged that event with those fields `count` times; returns the lines."""
        what = f"{count} lines of {event} {fields or ''} in the proxy's log"
        wait_until(lambda: len(self.log_events(event, **fields)) >= count, what, timeout)
        return self.log_events(event, **fields)

    def show(self) -> str:
        """What both programs printed, for a test that failed."""
        return f"--- proxy\n{self.output()}\n--- auth service\n{self.auth_output()}"

    # --- processes ------------------------------------------------------------------------------------------

    def worker_pids(self) -> list[int]:
        """The proxy's worker processes that are alive now."""
        return sorted(pid for pid in self.process.members() if pid != self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        """To the proxy's first process, gunicorn's arbiter."""
        self.process.signal(number)

    def stop_auth(self) -> None:
        """The auth service alone."""
        if self.auth_process is not None:
            self.auth_process.stop()

    def start_auth(self) -> None:
        """The auth service again, where it was."""
        self.auth_process = self._start_auth()
        self._wait_for_auth()

    def stop(self) -> int:
        """TERM to both, and wait for the last of their processes; returns the proxy's exit status.

        May be called twice.
        """
        if self.auth_process is not None and self.auth_process.running:
            self.auth_process.signal(signal.SIGTERM)  # both end at the same time
        status = self.process.stop()
        self.stop_auth()
        return status

    def _start_auth(self) -> Process:
        program = [*self._python, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.authsvc.py"), "authsvc.wsgi:app"]
        env = {**_ENV, "SMTPGATE_AUTHSVC_CONF": str(self.folder / "authsvc.yaml")}
        return Process("authsvc", program, self.folder, env=env)

    def _wait_ready(self, patience: float) -> None:
        # The arbiter listens before there are workers: a port that answers says nothing.
        deadline = time.monotonic() + patience
        while not self._has_policies():
            if not self.process.running or time.monotonic() > deadline:
                pytest.fail(f"the proxy is not up\n{self.show()}")
            time.sleep(0.02)
        self._wait_for_auth()

    def _has_policies(self) -> bool:
        """Every worker; where the log does not tell that, one that greets."""
        if self.keys.get("log", {}).get("level", "info") not in ("warning", "error"):
            return len({line["pid"] for line in self.log_events("policies_loaded")}) >= self.workers
        try:
            with socket.create_connection(self.proxy, timeout=1.0) as client:
                return client.recv(4) == b"220 "
        except OSError:
            return False

    def _wait_for_auth(self) -> None:
        if self.auth_process is None:
            return
        deadline = time.monotonic() + START_TIMEOUT
        while not _healthy(self.auth):
            if not self.auth_process.running or time.monotonic() > deadline:
                pytest.fail(f"the auth service is not up\n{self.show()}")
            time.sleep(0.02)


def routes(backends: Sequence[Backend], pool: Mapping[str, Any] | None = None) -> str:
    """routes.yaml: everything to the pool `core` of these backends, named b1, b2, ..."""
    listed = [
        {"name": f"b{n}", **({"addr": f"{one[0]}:{one[1]}"} if isinstance(one, tuple) else one)}
        for n, one in enumerate(backends, 1)
    ]
    return _yaml(
        {
            "version": 1,
            "routes": [{"name": "default", "match": {}, "pool": "core"}],
            "pools": {"core": {"backends": listed, **(pool or {})}},
        }
    )


def demo_policies(port: int) -> dict[str, str]:
    """The policies that the project ships, with the demo backend on HOST:port."""
    found = {path.name: path.read_text() for path in (ROOT / "policies").glob("*.yaml")}
    moved = {name: text.replace("127.0.0.1:10025", f"{HOST}:{port}") for name, text in found.items()}
    if moved == found:
        pytest.fail("policies/ names no backend 127.0.0.1:10025 any more")
    return moved


class _Written(yaml.SafeDumper):
    """Every value written out: the loader refuses anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Written, sort_keys=False)


def _listener(keys: Mapping[str, Any]) -> dict[str, Any]:
    auth, capabilities = list(AUTH), list(CAPABILITIES)
    bind = None if "bind" in keys else f"{HOST}:{free_port()}"
    # Whoever errs on purpose would wait for each reply; session/test_budgets.py is about that.
    return {"bind": bind, "auth": auth, "capabilities": capabilities, "error_delay": "0s", **keys}


def _address(bind: str) -> tuple[str, int]:
    """Of a unix socket: its path and 0."""
    host, _, port = bind.rpartition(":")
    return (bind, 0) if bind.startswith("unix:") else (host, int(port))


def _events(text: str, event: str | None, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """JSON lines; the rest is gunicorn's, or a line that is being written."""
    found = []
    for line in text.splitlines():
        if event is not None and event not in line:  # to parse every line of a long run takes seconds
            continue
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and (event is None or values.get("event") == event):
            found.append(values)
    return [line for line in found if all(line.get(name) == value for name, value in fields.items())]


def _healthy(address: tuple[str, int]) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
