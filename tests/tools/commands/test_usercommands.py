"""`gatectl user …` in this process; tests/authsvc/test_outages.py runs it as an operator does, on every store."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import argon2
import pytest
from click.testing import CliRunner, Result
from peers.process import HOST, free_port

from authsvc.proof import crammd5
from authsvc.proof.passwords import Passwords
from authsvc.users import usersyaml
from authsvc.users.model import User
from tools.commands import usercommands
from tools.commands.gatectl import gatectl

ROOT = Path(__file__).parents[3]
SSHA = "{SSHA}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
CONF = """\
policies: policies
users:
  - {file: users.yaml}
  - {sql: "sqlite:///users.db"}
"""

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a file that has `test`, and an SQLite database that is not there yet."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "users.yaml").write_text(f'# ours\nusers:\n  test:\n    password: "{SSHA}"\n    plan: gold\n')
    (tmp_path / "authsvc.yaml").write_text(CONF)
    monkeypatch.setenv("SMTPGATE_AUTHSVC_CONF", str(tmp_path / "authsvc.yaml"))
    # Hashes that cost next to nothing.
    cheap = argon2.profiles.CHEAPEST
    monkeypatch.setattr(usercommands, "Passwords", lambda *parameters, **options: Passwords(cheap, **options))
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """`run("add", "new", given="1234\\n")` -> the command's result."""

    def run(*arguments: str, given: str = "") -> Result:
        return CliRunner().invoke(gatectl, ["user", *arguments], input=given)

    return run


@pytest.fixture
def with_table(run: Run) -> Run:
    assert run("init").exit_code == 0
    return run


def in_file(folder: Path) -> dict[str, User]:
    return dict(usersyaml.parse((folder / "users.yaml").read_bytes(), "users.yaml"))


def test_add(with_table: Run, folder: Path) -> None:
    done = with_table("add", "new", "--plan", "free", "--pool", "bulk", "--disabled", "--cram-md5", given="pä ss\n")
    assert (done.exit_code, done.output) == (0, f'added "new" to {folder}/users.yaml\n')
    users = in_file(folder)
    assert list(users) == ["test", "new"]
    new = users["new"]
    assert (new.plan, new.pool, new.enabled, len(new.passwords)) == ("free", "bulk", False, 2)
    assert new.passwords[0].startswith("{ARGON2ID}")
    # doveadm pw -s CRAM-MD5 -p "pä ss"
    assert new.passwords[1] == ("{CRAM-MD5}ec7e31e33dcb2c419b646b38ee32950ac5bd896983d5cd3439f104d49933b160")
    assert (folder / "users.yaml").read_text().startswith("# ours\n")


def test_add_to_another_store_and_nowhere_twice(with_table: Run, folder: Path) -> None:
    done = with_table("--store", "2", "add", "new", given="1234\n")
    assert (done.exit_code, done.output) == (0, f'added "new" to sqlite:///{folder}/users.db\n')
    done = with_table("add", "new", given="1234\n")
    assert (done.exit_code, done.output) == (
        1,
        f'Error: "new" is there already, in sqlite:///{folder}/users.db; `gatectl user passwd` changes it\n',
    )
    assert "new" not in in_file(folder)


def test_passwd_replaces_every_password_and_nothing_else(with_table: Run, folder: Path) -> None:
    done = with_table("passwd", "test", given="1234\n")
    assert (done.exit_code, done.output) == (0, f'changed "test" in {folder}/users.yaml\n')
    user = in_file(folder)["test"]
    assert (user.plan, len(user.passwords)) == ("gold", 1)
    assert Passwords().verify(user.passwords, b"1234") == user.passwords[0]


def test_passwd_keeps_cram_md5_open_or_closed_unless_it_is_told(with_table: Run, folder: Path) -> None:
    def schemes() -> list[str]:
        return [form.partition("}")[0] for form in in_file(folder)["test"].passwords]

    with_table("passwd", "test", "--cram-md5", given="1\n")
    assert schemes() == ["{ARGON2ID", "{CRAM-MD5"]
    with_table("passwd", "test", given="2\n")
    assert schemes() == ["{ARGON2ID", "{CRAM-MD5"]
    with_table("passwd", "test", "--no-cram-md5", given="3\n")
    assert schemes() == ["{ARGON2ID"]


def test_disable_and_enable(with_table: Run, folder: Path) -> None:
    before = in_file(folder)["test"]
    assert with_table("disable", "test").output == f'disabled "test" in {folder}/users.yaml\n'
    assert not in_file(folder)["test"].enabled
    assert with_table("enable", "test").output == f'enabled "test" in {folder}/users.yaml\n'
    assert in_file(folder)["test"] == before


def test_remove(with_table: Run, folder: Path) -> None:
    assert with_table("remove", "test").output == f'removed "test" from {folder}/users.yaml\n'
    assert in_file(folder) == {}


def test_list(with_table: Run) -> None:
    with_table("--store", "2", "add", "jürgen", "--pool", "bulk", "--disabled", given="1234\n")
    done = with_table("list")
    assert (done.exit_code, done.output) == (
        0,
        "1\ttest\tenabled\tgold\t-\tSSHA\n2\tjürgen\tdisabled\t-\tbulk\tARGON2ID\n",
    )
    assert with_table("--store", "2", "list").output == "2\tjürgen\tdisabled\t-\tbulk\tARGON2ID\n"


def test_verify(with_table: Run, folder: Path) -> None:
    with_table("passwd", "test", given="1234\n")
    done = with_table("verify", "test", given="1234\n")
    assert (done.exit_code, done.output) == (0, f"the password is right, by ARGON2ID, in {folder}/users.yaml\n")
    done = with_table("verify", "test", given="12345\n")
    assert (done.exit_code, done.output) == (1, f'Error: the password is not that of "test" in {folder}/users.yaml\n')
    with_table("disable", "test")
    done = with_table("verify", "test", given="1234\n")
    assert (done.exit_code, done.output) == (
        1,
        f'Error: the password is right, but "test" is disabled in {folder}/users.yaml\n',
    )


def test_init_makes_the_table_once(run: Run, folder: Path) -> None:
    for _ in range(2):
        done = run("init")
        assert (done.exit_code, done.output) == (0, f"smtpgate_users is in sqlite:///{folder}/users.db\n")
    done = run("--store", "1", "init")
    assert (done.exit_code, done.output) == (
        1,
        "Error: no SQL store of the configuration is without a query of its own\n",
    )


@pytest.mark.parametrize("command", ["passwd", "disable", "enable", "remove", "verify"])
def test_nobody_of_that_name(with_table: Run, command: str) -> None:
    done = with_table(command, "nobody", given="1234\n")
    assert (done.exit_code, done.output) == (1, 'Error: there is no user "nobody"\n')


@pytest.mark.parametrize("arguments", [("add", "new"), ("passwd", "test"), ("verify", "test"), ("hash",)])
def test_no_password(with_table: Run, folder: Path, arguments: tuple[str, ...]) -> None:
    done = with_table(*arguments, given="\n")
    assert (done.exit_code, done.output) == (1, "Error: no password given; expected one line of text\n")
    assert list(in_file(folder)) == ["test"]


def test_a_password_that_is_too_long(with_table: Run) -> None:
    done = with_table("add", "new", given="x" * 513 + "\n")
    assert (done.exit_code, done.output) == (1, "Error: a password of 513 octets; at most 512 are taken\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", " new"), "Invalid value for 'NAME': \" new\" cannot be a user's name; expected 1 to 320 octets of"),
        (("add", "new", "--plan", "a b"), "Invalid value for '--plan': \"a b\" is not a name; expected 1 to 64 of"),
        (("--store", "3", "list"), "--store 3: there is no such store; expected one of: 1 /"),
        (("add",), "Missing argument 'NAME'"),
        (("add", "new", "1234"), "Got unexpected extra argument (1234)"),
    ],
)
def test_a_command_that_is_wrong(with_table: Run, arguments: tuple[str, ...], message: str) -> None:
    done = with_table(*arguments, given="1234\n")
    assert done.exit_code == 2
    assert f"Error: {message}" in done.output


def test_a_configuration_that_is_wrong(run: Run, folder: Path) -> None:
    (folder / "authsvc.yaml").write_text("users: {}\npolices: policies\n")
    done = run("list")
    assert done.exit_code == 2
    assert [line.partition(": ")[0] for line in done.output.splitlines()] == [f"{folder}/authsvc.yaml:1:1"] * 2 + [
        f"{folder}/authsvc.yaml:2:1"
    ]


@pytest.mark.parametrize("command", [("list",), ("add", "new"), ("disable", "nobody"), ("init",)])
def test_a_store_that_gives_no_answer(run: Run, folder: Path, command: tuple[str, ...]) -> None:
    url = f"postgresql+psycopg://mail@{HOST}:{free_port()}/mail"
    (folder / "authsvc.yaml").write_text(f'policies: policies\nusers: [{{sql: "{url}"}}]\n')
    done = run(*command, given="1234\n")
    assert done.exit_code == 3
    assert done.output.startswith(f"Error: postgresql+psycopg://{HOST}:")
    assert "OperationalError: connection failed: " in done.output


def test_a_store_that_takes_no_changes(run: Run, folder: Path) -> None:
    run("init")
    query = "SELECT name, password FROM smtpgate_users WHERE name = :login"
    (folder / "authsvc.yaml").write_text(
        f'policies: policies\nusers: [{{sql: "sqlite:///users.db", query: "{query}"}}]\n'
    )
    done = run("add", "new", given="1234\n")
    assert (done.exit_code, done.output) == (
        1,
        f"Error: sqlite:///{folder}/users.db: no statement `add` is configured beside the store's query\n",
    )


def test_one_record_that_makes_no_user_hides_no_other(with_table: Run, folder: Path) -> None:
    for name in ("a", "b"):
        with_table("--store", "2", "add", name, given="1234\n")
    with sqlite3.connect(folder / "users.db") as database:
        database.execute("UPDATE smtpgate_users SET plan = 'a b' WHERE name = 'a'")
    database.close()
    done = with_table("--store", "2", "list")
    assert done.exit_code == 0
    assert done.stdout == "2\tb\tenabled\t-\t-\tARGON2ID\n"
    assert done.stderr.startswith(f'sqlite:///{folder}/users.db: "a": plan is not a name; expected 1 to 64 of')


def test_a_terminal_asks_twice_and_shows_nothing() -> None:
    ours, theirs = pty.openpty()
    argv = [ROOT / "tools/gatectl", "user", "hash"]
    process = subprocess.Popen(argv, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    try:
        for question in (b"Password: ", b"Repeat for confirmation: "):
            while not shown.endswith(question):
                shown += os.read(ours, 1024)
            os.write(ours, b"hunter2\n")
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0
    assert printed.splitlines()[1] == f'cram_md5: "{crammd5.make(b"hunter2")}"'.encode()
    assert b"hunter2" not in shown
