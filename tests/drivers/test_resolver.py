"""Names as they are looked up: the hosts file first, TTLs, servers that are down, and nobody waiting for long."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import dns.exception
import gevent
import pytest
from fakedns import FakeDns
from fakes import ManualClock

from smtpgate.clock import Deadline, SystemClock
from smtpgate.drivers import resolver as module
from smtpgate.drivers.resolver import IDLE, MAX_STALE, MAX_TTL, RETRY, Answer, NameServers, NoSuchName, Resolver
from smtpgate.session.streams import StreamLost, StreamTimeout

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dns_server(tmp_path):
    server = FakeDns(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def servers(dns_server):
    return NameServers(str(dns_server.conf), dns_server.port)


# --- the DNS itself ---


def test_both_families_and_the_least_ttl_of_the_chain(dns_server, servers):
    dns_server.zone = {
        ("mx.test", "CNAME"): (30, ["mta.test"]),
        ("mta.test", "A"): (300, ["192.0.2.1", "192.0.2.2"]),
        ("mta.test", "AAAA"): (60, ["2001:db8::1"]),
    }
    for name, ttl in (("mta.test", 60), ("mx.test", 30)):
        answer = servers.ask(name)
        assert set(answer.addresses[:2]) == {"192.0.2.1", "192.0.2.2"}  # in the order of the answer, which varies
        assert (answer.addresses[2:], answer.ttl) == (("2001:db8::1",), ttl)
    assert dns_server.asked[:2] == [("mta.test", "A"), ("mta.test", "AAAA")]


def test_one_family_is_enough(dns_server, servers):
    dns_server.zone = {("four.test", "A"): (5, ["192.0.2.1"]), ("six.test", "AAAA"): (7, ["2001:db8::1"])}
    assert servers.ask("four.test") == Answer(("192.0.2.1",), 5)
    assert servers.ask("six.test") == Answer(("2001:db8::1",), 7)


def test_a_name_that_is_not_there_and_one_without_an_address(dns_server, servers):
    dns_server.zone = {("text.test", "TXT"): (5, ["x"])}
    with pytest.raises(NoSuchName, match=r"gone.test does not exist"):
        servers.ask("gone.test")
    with pytest.raises(NoSuchName, match=r"text.test has no address"):
        servers.ask("text.test")


def test_a_short_name_takes_the_search_list(dns_server, servers):
    dns_server.conf.write_text(dns_server.conf.read_text() + "search cluster.test\n")
    dns_server.zone = {("mta1.cluster.test", "A"): (5, ["192.0.2.1"])}
    assert servers.ask("mta1").addresses == ("192.0.2.1",)


def test_name_servers_that_fail(dns_server, servers, monkeypatch):
    monkeypatch.setattr(module, "LIFETIME", 0.1)
    for dns_server.behave in ("servfail", "silent"):
        with pytest.raises(dns.exception.DNSException):
            servers.ask("mta.test")


@pytest.mark.parametrize(("broken", "left"), [("A", "2001:db8::1"), ("AAAA", "192.0.2.1")])
def test_a_family_that_nobody_could_tell_is_asked_for_again_soon(dns_server, servers, broken, left):
    dns_server.zone = {("mta.test", "A"): (3600, ["192.0.2.1"]), ("mta.test", "AAAA"): (3600, ["2001:db8::1"])}
    dns_server.broken = {broken}
    assert servers.ask("mta.test") == Answer((left,), module.RETRY)


def test_resolv_conf_is_read_again_when_it_changes(dns_server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LIFETIME", 0.1)
    conf = tmp_path / "other.conf"
    servers = NameServers(str(conf), dns_server.port)
    with pytest.raises(dns.exception.DNSException):
        servers.ask("mta.test")  # no file: nobody listens on 127.0.0.1 there
    conf.write_text(dns_server.conf.read_text())
    dns_server.zone = {("mta.test", "A"): (5, ["192.0.2.1"])}
    assert servers.ask("mta.test").addresses == ("192.0.2.1",)


# --- what is remembered ---


class World:
    """A resolver whose DNS is a list of answers; `sleeps` are the waits between its questions."""

    def __init__(self, tmp_path, monkeypatch, *answers):
        self.clock = ManualClock()
        self.answers = list(answers)
        self.asked = []
        self.warned = []
        self.sleeps = []
        # In this module alone: greenlets of other tests sleep too.
        monkeypatch.setattr(module, "gevent", SimpleNamespace(sleep=self.sleep, spawn=gevent.spawn))
        self.wake = gevent.event.Event()
        self.resolver = Resolver(
            self.clock,
            self.ask,
            hosts=str(tmp_path / "hosts"),
            warn=lambda name, reason: self.warned.append((name, reason)),
        )

    def ask(self, name):
        self.asked.append(name)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.wake.wait()
        self.wake.clear()

    def pass_time(self, seconds):
        """Let the keeper's sleep end."""
        self.clock.time += seconds
        self.wake.set()
        gevent.idle()

    def addresses(self, name="mta.test", seconds=5.0):
        return self.resolver.addresses(name, Deadline(SystemClock(), seconds))


ONE = Answer(("192.0.2.1",), 60.0)
TWO = Answer(("192.0.2.2",), 60.0)
DOWN = dns.exception.Timeout("nobody answers")


@pytest.fixture
def world(tmp_path, monkeypatch):
    worlds = []

    def make(*answers):
        worlds.append(World(tmp_path, monkeypatch, *answers))
        return worlds[-1]

    yield make
    for one in worlds:
        one.resolver.close()


def test_an_address_is_its_own_answer(world):
    one = world(DOWN)
    assert one.addresses("192.0.2.9") == ("192.0.2.9",)
    assert one.addresses("2001:db8::9") == ("2001:db8::9",)
    assert one.asked == []


def test_the_hosts_file_comes_first_and_is_read_again(world, tmp_path):
    one = world(ONE)
    hosts = tmp_path / "hosts"
    hosts.write_text("# a comment\n2001:db8::1 mta.test\n192.0.2.7 MTA.test alias # more\nno address\n\n192.0.2.8\n")
    assert one.addresses("mta.test") == ("192.0.2.7", "2001:db8::1")
    assert one.addresses("Alias") == ("192.0.2.7",)
    assert one.asked == []
    hosts.write_text("")
    assert one.addresses("mta.test") == ONE.addresses


def test_many_askers_are_one_question(world):
    one = world(ONE)
    askers = [gevent.spawn(one.addresses, name) for name in ("mta.test", "MTA.test") * 5]
    gevent.joinall(askers, raise_error=True)
    assert {asker.value for asker in askers} == {ONE.addresses}
    assert one.asked == ["mta.test"]


def test_a_name_in_use_is_asked_for_again_when_its_ttl_is_over(world):
    one = world(ONE, TWO)
    assert one.addresses() == ONE.addresses
    one.pass_time(60)
    assert one.asked == ["mta.test"] * 2
    assert one.addresses() == TWO.addresses
    assert one.sleeps == [60.0, 60.0]


@pytest.mark.parametrize(("ttl", "wait"), [(0, 1.0), (0.2, 1.0), (7, 7.0), (86400, MAX_TTL)])
def test_a_ttl_has_bounds(world, ttl, wait):
    one = world(Answer(("192.0.2.1",), ttl))
    one.addresses()
    gevent.idle()
    assert one.sleeps == [wait]


def test_a_name_that_nobody_uses_is_asked_for_no_more(world):
    one = world(ONE, ONE, TWO)
    one.addresses()
    one.pass_time(IDLE)
    one.pass_time(60)
    assert len(one.asked) == 2
    assert one.addresses() == TWO.addresses  # new: somebody waits for the answer


def test_a_name_server_that_is_down_keeps_the_last_answer_for_a_day(world):
    one = world(ONE, DOWN)
    assert one.addresses() == ONE.addresses
    for _ in range(3):
        one.pass_time(60)
        assert one.addresses() == ONE.addresses
    assert one.sleeps == [60.0, RETRY, RETRY, RETRY]
    assert one.warned == [("mta.test", "nobody answers")]
    one.clock.time += MAX_STALE
    with pytest.raises(StreamLost, match=r"look-up of mta.test: nobody answers"):
        one.addresses()


def test_a_name_that_has_gone_is_no_fault_of_the_name_server(world):
    one = world(ONE, NoSuchName("mta.test does not exist"), TWO)
    assert one.addresses() == ONE.addresses
    one.pass_time(60)
    with pytest.raises(StreamLost, match=r"look-up of mta.test: mta.test does not exist"):
        one.addresses()
    one.pass_time(RETRY)
    assert one.addresses() == TWO.addresses


def test_a_fault_at_the_first_look_up_is_told_at_once_and_not_asked_again_for_each_session(world):
    one = world(OSError(101, "Network is unreachable"))
    for _ in range(3):
        with pytest.raises(StreamLost, match="Network is unreachable"):
            one.addresses()
    assert len(one.asked) == 1


def test_nobody_waits_longer_than_its_deadline(world):
    one = world(ONE)
    one.ask = lambda name: gevent.event.Event().wait()
    one.resolver._ask = one.ask
    began = time.monotonic()
    with pytest.raises(StreamTimeout):
        one.addresses(seconds=0.05)
    assert time.monotonic() - began < 10.0


def test_an_old_answer_leaves_most_of_the_deadline_to_the_connection(world):
    one = world(ONE)
    one.addresses()
    one.pass_time(IDLE + 1)
    one.pass_time(IDLE + 1)
    one.resolver._ask = lambda name: gevent.event.Event().wait()
    began = time.monotonic()
    assert one.addresses(seconds=4.0) == ONE.addresses
    assert time.monotonic() - began < 3.6


def test_names_are_bounded(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    one = world(ONE)
    for name in ("a.test", "b.test", "a.test", "c.test"):
        one.clock.time += 1
        one.addresses(name)
    assert sorted(one.resolver._names) == ["a.test", "c.test"]


def test_others_go_on_while_a_name_server_is_silent(dns_server):
    """In a patched process, as the proxy is: no greenlet stands still, and no thread is started."""
    dns_server.behave = "silent"
    script = f"""
        from gevent import monkey
        monkey.patch_all()
        import threading, time, gevent
        from smtpgate.clock import Deadline, SystemClock
        from smtpgate.drivers.resolver import NameServers, Resolver
        from smtpgate.session.streams import StreamTimeout
        servers = NameServers({str(dns_server.conf)!r}, {dns_server.port})
        resolver = Resolver(SystemClock(), servers.ask, hosts="/nowhere")
        asker = gevent.spawn(lambda: resolver.addresses("mta.test", Deadline(SystemClock(), 0.3)))
        worst = last = 0
        while not asker.ready():
            before = time.monotonic()
            gevent.sleep(0.005)
            worst = max(worst, time.monotonic() - before)
        assert isinstance(asker.exception, StreamTimeout), asker.exception
        assert worst < 0.15, worst
        assert gevent.get_hub()._threadpool is None
        resolver.close()
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
