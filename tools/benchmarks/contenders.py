"""Who is measured: no proxy at all, HAProxy, nginx's mail proxy, and smtpgate; each in front of the same backend.

Owns their configurations, so that each does the same work as far as it can: nginx asks a constant answer of its own
http server, smtpgate counts two limits a message in Redis and logs. Starting and stopping is tests/peers' matter.
"""

from __future__ import annotations

import http.client
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from peers.haproxy import HAProxy
from peers.nginx import Nginx
from peers.process import HOST, Process, free_port
from peers.redis import Redis
from stack import OWN, Stack

import compiled
from tools.benchmarks import interpreters
from tools.benchmarks.interpreters import ROOT, Interpreter

# nginx counts a session three times: client, auth server, backend; a container may have 20,000 descriptors. HAProxy's
# bound is of sessions, each with two.
MAX_CONNECTIONS: Final = 18_000
MAX_FORWARDED: Final = 8_000
# Ours is of sessions, of which a workload has nine tenths at most: above, smtpgate hurries its clients.
MAX_SESSIONS: Final = 15_000
START_PATIENCE: Final = 120.0  # 10,000 limits are read for seconds
PER_FILE: Final = 1000  # limits and routes; a file has a bound (document.reader.MAX_NODES)
# proxy.py for more sessions than this machine has descriptors for, as smtpgate counts them.
CROWDED: Final = Path(__file__).with_name("crowdedproxy.py")

LIMITS: Final = """\
version: 1
replies:
  slow: "450 4.7.1 rate limit {limit}, retry in {retry}s"
limits:
  net.msgs: {event: mail, rate: 1000000000/1s, burst: 1000000000, key: "{net}", deny: {reply: slow}}
  net.rcpts: {event: rcpt, rate: 1000000000/1s, burst: 1000000000, key: "{net}", deny: {reply: slow}}
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a workload asks of a contender. users: users.yaml where clients log in; certificate: (chain, key).

    kept: how long a grant of the auth service is good for the same credentials (auth_cache).
    entries: so many limits, routes and users of a set beside those that apply, of which none does. crowded: there are
    thousands of sessions at once. python: what runs smtpgate.
    """

    backend: int
    python: Interpreter
    auth: bool = False
    kept: str = "0s"
    tls: Literal["off", "starttls", "implicit"] = "off"
    workers: int = 1
    certificate: tuple[Path, Path] | None = None
    users: str | None = None
    entries: int = 0
    crowded: bool = False


class Contender(ABC):
    """A running program, or several. `port` is where clients connect, on HOST."""

    name: str
    port: int

    @abstractmethod
    def proxies(self) -> Sequence[int]:
        """The processes that carry the mail."""

    def helpers(self) -> Sequence[int]:
        """Those that serve them: authentication, counters."""
        return ()

    @abstractmethod
    def stop(self) -> None:
        """May be called twice."""


class Direct(Contender):
    """No proxy: what the load and the backend alone can do."""

    name = "direct"

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.port = setting.backend

    def proxies(self) -> Sequence[int]:
        return ()

    def stop(self) -> None:
        return None


class Forwarder(Contender):
    """HAProxy in tcp mode: octets, and nothing of SMTP."""

    name = "haproxy"

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.port = free_port()
        threads = f"global\n    nbthread {setting.workers}\n    maxconn {MAX_FORWARDED}\n"
        conf = f"{threads}listen smtp\n    bind {HOST}:{self.port}\n    server sink {HOST}:{setting.backend}\n"
        self._process = HAProxy(folder, conf, self.port)

    def proxies(self) -> Sequence[int]:
        return self._process.members()

    def stop(self) -> None:
        self._process.stop()


class MailProxy(Contender):
    """nginx's mail proxy with its own http server as auth server, answering a constant."""

    name = "nginx"

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.port, auth = free_port(), free_port()
        tls = ""
        if setting.certificate is not None:
            chain, key = setting.certificate
            tls = f"ssl_certificate {chain}; ssl_certificate_key {key};"
            tls += "starttls on;" if setting.tls == "starttls" else ""
        mail = f"""
            server_name proxy.example.net;
            auth_http {HOST}:{auth}/;
            xclient off;
            {tls}
            server {{
                listen {HOST}:{self.port}{" ssl" if setting.tls == "implicit" else ""};
                protocol smtp;
                smtp_auth {"plain login" if setting.auth else "none"};
                smtp_capabilities "SIZE 100000000" PIPELINING 8BITMIME;
            }}
        """
        headers = f"Auth-Status OK; Auth-Server {HOST}; Auth-Port {setting.backend}".split("; ")
        http = f"""
            keepalive_requests 1000000;
            server {{
                listen {HOST}:{auth};
                location / {{
                    {"".join(f"add_header {header};" for header in headers)}
                    return 204;
                }}
            }}
        """
        self._process = Nginx(folder, mail, self.port, http, workers=setting.workers, connections=MAX_CONNECTIONS)

    def proxies(self) -> Sequence[int]:
        return self._process.members()

    def stop(self) -> None:
        self._process.stop()


class Gate(Contender):
    """smtpgate as an operator runs it, with everything on: workers under gunicorn's arbiter, two limits a message in
    Redis, log lines, metrics, and authsvc where clients log in. Compiled.
    """

    name = "smtpgate"
    compiled = True
    observed = True

    def __init__(self, folder: Path, setting: Setting) -> None:
        store = folder / "redis"
        store.mkdir()
        self._redis = Redis(store)
        listener: dict[str, object] = {
            "name": "bench",
            "auth": ["plain", "login"] if setting.auth else ["none"],
            "capabilities": ["SIZE 100000000", "PIPELINING", "8BITMIME"],
        }
        if setting.certificate is not None:
            chain, key = setting.certificate
            listener |= {"tls": setting.tls, "certificate": [{"cert": str(chain), "key": str(key)}]}
        python = self.interpreter(setting.python).command(built=self.compiled)
        metrics = (HOST, free_port())
        try:
            self._stack = Stack(
                folder,
                [(HOST, setting.backend)],
                store=self._redis.unix_uri,
                workers=setting.workers,
                listeners=[listener],
                policy={"limits.yaml": LIMITS, **unrelated(setting.entries)},
                pool={"xclient": "off"},  # as nginx above: the backend hears the same from both
                proxy={"max_sessions": MAX_SESSIONS} | self.observation(metrics),
                auth_url=OWN if setting.auth else None,
                auth_http={"cache": setting.kept},
                users=setting.users,
                authsvc={"argon2id": {"memory": "64MiB", "passes": 3, "lanes": 4}, "auth_cache": setting.kept},
                python=python,
                command=(*python, str(CROWDED), "-c", str(folder / "proxy.yaml")) if setting.crowded else None,
                patience=START_PATIENCE,
            )
        except BaseException:  # ^C, too, leaves no server running
            self._redis.stop()
            raise
        self.port = self._stack.proxy[1]
        try:
            self._is_what_it_says(metrics)
        except BaseException:  # as above
            self.stop()
            raise

    @classmethod
    def interpreter(cls, chosen: Interpreter) -> Interpreter:
        """What it runs under, where `chosen` is what the operator would take."""
        return chosen

    @classmethod
    def observation(cls, metrics: tuple[str, int]) -> dict[str, object]:
        """Of proxy.yaml: what is told of the messages, and where. metrics: an address to ask for them."""
        if not cls.observed:
            return {"log": {"level": "warning"}}
        return {"metrics": {"bind": f"{metrics[0]}:{metrics[1]}"}, "log": {"level": "info", "format": "json"}}

    def proxies(self) -> Sequence[int]:
        return self._stack.process.members()

    def helpers(self) -> Sequence[int]:
        auth: Process | None = self._stack.auth_process
        return [*self._redis.members(), *(auth.members() if auth is not None else ())]

    def stop(self) -> None:
        self._stack.stop()
        self._redis.stop()

    def _is_what_it_says(self, metrics: tuple[str, int]) -> None:
        """Compiled, if it should be, and counting. Raises NotAsAskedError."""
        if self.compiled and compiled.VARIABLE in self._stack.output():
            raise NotAsAskedError(f"{self.name} runs plain Python: its sources have changed since they were compiled")
        if not self.observed:
            return
        connection = http.client.HTTPConnection(*metrics, timeout=5)
        try:
            connection.request("GET", "/metrics")
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != http.client.OK:
            raise NotAsAskedError(f"{self.name}: GET /metrics is answered with {status}")


class UnobservedGate(Gate):
    """smtpgate without metrics, whose log tells of nothing but trouble: what it costs to observe."""

    name = "unobserved"
    observed = False


class PlainGate(Gate):
    """smtpgate without a compiler: what the extension modules bring."""

    name = "plain"
    compiled = False


class VenvGate(PlainGate):
    """smtpgate without a compiler, under .venv's Python: what the interpreter brings."""

    name = "venv"

    @classmethod
    def interpreter(cls, chosen: Interpreter) -> Interpreter:
        return interpreters.own()


KINDS: Final[dict[str, type[Direct | Forwarder | MailProxy | Gate]]] = {
    one.name: one for one in (Direct, Forwarder, MailProxy, Gate, UnobservedGate, PlainGate, VenvGate)
}
OURS: Final = tuple(name for name, kind in KINDS.items() if issubclass(kind, Gate))


class NotAsAskedError(Exception):
    """A contender that is not what its name says. `str()` tells in what."""


def unrelated(entries: int) -> dict[str, str]:
    """Files of policies/ with so many limits and routes about other senders, and a set with as many users."""
    files = {}
    for first in range(0, entries, PER_FILE):
        numbers = range(first, min(first + PER_FILE, entries))
        limits = "".join(
            f'  other{n}: {{event: mail, match: {{sender: "s{n}@example.net"}}, rate: 1/1s, key: "{{net}}", '
            'deny: {reply: "450 4.7.1 slow down"}}\n'
            for n in numbers
        )
        routes = "".join(
            f'  - {{name: other{n}, match: {{sender: "s{n}@example.net"}}, pool: core}}\n' for n in numbers
        )
        files[f"a{first}.yaml"] = f"version: 1\nlimits:\n{limits}routes:\n{routes}"
    if entries:
        users = ", ".join(f'"u{n}@example.net"' for n in range(entries))
        files["sets.yaml"] = (
            f"version: 1\nsets:\n  many: {{user: [{users}]}}\n"
            'limits:\n  many.msgs: {event: mail, match: {user: "@many"}, rate: 1/1s, key: "{user}", '
            'deny: {reply: "450 4.7.1 slow down"}}\n'
        )
    return files


def describe(name: str, python: Interpreter) -> str:
    """What a contender of ours is, as it says itself, and under which Python. "" of the others."""
    kind = KINDS[name]
    if not issubclass(kind, Gate):
        return ""
    under = kind.interpreter(python)
    argv = [*under.command(built=kind.compiled), str(ROOT / "proxy.py"), "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return f"{done.stdout.strip()}; {under}"


def start(name: str, folder: Path, setting: Setting) -> Contender:
    """The contender of that name, ready. folder: an empty one of its own. Raises NotAsAskedError."""
    folder.mkdir(parents=True)
    return KINDS[name](folder, setting)
