"""`tools/run`: what it refuses before it starts anything, what it tells, and the whole of it once, for real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpgate.document import DocumentError
from tools import run
from tools.supervisor import Endpoint, ServiceError, check_free

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """As main() does: the configurations are named from the project's root."""
    monkeypatch.chdir(ROOT)


def test_the_addresses_are_those_of_the_configuration() -> None:
    services = run.services({})
    assert [(service.name, [str(endpoint) for endpoint in service.endpoints]) for service in services] == [
        ("sink", ["127.0.0.1:10025"]),
        ("auth", ["127.0.0.1:18080"]),
        ("proxy", ["127.0.0.1:20025"]),
    ]
    assert services[2].endpoints[0] == Endpoint("127.0.0.1", 20025, "smtp", "listener submission in conf/proxy.yaml")
    assert services[2].argv == (sys.executable, "proxy.py", "-c", "conf/proxy.yaml")


def test_the_guide_can_be_pasted() -> None:
    text = run.guide(run.services({}), "memory://")
    lines = [line.strip() for line in text.splitlines()]
    assert (
        "swaks --server 127.0.0.1:20025 --auth PLAIN --auth-user test --auth-password 1234"
        " --from a@example.com --to b@example.com"
    ) in lines
    [snippet] = [line for line in lines if line.startswith("python3 -c ")]
    code = snippet.removeprefix("python3 -c ").strip("'")
    compile(code, "snippet", "exec")
    assert 'smtplib.SMTP("127.0.0.1", 20025)' in code
    assert f"{ROOT}/var/maildir/new" in text
    assert f"{ROOT}/policies/limits.yaml" in text


def test_the_guide_shows_no_password() -> None:
    text = run.guide(run.services({}), "redis://ann:hunter2@127.0.0.1:6379/0")
    assert "  store         redis://127.0.0.1:6379/0\n" in text
    assert "hunter2" not in text


def test_what_the_guide_says_of_the_limit_is_true() -> None:
    text = (ROOT / run.POLICIES / "limits.yaml").read_text()
    limit = text.partition("\n  user.msgs.min:\n")[2].partition("\n\n")[0]
    assert "    rate: 10/1m\n    burst: 10\n" in limit


def test_problems_of_both_configurations_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, constant in (("proxy.yaml", "PROXY_CONF"), ("authsvc.yaml", "AUTHSVC_CONF")):
        (tmp_path / name).write_text("no_such_key: 1\n")
        monkeypatch.setattr(run, constant, tmp_path / name)
    with pytest.raises(DocumentError) as caught:
        run.services({})
    named = {Path(problem.file).name for problem in caught.value.problems}
    assert named == {"proxy.yaml", "authsvc.yaml"}
    result = CliRunner().invoke(run.main, [])
    assert result.exit_code == 2
    assert f"{tmp_path}/proxy.yaml:1:1: no_such_key: " in result.output
    assert f"{tmp_path}/authsvc.yaml:1:1: no_such_key: " in result.output


def test_a_taken_port_is_a_clear_message() -> None:
    try:
        taken = socket.create_server(("127.0.0.1", 10025))
    except OSError:  # by somebody else: just as good
        taken = None
    try:
        result = CliRunner().invoke(run.main, [])
    finally:
        if taken is not None:
            taken.close()
    assert result.exit_code == 1
    wanted = "sink wants it (the backend of the demo pool in policies/)"
    assert f"tools/run: 127.0.0.1:10025: address already in use; {wanted}\n" in result.output


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--workers", "x"], ["--nonsense"]])
def test_bad_arguments(arguments: list[str]) -> None:
    assert CliRunner().invoke(run.main, arguments).exit_code == 2


IN_A_NAMESPACE = """
import mailbox, re, signal, smtplib, subprocess, sys, time

maildir = mailbox.Maildir("var/maildir")
before = set(maildir.keys())
gate = subprocess.Popen([sys.executable, "-m", "tools.run"], stdout=subprocess.PIPE, text=True)
seen = []
for line in gate.stdout:
    seen.append(line)
    if "python3 -c" in line:
        snippet = line.strip().removeprefix("python3 -c ").strip("'")
    if "a restart." in line:
        break
else:
    sys.exit("tools/run ended: " + "".join(seen))
exec(snippet)
wrong = smtplib.SMTP("127.0.0.1", 20025)
try:
    wrong.login("test", "wrong")
    sys.exit("a wrong password was accepted")
except smtplib.SMTPAuthenticationError as refused:
    assert refused.smtp_code == 535, refused
wrong.close()
new = set(maildir.keys()) - before
assert len(new) == 1, new
[message] = [maildir[key] for key in new]
assert message["Subject"] == "hello", message
for key in new:
    maildir.remove(key)
gate.send_signal(signal.SIGINT)
rest = gate.stdout.read()
assert gate.wait(timeout=20) == 0, rest
assert rest.endswith("ended\\n"), rest
print("all is well")
"""


def namespace() -> list[str]:
    """A prefix for commands: a network of their own, where the default ports are free whatever else runs here.

    Empty where the kernel does not let us; then the ports of this machine must be free, or the test is skipped.
    """
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    prefix = ["unshare", *user, "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    try:
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix
    except FileNotFoundError:  # no unshare
        pass
    try:
        check_free(run.services({}))
    except ServiceError as taken:
        pytest.skip(str(taken))
    return []


def test_the_whole_of_it() -> None:
    """tools/run, the pasted line, a wrong password, Ctrl-C."""
    (ROOT / "var").mkdir(exist_ok=True)
    done = subprocess.run(
        [*namespace(), sys.executable, "-c", IN_A_NAMESPACE],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("SMTPGATE_")},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.stdout == "all is well\n", done.stdout + done.stderr
    assert done.returncode == 0
