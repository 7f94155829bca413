from __future__ import annotations

from pathlib import Path

import pytest

from authsvc import config
from authsvc.config import Config, Secret
from authsvc.users.sources import Caching, YamlFile
from smtpgate.document import DocumentError
from smtpgate.document.account import Account
from smtpgate.units import HostPort, UnixPath

ROOT = Path(__file__).parents[2]
BAD = ROOT / "tests" / "bad" / "authsvc"


def test_the_projects_own_file() -> None:
    assert config.load(ROOT / "conf" / "authsvc.yaml", {}) == Config(
        bind=HostPort("127.0.0.1", 18080),
        workers=1,
        store="memory://",
        policies=ROOT / "conf" / ".." / "policies",
        users=(YamlFile(ROOT / "conf" / "users.yaml"),),
        cache=Caching(30.0, 5.0),
        failed_login_wait=1.0,
        secret=None,
        log_format="json",
        log_level="info",
        state_dir=ROOT / "conf" / ".." / "var",
    )


def test_the_projects_own_file_takes_store_and_workers_from_the_environment() -> None:
    environ = {"SMTPGATE_STORE": "redis://127.0.0.1:6379/0", "SMTPGATE_AUTHSVC_WORKERS": "2"}
    loaded = config.load(ROOT / "conf" / "authsvc.yaml", environ)
    assert (loaded.store, loaded.workers) == ("redis://127.0.0.1:6379/0", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "users.yaml").write_text("users: {}\n")
    return tmp_path


def load(folder: Path, text: str) -> Config:
    path = folder / "authsvc.yaml"
    path.write_text("policies: policies\nusers: {file: users.yaml}\n" + text)
    return config.load(path, {"KEY": "hunter2"})


def test_defaults(folder: Path) -> None:
    assert load(folder, "") == Config(
        bind=HostPort("127.0.0.1", 18080),
        workers=1,
        store="memory://",
        policies=folder / "policies",
        users=(YamlFile(folder / "users.yaml"),),
        cache=Caching(found=30.0, unknown=5.0),
        failed_login_wait=1.0,
        secret=None,
        log_format="json",
        log_level="info",
    )


def test_every_key(folder: Path) -> None:
    text = """
bind: unix:/run/authsvc.sock
workers: 4
store: redis+unix:///run/redis.sock?db=1
failed_login_wait: 500ms
cache: {found: 1m, unknown: 0s}
server_name: auth.example.com
throttle_key: "0123456789012345678901"
auth_cache: 30500ms
probe: true
state_dir: state/authsvc
secret: {name: X-Auth-Key, value: "${KEY}"}
log: {format: text, level: warning, decisions: true}
"""
    assert load(folder, text) == Config(
        bind=UnixPath("/run/authsvc.sock"),
        workers=4,
        store="redis+unix:///run/redis.sock?db=1",
        policies=folder / "policies",
        users=(YamlFile(folder / "users.yaml"),),
        cache=Caching(found=60.0, unknown=0.0),
        failed_login_wait=0.5,
        secret=Secret("X-Auth-Key", "hunter2"),
        log_format="text",
        log_level="warning",
        server_name="auth.example.com",
        throttle_key=b"0123456789012345678901",
        auth_cache=30,
        probe=True,
        state_dir=folder / "state" / "authsvc",
        log_decisions=True,
    )


def test_secrets_are_not_shown(folder: Path) -> None:
    loaded = load(folder, 'store: "redis://:hunter2@127.0.0.1/0"\nsecret: {name: X-Auth-Key, value: "${KEY}"}\n')
    assert "hunter2" not in repr(loaded)


def test_the_secret_may_be_in_a_file(folder: Path) -> None:
    (folder / "secret").write_text("hunter2\n")
    assert load(folder, "secret: {name: X-Auth-Key, value_file: secret}\n").secret == Secret("X-Auth-Key", "hunter2")


def test_where_the_last_good_policies_are_kept(folder: Path) -> None:
    path = folder / "authsvc.yaml"
    load(folder, "")
    assert config.load(path, {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}).state_dir == Path("/var/lib/a")
    assert config.load(path, {"STATE_DIRECTORY": ""}).state_dir is None
    with pytest.raises(DocumentError, match="cannot be a folder: there is a file in its way"):
        load(folder, "state_dir: users.yaml/state\n")


def test_whom_the_workers_become(folder: Path) -> None:
    assert load(folder, "").account is None
    assert load(folder, "user: 4711\ngroup: 4712\n").account == Account("4711", 4711, 4712)
    with pytest.raises(DocumentError, match='user: "no-such-user" is no user of this system'):
        load(folder, "user: no-such-user\n")
    with pytest.raises(DocumentError, match="group: is for a user, and there is none"):
        load(folder, "group: 4712\n")


def test_the_throttle_key_may_be_in_a_file(folder: Path) -> None:
    (folder / "key").write_text("hunter2-0123456789-0123456789\n")
    loaded = load(folder, "throttle_key_file: key\n")
    assert loaded.throttle_key == b"hunter2-0123456789-0123456789"
    assert "hunter2" not in repr(loaded)
    with pytest.raises(DocumentError, match="throttle_key_file: stands beside throttle_key"):
        load(folder, "throttle_key_file: key\nthrottle_key: '0123456789012345678901'\n")


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("", False),
        ("bind: unix:/run/authsvc.sock", False),
        ("bind: '[::1]:18080'", False),
        ("bind: 0.0.0.0:18080", True),
        ("bind: '[2001:db8::1]:18080'", True),
        ("bind: 0.0.0.0:18080\nsecret: {name: X-Auth-Key, value: x}", False),
    ],
)
def test_who_may_try_passwords(folder: Path, text: str, is_open: bool) -> None:
    assert load(folder, text).is_open is is_open


@pytest.mark.parametrize(
    "store",
    [
        "memory://",
        "redis://127.0.0.1:6379/0",
        "rediss://:x@redis.example/0",
        "redis+unix:///run/redis.sock",
        "redis+sentinel://a:26379,b:26379/mymaster",
        "redis+cluster://a:7000,b:7001",
        "valkey://127.0.0.1",
        "valkeys://127.0.0.1",
    ],
)
def test_stores(folder: Path, store: str) -> None:
    assert load(folder, f'store: "{store}"\n').store == store


# Each fixture is named after its fault; its first lines tell the messages, as comments.
@pytest.mark.parametrize("path", sorted(BAD.glob("authsvc_*.yaml")), ids=lambda path: path.stem)
def test_what_is_wrong_with_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    monkeypatch.chdir(path.parent)
    with pytest.raises(DocumentError) as caught:
        config.load(Path(path.name), {})
    assert str(caught.value).splitlines() == expected
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "authsvc.yaml"
    with pytest.raises(DocumentError) as caught:
        config.load(path, {})
    expected = "cannot be read: No such file or directory; expected a file that this user may read"
    assert str(caught.value) == f"{path}:1:1: {expected}"


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read: Is a directory"):
        config.load(tmp_path, {})
