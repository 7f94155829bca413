"""The corpora of hostile input in tests/corpora, run whole against the protocol and a flow that takes everything.

What is right is not this test's to say: of texts it is `envelopeoracle`'s, at every segmentation and under both
`bare_newline`s, and of commands tests/corpora/answers.json's. The running proxy: e2e/test_hostile.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from corpora import Case, answers, cases, expand, scripted, wire
from dialogue import Play, play
from envelopeoracle import Envelope, read
from hostile import (
    POLICIES,
    SEGMENTATIONS,
    Policy,
    classes,
    clean,
    codes,
    expected,
    judged,
    preferred,
    replies,
    spelled,
)
from hostiledifferences import DIFFERENCES, EVERYWHERE

from smtpgate.smtp.server import ServerSettings

STAGES = {
    "pre_helo": b"",
    "pre_auth": b"EHLO t.test\r\n",
    "auth_wait": b"EHLO t.test\r\nAUTH LOGIN\r\n",
    "post_auth": b"EHLO t.test\r\nAUTH PLAIN AHUAcA==\r\n",
}
STAGES["mail"] = STAGES["post_auth"] + b"MAIL FROM:<a@a.test>\r\n"
STAGES["rcpt"] = STAGES["mail"] + b"RCPT TO:<r1@x.test>\r\n"
STAGES["data"] = STAGES["rcpt"] + b"DATA\r\n"

PLAIN = ServerSettings(
    "mx.test",
    capabilities=("SIZE 10485760", "PIPELINING", "8BITMIME", "DSN"),
    mechanisms=("PLAIN", "LOGIN", "CRAM-MD5"),
)
RICH = replace(
    PLAIN,
    capabilities=("SIZE 10485760", "CHUNKING", "SMTPUTF8", "8BITMIME", "DSN"),
    auth_required=False,
    helo_required=True,
)
GIVEN = cases("smuggling_cases.json")
SMUGGLING = cases("more_smuggling.json")
GIVEN_HOSTILE = cases("hostile_commands.json")
HOSTILE = cases("more_hostile.json")
SCRIPTED = scripted("hostile_commands.json")
ANSWERS = answers()

# The flow here knows no auth service, whose refusal without an Auth-Wait ends the session: it goes on.
GOES_ON = {
    "auth_pipelined_mail": "535, 250",
    "auth_fail_x10": "535 x10",
    "auth_answer_pipelined": "334, 535, 250 x2",
}


def envelopes(played: Play) -> list[Envelope]:
    """What was committed, as the oracle tells it: a text that came in chunks is not a DATA's yet."""
    return [
        Envelope(str(one.sender).encode(), [str(rcpt).encode() for rcpt in one.recipients], one.text)
        for one in played.messages
    ]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", [*SMUGGLING, *GIVEN], ids=lambda case: str(case["name"]))
def test_smuggling(case: Case, policy: Policy) -> None:
    settings = replace(RICH, bare_newline=policy)
    chunked = case["group"] == "bdat"
    before, said = STAGES["rcpt" if chunked else "data"], wire(case)
    prelude = len(play(settings, [before]).codes)
    right = [one for one in read(said, policy, chunked=chunked) if one.text is not None]
    for segment in SEGMENTATIONS.values():
        pieces = segment(said)
        assert b"".join(pieces) == said
        left = expected(case, policy) == "no_message_on_close"
        played = play(settings, [before, *pieces], eof=left, looks=True)
        senders = [str(one.sender) for one in played.messages]
        assert judged(case, policy, played.codes[prelude:], played.ended is not None, senders) is None
        for message in played.messages:
            assert clean(message.text)
            assert message.chunked or b"\r\n.\r\n" not in b"\r\n" + message.text
        told = envelopes(played)
        assert [one.commands for one in told] == [one.commands for one in right]
        assert chunked or told == right


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", [*HOSTILE, *GIVEN_HOSTILE], ids=lambda case: str(case["name"]))
def test_hostile_commands(case: Case, policy: Policy) -> None:
    settings = replace(RICH, bare_newline=policy)
    before = STAGES[case["stage"]]
    prelude = play(settings, [before])
    assert prelude.ended is None
    played = play(settings, [before, expand(case["send"])], looks=True)
    answer = spelled(played.out[len(prelude.out) :], played.ended is not None)
    right = ANSWERS[case["name"]].on(policy)
    if right.startswith("535"):
        right = right.removesuffix(", close")
    assert codes(answer) == GOES_ON.get(case["name"], codes(right))


@pytest.mark.parametrize("case", [one for one in GIVEN if one["group"] == "bdat"], ids=lambda case: str(case["name"]))
def test_bdat_that_is_not_offered_delivers_nothing(case: Case) -> None:
    played = play(PLAIN, [STAGES["rcpt"], wire(case)])
    assert played.codes[-1] == 502
    assert played.closing
    assert not played.messages


# --- the corpora, and what we have written down about them --------------------------------------------------------


def test_there_are_as_many_again_and_none_twice() -> None:
    known = {case["name"] for case in (*GIVEN, *GIVEN_HOSTILE, *SCRIPTED)}
    names = [case["name"] for case in (*SMUGGLING, *HOSTILE)]
    assert len(set(names)) == len(names)
    assert not known & set(names)
    assert len(SMUGGLING) >= 97
    assert len(HOSTILE) >= 148


def test_every_hostile_command_has_its_answer_and_every_answer_its_command() -> None:
    assert set(ANSWERS) == {case["name"] for case in (*GIVEN_HOSTILE, *SCRIPTED, *HOSTILE)}
    assert len(ANSWERS) == 136 + 12 + 240


@pytest.mark.parametrize("case", [*GIVEN_HOSTILE, *SCRIPTED, *HOSTILE], ids=lambda case: str(case["name"]))
def test_an_answer_is_what_its_case_demands(case: Case) -> None:
    """Its class, and what else the case says; `prefer` as well, but for `hostiledifferences`."""
    for listener in EVERYWHERE:
        answer = ANSWERS[case["name"]].on(listener)
        mended = listener == "normalize" and case.get("bare") == "lf"
        assert mended or classes(answer) & set(case["expect_reply_class"].split("|")), listener
        assert not case.get("one_reply") or len(replies(answer)) == 1 or mended
        unwanted = case.get("no_line_starting", "none")
        assert not any(reply.startswith(unwanted) for reply in replies(answer))
    differing = tuple(one for one in EVERYWHERE if not preferred(case, ANSWERS[case["name"]].on(one)))
    difference = DIFFERENCES.get(case["name"])
    assert differing == (difference.listeners if difference else ())


def test_every_difference_is_a_case() -> None:
    assert set(DIFFERENCES) <= {case["name"] for case in GIVEN_HOSTILE}
