"""Rows about the auth service: away, slow, or answering what is no answer. Nobody is let in, and nobody is sent away.

Away and slow are a real service's; answers that a real one cannot be made to give come from a script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from faults.cells import Cell, Expected, Phase, Seen
from faults.player import PATIENCE, Node, Scene, play, short
from faults.rows_backend import sender
from operations import reload
from peers.process import HOST, free_port, wait_until
from rawclient import RawClient, plain
from scriptedauth import Answer, ScriptedAuth
from stack import RELAY, SUBMISSION, UNSHARED, Stack

LOGIN: Final = ("test", "1234")  # the demo user
TIMEOUT: Final = 1.0  # seconds of `auth_http: timeout`
LATER: Final = "454 4.7.0"  # RFC 4954 section 6


class Service:
    """A real auth service and a backend. It is asked in each login and never afterwards."""

    def __init__(self, folder: Path) -> None:
        self.node = Node()
        proxy = {"auth_http": {"url": "http://127.0.0.1:1/", "timeout": f"{TIMEOUT:g}s"}}
        self.stack = Stack(folder, [self.node.address], pool=UNSHARED, listeners=[SUBMISSION], proxy=proxy)
        self.stack.write_proxy_conf(auth_http={"url": self.stack.auth_url, "timeout": f"{TIMEOUT:g}s"})
        reload(self.stack, self.stack.process.pid)

    def down(self) -> None:
        assert self.stack.auth_process is not None
        self.stack.auth_process.kill()

    def slow(self) -> None:
        """Connections are taken, and nothing is said."""
        assert self.stack.auth_process is not None
        self.stack.auth_process.pause()

    def heal(self) -> None:
        service = self.stack.auth_process
        assert service is not None
        if service.running:
            service.resume()
        else:
            self.stack.start_auth()
        self.node.up()
        wait_until(lambda: _lets_in(self.stack), "the service is asked again", PATIENCE)

    def close(self) -> None:
        self.stack.stop()
        self.node.down()

    def show(self) -> str:
        return self.stack.show()


class Scripted:
    """Whatever the script says. Listeners: submission asks in AUTH, relay at RCPT."""

    def __init__(self, folder: Path) -> None:
        self.node = Node()
        self.service = ScriptedAuth(HOST, free_port())
        url = f"http://{HOST}:{self.service.address[1]}/auth"
        self.stack = Stack(
            folder,
            [],
            listeners=[SUBMISSION, RELAY],
            auth_url=None,
            policy={"routes.yaml": "version: 1\n"},
            proxy={
                "auth_http": {"url": url, "timeout": f"{TIMEOUT:g}s"},
                "backend": {"allow": [f"{HOST}/32"]},
            },
        )
        self.heal()

    @property
    def good(self) -> Mapping[str, str]:
        return {"Auth-Status": "OK", "Auth-Server": HOST, "Auth-Port": str(self.node.port)}

    def heal(self) -> None:
        self.service.script([self.good])
        self.node.up()
        wait_until(lambda: _lets_in(self.stack), "the service is asked again", PATIENCE)

    def close(self) -> None:
        self.stack.stop()
        self.service.stop()
        self.node.down()

    def show(self) -> str:
        return self.stack.show()


def _lets_in(stack: Stack) -> bool:
    """A service that gave no answer is asked once a second (drivers/authbreaker.py)."""
    with RawClient(stack.proxy) as client:
        return client.greeted().ask(b"AUTH PLAIN " + plain(*LOGIN)).startswith(b"235 ")


# --- a real service ------------------------------------------------------------------------------------------------

ROWS: Final = {"auth service down": ("killed", Service.down), "auth service slow": ("SIGSTOP", Service.slow)}
UNAFFECTED: Final = {
    Phase.AFTER: Expected("250, 354, 250", committed=1, outcome="delivered"),
    Phase.TEXT: Expected("250", committed=1, outcome="delivered"),
    Phase.DOT: Expected("250", committed=1, outcome="delivered"),
}


def _real(row: str, phase: Phase, expected: Expected) -> Cell:
    words, fault = ROWS[row]

    def run(world: Service) -> Seen:
        scene = Scene(phase, world.stack, world.node, sender(), login=LOGIN)
        return play(scene, lambda: fault(world), world.heal, [world.node])

    return Cell(row, phase, words, "auth", run, expected)


# --- a scripted one ------------------------------------------------------------------------------------------------


def _http(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]).encode()


WRONG: Final[Mapping[str, Answer]] = {
    "hangs up": b"",
    "garbage": b"\x16\x03\x01\x02\x00\xfe\xfd" * 40 + b"\r\n\r\n",
    "cut off": b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Ser",
    "HTTP 500": _http("Content-Length: 0", status="500 Internal Server Error"),
    "redirect": _http(f"Location: http://{HOST}:1/", "Content-Length: 0", status="302 Found"),
    "20 kB": _http("Auth-Status: OK", *[f"X-{n}: {'a' * 1000}" for n in range(20)], f"Auth-Server: {HOST}"),
    "no Auth-Server": _http("Auth-Status: OK"),
    "Auth-Server is a name": _http("Auth-Status: OK", "Auth-Server: localhost", "Auth-Port: 25"),
    "Auth-Server may not be asked": _http("Auth-Status: OK", "Auth-Server: 192.0.2.1", "Auth-Port: 25"),
    "Auth-Pool is nobody's": _http("Auth-Status: OK", "Auth-Pool: nowhere"),
    "Auth-Port 0": _http("Auth-Status: OK", f"Auth-Server: {HOST}", "Auth-Port: 0"),
}


def _ourselves(world: Scripted) -> Answer:
    """It would be a loop: no configuration allows it."""
    host, port = world.stack.proxy
    return {"Auth-Status": "OK", "Auth-Server": host, "Auth-Port": str(port)}


def _wrong(fault: str, answer: Callable[[Scripted], Answer]) -> Iterator[Cell]:
    row = "auth service answers nonsense"

    def in_auth(world: Scripted) -> Seen:
        scene = Scene(Phase.BEFORE, world.stack, world.node, sender(), login=LOGIN)
        return play(scene, lambda: world.service.script([answer(world)]), world.heal, [world.node])

    def at_rcpt(world: Scripted) -> Seen:
        scene = Scene(Phase.BEFORE, world.stack, world.node, sender(), listener="relay")
        return play(scene, lambda: world.service.script([answer(world)]), world.heal, [world.node])

    yield Cell(row, Phase.BEFORE, fault, "scripted auth", in_auth, Expected(LATER))
    told = Expected("250, 451 4.3.0", outcome="reset|refused")
    yield Cell(row, Phase.BEFORE, f"{fault}; asked at RCPT", "scripted auth", at_rcpt, told)


QUESTIONS: Final = 10


def _often(world: Scripted) -> Seen:
    """More logins than a client may make mistakes, within a second."""
    world.service.script([b""])
    with RawClient(world.stack.proxy) as client:
        client.greeted()
        client.send((b"AUTH PLAIN " + plain(*LOGIN) + b"\r\n") * QUESTIONS)
        told = [short(reply) if (reply := client.reply(PATIENCE)) else "closed" for _ in range(QUESTIONS)]
        asked = len(world.service.asked)
        world.heal()
    words = tuple(dict.fromkeys(told))
    return Seen(words, "ends" if client.ended else "stays", 0, note=f"asked {asked} of {QUESTIONS} times")


def cells() -> Iterator[Cell]:
    for row in ROWS:
        yield _real(row, Phase.BEFORE, Expected(LATER))
        for phase, expected in UNAFFECTED.items():
            yield _real(row, phase, expected)
    for fault, answer in WRONG.items():
        yield from _wrong(fault, lambda world, answer=answer: answer)  # type: ignore[misc]
    yield from _wrong("Auth-Server is this proxy", _ourselves)
    # Not counted as the client's mistakes; and a service that is down is not asked again at once.
    spared = Expected(LATER, note=r"asked [1-3] of .*")
    yield Cell(
        "auth service down, and asked again",
        Phase.BEFORE,
        f"{QUESTIONS} logins at once",
        "scripted auth",
        _often,
        spared,
    )
