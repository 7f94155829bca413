"""The composition root: what is checked before a process starts, and what gunicorn is told."""

import socket
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import certificates
import gevent
import pytest
from click.testing import CliRunner

from smtpgate import assembly, main
from smtpgate.document import DocumentError
from smtpgate.drivers import metricsfolder
from smtpgate.drivers.metricsfolder import MetricsFolder
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.store import LEASE

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


@pytest.fixture(autouse=True)
def _no_worker_outlives_its_test(monkeypatch):
    """What a worker leaves running sleeps as under monkey patching, and ends here."""
    spawned = []
    spawn = gevent.spawn
    monkeypatch.setattr(assembly.SystemClock, "sleep", lambda self, seconds: gevent.sleep(seconds))
    monkeypatch.setattr(gevent, "spawn", lambda *args: spawned.append(spawn(*args)))
    yield
    gevent.killall(spawned)


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
    before = proxy.started
    conf.write_text(CONF.replace("workers: 3", "workers: three"))
    assert proxy.renew() is False
    assert proxy.started is before
    assert f"{conf}:2:" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["load", "metrics"])
def test_a_renewal_that_fails_by_a_bug_changes_nothing_and_is_told(conf, monkeypatch, capsys, place):
    proxy = main.Proxy(conf, main.check(conf))
    before = proxy.started

    def fail(*_):
        raise RuntimeError("a bug")

    conf.write_text(CONF + "metrics: {bind: '127.0.0.1:9125'}\n")
    monkeypatch.setattr(*{"load": (main.config, "load"), "metrics": (main, "MetricsFolder")}[place], fail)
    assert proxy.renew() is False
    assert proxy.started is before
    told = capsys.readouterr().err
    assert told.startswith("Traceback ")
    assert told.endswith(f"{conf}: RuntimeError: a bug; nothing has changed\n")


@pytest.mark.parametrize(
    ("before", "after", "was"),
    [
        ("user: 990\ngroup: 990\n", "user: 991\ngroup: 990\n", "990 (990:990)"),
        ("user: 990\ngroup: 990\n", "user: 990\ngroup: 991\n", "990 (990:990)"),
        ("user: 990\ngroup: 990\n", "", "990 (990:990)"),
        ("", "user: 990\ngroup: 990\n", "nobody in particular"),
    ],
)
def test_workers_do_not_become_somebody_else_by_a_renewal(conf, capsys, before, after, was):
    """Their metrics, their state_dir and their log belong to who they were."""
    conf.write_text(CONF + before)
    proxy = main.Proxy(conf, main.check(conf))
    kept = proxy.started
    conf.write_text(CONF + after)
    assert proxy.renew() is False
    assert proxy.started is kept
    assert capsys.readouterr().err == (
        f"{conf}:1:1: user: cannot change while the proxy runs, it was {was}; "
        "expected the user of before, or a restart\n"
    )
    conf.write_text(CONF + before + "max_sessions: 99\n")
    assert proxy.renew() is True


def test_where_to_listen_is_told_with_the_listeners_names(conf):
    proxy = main.Proxy(conf, main.check(conf))
    assert [(bind.listener, str(bind.address)) for bind in proxy.binds()] == [
        ("mx", "127.0.0.1:2525"),
        ("mx", "[::1]:2525"),
        ("local", "unix:/run/smtpgate-test.sock"),
    ]


def test_metrics_are_the_last_to_listen(conf, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SMTPGATE_METRICS_PROXY", "")
    conf.write_text(CONF + "metrics: {bind: '127.0.0.1:9125'}\n")
    proxy = main.Proxy(conf, main.check(conf))
    assert [str(bind.address) for bind in proxy.binds()][-1] == "127.0.0.1:9125"
    assert proxy.metrics.path.parent == tmp_path
    gate = main.build_gate(proxy.started, None, proxy.metrics)
    assert gate.addresses == 3
    assert gate.metrics is not None
    assert [number for number, lives in proxy.metrics.slots() if lives] == [0]
    proxy.metrics.close()


def test_metrics_may_come_with_a_renewal_and_go(conf, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SMTPGATE_METRICS_PROXY", "")
    proxy = main.Proxy(conf, main.check(conf))
    assert (proxy.metrics, len(proxy.binds())) == (None, 3)
    conf.write_text(CONF + "metrics: {bind: '127.0.0.1:9125'}\n")
    assert proxy.renew() is True
    folder = proxy.metrics
    assert len(proxy.binds()) == 4
    conf.write_text(CONF)
    assert proxy.renew() is True
    assert (proxy.metrics, len(proxy.binds())) == (folder, 3)  # what has been counted is kept, should they come back
    folder.close()


def test_mail_is_served_where_there_is_no_room_for_metrics(conf, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(main, "MetricsFolder", refuse)
    conf.write_text(CONF + "metrics: {bind: '127.0.0.1:9125'}\n")
    proxy = main.Proxy(conf, main.check(conf))
    assert (proxy.metrics, len(proxy.binds())) == (None, 3)
    assert "No space left on device; the metrics tell nothing" in capsys.readouterr().out


def test_a_worker_without_room_for_its_metrics_serves_mail(conf, tmp_path, monkeypatch, capsys):
    folder = MetricsFolder("test", {"RUNTIME_DIRECTORY": str(tmp_path)})
    monkeypatch.setattr(metricsfolder, "MAX_SLOTS", 0)
    gate = main.build_gate(main.check(conf), None, folder)
    gate._ports.journal.flush()
    assert (gate.metrics, gate.addresses) == (None, 3)
    assert '"metrics_unshared"' in capsys.readouterr().out
    folder.close()


def test_a_renewal_takes_the_new_settings(conf):
    proxy = main.Proxy(conf, main.check(conf))
    conf.write_text(CONF.replace("workers: 3", "workers: 4"))
    assert proxy.renew() is True
    proxy.do_load_config()
    assert proxy.cfg.workers == 4


def test_a_worker_born_into_broken_policies_begins_with_the_last_good_ones(conf, capsys, monkeypatch):
    # What goes on for ever in a worker would block this process, whose sleep is not gevent's.
    monkeypatch.setattr(gevent, "spawn", lambda *_: None)
    started = main.check(conf)
    (conf.parent / "policies" / "a.yaml").write_text("version: nine\n")
    with pytest.raises(DocumentError):
        main.check(conf)
    gate = main.build_gate(started, None)
    facts = Facts("192.0.2.7", sender="a@a.test", sender_domain="a.test", rcpt="b@b.test", rcpt_domain="b.test")
    assert gate._ports.policy.route(facts).pool == "core"
    assert '"policies_rejected"' in capsys.readouterr().out


def test_without_shared_memory_each_worker_is_on_its_own_and_that_is_told(conf, monkeypatch, capsys):
    def refuse():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(main, "NodeFile", refuse)
    assert main.share(main.check(conf).config) is None
    assert "each worker probes the backends for itself" in capsys.readouterr().out


def test_gunicorns_own_command_reads_the_configuration_once(conf, monkeypatch, capsys):
    monkeypatch.setenv(main.CONF_VARIABLE, str(conf))
    monkeypatch.setattr(main, "_in_force", None)
    assert main.settings_from_environment()["workers"] == 3
    # Then it is the arbiter that has it read again, and decides.
    conf.write_text(CONF.replace("workers: 3", "workers: 4"))
    assert main.settings_from_environment()["workers"] == 3
    assert main._in_force is not None
    assert main._in_force.renew() is True
    assert main.settings_from_environment()["workers"] == 4
    conf.write_text("nonsense")
    assert main._in_force.renew() is False
    assert main.settings_from_environment()["workers"] == 4
    assert str(conf) in capsys.readouterr().err
    monkeypatch.setattr(main, "_in_force", None)
    with pytest.raises(SystemExit) as ended:
        main.settings_from_environment()
    assert ended.value.code == 2


BROKEN = "version: nine\n"


def test_a_start_into_broken_policies_begins_with_the_last_good_ones(conf, tmp_path, capsys):
    conf.write_text(CONF + "state_dir: state\n")
    good = main.first_check(conf)
    main.build_gate(good, None)  # a worker: it keeps what is good
    (conf.parent / "policies" / "a.yaml").write_text(BROKEN)
    started = main.first_check(conf)
    assert started.snapshot == good.snapshot
    assert "version" in str(started.broken)
    assert [path.parent for path in tmp_path.glob("state/*")] == [tmp_path / "state"]
    # --check says what is wrong all the same, and a HUP changes nothing.
    assert run("-c", conf, "--check").exit_code == 2
    capsys.readouterr()
    assert main.Proxy(conf, good).renew() is False
    main._prepare(started)
    told = capsys.readouterr()
    assert "the last good policies are in force" in told.out
    assert "policies/a.yaml:1:" in told.err


def test_without_last_good_ones_broken_policies_are_no_start(conf):
    conf.write_text(CONF + "state_dir: state\n")
    (conf.parent / "policies" / "a.yaml").write_text(BROKEN)
    with pytest.raises(DocumentError):
        main.first_check(conf)


def test_a_worker_knows_newer_good_policies_than_the_arbiter(conf, capsys):
    conf.write_text(CONF + "state_dir: state\n")
    started = main.first_check(conf)
    main.build_gate(started, None)
    edited = POLICIES.replace("core", "other")
    (conf.parent / "policies" / "a.yaml").write_text(edited)
    main.build_gate(main.check(conf), None)
    (conf.parent / "policies" / "a.yaml").write_text(BROKEN)
    gate = main.build_gate(started, None)
    facts = Facts("192.0.2.7", sender="a@a.test", sender_domain="a.test", rcpt="b@b.test", rcpt_domain="b.test")
    assert gate._ports.policy.route(facts).pool == "other"
    assert capsys.readouterr().out.count('"policies_rejected"') == 1


def test_decisions_are_written_down_where_the_configuration_says_so(conf, capsys):
    (conf.parent / "policies" / "a.yaml").write_text(
        POLICIES + 'limits: {few: {event: connect, rate: 1/1h, key: "{net}", deny: {reply: "421 4.7.0 slow"}}}\n'
    )
    for switch, lines in (("false", 0), ("true", 1)):
        conf.write_text(CONF + f"log: {{decisions: {switch}}}\n")
        gate = main.build_gate(main.check(conf), None)
        gate._ports.policy.decide(Event.CONNECT, Facts("192.0.2.7", time=1.0))
        gate._ports.journal.flush()
        assert capsys.readouterr().out.count('"event": "decision"') == lines


OWN = """\
server_name: mx.test
auth_http: {url: "http://127.0.0.1:1/"}
listeners:
  - {name: a, bind: "127.0.0.1:2525", tls: implicit, certificate: [{cert: mx.crt, key: mx.key}]}
  - {name: b, bind: 127.0.0.1:2526, auth_http: {url: "http://127.0.0.1:2/"}, resolver: 127.0.0.1, xclient: [10.1.1.1]}
  - {name: c, bind: "127.0.0.1:2527", auth_http: {url: "http://127.0.0.1:2/"}, resolver: 127.0.0.1, backend: {}}
"""


def test_what_listeners_have_in_common_and_what_is_their_own(tmp_path):
    certificates.Authority(tmp_path).sign("mx", "mx.test")
    path = tmp_path / "proxy.yaml"
    path.write_text(OWN)
    started = main.first_check(path)
    gate = main.build_gate(started, None)
    (a, of_a), (b, of_b), (c, of_c) = gate._listeners
    assert a.tls is started.tls["a"]
    assert (b.tls, c.tls) == (None, None)
    assert of_a.authenticator is not of_b.authenticator
    assert of_b.authenticator is of_c.authenticator
    assert of_a.names is None
    assert of_b.names is of_c.names
    assert of_a.backends is of_b.backends
    assert of_c.backends is not of_b.backends
    assert b.settings.xclient == (ip_network("10.1.1.1/32"),)


def test_a_renewal_keeps_the_tickets_of_listeners_that_stay_as_they_are(tmp_path):
    certificates.Authority(tmp_path).sign("mx", "mx.test")
    path = tmp_path / "proxy.yaml"
    path.write_text(OWN)
    before = main.first_check(path)
    assert main.check(path, before).tls["a"] is before.tls["a"]
    path.write_text(OWN.replace("tls: implicit", "tls: implicit, tls_options: {curve: secp384r1}"))
    assert main.check(path, before).tls["a"] is not before.tls["a"]


def test_a_renewal_that_is_refused_uses_no_changed_certificate(tmp_path, capsys):
    """What is refused changes nothing, whatever it was refused for, and at whichever step."""
    authority = certificates.Authority(tmp_path)
    authority.sign("mx", "mx.test")
    path = tmp_path / "proxy.yaml"
    path.write_text(OWN)
    proxy = main.Proxy(path, main.first_check(path))
    tls = proxy.started.tls["a"]
    names = dict(tls._names)
    authority.sign("mx", "new.test")
    assert proxy.renew() is True
    assert tls._names == names == {"mx.test": 0}  # a listener may still be refused its address
    proxy.settle()
    assert tls._names == {"new.test": 0}
    authority.sign("mx", "third.test")
    assert proxy.renew() is True
    (tmp_path / "mx.key").write_text("half of a k")
    proxy.settle()
    assert tls._names == {"new.test": 0}
    assert f"{path}: listener a: its certificate has changed again: " in capsys.readouterr().err


def test_the_places_of_sessions_are_renewed_in_time():
    assert 2 * assembly.RENEW_INTERVAL < LEASE


def test_places_are_renewed_again_after_a_bug(monkeypatch):
    monkeypatch.setattr(assembly, "RENEW_INTERVAL", 0.001)
    renewed, told = [], []

    def renew():
        renewed.append(len(renewed))
        if len(renewed) == 1:
            raise RuntimeError("a bug")

    journal = SimpleNamespace(
        error=lambda event, **fields: told.append((event, fields["traceback"].splitlines()[-1]))
    )
    greenlet = gevent.Greenlet.spawn(assembly._renew, SimpleNamespace(renew=renew), journal)
    while len(renewed) < 3:
        gevent.sleep(0.002)
    greenlet.kill()
    assert told == [("bug", "RuntimeError: a bug")]
