"""Our own corpora of hostile input against the running proxy, under both `bare_newline`s: nothing is smuggled.

As test_hostile.py runs the corpora of reference/security.md; here the cases that those do not have, and both over
TLS, where CR, LF and the dot come in records of their own.
"""

from __future__ import annotations

import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from corpora import cases, expand, wire
from hostile import POLICIES, SEGMENTATIONS, Policy, complaints, expected, judged
from hostileplay import Heard, Play, by_client, in_order, run
from peers.fixtures import StartPostfix
from peers.process import HOST, free_port, wait_until
from rawclient import RawClient
from recorder import Recorder
from stack import AUTH, CAPABILITIES, UNSHARED, Stack
from watch import leaked, users_yaml

BACKEND = free_port()
PASSWORD = "Sesam-oeffne-dich-0816"
HOSTILE = cases("more_hostile.json")
SMUGGLING = cases("more_smuggling.json")
GIVEN = cases("smuggling_cases.json")

AT_ONCE = 48
LOGINS_AT_ONCE = 24  # authsvc lets 32 logins wait, and refuses more
PAUSES = {"at CR, LF and dot": 0.0005, "around the dot": 0.05}  # seconds between pieces

# With every extension, so that nothing is refused for want of one.
RICH: dict[str, Any] = {
    "auth": ["none", *AUTH],
    "capabilities": [*CAPABILITIES, "CHUNKING", "SMTPUTF8"],
    "helo_required": True,
}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate and its key, as a listener names them."""
    folder = tmp_path_factory.mktemp("pem")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    )
    subprocess.run(
        [*made, "-subj", "/CN=proxy", "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    return {"cert": str(cert), "key": str(key)}


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack], pem: dict[str, str]) -> Iterator[Stack]:
    listeners = [{"name": "submission"}, {**RICH, "name": "tls", "tls": "implicit", "certificate": [pem]}]
    listeners += [{**RICH, "name": policy, "bare_newline": policy} for policy in POLICIES]
    stack = start_module_stack(
        [(HOST, BACKEND)],
        listeners=listeners,
        users=users_yaml({"ann": PASSWORD}),
        authsvc={"failed_login_wait": "0s"},
        proxy={"log": {"format": "json", "level": "debug"}},
        pool=UNSHARED,  # a conversation is a case
    )
    yield stack
    assert leaked(stack.show(), PASSWORD) == []
    assert "Traceback" not in stack.show()
    assert stack.log_events("bug") == []


@pytest.fixture
def backend() -> Iterator[Recorder]:
    with Recorder(HOST, BACKEND) as recorder:
        yield recorder


def wrong(heard: list[Heard], policy: Policy, backend: Recorder) -> list[str]:
    """What is wrong with a run of texts, by what the clients heard and what the backend committed."""
    told = by_client(backend)
    assert [bytes(c.octets) for c in backend.conversations if not in_order(c)] == []
    found = []
    for one in heard:
        senders = [message.sender.decode() for c in told[one.source] for message in c.messages]
        found.append(judged(one.case, policy, one.codes, one.closed, senders))
    return [line for line in found if line is not None]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_nothing_is_smuggled(segmentation: str, policy: Policy, stack: Stack, backend: Recorder) -> None:
    # reject has seen the given ones in test_hostile.py.
    texts = SMUGGLING if policy == "reject" else [*SMUGGLING, *GIVEN]
    cut, pause = SEGMENTATIONS[segmentation], PAUSES.get(segmentation, 0.0)
    plays = [
        Play(case, number, "rcpt" if case["group"] == "bdat" else "data", cut(wire(case)), pause)
        for number, case in enumerate(texts)
    ]
    heard = run(plays, stack.listeners[policy], AT_ONCE)
    assert wrong(heard, policy, backend) == []
    assert len(heard) == len(texts)


@pytest.mark.parametrize("policy", POLICIES)
def test_hostile_commands(policy: Policy, stack: Stack, backend: Recorder) -> None:
    plays = [Play(case, number, case["stage"], [expand(case["send"])]) for number, case in enumerate(HOSTILE)]
    check_commands(run(plays, stack.listeners[policy], AT_ONCE), policy, backend)


def test_hostile_commands_of_a_user(stack: Stack, backend: Recorder) -> None:
    login = ("ann", PASSWORD)
    plays = [
        Play(case, number, case["stage"], [expand(case["send"])], login=login) for number, case in enumerate(HOSTILE)
    ]
    check_commands(run(plays, stack.listeners["submission"], LOGINS_AT_ONCE), "reject", backend)


def check_commands(heard: list[Heard], policy: Policy, backend: Recorder) -> None:
    found = [complaints(one.case, policy, b"".join(one.replies), one.closed) for one in heard]
    assert [line for lines in found for line in lines] == []
    told = by_client(backend)
    assert [bytes(c.octets) for c in backend.conversations if not in_order(c)] == []
    assert b"smug" not in b"".join(bytes(c.octets) for c in backend.conversations)
    # Only what was said as a text is a message.
    delivered = {one.case["stage"] for one in heard if any(c.messages for c in told[one.source])}
    assert delivered == {"data"}


# --- over TLS ----------------------------------------------------------------------------------------------------


class TlsClient(RawClient):
    """Each send() is a record of its own."""

    def __init__(self, address: tuple[str, int], source: str | None = None) -> None:
        super().__init__(address, source)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock)


def test_nothing_is_smuggled_between_tls_records(stack: Stack, backend: Recorder) -> None:
    """CR | LF | dot | CR | LF: the end of data is in five records, and the false ones are as well."""
    texts = [case for case in SMUGGLING if "pad" not in case and case["group"] in ("eod", "position")]
    cut = SEGMENTATIONS["at CR, LF and dot"]
    plays = [Play(case, number, "data", cut(wire(case)), connect=TlsClient) for number, case in enumerate(texts)]
    assert wrong(run(plays, stack.listeners["tls"], AT_ONCE), "reject", backend) == []
    assert len(plays) > 70


# --- into a lenient reader ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_smuggled_into_postfix(
    policy: Policy, postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    """Debian's own settings take a bare LF for a line end, and the proxy is in mynetworks."""
    [mta] = postfix()
    assert mta.postconf("smtpd_forbid_bare_newline") == "no"
    listeners = [{**RICH, "name": policy, "auth": ["none"], "bare_newline": policy}]
    stack = start_stack([(HOST, mta.port)], listeners=listeners, auth_url=None)
    plays = [
        Play(case, number, "rcpt" if case["group"] == "bdat" else "data", [wire(case)])
        for number, case in enumerate([*SMUGGLING, *GIVEN])
    ]
    heard = run(plays, stack.proxy, AT_ONCE)
    wait_until(lambda: mta.queued() == 0, "Postfix has delivered what it took", 30)
    senders = Counter(message.trace["return-path"] for message in mta.messages())
    # Transactions of their own, that the client opened behind a true end and was answered for, and no other.
    own = [one for one in heard if 354 in one.codes]
    assert {expected(one.case, policy) for one in own} == {"two_or_reject_second", "reject_first"}
    assert senders.keys() == {"<a@a.test>", "<smug@attacker.test>"}
    assert senders["<smug@attacker.test>"] == len(own)
    first = [
        one for one in heard if one.codes and expected(one.case, policy) in ("one_message", "two_or_reject_second")
    ]
    also = [one for one in heard if expected(one.case, policy).startswith("one_message_")]
    either = [one for one in heard if expected(one.case, policy) == "one_message|reject" and one.codes[-1] == 250]
    assert senders["<a@a.test>"] == len(first) + len(also) + len(either)
