"""`gatectl policy simulate` in this process: reading logs, and how the outcome is told."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import ManualClock

from smtpgate.drivers.decisionlog import DecisionLog
from smtpgate.drivers.journal import open_journal
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.policy.bucket import MemoryBuckets
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Event, Facts
from tools.commands.gatectl import gatectl

POLICY = """\
version: 1
limits:
  msgs: {event: mail, rate: 1/1h, burst: 2, key: "{user}", deny: {reply: "450 4.7.1 slow"}}
  conns: {event: connect, concurrency: 5, key: "{net}", deny: {reply: "421 4.7.0 many"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def log(folder: Path) -> Path:
    """Of a proxy under these policies: four messages of ann, one of bob, and a connection each."""
    out = io.StringIO()
    journal, clock = open_journal("json", "info", out).bind(pid=7), ManualClock()
    policy = PolicyFolder.check(folder / "policies").policy
    engine = DecisionLog(Engine(MemoryBuckets(clock), clock, lambda: 0.0, policy=policy), journal, clock)
    for number, user in enumerate(["ann", "ann", "bob", "ann", "ann"]):
        facts = Facts("192.0.2.7", session=f"s{number}", user=user, sender="")
        slots = engine.decide(Event.CONNECT, facts).slots
        engine.decide(Event.MAIL, facts)
        clock.time += 60.0
        engine.release(slots)
        journal.info("transaction", session=f"s{number}", note='"event": "decision"')
        journal.info("session", session=f"s{number}")
    path = folder / "events.jsonl"
    path.write_text(out.getvalue())
    return path


def run(folder: Path, log: Path | str, *options: str, given: bytes | None = None) -> Result:
    arguments = ["policy", "simulate", str(folder / "policies"), "--log", str(log), *options]
    return CliRunner().invoke(gatectl, arguments, input=given)


def told(folder: Path, log: Path | str, *options: str, given: bytes | None = None) -> Any:
    done = run(folder, log, "--json", *options, given=given)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_same_policies_tell_the_same(folder: Path, log: Path) -> None:
    result = told(folder, log)
    assert {key: result[key] for key in ("records", "skipped", "questions", "newly_denied", "newly_allowed")} == {
        "records": 15,
        "skipped": 0,
        "questions": 10,
        "newly_denied": 0,
        "newly_allowed": 0,
    }
    assert result["last"] - result["first"] == 300.0
    msgs = next(one for one in result["limits"] if one["limit"] == "msgs")
    assert (msgs["checked"], msgs["denied"], msgs["logged_denied"]) == (5, 2, 2)
    assert result["subjects"] == [{"limit": "msgs", "subject": "ann", "denied": 2, "held": 0}]


def test_as_text(folder: Path, log: Path) -> None:
    path = folder / "policies" / "a.yaml"
    path.write_text(POLICY.replace("burst: 2", "burst: 3").replace("  conns", "  ip.conns"))
    done = run(folder, log)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "15 records from 1970-01-12T13:46:40.000Z to 1970-01-12T13:51:40.000Z",
        "",
        "limit     event    checked  held  held s  denied  would deny  refunded  log: held  log: denied  "
        "log: would deny",
        "msgs      mail           5     0       0       1           0         0          0            2"
        "                0",
        "ip.conns  connect        5     0       0       0           0         0          0            0"
        "                0",
        "",
        "who is refused or held most",
        "limit  subject  denied  held",
        "msgs   ann           1     0",
        "",
        "of 10 questions: 0 refused that were allowed, 1 allowed that were refused",
        "the first of them",
        "at                        event  session  client     user  then  now",
        "1970-01-12T13:49:40.000Z  mail   s3       192.0.2.7  ann   msgs  allowed",
    ]
    assert done.stderr == ""


def test_standard_input_and_gzip(folder: Path, log: Path) -> None:
    octets = log.read_bytes()
    packed = folder / "events.jsonl.gz"
    packed.write_bytes(gzip.compress(octets))
    assert told(folder, packed) == told(folder, log) == told(folder, "-", given=octets)


def test_a_log_that_is_still_written_and_has_other_lines(folder: Path, log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    noise = [b"Traceback (most recent call last):\n", b'{"event": "denied", "limit": "msgs"}\n', b"[1]\n"]
    log.write_bytes(b"".join([*noise, *lines, lines[0][:60], b'\n{"event": "decision"\n']))
    result = told(folder, log)
    assert (result["records"], result["skipped"]) == (15, 1 + (b'"decision"' in lines[0][:60]))


def test_no_records(folder: Path) -> None:
    path = folder / "events.jsonl"
    path.write_text('{"event": "session", "session": "a"}\n')
    done = run(folder, path)
    assert (done.exit_code, done.stderr) == (
        2,
        f"{path}: holds no records of decisions; expected a log of `log: {{decisions: true}}`\n",
    )


def test_a_record_that_is_none(folder: Path) -> None:
    path = folder / "events.jsonl"
    path.write_text('{"event": "x"}\n{"event": "decision", "at": 1.0, "asked": "mail", "facts": {"client": 7}}\n')
    done = run(folder, path)
    assert (done.exit_code, done.stderr) == (
        2,
        f"{path}:2: facts.client: is not of the type that this fact has; expected what log.decisions wrote\n",
    )


def test_what_cannot_be_read(folder: Path, log: Path) -> None:
    done = run(folder, folder / "nowhere")
    assert (done.exit_code, done.stderr) == (2, f"{folder}/nowhere: cannot be read: No such file or directory\n")
    (folder / "bad.gz").write_bytes(b"no gzip")
    done = run(folder, folder / "bad.gz")
    assert (done.exit_code, done.stderr.startswith(f"{folder}/bad.gz: cannot be read: ")) == (2, True)
    (folder / "policies" / "a.yaml").write_text("version: 3\n")
    done = run(folder, log)
    assert (done.exit_code, done.stderr.startswith(f"{folder}/policies/a.yaml:1:1: version: 3 ")) == (2, True)


def test_places_that_nobody_left(folder: Path, log: Path) -> None:
    kept = [line for line in log.read_text().splitlines(keepends=True) if '"event": "decision"' in line[:100]]
    log.write_text("".join(kept))
    done = run(folder, log)
    assert done.stderr == "5 places are held at the end: the log does not say when they were left\n"
