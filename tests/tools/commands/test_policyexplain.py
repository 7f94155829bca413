"""`gatectl policy explain`: the words it finds are those of the engine, the balances those of the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from peers.process import HOST, free_port
from peers.redis import Redis

from smtpgate.clock import SystemClock
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.drivers.redisstore import RedisBuckets
from smtpgate.drivers.store import open_store
from smtpgate.explain.facts import Question
from smtpgate.explain.session import at_event
from smtpgate.policy.engine import Engine
from smtpgate.policy.model import Event
from tools.commands.gatectl import gatectl

POLICY = """\
version: 1
limiter: {timeout: 5s}  # a busy machine must not fail a test
sets:
  office: {cidr: [192.0.2.0/24]}
  night: {time: "22:00-06:00"}
exempt:
  - {match: {client: "@office"}, limits: ["ip.*"]}
limits:
  ip.rate: {event: connect, rate: 60/1m, burst: 5, key: "{net}", deny: {reply: "421 4.7.0 later"}}
  ip.conns: {event: connect, concurrency: 3, key: "{net}", deny: {reply: "421 4.7.0 {host} too many"}}
  user.conns: {event: auth, concurrency: 2, key: "{user}", deny: {reply: "421 4.7.0 too many"}}
  msgs: {event: mail, rate: 10/1d, burst: 10, key: "{user}", match: {auth: true}, deny: {reply: "450 4.7.1 slow"}}
  msgs.night: {event: mail, rate: 1/1d, key: "{user}", match: {time: "@night"}, deny: {reply: "450 4.7.1 night"}}
  gold: {event: mail, rate: 99/1d, key: "{user}", match: {plan: gold}, deny: {reply: "450 4.7.1 slow"}}
  watch: {event: rcpt, rate: 1/1d, burst: 1, key: "{rcpt_domain}", shadow: true, deny: {reply: "450 4.7.1 slow"}}
  cap: {event: rcpt, max: 2, key: "{transaction}", deny: {reply: "452 4.5.3 too many recipients"}}
  speed: {event: data, shape: 1MiB/1s, burst: 4MiB, key: "{user}"}
  bytes: {event: eod, cost: bytes, rate: 10MiB/1d, burst: 10MiB, key: "{user}", deny: {reply: "450 4.7.1 slow"}}
overrides:
  - {match: {user: "@vips"}, set: {msgs: {rate: 20/1d, burst: 20}}}
  - {match: {user: free@example.com}, set: {msgs: "off"}}
  - {match: {user: late@example.com}, until: "2026-01-01T00:00:00Z", set: {msgs: {rate: 30/1d, burst: 30}}}
routes:
  - {name: partner, match: {rcpt_domain: partner.example}, pool: core}
  - {name: default, match: {}, pool: core}
pools:
  core: {backends: [{name: mta1, addr: "10.1.0.1:25"}]}
"""
CONF = """\
server_name: mail.example.com
policies: policies
store: {store}
auth_http: {{url: "http://127.0.0.1:18080/auth"}}
listeners: [{{name: submission, bind: "127.0.0.1:20025"}}]
"""

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    text = POLICY.replace("  night:", "  vips: {user: [vip@example.com]}\n  night:")
    (tmp_path / "policies" / "a.yaml").write_text(text)
    (tmp_path / "proxy.yaml").write_text(CONF.format(store="memory://"))
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(gatectl, ["policy", "explain", "-c", str(folder / "proxy.yaml"), *arguments])

    return run


def explained(run: Run, *arguments: str) -> dict[str, dict[str, Any]]:
    """The limits of all events by name, and "route"."""
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    limits = {limit["limit"]: limit for event in told["events"] for limit in event["limits"]}
    return {**limits, "route": told["route"]}


def verdicts(run: Run, *arguments: str) -> dict[str, str]:
    return {name: limit["verdict"] for name, limit in explained(run, *arguments).items() if name != "route"}


USER = (
    "--ip",
    "198.51.100.7",
    "--user",
    "ann@example.com",
    "--rcpt",
    "bob@example.net",
    "--at",
    "2026-06-01T12:00:00Z",
)


def test_every_event_of_a_session(run: Run) -> None:
    assert verdicts(run, *USER, "--size", "1MiB") == {
        "ip.rate": "applies",
        "ip.conns": "applies",
        "user.conns": "applies",
        "msgs": "applies",
        "watch": "shadow",
        "cap": "applies",
        "speed": "applies",
        "bytes": "applies",
    }


def test_where_a_limit_stands_and_what_it_says(run: Run, folder: Path) -> None:
    msgs = explained(run, *USER)["msgs"]
    assert msgs == {
        "limit": "msgs",
        "verdict": "applies",
        "source": f"{folder}/policies/a.yaml:13",
        "match": "auth: true",
        "by": [],
        "needs": [],
        "terms": "rate 10/1d burst 10",
        "key": "{user}",
        "subject": "ann@example.com",
        "now": None,
        "of": 10.0,
        "wait": None,
    }


def test_exempt_override_off_and_until(run: Run, folder: Path) -> None:
    at = ("--at", "2026-06-01T12:00:00Z")
    office = explained(run, "--ip", "192.0.2.7", "--user", "vip@example.com", *at)
    assert (office["ip.rate"]["verdict"], office["ip.rate"]["by"]) == ("exempt", [f"{folder}/policies/a.yaml:8"])
    assert (office["msgs"]["terms"], office["msgs"]["by"]) == (
        "rate 20/1d burst 20",
        [f"{folder}/policies/a.yaml:21"],
    )
    free = explained(run, "--ip", "192.0.2.7", "--user", "free@example.com", *at)
    assert (free["msgs"]["verdict"], free["msgs"]["by"]) == ("off", [f"{folder}/policies/a.yaml:22"])
    late = ("--ip", "192.0.2.7", "--user", "late@example.com", "--at")
    assert explained(run, *late, "2026-01-01T00:00:00Z")["msgs"]["terms"] == "rate 10/1d burst 10"
    assert explained(run, *late, "2025-12-31T23:59:59Z")["msgs"]["terms"] == "rate 30/1d burst 30"


def test_time_plan_and_what_is_not_known(run: Run) -> None:
    assert "msgs.night" not in verdicts(run, *USER)
    assert verdicts(run, *USER[:-1], "2026-06-01T23:00:00Z")["msgs.night"] == "applies"
    assert verdicts(run, *USER, "--all")["gold"] == "no match"
    assert verdicts(run, *USER, "--plan", "gold")["gold"] == "applies"
    nobody = explained(run, "--ip", "198.51.100.7", "--event", "mail")
    assert (nobody["msgs"]["verdict"], nobody["msgs"]["needs"]) == ("unknown", ["auth"])
    sending = explained(run, "--ip", "198.51.100.7", "--sender", "", "--event", "mail", "--all")
    assert sending["msgs"]["verdict"] == "no match"


def test_the_route(run: Run, folder: Path) -> None:
    assert explained(run, *USER)["route"] == {
        "route": "default",
        "source": f"{folder}/policies/a.yaml:26",
        "pool": "core",
        "decided": True,
        "backends": ["mta1 10.1.0.1:25"],
    }
    assert explained(run, *USER[:5], "bob@Partner.Example")["route"]["route"] == "partner"
    early = explained(run, "--ip", "198.51.100.7", "--user", "ann")["route"]
    assert (early["route"], early["decided"]) == ("default", False)


def test_a_cap_needs_no_store(run: Run) -> None:
    done = run(*USER, "--recipients", "2", "--event", "rcpt")
    assert done.exit_code == 0
    assert 'rcpt: would be refused by cap: "452 4.5.3 too many recipients"\n' in done.stdout


def test_as_text(run: Run, folder: Path) -> None:
    done = run("--ip", "192.0.2.7", "--user", "vip@example.com", "--event", "mail", "--at", "2026-06-01T12:00:00Z")
    assert done.stdout.splitlines() == [
        "mail: would be allowed",
        "limit  verdict  subject          now  of  wait  terms                match       where",
        "msgs   applies  vip@example.com       20        rate 20/1d burst 20  auth: true  "
        f"{folder}/policies/a.yaml:13 (changed by {folder}/policies/a.yaml:21)",
        "",
        f"route: default ({folder}/policies/a.yaml:26), pool core: mta1 10.1.0.1:25, unless a fact that is not given "
        "chooses another one before it",
    ]
    assert done.stderr == "balances: memory:// is counted by each process for itself, and nobody else can see it\n"


def test_balances_are_those_of_now_and_stay(folder: Path, run: Run, redis_server: Redis) -> None:
    """The same engine on the same store pays; the explanation tells what is left, and takes nothing."""
    (folder / "proxy.yaml").write_text(CONF.format(store=redis_server.uri))
    store = open_store(redis_server.uri, clock=SystemClock(), timeout=5.0)
    assert isinstance(store, RedisBuckets)
    policy = PolicyFolder.check(folder / "policies").policy
    engine = Engine(store, SystemClock(), lambda: 0.0, policy=policy)
    facts = Question(ip="198.51.100.7", user="ann", rcpt="b@c.example").facts(now=12 * 3600.0)
    for _ in range(4):
        assert engine.decide(Event.MAIL, at_event(facts, Event.MAIL)).allowed
    assert engine.decide(Event.AUTH, at_event(facts, Event.AUTH)).allowed
    assert engine.decide(Event.RCPT, at_event(facts, Event.RCPT)).allowed
    who = ("--ip", "198.51.100.7", "--user", "ann", "--rcpt", "b@c.example", "--at", "2026-06-01T12:00:00Z")
    for _ in range(2):
        told = explained(run, *who)
        now = {name: told[name]["now"] for name in ("msgs", "user.conns", "ip.conns", "watch", "speed", "bytes")}
        assert now == {
            "msgs": pytest.approx(6.0, abs=0.1),
            "user.conns": 1.0,
            "ip.conns": 3.0,
            "watch": pytest.approx(0.0, abs=0.1),
            "speed": 4 * 1024 * 1024,
            "bytes": 10 * 1024 * 1024,
        }
    for _ in range(6):
        assert engine.decide(Event.MAIL, at_event(facts, Event.MAIL)).allowed
    done = run(*who, "--event", "mail", "--event", "rcpt")
    mail, rcpt = [line for line in done.stdout.splitlines() if line.startswith(("mail:", "rcpt:"))]
    assert mail == 'mail: would be refused by msgs of ann: "450 4.7.1 slow"'
    assert rcpt == "rcpt: would be allowed; watch would refuse it"
    store.close()


def test_a_store_that_is_away(folder: Path, run: Run) -> None:
    port = free_port()
    (folder / "proxy.yaml").write_text(CONF.format(store=f"redis://:hunter2@{HOST}:{port}/0"))
    done = run(*USER)
    assert done.exit_code == 3
    assert done.stderr.startswith(f"Error: redis://{HOST}:{port}/0: ")
    assert done.stderr.endswith("; --no-store leaves balances out\n")
    assert "hunter2" not in done.output
    assert run(*USER, "--no-store").exit_code == 0


def test_a_draft(folder: Path, run: Run) -> None:
    draft = folder / "draft"
    draft.mkdir()
    (draft / "a.yaml").write_text((folder / "policies" / "a.yaml").read_text().replace("burst: 10,", "burst: 11,"))
    assert explained(run, *USER, "--policies", str(draft))["msgs"]["of"] == 11.0
    (draft / "a.yaml").write_text("version: 3\n")
    done = run(*USER, "--policies", str(draft))
    assert (done.exit_code, done.stderr.startswith(f"{draft}/a.yaml:1:1: version: 3 ")) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--ip", "::1", "--at", "yesterday"),
        ("--ip", "::1", "--at", "2026-06-01T12:00:00"),
        ("--ip", "::1", "--at", "0001-01-01T00:00:00+14:00"),
        ("--ip", "::1", "--at", "9999-12-31T23:59:59-14:00"),
        ("--ip", "::1", "--size", "big"),
        ("--ip", "::1", "--event", "noop"),
    ],
)
def test_what_cannot_be_meant(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
