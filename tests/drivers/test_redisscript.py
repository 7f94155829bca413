"""The wire form of take.lua, in both directions."""

import json
import math

from smtpgate.drivers import redisscript
from smtpgate.drivers.redisscript import decode, encode
from smtpgate.policy.model import Slot
from smtpgate.policy.store import Ban, BanCheck, Charge, Claim, Penalty, Taken

PENALTY = Penalty("s", "x p.yaml:1", 60.0, "x/after:s", 2.0, 600.0, 900.0, "x/after p.yaml:1")
CHARGES = [
    Charge("a:s", 0.5, 10.0),
    Charge("b:s", 1.0, 2.0, 3.0, shadow=True, member="m", hold=5.0, queued=True, penalty=PENALTY),
]
CLAIMS = [Claim("c:s", 20, "node:1", queued=True), Claim("d:s", 3, "node:2", shadow=True)]
BANS = [BanCheck("s", ("x", "y")), BanCheck("t", ())]


def take(debit: bool = True, count: bool = False) -> redisscript.Question[Taken]:
    return redisscript.take(CHARGES, debit=debit, count=count, claims=CLAIMS, bans=BANS)


def test_a_whole_event() -> None:
    keys, args = encode([take()], "smtpgate:")
    assert keys == [
        "smtpgate:tb:{rl}:a:s",
        "smtpgate:tb:{rl}:b:s",
        "smtpgate:ban:{rl}:s",
        "smtpgate:tb:{rl}:x/after:s",
        "smtpgate:ds:{rl}:b:s",
        "smtpgate:cc:{rl}:c:s",
        "smtpgate:cc:{rl}:d:s",
        "smtpgate:ban:{rl}:t",
    ]
    penalty = [3, "x p.yaml:1", 60.0, 4, 2.0, 600.0, 900.0, "x/after p.yaml:1"]
    terms = {"shadow": 1, "hold": 5.0, "penalty": penalty, "queued": 1, "member": [5, "m"]}
    assert [json.loads(arg) for arg in args] == [
        [
            [
                "take",
                2,
                [[1, 0.5, 10.0, 1.0], [2, 1.0, 2.0, 3.0, terms]],
                [[6, 20, "node:1", 60.0, {"queued": 1}], [7, 3, "node:2", 60.0, {"shadow": 1}]],
                [[3, ["x", "y"]], [8, []]],
            ]
        ]
    ]


def test_a_key_that_several_questions_name_is_sent_once() -> None:
    slot = Slot("c", "c:s", "node:1")
    questions = [
        redisscript.give(CHARGES[:1]),
        redisscript.release([slot]),
        redisscript.renew([slot], 60.0),
        redisscript.note("ann", "net", 9.0, 16),
        redisscript.seen("ann", "net"),
        redisscript.give(CHARGES[:1]),
    ]
    keys, args = encode(questions, "p:")
    assert keys == ["p:tb:{rl}:a:s", "p:cc:{rl}:c:s", "p:net:{rl}:ann"]
    assert json.loads(args[0]) == [
        ["give", [[1, 0.5, 10.0, 1.0]]],
        ["release", [[2, "node:1"]]],
        ["renew", 60.0, [[2, "node:1"]]],
        ["note", 3, "net", 9.0, 16],
        ["seen", 3, "net"],
        ["give", [[1, 0.5, 10.0, 1.0]]],
    ]
    assert decode(questions, b"\x1d\x1d\x1d\x1d1\x1d") == [None, None, None, None, True, None]


def test_looks_and_refusals_that_count() -> None:
    modes = [
        json.loads(encode([take(debit, count)], "")[1][0])[0][1] for debit in (False, True) for count in (False, True)
    ]
    assert modes == [0, 1, 2, 2]


def test_a_file_name_that_is_no_utf8_spoils_no_call() -> None:
    penalty = Penalty("s", "x \udcff.yaml:1", 60.0, after_note="x/after \udcff.yaml:1")
    question = redisscript.take([Charge("a", 1.0, 1.0, penalty=penalty)], debit=True, count=False, claims=(), bans=())
    assert json.loads(encode([question], "")[1][0])[0][2][0][4]["penalty"][1::6] == ["x ?.yaml:1", "x/after ?.yaml:1"]


def test_an_answer_with_every_particular() -> None:
    text = b"0 0 9.5 inf 2 0 3\nb 1 12.5 x/after p.yaml:1\nm 1\ne 1\ne 2"
    assert decode([take()], text) == [
        Taken(
            passed=False,
            waits=(0.0, math.inf),
            balances=(9.5, 2.0),
            costs=(1.0, 0.0),
            free=(0, 3),
            bans=(None, Ban(12.5, "x/after p.yaml:1")),
            escalated=("b:s", "c:s"),
        )
    ]


def test_an_answer_without_any() -> None:
    question = redisscript.take(CHARGES[:1], debit=True, count=False, claims=(), bans=())
    assert decode([question], "1 0 9") == [Taken(True, (0.0,), (9.0,), (1.0,))]


def test_a_note_that_is_no_text_is_still_a_ban() -> None:
    question = redisscript.take((), debit=True, count=False, claims=(), bans=BANS)
    found = decode([question], b"0\nb 0 inf \xff\xfe")[0].bans[0]
    assert found == Ban(math.inf, "\ufffd\ufffd")
