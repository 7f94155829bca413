"""Where the page for Prometheus may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from authsvc import config
from authsvc.metricsettings import MetricsSettings
from smtpgate.document import DocumentError
from smtpgate.units import HostPort

BASE = "policies: .\nusers: {file: users.yaml}\n"
HASH = "{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A"


def load(folder: Path, more: str) -> config.Config:
    (folder / "users.yaml").write_text("users: {}\n")
    (folder / "authsvc.yaml").write_text(BASE + more)
    return config.load(folder / "authsvc.yaml", {})


def test_it_is_off_until_it_is_said_where(tmp_path: Path) -> None:
    assert load(tmp_path, "").metrics is None
    assert load(tmp_path, "metrics: {bind: '127.0.0.1:9126'}\n").metrics == MetricsSettings(
        HostPort("127.0.0.1", 9126)
    )


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("metrics: {}\n", "metrics.bind: is missing; expected e.g. 127.0.0.1:9126"),
        (
            "metrics: {bind: '127.0.0.1:18080'}\n",
            'metrics.bind: "127.0.0.1:18080" is the port of the service; '
            "expected a port of its own: whoever may ask is told everything there",
        ),
        (
            f"bind: '127.0.0.1:1'\nmetrics: {{bind: '127.0.0.1:18081'}}\nconsole: {{operators: {{ann: '{HASH}'}}}}\n",
            'metrics.bind: "127.0.0.1:18081" is the port of the console; '
            "expected a port of its own: whoever may ask is told everything there",
        ),
    ],
)
def test_what_it_may_not_be(tmp_path: Path, more: str, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(tmp_path, more)
    assert [str(one).partition(": ")[2] for one in caught.value.problems] == [problem]
