"""nginx's mail proxy and ours, side by side: the same clients, the same auth service, the same backends.

Both are configured by one nginx.conf: nginx reads it, we import it. Each dialogue of tests/lib/nginxdialogues.py is
held with both, and three transcripts are compared: what the client heard, what the backend was told, what auth_http
was asked. Whatever differs is in tests/lib/nginxdifferences.py with its reason; a difference that is there no more
fails as well.

The nginx is Debian's 1.22; reference/nginx_mail.md is written from 1.31.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Certificates, make_certificates
from nginxdialogues import DIALOGUES, MAIL, SERVERS
from nginxdifferences import DIFFERENCES
from nginxduel import Dialogue, Side, Transcript, differing
from peers.nginx import Nginx
from peers.process import HOST, Process, free_port
from recorder import Recorder
from scriptedauth import ScriptedAuth

from smtpgate.drivers.authbreaker import PAUSE

pytestmark = pytest.mark.peer("libnginx-mod-mail")

ROOT = Path(__file__).parents[2]


# --- what differs everywhere ---------------------------------------------------------------------------------


def expected(nginx: Transcript) -> Transcript:
    """nginx's transcript, but for what we do otherwise in every dialogue.

    * nginx connects to the backend as part of AUTH, and says 235 when that is done (section 6). We connect with the
      first recipient, because only then the route is known (ARCHITECTURE.md, one session, 5).
    * nginx leaves with the client, and passes its QUIT on. We say QUIT to a backend that we leave.
    """
    wants_backend = any("RCPT" in said.upper() for said, *_ in nginx.client)
    return replace(nginx, backend=tuple(map(_without_farewell, nginx.backend)) if wants_backend else ())


def levelled(ours: Transcript) -> Transcript:
    """Our transcript, but for what we say in every dialogue and nginx never.

    * We keep connections to auth_http, and so speak HTTP/1.1 (auth_http.md section 2 has 1.0).
    * Auth-Gate tells our own auth service from a stock nginx's; others ignore it.
    """
    asked = []
    for question in ours.auth:
        request, *fields = question
        assert request.endswith(" HTTP/1.1")
        assert fields.count("Auth-Gate: smtpgate") == 1
        fields.remove("Auth-Gate: smtpgate")
        asked.append((request.replace("HTTP/1.1", "HTTP/1.0"), *fields))
    return replace(ours, backend=tuple(map(_without_farewell, ours.backend)), auth=tuple(asked))


def _without_farewell(told: tuple[str, ...]) -> tuple[str, ...]:
    return told[:-1] if told[-1:] == ("QUIT",) else told


# --- the two programs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def duel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """nginx, and the proxy with the same configuration imported."""
    folder = tmp_path_factory.mktemp("duel")
    certificates = make_certificates(folder)
    sides = [_side(certificates) for _ in range(2)]
    programs: list[Process] = []
    try:
        programs.append(Nginx(folder, _mail(sides[0], certificates), sides[0].ports["bare"]))
        programs.append(_proxy(folder / "ours", _mail(sides[1], certificates), sides[1].ports["bare"]))
        yield sides[0], sides[1]
    finally:
        for program in programs:
            program.stop()
        for side in sides:
            side.auth.stop()
            side.backend.stop()


def _side(certificates: Certificates) -> Side:
    ports = {name: free_port() for name in SERVERS}
    tls = {}
    for as_client in (False, True):
        tls[as_client] = ssl.create_default_context(cafile=str(certificates.ca))
        if as_client:
            tls[as_client].load_cert_chain(*certificates.client)
    return Side(HOST, ports, ScriptedAuth(HOST, free_port()), Recorder(HOST, free_port()), tls)


def _mail(side: Side, certificates: Certificates) -> str:
    cert, key = certificates.server
    return MAIL.format(host=HOST, auth=side.auth.address[1], cert=cert, key=key, ca=certificates.ca, **side.ports)


def _proxy(folder: Path, mail: str, port: int) -> Process:
    """The proxy, with what the command makes of an nginx.conf."""
    folder.mkdir()
    (folder / "nginx.conf").write_text(f"events {{}}\nmail {{\n{mail}\n}}\n")
    command = [sys.executable, str(ROOT / "tools/gatectl"), "import-nginx", "nginx.conf", "-o", "proxy.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    process = Process("proxy", [sys.executable, str(ROOT / "proxy.py"), "-c", "proxy.yaml"], folder)
    process.wait_for_port(port)  # the arbiter's: what comes before there is a worker waits
    return process


# --- the comparison ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_dialogue(duel: tuple[Side, Side], dialogue: Dialogue) -> None:
    with ThreadPoolExecutor(2) as both:
        nginx, ours = both.map(lambda side: side.play(dialogue), duel)
    if any(words in repr(ours) for words in ("454 4.7.0", "451 4.3.")):
        time.sleep(PAUSE * 1.1)  # until we ask again a service that gave no answer; nginx asks at once
    found = tuple(differing(expected(nginx), levelled(ours)))
    intended = DIFFERENCES.get(dialogue.name)
    assert found == (intended.lines if intended is not None else ())


def test_names_are_the_dialogues_own() -> None:
    names = [dialogue.name for dialogue in DIALOGUES]
    assert len(set(names)) == len(names)
    assert DIFFERENCES.keys() <= set(names)
