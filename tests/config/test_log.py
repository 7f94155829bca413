"""`log:`: every form of `to`, and what is wrong with those that are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smtpgate import config
from smtpgate.config.log import EXPECTED_SYSLOG
from smtpgate.document import DocumentError
from smtpgate.journal import FileTarget, SyslogTarget

HEAD = 'server_name: mx.test\nauth_http: {url: "http://127.0.0.1/"}\nlisteners: [{name: mx, bind: 127.0.0.1:25}]\n'


def log(folder: Path, text: str) -> config.LogConfig:
    path = folder / "proxy.yaml"
    path.write_text(f"{HEAD}log: {text}\n")
    return config.load(path, {}).log


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("{}", None),
        ("{to: stdout}", None),
        ("{to: {syslog: local}}", SyslogTarget("unix", "/dev/log")),
        ('{to: {syslog: "unix:/run/log", facility: local0}}', SyslogTarget("unix", "/run/log", 0, "local0")),
        ('{to: {syslog: "udp:log.test:514"}}', SyslogTarget("udp", "log.test", 514)),
        ('{to: {syslog: "tcp:[::1]:601", facility: daemon}}', SyslogTarget("tcp", "::1", 601, "daemon")),
    ],
)
def test_where_it_goes(tmp_path: Path, text: str, target: SyslogTarget | None) -> None:
    assert log(tmp_path, text).to == target


def test_a_file_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    found = log(tmp_path, "{format: text, level: warning, decisions: on, to: {file: gate.log}}")
    assert found == config.LogConfig("text", "warning", True, FileTarget(f"{tmp_path}/gate.log"))


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("{file: none/gate.log}", "log.to.file"),
        ("{file: .}", "is a folder"),
        ("{file: 7}", "is not a path"),
        (f"{{file: {300 * 'x'}}}", "cannot be looked at: File name too long"),
        (f"{{file: {300 * 'x'}/gate.log}}", "cannot be looked at: File name too long"),
        ("{syslog: 7}", f"is not a syslog server; expected {EXPECTED_SYSLOG}"),
        ('{syslog: "tls:log.test:6514"}', "is not a syslog server"),
        ('{syslog: "udp:log.test"}', "is not an address with a port"),
        ('{syslog: "unix:log"}', "is not a unix socket"),
        ("{syslog: local, facility: post}", "is not a facility; expected auth, "),
        ("[stdout]", "is a list"),
        ("stderr", "stdout"),
        ("{}", "file"),
        ("{syslog: local, file: gate.log}", "file"),
    ],
)
def test_what_is_refused(tmp_path: Path, to: str, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        log(tmp_path, f"{{to: {to}}}")
    problems = [str(problem) for problem in caught.value.problems]
    assert len(problems) == 1
    assert "log.to" in problems[0]
    assert said in problems[0]


def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    (tmp_path / "gate.log").touch(0o400)
    with pytest.raises(DocumentError, match="may not be written"):
        log(tmp_path, "{to: {file: gate.log}}")
