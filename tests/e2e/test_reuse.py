"""Connections to a real Postfix that serve one client after the other: nobody is taken for somebody else, and what it
is worth, beside nginx in the same run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers.fixtures import StartNginx, StartPostfix
from peers.postfix import Postfix
from peers.process import HOST, free_port, wait_until
from peers.smtptools import smtp_source
from rawclient import RawClient
from stack import RELAY, SUBMISSION, Stack
from watch import users_yaml

KEPT = {"health": {"probe": "off"}, "reuse": {"idle": "20s"}}
# smtp-source says HELO, after which nobody knows what a server still offers: so nobody tells of the client here.
UNTOLD = {**KEPT, "xclient": "off"}
FRESH = {**UNTOLD, "reuse": {"idle": "0s"}}
PASSWORDS = {"ann": "Sesam-oeffne-dich-123", "bob": "Kein-Zutritt-456"}
MESSAGES = 5000 if os.environ.get("SMTPGATE_LONG") == "1" else 500

AUTHORIZED = {"smtpd_authorized_xclient_hosts": "127.0.0.0/8"}
"""The proxy, and here its clients too."""

ONLY_PROXY = {"smtpd_authorized_xclient_hosts": "127.0.0.1"}
"""As in a real installation: Postfix asks again by the address that XCLIENT told."""

WIDE = {"smtpd_authorized_xclient_hosts": "0.0.0.0/0, [::]/0"}
"""As policies/README.md has it for an installation that wants reuse, behind a firewall."""

# One session of nginx asks auth_http once; it is its own answer, so that nothing else is measured.
NGINX = """
server_name proxy.example.net;
xclient off;
auth_http {host}:{auth}/;
server {{ listen {host}:{mail}; protocol smtp; smtp_auth none; }}
"""
AUTH = """
server {{
    listen {host}:{auth};
    location / {{
        add_header Auth-Status OK;
        add_header Auth-Server {host};
        add_header Auth-Port {mta};
        return 204;
    }}
}}
"""


def accepted(mta: Postfix) -> list[str]:
    """How Postfix names the client of each message, in order."""
    return re.findall(r"smtpd\[\d+\]: [0-9A-F]+: client=(.*)", mta.log())


def connections(mta: Postfix) -> int:
    return len(re.findall(r"smtpd\[\d+\]: connect from", mta.log()))


@pytest.mark.parametrize(
    ("main", "shared"), [(AUTHORIZED, True), (ONLY_PROXY, False)], ids=["renewed", "not renewable"]
)
def test_two_users_back_to_back_are_themselves(
    main: dict[str, str], shared: bool, postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    [mta] = postfix(main=main)
    stack = start_stack([(HOST, mta.port)], users=users_yaml(PASSWORDS), pool=KEPT)
    before = connections(mta)
    for number, user in enumerate(["ann", "bob", "ann", "bob"], 1):
        with RawClient(stack.proxy, source=f"127.0.3.{number}") as client:
            client.greeted(b"%d.example" % number).login(user, PASSWORDS[user])
            assert client.deliver().startswith(b"250 2.0.0 Ok: queued as ")
            assert client.ask(b"QUIT").startswith(b"221 ")
    delivered = mta.wait_for(4)
    assert accepted(mta) == [
        f"unknown[127.0.3.{number}], sasl_method=XCLIENT, sasl_username={user}"
        for number, user in enumerate(["ann", "bob", "ann", "bob"], 1)
    ]
    assert {one.trace["received"].partition("\n")[0] for one in delivered} == {
        f"from {number}.example (unknown [127.0.3.{number}])" for number in range(1, 5)
    }
    assert connections(mta) - before == (1 if shared else 4)


@pytest.mark.parametrize("told", [b"192.0.2.7", b"IPV6:2001:db8::7"])
@pytest.mark.parametrize(("main", "again"), [(WIDE, True), (ONLY_PROXY, False)], ids=["wide", "the proxy alone"])
def test_postfix_asks_again_by_the_address_that_it_was_told(
    main: dict[str, str], again: bool, told: bytes, postfix: StartPostfix
) -> None:
    [mta] = postfix(main={**main, "inet_protocols": "all"})
    with RawClient((HOST, mta.port)) as client:
        client.greeted()
        assert client.ask(b"XCLIENT ADDR=" + told).startswith(b"220 ")
        assert (b"XCLIENT" in client.ask(b"EHLO c.test")) is again


def test_a_client_without_a_login_does_not_inherit_one(
    postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    [mta] = postfix(main=AUTHORIZED)
    listeners, users = [SUBMISSION, RELAY], users_yaml(PASSWORDS)
    stack = start_stack([(HOST, mta.port)], listeners=listeners, users=users, pool=KEPT)
    before = connections(mta)
    with RawClient(stack.listeners["submission"], source="127.0.3.1") as client:
        client.greeted().login("ann", PASSWORDS["ann"])
        assert client.deliver().startswith(b"250 2.0.0 Ok: queued as ")
        assert client.ask(b"QUIT").startswith(b"221 ")
    with RawClient(stack.listeners["relay"], source="127.0.3.2") as client:
        assert client.greeted().deliver().startswith(b"250 2.0.0 Ok: queued as ")
    mta.wait_for(2)
    assert accepted(mta) == ["unknown[127.0.3.1], sasl_method=XCLIENT, sasl_username=ann", "unknown[127.0.3.2]"]
    assert connections(mta) - before == 1


def test_chunks_pass_as_chunks_into_postfix(postfix: StartPostfix, start_stack: Callable[..., Stack]) -> None:
    [mta] = postfix(main=AUTHORIZED)
    listener = {**RELAY, "capabilities": ["PIPELINING", "CHUNKING"]}
    stack = start_stack([(HOST, mta.port)], listeners=[listener], auth_url=None, pool=KEPT)
    content = b"Subject: x\r\n\r\n.\r\n..\r\n" + b"z" * 900 + b"\r\nno end of line"
    with RawClient(stack.proxy) as client:
        client.greeted().envelope()
        half = content.index(b"\r\n\r\n") + 1  # the CR ends one chunk, its LF begins the next
        client.send(b"BDAT %d\r\n" % half + content[:half])
        assert client.reply() == b"250 2.0.0 OK\r\n"
        client.send(b"BDAT %d LAST\r\n" % (len(content) - half) + content[half:])
        assert client.reply().startswith(b"250 2.0.0 Ok: ")
        assert client.ask(b"QUIT").startswith(b"221 ")
    [one] = mta.wait_for(1)
    assert one.content == content.replace(b"\r\n", b"\n") + b"\n"
    stack.stop()  # the kept connection ends, and Postfix tells what was said on it
    said = "mail=1 rcpt=1 bdat=3 quit=1 commands="  # no DATA; the third chunk is the end
    wait_until(lambda: said in mta.log(), f"Postfix says that it was told {said}")


# --- what it is worth --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a message: seconds on the wall, and CPU seconds of the proxy and of Postfix. connections: to Postfix."""

    wall: float
    proxy: float
    postfix: float
    connections: int

    def __str__(self) -> str:
        return (
            f"{1 / self.wall:6.0f} messages/s, CPU a message: proxy {self.proxy * 1000:.2f} ms, "
            f"Postfix {self.postfix * 1000:.2f} ms; {self.connections} connections"
        )


def measure(mta: Postfix, pids: Sequence[int], address: tuple[str, int]) -> Cost:
    """Many short sessions of one message each."""
    before = cpu(pids), cpu(mta.master.members()), connections(mta), time.monotonic()
    done = smtp_source(address[1], host=address[0], messages=MESSAGES, sessions=20, length=1000, timeout=300)
    wall = time.monotonic() - before[3]
    assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: mta.queued() == 0, "all is delivered: that is Postfix's work too", 60)
    spent = cpu(pids) - before[0], cpu(mta.master.members()) - before[1]
    return Cost(wall / MESSAGES, spent[0] / MESSAGES, spent[1] / MESSAGES, connections(mta) - before[2])


def cpu(pids: Sequence[int]) -> float:
    """CPU seconds of these processes, and of their children that have ended."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime stime cutime cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def test_what_reuse_is_worth_beside_nginx(
    postfix: StartPostfix, start_stack: Callable[..., Stack], nginx_mail: StartNginx
) -> None:
    """Printed, since it depends on the machine; what is asserted does not."""
    [mta] = postfix(main=AUTHORIZED)
    address = [(HOST, mta.port)]
    costs: dict[str, Cost] = {}
    for name, pool in {"without reuse": FRESH, "with reuse": UNTOLD}.items():
        stack = start_stack(address, listeners=[RELAY], auth_url=None, pool=pool)
        costs[name] = measure(mta, stack.worker_pids(), stack.proxy)
        stack.stop()
    mail, auth = free_port(), free_port()
    server = nginx_mail(
        NGINX.format(host=HOST, mail=mail, auth=auth), mail, AUTH.format(host=HOST, auth=auth, mta=mta.port)
    )
    costs["nginx"] = measure(mta, server.members(), (HOST, mail))
    for name, cost in costs.items():
        print(f"{name:>14}: {cost}")
    mta.wait_for(3 * MESSAGES, timeout=120)
    assert costs["without reuse"].connections == costs["nginx"].connections == MESSAGES
    assert costs["with reuse"].connections <= 40  # 20 clients, and 50 messages a connection
    assert len(set(accepted(mta))) == 1  # smtp-source, in each way's words
