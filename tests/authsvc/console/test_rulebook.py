"""A snapshot as rows."""

from __future__ import annotations

from authsvc.console.rulebook import LimitRow, Row, rulebook
from smtpgate.snapshot import build

POLICIES = b"""\
version: 1
mode: shadow
sets: {vip: {user: [ann@example.com, bob@example.com]}}
limits:
  conns: {event: connect, concurrency: 20, key: "{net}", deny: {reply: "421 4.7.0 too many", delay: 2s, ban: 10m}}
  msgs:
    event: mail
    rate: 10/1d
    burst: 10
    key: "{user}"
    match: {user: "@vip"}
    deny: {reply: "450 4.7.1 slow", hold: 1m, after: {denials: 5, within: 1h, then: {reply: "550 5.7.1 go"}}}
  speed: {event: data, shape: 1MiB/1s, key: "{user}"}
exempt:
  - {match: {client: 192.0.2.0/24}, limits: [conns]}
overrides:
  - {match: {user: "@vip"}, until: "2027-01-01T00:00:00Z", set: {msgs: {rate: 20/1d, burst: 20, shadow: true}}}
  - {match: {user: free@example.com}, set: {msgs: "off"}}
routes:
  - {name: partner, match: {rcpt_domain: partner.example}, pool: core}
  - {name: default, match: {}, pool: core}
pools:
  core:
    smtp_auth: {user: proxy, password: hunter2}
    backends: [{name: mta1, addr: "10.1.0.1:25"}, {name: mta2, addr: "10.1.0.2:25", state: drain}]
"""


def test_every_section() -> None:
    book = rulebook(build([("p.yaml", POLICIES)]))
    assert book.shadow
    assert book.limits == (
        LimitRow(
            "conns",
            "connect",
            "concurrency 20",
            "{net}",
            "",
            "only watches: 421 4.7.0 too many; held back for 2s; closes; bans for 10m",
            "p.yaml:5",
        ),
        LimitRow(
            "msgs",
            "mail",
            "rate 10/1d burst 10",
            "{user}",
            "user: @vip",
            "only watches: 450 4.7.1 slow; after up to 1m of waiting; escalates after 5 in 1h",
            "p.yaml:6",
        ),
        LimitRow(
            "speed", "data", "shape 1MiB/1s burst 1048576", "{user}", "", "slows, and never refuses", "p.yaml:13"
        ),
    )
    assert book.exemptions == (Row("", "client: 192.0.2.0/24", "none of conns", "p.yaml:15"),)
    assert book.overrides == (
        Row("", "user: @vip", "msgs: rate 20/1d, burst 20, shadow true, until 2027-01-01 00:00 UTC", "p.yaml:17"),
        Row("", "user: free@example.com", "msgs: off", "p.yaml:18"),
    )
    assert book.routes == (
        Row("partner", "rcpt_domain: partner.example", "core", "p.yaml:20"),
        Row("default", "", "core", "p.yaml:21"),
    )
    assert book.sets == (("vip", "user", "2"),)
    assert book.pools == (("core", "round_robin", "mta1 10.1.0.1:25 (active), mta2 10.1.0.2:25 (drain)"),)
    assert "hunter2" not in repr(book)
