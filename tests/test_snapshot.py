"""Files -> snapshot, by example and by one fixture for each mistake (tests/bad/policies).

A fixture begins with the lines that it must give, `#! line:column: path: message; expected …`. A folder is
one policy of several files.
"""

import re
from pathlib import Path

import pytest

from smtpgate.document import DocumentError
from smtpgate.policy.model import Event, Facts
from smtpgate.routing.model import BackendSettings, BackendSpec, Balance, Failover, PoolSpec
from smtpgate.routing.router import choose
from smtpgate.snapshot import Snapshot, build, version_of

ROOT = Path(__file__).parents[1]
BAD = sorted((ROOT / "tests/bad/policies").iterdir())


def _files(path: Path) -> list[tuple[str, bytes]]:
    paths = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return [(one.name, one.read_bytes()) for one in paths]


def _expected(files: list[tuple[str, bytes]]) -> list[str]:
    return [
        f"{name}:{line.removeprefix('#! ')}"
        for name, text in files
        for line in text.decode().splitlines()
        if line.startswith("#! ")
    ]


def test_the_mistakes_are_there() -> None:
    assert len(BAD) > 60


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_each_mistake_is_told_as_it_says(path: Path) -> None:
    files = _files(path)
    with pytest.raises(DocumentError) as caught:
        build(files, {})
    assert str(caught.value).splitlines() == _expected(files)


def test_no_file_at_all() -> None:
    with pytest.raises(DocumentError) as caught:
        build([], {}, folder="/etc/smtpgate/policies")
    expected = "/etc/smtpgate/policies:1:1: the folder holds no policies; expected at least one *.yaml file"
    assert str(caught.value) == expected


WAY = b"""\
version: 1
sets: {bulk: {user: ["news@example.com", "*@lists.example.com"]}}
replies: {shut: "451 4.3.2 closed for the night"}
routes:
  - {name: bulk, match: {user: "@bulk"}, pool: bulk}
  - name: partner
    match: {rcpt_domain: ["partner.example", "*.partner.example"]}
    pool: core
  - {name: default, match: {}, pool: core}
pools:
  core:
    balance: least_conn
    smtp_auth: on
    backends:
      - {name: mta1, addr: "10.1.0.1:25", weight: 10, max_conns: 200}
      - {name: mta2, addr: "[2001:db8::2]:2525"}
    failover: {until: data_start, attempts: 1, deadline: 5s}
    unavailable: {reply: shut}
  bulk:
    xclient: off
    backends: [{name: b, addr: "mx.example.net:25"}]
"""


def _way(backend: BackendSettings | None = None) -> Snapshot:
    return build([("policies/way.yaml", WAY)], {}, backend=backend)


def test_pools() -> None:
    assert _way().pools == {
        "core": PoolSpec(
            name="core",
            backends=(
                BackendSpec("mta1", "10.1.0.1", 25, weight=10, max_conns=200),
                BackendSpec("mta2", "2001:db8::2", 2525, weight=1, max_conns=None),
            ),
            balance=Balance.LEAST_CONN,
            settings=BackendSettings(xclient="auto", smtp_auth=True),
            failover=Failover(attempts=1, deadline=5.0),
            unavailable="451 4.3.2 closed for the night",
        ),
        "bulk": PoolSpec(
            name="bulk",
            backends=(BackendSpec("b", "mx.example.net", 25),),
            settings=BackendSettings(xclient="off"),
        ),
    }


def test_a_pool_says_only_what_differs_from_the_configuration() -> None:
    pools = _way(BackendSettings(xclient="on", pass_error_message=True)).pools
    assert pools["core"].settings == BackendSettings(xclient="on", smtp_auth=True, pass_error_message=True)
    assert pools["bulk"].settings == BackendSettings(xclient="off", smtp_auth=False, pass_error_message=True)


ANN = Facts("192.0.2.1", user="ann@example.com")
NEWS = Facts("192.0.2.1", user="news@example.com")
TO_PARTNER = Facts(
    "192.0.2.1",
    user="ann@example.com",
    sender="",
    sender_domain="",
    rcpt="x@eu.partner.example",
    rcpt_domain="eu.partner.example",
)


@pytest.mark.parametrize(
    ("facts", "route", "decided"),
    [
        (NEWS, "bulk", True),
        (ANN, "default", False),  # depends on the recipient
        (TO_PARTNER, "partner", True),
        (Facts("192.0.2.1"), "default", False),  # depends on the user too
        (Facts("192.0.2.1", sender="a@b", sender_domain="b", rcpt="x@y", rcpt_domain="y"), "default", True),
    ],
)
def test_routes(facts: Facts, route: str, decided: bool) -> None:
    choice = choose(_way().routes, facts)
    assert choice.route is not None
    assert (choice.route.name, choice.decided) == (route, decided)


def test_routes_and_limits_know_their_line() -> None:
    limit = b'limits:\n\n  x: {event: mail, rate: 1/1s, key: all, deny: {reply: "450 4.7.1 x"}}\n'
    snapshot = build([("p/a.yaml", limit), ("p/way.yaml", WAY)], {})
    assert [route.source for route in snapshot.routes] == ["p/way.yaml:5", "p/way.yaml:6", "p/way.yaml:9"]
    assert snapshot.policy.limits[Event.MAIL][0].source == "p/a.yaml:3"


def test_routes_of_several_files_stand_in_their_order() -> None:
    pools = b'version: 1\npools: {core: {backends: [{name: m, addr: "m:25"}]}}\n'
    first = b"routes: [{name: a, match: {user: ann}, pool: core}]\n"
    last = b"routes: [{name: b, match: {tls: true}, pool: core}, {name: c, match: {}, pool: core}]\n"
    snapshot = build([("1.yaml", first), ("2.yaml", pools), ("3.yaml", last)], {})
    assert [route.name for route in snapshot.routes] == ["a", "b", "c"]


def test_variables() -> None:
    text = b"version: 1\nlimiter:\n  local_share: ${SHARE:-0.25}\n"
    assert build([("a.yaml", text)], {}).policy.local_share == 0.25
    assert build([("a.yaml", text)], {"SHARE": "0.75"}).policy.local_share == 0.75


def test_the_version_names_the_texts() -> None:
    files = [("/etc/a.yaml", b"x"), ("/etc/b.yaml", b"y")]
    assert re.fullmatch("[0-9a-f]{16}", version_of(files))
    assert version_of(files) == version_of([("other/a.yaml", b"x"), ("other/b.yaml", b"y")])
    others = [
        [("a.yaml", b"x"), ("b.yaml", b"z")],
        [("a.yaml", b"x"), ("c.yaml", b"y")],
        [("b.yaml", b"y"), ("a.yaml", b"x")],
        [("a.yaml", b"x1:y"), ("b.yaml", b"")],
    ]
    assert version_of(files) not in {version_of(other) for other in others}
    assert _way().version_hash == version_of([("way.yaml", WAY)])


# --- what we ship -------------------------------------------------------------------------------------------


def test_the_demo_policies() -> None:
    paths = sorted((ROOT / "policies").glob("*.yaml"))
    snapshot = build([(path.name, path.read_bytes()) for path in paths], {})
    names = [limit.name for limits in snapshot.policy.limits.values() for limit in limits]
    assert names == ["ip.conn_rate", "auth.fail.pair", "auth.fail.net", "user.msgs.min", "user.rcpts"]
    assert [(route.name, route.pool) for route in snapshot.routes] == [("default", "demo")]
    assert snapshot.pools["demo"].backends == (BackendSpec("sink", "127.0.0.1", 10025),)


def _examples() -> list[str]:
    text = (ROOT / "policies/README.md").read_text(encoding="utf-8")
    return re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_readme_has_examples() -> None:
    assert len(_examples()) == 4


@pytest.mark.parametrize("example", _examples())
def test_examples_of_the_readme(example: str) -> None:
    snapshot = build([("README.yaml", example.encode())], {})
    assert snapshot.policy.limits or snapshot.routes


def test_the_readme_names_every_key() -> None:
    from smtpgate.policy import schema
    from smtpgate.routing import schema as routing

    text = (ROOT / "policies/README.md").read_text(encoding="utf-8")
    models = [schema.PolicyKeys, schema.LimitKeys, schema.DenyKeys, schema.MatchKeys, routing.PoolKeys]
    for model in models:
        for key in model.model_fields:
            assert f"`{key}`" in text, key
