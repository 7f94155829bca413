from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from authsvc import startup
from authsvc.users.model import User
from authsvc.users.sources import YamlFile
from smtpgate.document import DocumentError
from smtpgate.drivers.lastgood import LastGood
from smtpgate.drivers.policytext import FolderText

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
    assert started.users == {Path("users.yaml"): {"test": User("test")}}
    assert [route.name for route in started.snapshot.routes] == ["all"]
    assert started.config.users == (YamlFile(Path("users.yaml")),)
    assert startup.in_force() is started


def test_every_problem_at_once_and_exit_status_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policies" / "routes.yaml").write_text("version: 1\nlimitz: {}\n")
    (folder / "users.yaml").write_text("users:\n  test: {plann: gold}\n")
    with pytest.raises(SystemExit) as caught:
        startup.start()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["policies/routes.yaml:2:1:", "users.yaml:2:10:"]


def test_with_broken_policies_a_start_takes_the_last_good_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "authsvc.yaml").write_text(f"{CONFIG}state_dir: state\n")
    text = FolderText((("policies/routes.yaml", ROUTES.encode()),))
    LastGood(folder / "state", Path("policies")).save("1", text)
    (folder / "policies" / "routes.yaml").write_text("version: 1\nlimitz: {}\n")
    started = startup.start()
    assert [route.name for route in started.snapshot.routes] == ["all"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("policies/routes.yaml:2:1: limitz: unknown key")
    assert lines[1:] == ["authsvc: starts with the last good policies"]
    # Once it runs, a broken edit changes nothing at all: HUP keeps what is in force.
    assert startup.start() is started
    assert capsys.readouterr().err.endswith("authsvc: the configuration stays as it was\n")


def test_the_key_of_wrong_passwords(folder: Path) -> None:
    first = startup.start()
    assert len(first.throttle_key) == 32
    assert startup.start().throttle_key == first.throttle_key, "HUP keeps what was counted"
    (folder / "authsvc.yaml").write_text(f"{CONFIG}throttle_key: 0123456789-0123456789-x\n")
    assert startup.start().throttle_key == b"0123456789-0123456789-x"
    assert "0123456789" not in repr(startup.in_force())


def test_every_file_of_users_is_read_and_no_other_store_asked(folder: Path) -> None:
    (folder / "users.passwd").write_text("test:\nlines:\n")
    (folder / "authsvc.yaml").write_text("""
policies: policies
users:
  - {passwd_file: users.passwd}
  - {redis: "redis://no-such-host.invalid"}
  - {file: users.yaml}
  - {sql: "postgresql+psycopg://no-such-host.invalid/mail"}
""")
    assert startup.start().users == {
        Path("users.passwd"): {"test": User("test"), "lines": User("lines")},
        Path("users.yaml"): {"test": User("test")},
    }


def test_no_client_library_is_imported_before_gevent_patches() -> None:
    # psycopg chooses its way of waiting, and others take their locks, when they are imported.
    show = "import sys, authsvc.startup; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, timeout=60, check=True)
    imported = set(done.stdout.split())
    assert "authsvc.users.sources" in imported
    assert imported & {"redis", "sqlalchemy", "psycopg", "pymysql"} == set()


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
