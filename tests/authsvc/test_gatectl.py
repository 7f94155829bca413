"""tools/gatectl as an operator starts it: by itself, from anywhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from authsvc.proof.passwords import Passwords
from authsvc.users import usersyaml

GATECTL = Path(__file__).parents[2] / "tools" / "gatectl"


def gatectl(*arguments: str, given: str = "", folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [GATECTL, *arguments], input=given, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("given", ["pä ss\n", "pä ss", "pä ss\r\n"])
def test_hashes_are_what_the_users_file_takes(tmp_path: Path, given: str) -> None:
    done = gatectl("user", "hash", given=given, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = "".join(f"    {line}\n" for line in done.stdout.splitlines())
    user = usersyaml.parse(f"users:\n  test:\n{lines}".encode(), "users.yaml")["test"]
    argon2id, cram_md5 = user.passwords
    assert Passwords().verify([argon2id], "pä ss".encode()) == argon2id
    assert cram_md5 == "{CRAM-MD5}" + CRAM_MD5


# HMAC-MD5's states for "pä ss", made with Dovecot: doveadm pw -s CRAM-MD5 -p "pä ss"
CRAM_MD5 = "ec7e31e33dcb2c419b646b38ee32950ac5bd896983d5cd3439f104d49933b160"


def test_no_password_is_refused(tmp_path: Path) -> None:
    done = gatectl("user", "hash", given="\n", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: no password given; expected one line of text\n"
