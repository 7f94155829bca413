from __future__ import annotations

from pathlib import Path

import pytest

from authsvc import startup
from smtpgate.document import DocumentError

CONFIG = "policies: policies\nusers: {file: users.yaml}\n"
ROUTES = """
version: 1
routes: [{name: all, match: {}, pool: core}]
pools: {core: {backends: [{name: a, addr: "127.0.0.1:25"}]}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the service reads, named by the environment."""
    (tmp_path / "authsvc.yaml").write_text(CONFIG)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "routes.yaml").write_text(ROUTES)
    (tmp_path / "users.yaml").write_text("users: {test: {}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(startup.CONF_VARIABLE, "authsvc.yaml")
    monkeypatch.setattr(startup, "_in_force", None)
    return tmp_path


def test_reads_all_that_is_configured(folder: Path) -> None:
    started = startup.start()
    assert list(started.users) == ["test"]
    assert [route.name for route in started.snapshot.routes] == ["all"]
    assert started.config.users == Path("users.yaml")
    assert startup.in_force() is started


def test_every_problem_at_once_and_exit_status_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policies" / "routes.yaml").write_text("version: 1\nlimitz: {}\n")
    (folder / "users.yaml").write_text("users:\n  test: {plann: gold}\n")
    with pytest.raises(SystemExit) as caught:
        startup.start()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["policies/routes.yaml:2:1:", "users.yaml:2:10:"]


def test_policies_without_routes_are_a_problem(folder: Path) -> None:
    (folder / "policies" / "routes.yaml").write_text("version: 1\n")
    with pytest.raises(DocumentError, match="policies:1:1: routes: the auth service has no backend to name"):
        startup.read(Path("authsvc.yaml"), {})


def test_a_reload_of_something_broken_keeps_what_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = startup.start()
    (folder / "authsvc.yaml").write_text(CONFIG + "workers: 0\n")
    assert startup.start() is before
    assert capsys.readouterr().err.splitlines() == [
        "authsvc.yaml:3:1: workers: 0 is too small; expected at least 1",
        "authsvc: the configuration stays as it was",
    ]
    (folder / "authsvc.yaml").write_text(CONFIG + "workers: 2\n")
    assert startup.start().config.workers == 2
