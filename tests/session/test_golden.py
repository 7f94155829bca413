"""Every golden dialogue: whole, octet by octet, at every two-way split, and with the backend octet by octet."""

from pathlib import Path

import pytest
import transcript

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.smtp"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def dialogue(request):
    return transcript.parse(request.param)


def check(dialogue, outcome):
    assert outcome.proxy.decode("latin-1") == dialogue.proxy.decode("latin-1")
    for (name, _), backend in zip(
        [entry for entry in dialogue.backends if not isinstance(entry[1], str)], outcome.backends, strict=True
    ):
        assert backend.unexpected == b"", f"{name} received more than the dialogue says"
        assert backend.script == [], f"{name} did not receive all that the dialogue says"
        assert backend.closed or outcome.kept, f"{name} was left open"
    if dialogue.closes:
        assert outcome.proxy.count(b"\r\n") > 0


def test_whole(dialogue):
    check(dialogue, transcript.play(dialogue, transcript.whole(dialogue)))


def test_at_every_split(dialogue):
    for pieces in transcript.cuts(dialogue):
        check(dialogue, transcript.play(dialogue, pieces))


def test_backend_octet_by_octet(dialogue):
    check(dialogue, transcript.play(dialogue, transcript.whole(dialogue), backend_piece=1))


def test_there_are_dialogues():
    assert len(GOLDEN) >= 20
