"""The sink takes mail by SMTP and keeps it octet by octet."""

from __future__ import annotations

import smtplib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers.process import Process, free_port, wait_until

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"  # the sink is made for no other


class Sink(Process):
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.maildir = folder / "var" / "maildir"
        argv = [sys.executable, "-u", "-m", "tools.sink", "--port", str(self.port), "--maildir", str(self.maildir)]
        super().__init__("sink", argv, folder, env={"PYTHONPATH": str(ROOT)})
        wait_until(lambda: "listening on" in self.output(), "the sink listens")

    def stored(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.maildir / "new").iterdir()]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    process = Sink(tmp_path)
    yield process
    process.stop()


def test_a_message_is_stored_once_and_told_in_one_line(sink: Sink) -> None:
    message = b"Subject: x\r\n\r\n.leading dot\r\n\xff\xfe 8 bit\r\n" + b"y" * 990 + b"\r\n"
    with smtplib.SMTP(HOST, sink.port, timeout=10) as client:
        assert client.ehlo()[0] == 250
        assert {"size", "8bitmime", "smtputf8"} <= set(client.esmtp_features)
        assert "auth" not in client.esmtp_features
        client.sendmail("a@example.com", ["b@example.com", "c@example.com"], message)
    [stored] = sink.stored()
    assert stored == message.replace(b"\r\n", b"\n")
    [line] = [line for line in sink.output().splitlines() if line.startswith("stored")]
    assert line.startswith(
        f"stored from=<a@example.com> to=<b@example.com>,<c@example.com> size={len(message)} file=new/"
    )


def test_client_text_cannot_reach_the_terminal_raw(sink: Sink) -> None:
    with socket.create_connection((HOST, sink.port), timeout=10) as raw:
        wire = raw.makefile("rwb", buffering=0)
        wire.readline()
        wire.write(b"EHLO x\r\n")
        while wire.readline()[3:4] == b"-":
            pass
        commands = [
            "MAIL FROM:<\N{LATIN SMALL LETTER A WITH DIAERESIS}\N{RIGHT-TO-LEFT OVERRIDE}@example.com> SMTPUTF8",
            "RCPT TO:<b@example.com>",
            "DATA",
            "Subject: x\r\n\r\nx\r\n.",
        ]
        replies = []
        for command in commands:
            wire.write(command.encode() + b"\r\n")
            replies.append(wire.readline()[:3])
    assert replies == [b"250", b"250", b"354", b"250"]
    assert "from=<\\xe4\\u202e@example.com>" in sink.output()


def test_a_taken_port_is_a_clear_message(sink: Sink, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tools.sink", "--port", str(sink.port), "--maildir", str(tmp_path / "other")]
    second = Process("second", argv, tmp_path, env={"PYTHONPATH": str(ROOT)})
    wait_until(lambda: not second.running, "the second sink gives up")
    assert second.stop() == 1
    assert f"Error: cannot serve on 127.0.0.1:{sink.port}: " in second.output()
    assert "Traceback" not in second.output()


def test_term_ends_it_cleanly(sink: Sink) -> None:
    assert sink.stop() == 0
    assert "Traceback" not in sink.output()
