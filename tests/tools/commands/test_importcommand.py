"""`gatectl import-nginx` in this process: what is written where, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from smtpgate.main import main
from tools.commands.gatectl import gatectl

NGINX = (
    "mail {\n auth_http 127.0.0.1:9000/auth;\n server { listen 25; proxy_buffer 8k; }\n server { listen 110; }\n}\n"
)
REMARKS = [
    ":3: proxy_buffer: replies have bounds of their own",
    ":4: a server for pop3 stays with nginx",
]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gatectl, ["import-nginx", *map(str, arguments)])


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "nginx.conf"
    path.write_text(NGINX)
    return path


def test_to_standard_output(conf: Path) -> None:
    done = run(conf, "--hostname", "mx.example.com")
    assert (done.exit_code, done.stderr.splitlines()) == (0, [f"{conf}{remark}" for remark in REMARKS])
    head, _, body = done.stdout.partition("\n\n")
    assert head.splitlines()[2:] == [f"#   {conf}{remark}" for remark in REMARKS]
    assert body.splitlines()[0] == "server_name: mx.example.com"
    assert body.splitlines()[-1] == "    tls: off"


def test_to_a_file_that_passes_the_check(conf: Path) -> None:
    output = conf.parent / "proxy.yaml"
    done = run(conf, "-o", output)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == f"{output}: written. Next: python proxy.py -c {output} --check"
    assert output.stat().st_mode & 0o777 == 0o640
    checked = CliRunner().invoke(main, ["-c", str(output), "--check"])
    assert (checked.exit_code, checked.output) == (0, f"{output}: valid\n")


def test_an_existing_file_is_kept_unless_it_is_said(conf: Path) -> None:
    output = conf.parent / "proxy.yaml"
    output.write_text("mine\n")
    done = run(conf, "-o", output)
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (
        2,
        f"{output}: is there already; expected a new file, or --force",
    )
    assert output.read_text() == "mine\n"
    assert run(conf, "-o", output, "--force").exit_code == 0
    assert output.read_text().startswith("# Imported from ")
    assert [path.name for path in sorted(conf.parent.iterdir())] == ["nginx.conf", "proxy.yaml"]


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        ("http {}", 1, "Error: {conf}: there is no mail{{}} in it"),
        ("mail { auth_http x; server { listen 143; } }", 1, "Error: {conf}: no server of mail{{}} speaks SMTP"),
        ("mail {\n timeout 5 }", 2, '{conf}:2: directive "timeout" is not terminated by ";"'),
    ],
)
def test_what_cannot_be_imported(conf: Path, text: str, status: int, told: str) -> None:
    conf.write_text(text)
    done = run(conf)
    assert (done.exit_code, done.stdout, done.stderr) == (status, "", told.format(conf=conf) + "\n")


def test_files_that_cannot_be_read_or_written(conf: Path) -> None:
    none = conf.parent / "none.conf"
    done = run(none)
    assert (done.exit_code, done.stderr) == (2, f"{none}: cannot be read: No such file or directory\n")
    output = conf.parent / "none/proxy.yaml"
    done = run(conf, "-o", output)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"{output}: cannot be written: No such file or directory"


def test_a_relative_path_is_the_nginx_files(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf.write_text(
        "mail { auth_http x; ssl_certificate a.crt; ssl_certificate_key a.key; server { listen 465 ssl; } }"
    )
    monkeypatch.chdir(conf.parent.parent)
    done = run(f"{conf.parent.name}/nginx.conf")
    assert f"certificate: [{{cert: {conf.parent}/a.crt, key: {conf.parent}/a.key}}]" in done.stdout.replace('"', "")
