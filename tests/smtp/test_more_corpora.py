"""Our own corpora of hostile input, run whole against the protocol and a server that takes everything.

more_smuggling.json and more_hostile.json hold what the corpora of reference/security.md do not; the format
is theirs. All of it, and the given ones, under both `bare_newline`s, and the smuggling cases at four segmentations.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from corpora import Case, cases, expand, wire
from dialogue import converse
from hostile import POLICIES, SEGMENTATIONS, Policy, clean, complaints, expected, judged

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

RICH = ServerSettings(
    "mx.test",
    capabilities=("SIZE 10485760", "CHUNKING", "SMTPUTF8", "8BITMIME", "DSN"),
    mechanisms=("PLAIN", "LOGIN", "CRAM-MD5"),
)
SMUGGLING = cases("more_smuggling.json")
HOSTILE = cases("more_hostile.json")
GIVEN = cases("smuggling_cases.json")
GIVEN_HOSTILE = cases("hostile_commands.json")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", [*SMUGGLING, *GIVEN], ids=lambda case: str(case["name"]))
def test_smuggling(case: Case, policy: Policy) -> None:
    settings = replace(RICH, bare_newline=policy)
    before, said = STAGES["rcpt" if case["group"] == "bdat" else "data"], wire(case)
    prelude = len(converse(settings, [before]).codes)
    for segment in SEGMENTATIONS.values():
        pieces = segment(said)
        assert b"".join(pieces) == said
        heard = converse(settings, [before, *pieces], eof=expected(case, policy) == "no_message_on_close")
        codes = heard.codes[prelude:]
        assert judged(case, policy, codes, heard.ended != "", [one.sender for one in heard.messages]) is None
        for message in heard.messages:
            assert clean(message.text)
            assert message.chunked or b"\r\n.\r\n" not in b"\r\n" + message.text


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", [*HOSTILE, *GIVEN_HOSTILE], ids=lambda case: str(case["name"]))
def test_hostile_commands(case: Case, policy: Policy) -> None:
    settings = replace(RICH, bare_newline=policy)
    before = STAGES[case["stage"]]
    prelude = converse(settings, [before])
    assert prelude.ended == ""
    heard = converse(settings, [before, expand(case["send"])])
    assert complaints(case, policy, heard.out[len(prelude.out) :], heard.ended != "") == []


def test_there_are_as_many_again_and_none_twice() -> None:
    known = {case["name"] for name in ("smuggling_cases.json", "hostile_commands.json") for case in cases(name)}
    names = [case["name"] for case in (*SMUGGLING, *HOSTILE)]
    assert len(set(names)) == len(names)
    assert not known & set(names)
    assert len(SMUGGLING) >= 97
    assert len(HOSTILE) >= 148
