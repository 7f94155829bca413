"""Two folders, and every kind of difference between them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from smtpgate.explain.difference import Change, FieldChange, Members, Side, differences, read_side

BASE = """\
version: 1
sets:
  vip: {user: [ann@example.com, bob@example.com]}
  bulk: {file: bulk.txt, type: user}
replies: {slow: "450 4.7.1 slow down"}
limits:
  msgs:
    event: mail
    rate: 60/1m
    key: "{user}"
    match: {user: "@vip"}
    deny: {reply: slow, hold: 1m}
  conns: {event: connect, rate: 60/1m, key: "{net}", deny: {reply: "421 4.7.0 later"}}
exempt:
  - {match: {user: "!@vip"}, limits: [msgs]}
overrides:
  - {match: {user: "@bulk"}, set: {msgs: "off"}}
  - {match: {user: ann@example.com}, set: {msgs: {rate: 90/1m}}}
routes:
  - {name: bulk, match: {user: "@bulk"}, pool: core}
  - {name: partner, match: {rcpt_domain: partner.example}, pool: core}
  - {name: default, match: {}, pool: core}
pools:
  core:
    backends:
      - {name: mta1, addr: "10.1.0.1:25"}
      - {name: mta2, addr: "10.1.0.2:25", weight: 10}
"""
BULK = b"news@example.com\n"


def side(text: str, bulk: bytes = BULK, environ: dict[str, str] | None = None, name: str = "p.yaml") -> Side:
    return read_side([(name, text.encode())], {"bulk.txt": bulk}, environ or {}, Path("policies"))


def changes(old: str, new: str, **options: bytes) -> list[Change]:
    return differences(side(old), side(new, **options))


def test_the_same() -> None:
    assert changes(BASE, BASE) == []


def test_the_same_in_other_words_and_files() -> None:
    """Another spelling, another order of limits, spread over files: nothing changes for anybody."""
    head, limits = BASE.split("limits:\n", 1)
    limits, rest = limits.split("exempt:\n")
    files = (
        (
            "a.yaml",
            (f"{head}exempt:\n{rest}".replace("user: ann@example.com", "user: [ann@example.com]")).encode(),
        ),
        ("b.yaml", f"limits:\n{limits.replace('hold: 1m', 'hold: 60s')}".encode()),
    )
    set_files = {"bulk.txt": b"# the same\n\nnews@example.com\n"}
    assert differences(side(BASE), read_side(files, set_files, {}, Path("policies"))) == []


def one(old: str, new: str, **options: bytes) -> Change:
    (change,) = changes(old, new, **options)
    return change


def test_a_limit_is_changed_field_by_field() -> None:
    new = BASE.replace("rate: 60/1m\n    key", "rate: 30/1m\n    burst: 10\n    key").replace("hold: 1m", "hold: 30s")
    assert one(BASE, new) == Change(
        "limits",
        "msgs",
        "changed",
        'mail, user: "@vip"',
        "p.yaml:7",
        (
            FieldChange("rate", '"60/1m"', '"30/1m"'),
            FieldChange("burst", None, "10"),
            FieldChange("deny.hold", '"1m"', '"30s"'),
        ),
    )


def test_a_limit_comes_and_goes() -> None:
    new = BASE.replace("  conns: {event: connect, rate: 60/1m", "  ip.conns: {event: connect, rate: 60/1m")
    added, removed = changes(BASE, new)
    assert (added.name, added.kind, added.about, added.where) == ("ip.conns", "added", "connect", "p.yaml:13")
    assert FieldChange("rate", None, '"60/1m"') in added.fields
    assert (removed.name, removed.kind) == ("conns", "removed")
    assert FieldChange("deny.reply", '"421 4.7.0 later"', None) in removed.fields


def test_members_of_sets() -> None:
    vip = one(BASE, BASE.replace("bob@example.com]", "carol@example.com, dan@example.com]"))
    assert (vip.section, vip.name, vip.fields) == ("sets", "vip", ())
    assert vip.about == "used by exempt p.yaml:15, limits msgs"
    assert vip.members == Members(2, 1, ("carol@example.com", "dan@example.com"), ("bob@example.com",))
    many = "".join(f"u{i:03}@example.com\n" for i in range(100)).encode()
    bulk = one(BASE, BASE, bulk=BULK + many)
    assert bulk.about == "used by overrides p.yaml:17, routes bulk"
    assert bulk.members is not None
    assert (bulk.members.added, bulk.members.removed) == (100, 0)
    assert bulk.members.first_added == tuple(f"u{i:03}@example.com" for i in range(10))


def test_a_set_that_comes() -> None:
    new = one(BASE, BASE.replace("sets:\n", "sets:\n  office: {cidr: [192.0.2.0/24]}\n"))
    assert (new.kind, new.about, new.members) == ("added", "used by nothing", Members(1, 0, ("192.0.2.0/24",), ()))


def test_a_window_of_time() -> None:
    window = 'sets:\n  night: {time: "22:00-06:00", tz: Europe/Berlin}\n'
    old = BASE.replace("sets:\n", window)
    assert one(old, old.replace("22:00", "23:00")).fields == (FieldChange("time", '"22:00-06:00"', '"23:00-06:00"'),)


def test_exempt_and_overrides_have_no_names() -> None:
    added, removed = changes(BASE, BASE.replace("rate: 90/1m", "rate: 80/1m"))
    assert (added.section, added.kind, added.about) == ("overrides", "added", 'user: "ann@example.com"')
    assert added.fields == (
        FieldChange("match.user", None, '"ann@example.com"'),
        FieldChange("set.msgs.rate", None, '"80/1m"'),
    )
    assert (removed.section, removed.kind) == ("overrides", "removed")
    (gone,) = changes(BASE, BASE.replace('exempt:\n  - {match: {user: "!@vip"}, limits: [msgs]}\n', ""))
    assert (gone.section, gone.kind, gone.about) == ("exempt", "removed", 'user: "!@vip"')


def test_the_order_counts_where_it_means_something() -> None:
    lines = BASE.splitlines(keepends=True)
    at = lines.index("overrides:\n") + 1
    swapped = "".join([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
    assert [(change.section, change.kind) for change in changes(BASE, swapped)] == [("overrides", "moved")] * 2
    at = lines.index("routes:\n") + 1
    swapped = "".join([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
    assert [(change.section, change.name, change.kind) for change in changes(BASE, swapped)] == [
        ("routes", "partner", "moved"),
        ("routes", "bulk", "moved"),
    ]


def test_a_backend_goes_by_its_name() -> None:
    new = BASE.replace('{name: mta1, addr: "10.1.0.1:25"}', '{name: mta3, addr: "10.1.0.3:25"}').replace(
        "weight: 10", "weight: 20"
    )
    pool = one(BASE, new)
    assert (pool.section, pool.name) == ("pools", "core")
    assert pool.fields == (
        FieldChange("backends.mta3.name", None, '"mta3"'),
        FieldChange("backends.mta3.addr", None, '"10.1.0.3:25"'),
        FieldChange("backends.mta2.weight", "10", "20"),
        FieldChange("backends.mta1.name", '"mta1"', None),
        FieldChange("backends.mta1.addr", '"10.1.0.1:25"', None),
    )


def test_settings() -> None:
    new = BASE.replace("version: 1\n", "version: 1\nmode: shadow\nlimiter: {timeout: 80ms, breaker: {errors: 3}}\n")
    assert [(change.name, change.kind, change.fields) for change in changes(BASE, new)] == [
        ("mode", "added", (FieldChange("", None, '"shadow"'),)),
        ("limiter.timeout", "added", (FieldChange("", None, '"80ms"'),)),
        ("limiter.breaker.errors", "added", (FieldChange("", None, "3"),)),
    ]


def test_what_a_variable_holds_is_told_of_no_field() -> None:
    """Members of a set are names, and no secrets."""
    text = BASE.replace('"10.1.0.1:25"', '"${HOST}:25"').replace("[ann@example.com,", '["${HOST}",')
    old, new = side(BASE), side(text, environ={"HOST": "hunter2"})
    fields = [field for change in differences(old, new) for field in change.fields]
    assert FieldChange("backends.mta1.addr", '"10.1.0.1:25"', '"${HOST}:25"') in fields
    assert "hunter2" not in repr(fields)


def test_thousands_of_overrides_are_not_compared_each_with_each() -> None:
    line = "  - {{match: {{user: u{0}@example.com}}, set: {{msgs: {{rate: {0}/1m}}}}}}\n"
    many = "".join(line.format(i) for i in range(1, 1501))
    text = BASE.replace("overrides:\n", f"overrides:\n{many}")
    old, new = side(text), side(text.replace("u7@", "u8000@"))
    began = time.process_time()
    assert len(differences(old, new)) == 2
    # Two million pairs take a minute; 1,500 look-ups some 20 ms.
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize("text", ["version: 1\n", BASE])
def test_everything_comes_or_goes(text: str) -> None:
    kinds = {change.kind for change in changes("version: 1\n", text)}
    assert kinds == ({"added"} if text == BASE else set())
    assert {change.kind for change in changes(text, "version: 1\n")} == ({"removed"} if text == BASE else set())
