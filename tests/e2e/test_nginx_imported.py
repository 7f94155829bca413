"""Configurations as nginx's users have them (tests/nginx/*.conf): nginx takes them, they are imported, they serve.

The import and its check see the files as they are. Only then are the addresses, which are those of a real machine,
replaced by ports of this test's own loopback address.
"""

from __future__ import annotations

import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import Authority
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from nameserver import Table, name_server
from nginxduel import OK
from peers.process import HOST, Process, free_port, require
from rawclient import RawClient
from recorder import Act, Recorder
from scriptedauth import ScriptedAuth

from smtpgate.main import main
from tools.commands.gatectl import gatectl

pytestmark = pytest.mark.peer("libnginx-mod-mail")

ROOT = Path(__file__).parents[2]
CONFS = ROOT / "tests/nginx"
NAMES = ["hosting", "realip", "resolver", "servers", "tls"]
LETTER = b"Subject: x\r\n\r\nx\r\n"


@dataclass(slots=True)
class Machine:
    """A folder with the files of tests/nginx, what is behind a proxy, and the proxies that were started."""

    folder: Path
    ca: Path
    auth: ScriptedAuth
    backend: Recorder
    started: list[Process]

    def imported(self, name: str) -> Path:
        """What the command makes of a file."""
        output = self.folder / f"{name}.yaml"
        done = CliRunner().invoke(gatectl, ["import-nginx", str(self.folder / f"{name}.conf"), "-o", str(output)])
        assert done.exit_code == 0, done.output
        return output

    def start(self, name: str, elsewhere: Mapping[str, str]) -> None:
        """The proxy with an imported file. elsewhere: address in the file -> where it is in this test."""
        path = self.imported(name)
        text = path.read_text()
        for address, here in elsewhere.items():
            assert address in text
            text = text.replace(address, here)
        text = re.sub(r"(127\.0\.0\.1|localhost):9000", f"{HOST}:{self.auth.address[1]}", text)
        path.write_text(text)
        process = Process(name, [sys.executable, str(ROOT / "proxy.py"), "-c", str(path)], self.folder)
        self.started.append(process)
        first = next(here for here in elsewhere.values() if here.startswith(HOST))
        process.wait_for_port(int(first.rpartition(":")[2]))

    def grants(self) -> None:
        """Everybody may log in, and everything goes to the backend."""
        host, port = self.backend.address
        self.auth.script([{**OK, "Auth-Server": host, "Auth-Port": str(port)}])

    def asked(self, header: str) -> list[str]:
        """The values of a header in all questions so far."""
        pattern = re.compile(rf"^{header}: (.*)\r$", re.MULTILINE)
        return [value for question in self.auth.asked for value in pattern.findall(question.decode("latin-1"))]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "etc"
    shutil.copytree(CONFS, folder)
    (folder / "tls").mkdir()
    authority = Authority(folder / "tls")
    for name, host in (("mail.rsa", HOST), ("mail.ecdsa", HOST), ("example.org", "mail.example.org")):
        authority.sign(name, host)
    lock(folder / "tls/example.org.key", folder / "tls/example.org.pass")
    with ScriptedAuth(HOST, free_port()) as auth, Recorder(HOST, free_port()) as backend:
        machine = Machine(folder, authority.ca, auth, backend, [])
        machine.grants()
        yield machine
        for process in machine.started:
            process.stop()


def lock(key: Path, passwords: Path) -> None:
    """Give a key a passphrase, and write that among others."""
    opened = serialization.load_pem_private_key(key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    key.write_bytes(opened.private_bytes(*form, serialization.BestAvailableEncryption(b"sesame")))
    passwords.write_text("wrong\nsesame\n")


def here() -> str:
    return f"{HOST}:{free_port()}"


def address(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    return host, int(port)


def test_all_are_tried() -> None:
    assert sorted(path.stem for path in CONFS.glob("*.conf")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nginx_takes_it(machine: Machine, name: str) -> None:
    # Not its addresses, which this machine does not have: -t binds them.
    path = machine.folder / f"{name}.conf"
    path.write_text(path.read_text().replace("192.0.2.2", HOST.rpartition(".")[0] + "."))
    argv = [require("nginx"), "-t", "-p", str(machine.folder), "-e", "stderr", "-c", str(path)]
    done = subprocess.run([*argv, "-g", "pid nginx.pid;"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_what_is_imported_passes_the_check(
    machine: Machine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.imported(name)
    monkeypatch.chdir(tmp_path)
    checked = CliRunner().invoke(main, ["-c", str(path), "--check"])
    assert (checked.exit_code, checked.output) == (0, f"{path}: valid\n")


# --- one client through each listener that matters -----------------------------------------------------------


def test_tls(machine: Machine) -> None:
    submission, smtps, other = here(), here(), here()
    machine.start("tls", {"192.0.2.25:587": submission, "192.0.2.25:465": smtps, "192.0.2.26:587": other})
    trust = ssl.create_default_context(cafile=str(machine.ca))
    with smtplib.SMTP(*address(submission), timeout=20) as client:
        client.ehlo("client.example")
        assert "auth" not in client.esmtp_features
        assert client.docmd("MAIL", "FROM:<a@example.com>")[0] == 530
        client.starttls(context=trust)
        client.login("ann", "secret")
        assert client.sendmail("a@example.com", ["b@example.com"], LETTER) == {}
    with smtplib.SMTP_SSL(*address(smtps), timeout=20, context=trust) as client:
        client.login("ann", "secret")
    trust.check_hostname = False
    with smtplib.SMTP(*address(other), timeout=20) as client:
        assert client.ehlo()[1].splitlines()[0] == b"mail.example.org"
        client.starttls(context=trust)
        assert isinstance(client.sock, ssl.SSLSocket)
        certificate = client.sock.getpeercert()
        assert certificate is not None
        assert ("DNS", "mail.example.org") in certificate["subjectAltName"]
    assert machine.asked("Auth-SSL") == ["on", "on"]
    assert b"XCLIENT ADDR=127.0.0.1 LOGIN=ann NAME=[UNAVAILABLE]\r\n" in machine.backend.conversations[0].octets


def test_servers(machine: Machine) -> None:
    mx, submission, relay = here(), here(), machine.folder / "relay.sock"
    machine.backend.script = {"AUTH": Act(b"235 2.7.0 in\r\n")}
    machine.start(
        "servers",
        {
            '["0.0.0.0:25", "[::]:25"]': mx,
            '"0.0.0.0:587"': submission,
            "unix:/run/relay.sock": f"unix:{relay}",
            "unix:/run/auth.sock:/relay": "http://127.0.0.1:9000/relay",
        },
    )
    with smtplib.SMTP(*address(mx), timeout=20) as client:
        assert client.sendmail("a@example.com", ["b@example.com"], LETTER) == {}
    assert (machine.asked("X-Auth-Key"), machine.asked("X-Listener")) == (['k3y "with" quotes'], [])
    with smtplib.SMTP(*address(submission), timeout=20) as client:
        client.login("ann", "secret")
        assert client.sendmail("a@example.com", ["b@example.com"], LETTER) == {}
    assert machine.asked("X-Listener") == ["submission"]
    first, second = [conversation.commands for conversation in machine.backend.conversations]
    assert first[1] == b"XCLIENT ADDR=127.0.0.1 NAME=[UNAVAILABLE]"
    assert second[1] == b"AUTH PLAIN AGFubgBzZWNyZXQ="
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(relay))
        assert sock.recv(1000) == b"220 relay.internal ESMTP ready\r\n"
        sock.sendall(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nQUIT\r\n")
        while sock.recv(1000):
            pass
    assert machine.auth.asked[-1].startswith(b"GET /relay HTTP/1.1\r\n")
    assert machine.asked("Client-IP")[-1] == "unix:"


def test_realip(machine: Machine) -> None:
    front, submission, plain = here(), here(), here()
    binds = {'"0.0.0.0:2525"': front, '"0.0.0.0:2587"': submission, '"127.0.0.1:3587"': plain}
    machine.backend.script = {"PROXY": Act(b"")}
    machine.start("realip", binds)
    with RawClient(address(front)) as client:
        client.send(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n")
        assert client.greeted().deliver() == b"250 2.0.0 recorded\r\n"
    assert machine.asked("Client-IP") == machine.asked("Proxy-Protocol-Addr") == ["203.0.113.9"]
    said = machine.backend.conversations[0].commands[0]
    assert re.fullmatch(rb"PROXY TCP4 203\.0\.113\.9 \S+ 4711 \d+", said)
    with RawClient(address(submission)) as client:
        client.send(b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 587\r\n")
        client.greeted().login("ann", "secret")
    with RawClient(address(plain)) as client:
        client.greeted().login("ann", "secret")
    assert machine.asked("Client-IP")[1:] == ["2001:db8::1", "127.0.0.1"]


def test_resolver(machine: Machine) -> None:
    table: Table = {
        ("9.7.0.127.in-addr.arpa", "PTR"): ["client.example."],
        ("client.example", "A"): ["127.0.7.9"],
    }
    with name_server(table) as server:
        mx = here()
        machine.start("resolver", {'"0.0.0.0:25"': mx, "192.0.2.53:5353": f"127.0.0.1:{server.port}"})
        with RawClient(address(mx), source="127.0.7.9") as client:
            began = time.monotonic()
            assert client.greeted().deliver() == b"250 2.0.0 recorded\r\n"
            assert time.monotonic() - began > 0.5
        with RawClient(address(mx), source="127.0.7.9") as client:
            client.send(b"EHLO client.example\r\n")
            assert client.reply() == b"503 5.5.0 Improper use of SMTP command pipelining\r\n"
            assert client.at_end()
    assert machine.asked("Client-Host") == ["client.example"]
    assert machine.backend.conversations[0].commands[1] == b"XCLIENT ADDR=127.0.7.9 NAME=client.example"


def test_hosting(machine: Machine) -> None:
    submission = here()
    machine.start("hosting", {'"0.0.0.0:587"': submission})
    with smtplib.SMTP(*address(submission), timeout=20) as client:
        client.ehlo("client.example")
        assert client.ehlo_resp == b"mail.example.com\nSIZE 52428800\n8BITMIME\nPIPELINING\nAUTH PLAIN LOGIN"
        client.user, client.password = "ann", "secret"
        assert client.auth("LOGIN", client.auth_login) == (235, b"2.0.0 OK")
        assert client.sendmail("a@example.com", ["b@example.com"], LETTER) == {}
    assert [message.sender for message in machine.backend.messages] == [b"MAIL FROM:<a@example.com> SIZE=17"]
