"""YAML as this program reads it: scalars, marks, variables, and what is refused."""

from __future__ import annotations

import time

import pytest

from smtpgate.document import DocumentError, Mark, load
from smtpgate.document.reader import MAX_DEPTH, MAX_NODES, MAX_TEXT


def problems(text: bytes | str, environ: dict[str, str] | None = None) -> list[str]:
    octets = text.encode() if isinstance(text, str) else text
    with pytest.raises(DocumentError) as caught:
        load(octets, source="f", environ=environ)
    return [str(problem) for problem in caught.value.problems]


def value(text: str, environ: dict[str, str] | None = None) -> object:
    return load(f"k: {text}\n".encode(), source="f", environ=environ).value["k"]


# --- scalars ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("false", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("0", 0),
        ("-5", -5),
        ("9007199254740993", 9007199254740993),
        ("0.5", 0.5),
        ("-1.25e3", -1250.0),
        ("1e2", 100.0),
        # What YAML 1.1, and PyYAML, would make something else of.
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("True", "True"),
        ("NULL", "NULL"),
        ("22:00", "22:00"),
        ("12:30:45", "12:30:45"),
        ("010", "010"),
        ("1_0", "1_0"),
        ("+5", "+5"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        (".inf", ".inf"),
        (".5", ".5"),
        ("1e999", "1e999"),
        ("2026-12-01", "2026-12-01"),
        ("=", "="),
        ("٣", "٣"),
        ("9" * 40, "9" * 40),
        # Quoted is text, whatever it looks like.
        ('"5"', "5"),
        ("'true'", "true"),
        ('""', ""),
        ("|\n  5\n", "5\n"),
    ],
)
def test_scalar(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_a_tree_and_its_marks():
    document = load(b"a:\n  - b: 1\n    c: [x, y]\nd: {e: 2}\n", source="conf/x.yaml")
    assert document.value == {"a": [{"b": 1, "c": ["x", "y"]}], "d": {"e": 2}}
    places = {
        (): (1, 1),
        ("a",): (1, 1),
        ("a", 0): (2, 5),
        ("a", 0, "b"): (2, 5),
        ("a", 0, "c"): (3, 5),
        ("a", 0, "c", 0): (3, 9),
        ("a", 0, "c", 1): (3, 12),
        ("d",): (4, 1),
        ("d", "e"): (4, 5),
    }
    assert dict(document.marks) == {path: Mark("conf/x.yaml", *place) for path, place in places.items()}


def test_columns_count_characters():
    assert load("é: [ü, ß]\n".encode(), source="f").locate(("é", 1)) == Mark("f", 1, 8)


def test_a_byte_order_mark_is_skipped():
    document = load(b"\xef\xbb\xbfa: 1\n", source="f")
    assert document.value == {"a": 1}
    assert document.locate(("a",)) == Mark("f", 1, 1)


def test_windows_line_ends():
    document = load(b"a: 1\r\nb: x\r\n", source="f")
    assert document.value == {"a": 1, "b": "x"}
    assert document.locate(("b",)) == Mark("f", 2, 1)


# --- what is refused ----------------------------------------------------------------------------------------

EMPTY = ["f:1:1: the file is empty; expected keys with values"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", EMPTY),
        ("\n\n", EMPTY),
        ("# a comment\n", EMPTY),
        (b"\xef\xbb\xbf", EMPTY),
        ("word\n", ["f:1:1: the file is not a mapping; expected keys with values"]),
        ("\n- a\n", ["f:2:1: the file is not a mapping; expected keys with values"]),
        ("---\n", ["f:2:1: the file is not a mapping; expected keys with values"]),
        ("a: 1\n---\nb: 2\n", ["f:2:1: a second document begins; expected one document in a file"]),
        ("a: 1\na: 2\n", ["f:2:1: a: duplicate key, first in line 1"]),
        (
            'a: 1\n"a": 2\na: 3\n',
            ["f:2:1: a: duplicate key, first in line 1", "f:3:1: a: duplicate key, first in line 1"],
        ),
        ("x:\n  - {a: 1, a: 1}\n", ["f:2:12: x[0].a: duplicate key, first in line 2"]),
        ("a:\n\tb: 1\n", ["f:2:1: a tab may not indent; expected spaces"]),
        ("a: &x 1\n", ["f:1:4: a: anchors and aliases are not supported; expected the value written out"]),
        ("a: *x\n", ["f:1:4: a: anchors and aliases are not supported; expected the value written out"]),
        ("&x a: 1\n", ["f:1:1: a: anchors and tags are not supported; expected a plain key"]),
        ("a: !!str 1\n", ["f:1:4: a: tags are not supported; expected the value without a tag"]),
        ("a: ! 1\n", ["f:1:4: a: tags are not supported; expected the value without a tag"]),
        (
            "a: !!python/object/apply:os.system [id]\n",
            ["f:1:4: a: tags are not supported; expected the value without a tag"],
        ),
        ("<<: {a: 1}\n", ["f:1:1: [<<]: merge keys are not supported; expected the keys written out"]),
        ("1: a\n", ['f:1:1: 1: the key 1 is not text; expected quotes: "1"']),
        ("true: a\n", ['f:1:1: true: the key true is not text; expected quotes: "true"']),
        ("? [a]\n: 1\n", ["f:1:3: a key is not text; expected text before the colon"]),
        ("*a : 1\n", ["f:1:1: a key is not text; expected text before the colon"]),
        ("a: [1, 2\nb: 3\n", ["f:2:2: while parsing a flow sequence: did not find expected ',' or ']'"]),
        ("a: b: c\n", ["f:1:5: mapping values are not allowed in this context"]),
        ('a: "x\n', ["f:2:1: while scanning a quoted scalar: found unexpected end of stream"]),
        ("a: @x\n", ["f:1:4: while scanning for the next token: found character that cannot start any token"]),
        (b"a: 1\nb: \xff\n", ["f:2:4: octet 0xff is not UTF-8; expected UTF-8"]),
        (b"a: \xed\xa0\x80\n", ["f:1:4: octet 0xed is not UTF-8; expected UTF-8"]),
        ("a: 1\n".encode("utf-16"), ["f:1:1: octet 0xff is not UTF-8; expected UTF-8"]),
        (b"a: x\x00y\n", ["f:1:5: character U+0000 may not stand in a file; expected an escape in double quotes"]),
        ("a: x\x1b[0m\n", ["f:1:5: character U+001B may not stand in a file; expected an escape in double quotes"]),
        ("# \u2028b: 1\n", ["f:1:3: character U+2028 may not stand in a file; expected an escape in double quotes"]),
        ("a: \x85\n", ["f:1:4: character U+0085 may not stand in a file; expected an escape in double quotes"]),
    ],
)
def test_refused(text, expected):
    assert problems(text) == expected


def test_faults_that_can_be_read_past_are_told_together():
    assert problems("a: 1\na: 2\n<<: x\nb: !t 1\n") == [
        "f:2:1: a: duplicate key, first in line 1",
        "f:3:1: [<<]: merge keys are not supported; expected the keys written out",
        "f:4:4: b: tags are not supported; expected the value without a tag",
    ]


def test_the_first_of_two_keys_keeps_its_marks():
    with pytest.raises(DocumentError) as caught:
        load(b"a: {b: 1}\na: {b: 1, b: 2}\n", source="f")
    assert [str(problem) for problem in caught.value.problems] == [
        "f:2:1: a: duplicate key, first in line 1",
        "f:2:11: a.b: duplicate key, first in line 1",
    ]


# --- bounds -------------------------------------------------------------------------------------------------


def test_size_bound():
    fits = b"a: " + b"x" * (MAX_TEXT - 3)
    assert len(load(fits, source="f").value["a"]) == MAX_TEXT - 3
    assert problems(fits + b"x") == ["f:1:1: the file has 1048577 octets; expected at most 1048576"]


def test_depth_bound():
    deepest = "a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    found = load(deepest.encode(), source="f").value["a"]
    for _ in range(MAX_DEPTH - 2):
        found = found[0]
    assert found == []
    message = problems("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH)[0]
    assert message.endswith(": the file nests too deeply; expected at most 32 levels")
    assert message.startswith("f:1:35: a[0]")


def test_node_bound():
    fits = "a: [" + "x," * (MAX_NODES - 3) + "]"
    assert len(load(fits.encode(), source="f").value["a"]) == MAX_NODES - 3
    more = "a: [" + "x," * (MAX_NODES - 2) + "]"
    assert problems(more) == ["f:1:199999: a[99997]: the file has too many values; expected at most 100000"]


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "[" * 500_000,
        "a: " + "{" * 500_000,
        "- " * 300_000,
        "? " * 300_000,
        "a: &x " + "!" * 900_000,
        "a: [" + "&x 1," * 150_000,
        "a: [" + "[]," * 200_000,
    ],
    ids=["laughs", "brackets", "braces", "dashes", "questions", "tags", "anchors", "lists"],
)
def test_a_bomb_is_refused_in_time(text):
    start = time.process_time()
    assert problems(text)
    # It takes milliseconds; libyaml without the bounds takes minutes for some of these.
    assert time.process_time() - start < 5.0


# --- variables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("${N}", {"N": "4"}, 4),
        ("${N}", {"N": "true"}, True),
        ("${N}", {"N": "off"}, "off"),
        ('"${N}"', {"N": "4"}, "4"),
        ("'${N}'", {"N": "4"}, "4"),
        ("${N:-4}", {}, 4),
        ("${N:-4}", {"N": ""}, 4),
        ("${N:-4}", {"N": "5"}, 5),
        ("${N:-}", {}, None),
        ('"${N:-}"', {}, ""),
        ("${S:-memory://}", {}, "memory://"),
        ("redis://${H}:${P:-6379}/0", {"H": "127.0.0.1"}, "redis://127.0.0.1:6379/0"),
        ("a$b $ {c} $(d)", {}, "a$b $ {c} $(d)"),
        ("$${N}", {"N": "4"}, "${N}"),
        # What a variable holds is a value: it is not parsed, and not expanded again.
        ("${N}", {"N": "[a, b]"}, "[a, b]"),
        ("${N}", {"N": "x\nk2: y"}, "x\nk2: y"),
        ("${N}", {"N": "${M}", "M": "no"}, "${M}"),
        ('["${N}"]', {"N": "4"}, ["4"]),
    ],
)
def test_variable(text, environ, expected):
    found = value(text, environ)
    assert found == expected
    assert type(found) is type(expected)


def test_without_an_environment_there_are_no_variables():
    assert value("${N}") == "${N}"
    assert value("${") == "${"


def test_keys_hold_no_variables():
    assert load(b'"${N}": 1\n', source="f", environ={"N": "a"}).value == {"${N}": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: ${NO}\n", "f:1:4: a: the environment has no NO; expected it set, or ${NO:-default}"),
        ("a:\n  - x${NO}y\n", "f:2:5: a[0]: the environment has no NO; expected it set, or ${NO:-default}"),
        ("a: ${}\n", "f:1:4: a: a variable is malformed; expected ${NAME}, ${NAME:-default}, or $${ for text"),
        ("a: ${1}\n", "f:1:4: a: a variable is malformed; expected ${NAME}, ${NAME:-default}, or $${ for text"),
        ("a: ${B\n", "f:1:4: a: a variable is malformed; expected ${NAME}, ${NAME:-default}, or $${ for text"),
        ("a: ${B-c}\n", "f:1:4: a: a variable is malformed; expected ${NAME}, ${NAME:-default}, or $${ for text"),
        ("a: ${BAD}\n", "f:1:4: a: the value of BAD in the environment is not UTF-8; expected UTF-8"),
        (
            "a: [${SET}]\n",
            "f:1:6: while parsing a flow sequence: did not find expected ',' or ']'; "
            'expected quotes around a variable inside [] or {}: "${NAME}"',
        ),
    ],
)
def test_variable_refused(text, expected):
    assert problems(text, {"SET": "1", "BAD": "\udcff"}) == [expected]


def test_variables_are_bounded_together():
    # Each use of a variable works like an alias; one value of a megabyte of them must not be built first.
    text = "a: " + "${BIG}" * 1000
    assert problems(text, {"BIG": "x" * 100_000}) == [
        "f:1:4: a: variables expand too far; expected at most 1048576 in all"
    ]
