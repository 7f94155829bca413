"""The composition root: what is checked before a process starts, and what gunicorn is told."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from smtpgate import main
from smtpgate.document import DocumentError
from smtpgate.policy.model import Facts

CONF = """\
server_name: mx.test
workers: 3
graceful_timeout: 2500ms
policies: policies/
listeners:
  - {name: mx, bind: ["127.0.0.1:2525", "[::1]:2525"], auth: [none]}
  - {name: local, bind: "unix:/run/smtpgate-test.sock", auth: [none]}
"""
POLICIES = """\
version: 1
routes: [{name: all, match: {}, pool: core}]
pools: {core: {backends: [{name: mta1, addr: "127.0.0.1:25"}]}}
"""


@pytest.fixture
def conf(tmp_path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.yaml").write_text(POLICIES)
    (tmp_path / "proxy.yaml").write_text(CONF)
    return tmp_path / "proxy.yaml"


def run(*args):
    return CliRunner().invoke(main.main, [str(arg) for arg in args])


def test_check_of_a_valid_configuration(conf):
    result = run("-c", conf, "--check")
    assert (result.exit_code, result.output) == (0, f"{conf}: valid\n")


def test_the_demo_configuration_is_valid():
    root = Path(__file__).parents[1]
    assert run("-c", root / "conf/proxy.yaml", "--check").exit_code == 0


def test_every_problem_is_told_and_the_status_is_2(conf):
    conf.write_text(CONF + "surprise: 1\nworkers: 2\n")
    result = run("-c", conf, "--check")
    assert result.exit_code == 2
    lines = result.output.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{conf}:8:1: surprise: ")
    assert lines[1].startswith(f"{conf}:9:1: workers: ")


def test_broken_policies_are_found_before_a_start(conf):
    (conf.parent / "policies" / "a.yaml").write_text(POLICIES.replace("pool: core", "pool: gone"))
    result = run("-c", conf)
    assert result.exit_code == 2
    assert "policies/a.yaml:2:" in result.output


def test_a_missing_file(tmp_path):
    result = run("-c", tmp_path / "none.yaml", "--check")
    assert result.exit_code == 2
    assert "none.yaml" in result.output


def test_an_address_that_is_taken_is_named_at_once(conf):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        conf.write_text(CONF.replace('["127.0.0.1:2525", "[::1]:2525"]', f'"127.0.0.1:{port}"'))
        result = run("-c", conf)
    assert result.exit_code == 1
    assert result.stderr.endswith(f"{conf}: listener mx: 127.0.0.1:{port} cannot be bound: Address already in use\n")


def test_gunicorns_settings(conf):
    settings = main.gunicorn_settings(main.check(conf).config)
    assert settings["bind"] == ["127.0.0.1:2525", "[::1]:2525", "unix:/run/smtpgate-test.sock"]
    assert settings["workers"] == 3
    # The arbiter must outlast a worker's own drain.
    assert settings["graceful_timeout"] == 3 + main.ARBITER_MARGIN


def test_a_renewal_with_a_broken_file_changes_nothing(conf, capsys):
    proxy = main.Proxy(conf, main.check(conf))
    before = proxy._started
    conf.write_text(CONF.replace("workers: 3", "workers: three"))
    assert proxy.renew() is False
    assert proxy._started is before
    assert f"{conf}:2:" in capsys.readouterr().err


def test_a_renewal_with_other_binds_waits_for_a_restart(conf, capsys):
    proxy = main.Proxy(conf, main.check(conf))
    conf.write_text(CONF.replace("127.0.0.1:2525", "127.0.0.1:2526"))
    assert proxy.renew() is False
    assert "takes effect at the next start" in capsys.readouterr().err


def test_a_renewal_takes_the_new_settings(conf):
    proxy = main.Proxy(conf, main.check(conf))
    conf.write_text(CONF.replace("workers: 3", "workers: 4"))
    assert proxy.renew() is True
    proxy.do_load_config()
    assert proxy.cfg.workers == 4


def test_a_worker_born_into_broken_policies_begins_with_the_last_good_ones(conf, capsys):
    started = main.check(conf)
    (conf.parent / "policies" / "a.yaml").write_text("version: nine\n")
    with pytest.raises(DocumentError):
        main.check(conf)
    gate = main.build_gate(started)
    facts = Facts("192.0.2.7", sender="a@a.test", sender_domain="a.test", rcpt="b@b.test", rcpt_domain="b.test")
    assert gate._ports.policy.route(facts).pool == "core"
    assert '"policies_rejected"' in capsys.readouterr().out


def test_gunicorns_own_command_keeps_the_last_good_configuration(conf, monkeypatch, capsys):
    monkeypatch.setenv(main.CONF_VARIABLE, str(conf))
    monkeypatch.setattr(main, "_in_force", None)
    assert main.settings_from_environment()["workers"] == 3
    conf.write_text("nonsense")
    assert main.settings_from_environment()["workers"] == 3
    assert str(conf) in capsys.readouterr().err
    monkeypatch.setattr(main, "_in_force", None)
    with pytest.raises(SystemExit) as ended:
        main.settings_from_environment()
    assert ended.value.code == 2
