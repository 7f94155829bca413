"""What is said of the files that a pool names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from certificates import Authority

from smtpgate.drivers.sidefiles import FilesOnDisk
from smtpgate.routing.model import BackendTls
from smtpgate.units import InvalidValue


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority(tmp_path)
    authority.issue("mta.example")
    authority.issue("other.example")
    (tmp_path / "text.pem").write_text("not PEM")
    both = (tmp_path / "mta.example.crt").read_bytes() + (tmp_path / "mta.example.key").read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    os.mkfifo(tmp_path / "fifo.pem")
    return tmp_path


def tls(folder: Path, **names: str) -> BackendTls:
    return BackendTls("required", **{key: str(folder / name) for key, name in names.items()})  # type: ignore[arg-type]


def test_files_that_can_be_used(folder: Path) -> None:
    files = FilesOnDisk()
    files.check_tls(BackendTls())
    files.check_tls(tls(folder, ca="ca.crt", cert="mta.example.crt", key="mta.example.key"))
    files.check_tls(tls(folder, cert="both.pem"))


@pytest.mark.parametrize(
    ("names", "key", "message"),
    [
        ({"ca": "gone.pem"}, "ca", "is not a file that is there ({}/gone.pem)"),
        ({"ca": "fifo.pem"}, "ca", "is not a file that is there ({}/fifo.pem)"),
        ({"ca": "text.pem"}, "ca", "holds no certificate"),
        ({"cert": "mta.example.crt", "key": "gone.key"}, "key", "is not a file that is there ({}/gone.key)"),
        (
            {"cert": "mta.example.crt", "key": "other.example.key"},
            "cert",
            "cert and key cannot be used: they do not belong together",
        ),
        (
            {"cert": "mta.example.crt"},
            "cert",
            "cert and key cannot be used: one is not PEM, or the key has a passphrase",
        ),
        (
            {"cert": "text.pem", "key": "mta.example.key"},
            "cert",
            "cert and key cannot be used: one is not PEM, or the key has a passphrase",
        ),
    ],
)
def test_files_that_cannot(folder: Path, names: dict[str, str], key: str, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        FilesOnDisk().check_tls(tls(folder, **names))
    assert (caught.value.path, caught.value.message) == ((key,), message.format(folder))


@pytest.mark.parametrize(
    ("octets", "secret"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b" a b \n", " a b "),
        ("ä".encode(), "ä"),
        (b"x" * 255 + b"\r\n", "x" * 255),
        (b"", None),
        (b"\n", None),
        (b"a\nb\n", None),
        (b"a\0b", None),
        (b"\xff", None),
        (b"x" * 256, None),
        (b"x" * 255 + b"\r\nmore", None),
    ],
)
def test_secrets(tmp_path: Path, octets: bytes, secret: str | None) -> None:
    path = tmp_path / "password"
    path.write_bytes(octets)
    if secret is not None:
        assert FilesOnDisk().secret(str(path)) == secret
        return
    with pytest.raises(InvalidValue) as caught:
        FilesOnDisk().secret(str(path))
    assert str(caught.value) == "the file holds no password; expected one line of 1 to 255 octets, UTF-8"


def test_a_secret_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="is not a file that is there"):
        FilesOnDisk().secret(str(tmp_path))
