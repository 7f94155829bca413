"""The corpora of hostile input, given (reference/security.md) and our own, against the running proxy.

A recorder is the backend, and every case comes from a loopback address of its own, which XCLIENT tells: so what
reached the backend is known case by case. Whatever a client sends, the backend gets CR and LF only as CRLF, no NUL,
commands of ours alone, and no envelope and no text but those that `envelopeoracle` reads in what the client said.
Under both `bare_newline`s, in four segmentations, and over TLS, where CR, LF and the dot come in records of their
own. What is answered to each hostile command is in tests/corpora/answers.json; where that is not what its case would
prefer, `hostiledifferences` has the reason. Cases that need a script: test_hostile_scripts.py. Real servers behind
the proxy: test_smuggling_behind.py.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from certificates import make_certificates
from corpora import answers, cases, expand, wire
from envelopeoracle import Envelope, read
from hostile import POLICIES, SEGMENTATIONS, Policy, judged
from hostileplay import Heard, Play, by_client, chunked, in_order, run, texts
from peers.process import HOST, free_port
from rawclient import RawClient
from recorder import Message, Recorder
from stack import AUTH, CAPABILITIES, UNSHARED, Stack
from watch import leaked, users_yaml

BACKEND = free_port()
PASSWORD = "Sesam-oeffne-dich-0816"
HOSTILE = [*cases("hostile_commands.json"), *cases("more_hostile.json")]
ANSWERS = answers()
SMUGGLING = [*cases("smuggling_cases.json"), *cases("more_smuggling.json")]

AT_ONCE = 48
LOGINS_AT_ONCE = 24  # authsvc lets 32 logins wait, and refuses more

# What the backend hears of a stage: of MAIL only with the first recipient.
HEARD = {"rcpt": [b"MAIL FROM:<a@a.test>", b"RCPT TO:<r1@x.test>"]}
HEARD["data"] = [*HEARD["rcpt"], b"DATA"]

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


def check_texts(heard: list[Heard], policy: Policy, backend: Recorder) -> None:
    """By what the clients heard, and what the backend heard and committed: it is exactly what the oracle reads."""
    told = by_client(backend)
    assert [bytes(c.octets) for c in backend.conversations if not in_order(c)] == []
    found, smuggled = [], []
    for one in heard:
        known = told[one.source]
        said = [line for c in known for line in c.commands if line[:4] in (b"MAIL", b"RCPT")]
        messages = [message for c in known for message in c.messages]
        right = read(wire(one.case), policy, chunked=chunked(one.case))
        if said != [line for envelope in right for line in envelope.commands]:
            smuggled.append(f"{one.case['name']}: the backend heard {said}")
        if [as_envelope(message) for message in messages] != [one for one in right if one.text is not None]:
            smuggled.append(f"{one.case['name']}: the backend committed {messages}")
        senders = [message.sender.decode() for message in messages]
        found.append(judged(one.case, policy, one.codes, one.closed, senders))
    assert smuggled == []
    assert [line for line in found if line is not None] == []


def as_envelope(message: Message) -> Envelope:
    sender, *recipients = [
        line.partition(b"<")[2].partition(b">")[0] for line in (message.sender, *message.recipients)
    ]
    return Envelope(sender, recipients, message.text)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_nothing_is_smuggled(
    segmentation: str, policy: Policy, stack: Stack, backend: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = run(texts(SMUGGLING, segmentation), stack.listeners[policy], AT_ONCE)
    check_texts(heard, policy, backend)
    assert len(heard) == 97 + 141
    with capsys.disabled():
        print(f"\n{policy}, {segmentation}: {len(heard)} texts, {len(backend.messages)} messages, 0 smuggled")


def test_bdat_that_is_not_offered_delivers_nothing(stack: Stack, backend: Recorder) -> None:
    bdat = [case for case in cases("smuggling_cases.json") if chunked(case)]
    heard = run(texts(bdat, "whole"), stack.listeners["usual"], AT_ONCE)
    by_client(backend)
    assert {tuple(one.codes) for one in heard} == {(502,)}
    assert all(one.closed for one in heard)
    assert backend.messages == []


@pytest.mark.parametrize("listener", [*POLICIES, "submission"])
def test_hostile_commands(listener: str, stack: Stack, backend: Recorder) -> None:
    """The answer is the one that answers.json has, and the backend hears what it has, nothing more."""
    login, at_once = (("ann", PASSWORD), LOGINS_AT_ONCE) if listener == "submission" else (None, AT_ONCE)
    plays = [
        Play(
            case,
            number,
            case["stage"],
            [expand(case["send"])],
            answer=ANSWERS[case["name"]].on(listener),
            login=login,
        )
        for number, case in enumerate(HOSTILE)
    ]
    heard = run(plays, stack.listeners[listener], at_once)
    answers = {one.case["name"]: one.answer for one in heard}
    assert answers == {one.case["name"]: one.answer for one in plays}
    told = by_client(backend)
    assert [bytes(c.octets) for c in backend.conversations if not in_order(c)] == []
    policy: Policy = "normalize" if listener == "normalize" else "reject"
    for one in heard:
        case, known = one.case, told[one.source]
        said = [line for c in known for line in c.commands if line[:4] in (b"MAIL", b"RCPT", b"DATA")]
        assert said == [*HEARD.get(case["stage"], ()), *ANSWERS[case["name"]].heard_on(listener)], case["name"]
        # Only what was said as a text is a message, however strange.
        in_envelope = case["stage"] in ("rcpt", "data")
        right = read(expand(case["send"]), policy, chunked=case["stage"] == "rcpt") if in_envelope else ()
        messages = [as_envelope(message) for c in known for message in c.messages]
        assert messages == [one for one in right if one.text is not None], case["name"]
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
    some = [case for case in SMUGGLING if "pad" not in case and case["group"] in ("eod", "position")]
    plays = texts(some, "at CR, LF and dot", connect=TlsClient)
    check_texts(run(plays, stack.listeners["tls"], AT_ONCE), "reject", backend)
    assert len(plays) > 100
