"""The corpora of hostile input, given (reference/security.md) and our own, against the running proxy.

A recorder is the backend, and every case comes from a loopback address of its own, which XCLIENT tells: so what
reached the backend is known case by case. Whatever a client sends, the backend gets CR and LF only as CRLF, no NUL,
commands of ours alone, and no envelope that the client did not open outside of a message. Under both `bare_newline`s,
in four segmentations, and over TLS, where CR, LF and the dot come in records of their own. Real servers behind the
proxy: test_smuggling_behind.py.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from certificates import make_certificates
from corpora import cases, expand, octets, wire
from hostile import POLICIES, SEGMENTATIONS, Policy, complaints, judged
from hostileplay import Heard, Play, by_client, in_order, run
from peers.process import HOST, free_port
from rawclient import RawClient
from recorder import Recorder
from stack import AUTH, CAPABILITIES, UNSHARED, Stack
from watch import leaked, users_yaml

BACKEND = free_port()
PASSWORD = "Sesam-oeffne-dich-0816"
HOSTILE = [*cases("hostile_commands.json"), *cases("more_hostile.json")]
SMUGGLING = [*cases("smuggling_cases.json"), *cases("more_smuggling.json")]

AT_ONCE = 48
LOGINS_AT_ONCE = 24  # authsvc lets 32 logins wait, and refuses more
PAUSES = {"at CR, LF and dot": 0.0005, "around the dot": 0.05}  # seconds between pieces

# With every extension, so that nothing is refused for want of one.
RICH: dict[str, Any] = {
    "auth": ["none", *AUTH],
    "capabilities": [*CAPABILITIES, "CHUNKING", "SMTPUTF8"],
    "helo_required": True,
    "error_delay": "0s",
}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate and its key, as a listener names them."""
    cert, key = make_certificates(tmp_path_factory.mktemp("pem")).server
    return {"cert": str(cert), "key": str(key)}


@pytest.fixture(scope="module")
def stack(start_module_stack: Callable[..., Stack], pem: dict[str, str]) -> Iterator[Stack]:
    listeners = [{"name": "submission", "error_delay": "0s"}, {"name": "usual", "auth": ["none"]}]
    listeners += [{**RICH, "name": "tls", "tls": "implicit", "certificate": [pem]}]
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
        if "delivered_tail" in one.case:
            [message] = [message for c in told[one.source] for message in c.messages]
            text = re.sub(rb"(?<=\r\n)\.", b"", message.text)
            assert text.endswith(octets(one.case["delivered_tail"])), one.case["name"]
    return [line for line in found if line is not None]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_nothing_is_smuggled(
    segmentation: str, policy: Policy, stack: Stack, backend: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, pause = SEGMENTATIONS[segmentation], PAUSES.get(segmentation, 0.0)
    plays = [
        Play(case, number, "rcpt" if case["group"] == "bdat" else "data", cut(wire(case)), pause)
        for number, case in enumerate(SMUGGLING)
    ]
    heard = run(plays, stack.listeners[policy], AT_ONCE)
    assert wrong(heard, policy, backend) == []
    assert len(heard) == 97 + 141
    with capsys.disabled():
        print(f"\n{policy}, {segmentation}: {len(heard)} texts, {len(backend.messages)} messages, 0 smuggled")


def test_bdat_that_is_not_offered_delivers_nothing(stack: Stack, backend: Recorder) -> None:
    bdat = [case for case in cases("smuggling_cases.json") if case["group"] == "bdat"]
    plays = [Play(case, number, "rcpt", [wire(case)]) for number, case in enumerate(bdat)]
    heard = run(plays, stack.listeners["usual"], AT_ONCE)
    by_client(backend)
    assert {tuple(one.codes) for one in heard} == {(502,)}
    assert all(one.closed for one in heard)
    assert backend.messages == []


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
    # A line that ends in a bare LF is a command of the client's own where that is mended, and only there.
    own = {one.source for one in heard if policy == "normalize" and one.case.get("bare") == "lf"}
    told_smug = {source for source, all_ in told.items() if any(b"smug" in c.octets for c in all_)}
    assert [one.case["name"] for one in heard if one.source in told_smug - own] == []
    # Only what was said as a text is a message, however strange.
    delivered = {one.case["name"] for one in heard if any(c.messages for c in told[one.source])}
    assert delivered >= {"data_pipelined_body", "data_msg_headerless", "data_huge_header", "data_cmds_as_text"}
    behind_data = {"data_pipelined_body"}  # says DATA itself
    assert {one.case["stage"] for one in heard if one.case["name"] in delivered - behind_data} == {"data"}
    assert len(heard) == 136 + 240


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
    assert len(plays) > 100
