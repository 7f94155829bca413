"""What the questions add."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from authsvc import startup
from authsvc.answer.contract import AuthRequest, Granted, Refused, read_request
from authsvc.answer.service import Outcome
from authsvc.metrics import AuthMetrics
from smtpgate.drivers.metricsfolder import MetricsFolder
from smtpgate.drivers.metricsvalues import Families

REFUSED = Outcome(Refused("535 5.7.0", "Authentication failed"), "wrong")


def asked(method: str = "plain", protocol: str = "smtp") -> AuthRequest:
    headers = {"Auth-Method": method, "Auth-User": "ann", "Auth-Pass": "x", "Auth-Protocol": protocol}
    return read_request({**headers, "Auth-Login-Attempt": "1", "Client-IP": "192.0.2.7"})


@pytest.mark.parametrize(
    ("method", "protocol", "labels"),
    [
        ("plain", "smtp", ("smtp", "plain", "wrong")),
        ("none", "smtp", ("smtp", "none", "wrong")),
        ("apop", "pop3", ("pop3", "apop", "wrong")),
        ("apop", "smtp", ("smtp", "other", "wrong")),
        ("plain", "gopher", ("other", "other", "wrong")),
        ("x" * 50, "imap", ("imap", "other", "wrong")),
    ],
)
def test_a_question_by_words_of_ours(method: str, protocol: str, labels: tuple[str, str, str]) -> None:
    families = Families()
    metrics = AuthMetrics(families)
    metrics.answered(asked(method, protocol), REFUSED, 0.2)
    requests, unread = families.counters
    assert requests.values == {labels: 1}
    assert unread.values == {(): 0}
    (seconds,) = families.histograms
    assert list(seconds.cells) == [(labels[1],)]
    assert seconds.cells[labels[1],].sum == 0.2


def test_a_folder_is_made_once_and_its_want_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "routes.yaml").write_text(
        "version: 1\nroutes: [{name: all, match: {}, pool: core}]\n"
        'pools: {core: {backends: [{name: a, addr: "127.0.0.1:25"}]}}\n'
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/users.yaml").write_text("users: {}\n")
    conf = tmp_path / "sub/authsvc.yaml"
    conf.write_text("policies: ..\nusers: {file: users.yaml}\n")
    monkeypatch.setenv(startup.CONF_VARIABLE, str(conf))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SMTPGATE_METRICS_AUTHSVC", "")
    monkeypatch.setattr(startup, "_in_force", None)
    monkeypatch.setattr(startup, "_metrics", None)
    assert startup.start().metrics is None
    conf.write_text("policies: ..\nusers: {file: users.yaml}\nmetrics: {bind: '127.0.0.1:9126'}\n")

    def full(*_: object) -> MetricsFolder:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as without:
        without.setattr(startup, "make_folder", full)
        assert startup.start().metrics is None
        assert "No space left on device; the metrics tell nothing" in capsys.readouterr().err
    made = startup.start().metrics
    assert made is not None
    assert startup.start().metrics is made
    made.close()


def test_a_grant_is_counted_as_one() -> None:
    families = Families()
    AuthMetrics(families).answered(asked(), Outcome(Granted(), "granted", user="ann"), 0.001)
    assert families.counters[0].values == {("smtp", "plain", "granted"): 1}
