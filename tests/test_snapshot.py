"""Files -> snapshot, by example and by one fixture for each mistake (tests/bad/policies).

A fixture begins with the lines that it must give, `#! line:column: path: message; expected …`. A folder is
one policy of several files, *.txt those that its sets name.
"""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from callcount import calls

from smtpgate import document
from smtpgate.document import DocumentError
from smtpgate.policy import schema as policy_schema
from smtpgate.policy.model import Event, Facts
from smtpgate.routing.model import BackendAuth, BackendSettings, BackendSpec, BackendTls, Balance, Failover, PoolSpec
from smtpgate.routing.router import Choice, choose
from smtpgate.snapshot import FolderKeys, Snapshot, build, json_schema, version_of
from smtpgate.units import InvalidValue

ROOT = Path(__file__).parents[1]
BAD = sorted((ROOT / "tests/bad/policies").iterdir())


def _files(path: Path) -> list[tuple[str, bytes]]:
    paths = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return [(one.name, one.read_bytes()) for one in paths]


def _set_files(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted(path.glob("*.txt"))} if path.is_dir() else {}


def _expected(files: list[tuple[str, bytes]]) -> list[str]:
    return [
        f"{name}:{line.removeprefix('#! ')}"
        for name, text in files
        for line in text.decode(errors="replace").splitlines()
        if line.startswith("#! ")
    ]


def test_the_mistakes_are_there() -> None:
    assert len(BAD) > 130


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_each_mistake_is_told_as_it_says(path: Path) -> None:
    files, set_files = _files(path), _set_files(path)
    with pytest.raises(DocumentError) as caught:
        build(files, {}, set_files=set_files)
    assert sorted(str(caught.value).splitlines()) == sorted(_expected([*files, *set_files.items()]))


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
            settings=BackendSettings(xclient="auto", auth=BackendAuth(replay=True)),
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
    replay = BackendAuth(replay=True)
    assert pools["core"].settings == BackendSettings(xclient="on", auth=replay, pass_error_message=True)
    assert pools["bulk"].settings == BackendSettings(xclient="off", auth=None, pass_error_message=True)


TLS = b"""\
version: 1
routes: [{name: all, match: {}, pool: core}]
pools:
  core:
    tls: {mode: required, ca: mta-ca.pem}
    smtp_auth: {user: relay, password_file: /run/secrets/relay}
    backends: [{name: m, addr: "m:25"}]
    unavailable: {pool: dr}
  dr:
    backends: [{name: d, addr: "d:25"}]
"""


class _Files:
    """The password is there, the certificates are not."""

    def check_tls(self, tls: BackendTls) -> None:
        assert tls.ca is not None
        raise InvalidValue(f"is not a file that is there ({tls.ca})", "a readable file", path=("ca",))

    def secret(self, path: str) -> str:
        assert path == "/run/secrets/relay"
        return "hunter2"


def test_files_of_a_pool_are_relative_to_the_folder() -> None:
    pool = build([("p/tls.yaml", TLS)], {}, folder="p").pools["core"]
    assert pool.settings.tls == BackendTls("required", ca="p/mta-ca.pem")
    assert pool.settings.auth == BackendAuth(user="relay")
    assert pool.fallback == "dr"


def test_a_file_that_cannot_be_used_is_told_where_it_is_named() -> None:
    with pytest.raises(DocumentError) as caught:
        build([("p/tls.yaml", TLS)], {}, folder="p", side=_Files())
    assert str(caught.value) == (
        "p/tls.yaml:5:27: pools.core.tls.ca: is not a file that is there (p/mta-ca.pem); expected a readable file"
    )


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


def test_set_files_stand_beside_the_first_file() -> None:
    text = b"version: 1\nsets: {vip: {file: vip.txt, type: user}}\n"
    snapshot = build([("p/a.yaml", text)], {}, set_files={"vip.txt": b"ann", "other.txt": b""})
    assert snapshot.policy.sets["vip"].words == ("ann",)
    assert snapshot.version_hash != build([("p/a.yaml", text)], {}, set_files={"vip.txt": b"bob"}).version_hash
    with pytest.raises(DocumentError) as caught:
        build([("p/a.yaml", text)], {}, set_files={"vip.txt": b"a b"})
    expected = "1 to 512 printable characters without spaces"
    assert str(caught.value) == f'p/vip.txt:1:1: "a b" is not a pattern; expected {expected}'


def _routed(count: int) -> Snapshot:
    lines = [
        "version: 1",
        'pools: {core: {backends: [{name: m, addr: "m:25"}]}}',
        "routes:",
        *(f"  - {{name: r{at}, match: {{user: u{at}@example.com}}, pool: core}}" for at in range(count)),
        "  - {name: default, match: {}, pool: core}",
    ]
    return build([("way.yaml", "\n".join(lines).encode())], {})


def test_a_thousand_routes_cost_what_ten_cost() -> None:
    costs = []
    for count in (10, 1000):
        routes = _routed(count).routes
        last = Facts("192.0.2.1", user=f"u{count - 1}@example.com")
        assert choose(routes, last) == Choice(routes[count - 1], decided=True)
        assert choose(routes, Facts("192.0.2.1")) == Choice(routes[count], decided=False)
        costs.append([calls(choose, routes, facts) for facts in (last, ANN, Facts("192.0.2.1"))])
    assert costs[0] == costs[1]


def test_variables() -> None:
    text = b"version: 1\nlimiter:\n  local_share: ${SHARE:-0.25}\n"
    assert build([("a.yaml", text)], {}).policy.limiter.local_share == 0.25
    assert build([("a.yaml", text)], {"SHARE": "0.75"}).policy.limiter.local_share == 0.75


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
    assert version_of(files, {}) == version_of(files)
    versions = {version_of(files, sets) for sets in ({}, {"v.txt": b"x"}, {"v.txt": b"y"}, {"w.txt": b"x"})}
    assert len(versions) == 4
    assert version_of(files, {"a": b"1", "b": b"2"}) == version_of(files, {"b": b"2", "a": b"1"})
    assert _way().version_hash == version_of([("way.yaml", WAY)])


# --- what we ship -------------------------------------------------------------------------------------------


def test_the_demo_policies() -> None:
    paths = sorted((ROOT / "policies").glob("*.yaml"))
    snapshot = build([(path.name, path.read_bytes()) for path in paths], {})
    names = [limit.name for limits in snapshot.policy.limits.values() for limit in limits]
    assert names == [
        "ip.conn_rate",
        "auth.fail.pair",
        "auth.fail.net",
        "user.msgs.min",
        "user.msgs.day",
        "user.rcpts",
        "msg.rcpts",
    ]
    assert [(route.name, route.pool) for route in snapshot.routes] == [("default", "demo")]
    assert snapshot.pools["demo"].backends == (BackendSpec("sink", "127.0.0.1", 10025),)


def _examples() -> list[str]:
    text = (ROOT / "policies/README.md").read_text(encoding="utf-8")
    return re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_the_readme_has_examples() -> None:
    assert len(_examples()) >= 14


# The README's set file.
SET_FILES = {"customers.txt": b"news@example.com  # since 2024\n"}


@pytest.mark.parametrize("example", _examples())
def test_examples_of_the_readme(example: str) -> None:
    snapshot = build([("README.yaml", example.encode())], {}, set_files=SET_FILES)
    assert snapshot.policy.limits or snapshot.routes
    VALIDATOR.validate(document.load(example.encode(), source="README.yaml").value)


def test_the_readme_names_every_key() -> None:
    text = (ROOT / "policies/README.md").read_text(encoding="utf-8")
    assert [key for key in sorted(_keys(json_schema())) if f"`{key}`" not in text] == []


# --- the JSON Schema ----------------------------------------------------------------------------------------

VALIDATOR = jsonschema.Draft202012Validator(json_schema(), format_checker=jsonschema.FormatChecker())


def _keys(schema: dict[str, Any]) -> set[str]:
    keys: set[str] = set()
    for model in [schema, *schema["$defs"].values()]:
        keys.update(model.get("properties", {}))
    return keys


def _untyped(schema: dict[str, Any]) -> list[str]:
    """Keys of which the schema says nothing."""
    said = {"type", "$ref", "anyOf", "enum", "const"}
    # The forms of pools are told by their own parsers alone.
    models = {name: one for name, one in schema["$defs"].items() if hasattr(policy_schema, name)}
    return [
        f"{model}.{name}"
        for model, one in models.items()
        for name, value in one.get("properties", {}).items()
        if not set(value) & said
    ]


def test_the_shipped_schema_is_current() -> None:
    shipped = (ROOT / "policies/schema.json").read_text(encoding="utf-8")
    assert shipped == json.dumps(json_schema(), indent=2) + "\n"


def test_the_schema_says_something_of_every_key() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert _untyped(schema) == []
    assert set(schema["properties"]) == set(FolderKeys.model_fields)
    assert all(model.get("additionalProperties") is False for model in [schema, *schema["$defs"].values()])


@pytest.mark.parametrize("path", sorted((ROOT / "policies").glob("*.yaml")), ids=lambda path: path.name)
def test_the_schema_takes_what_we_ship(path: Path) -> None:
    text = path.read_bytes()
    assert text.startswith(b"# yaml-language-server: $schema=schema.json\n")
    VALIDATOR.validate(document.load(text, source=path.name).value)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("unknown_top_level_key", ""),
        ("misspelled_key", "limits.user.msgs"),
        ("unknown_field", "limits.x.match"),
        ("rate_without_period", "limits.user.msgs.rate"),
        ("burst_fraction", "limits.user.msgs.burst"),
        ("cost_unknown", "limits.x.cost"),
        ("mode_unknown", "mode"),
        ("auth_as_text", "limits.user.msgs.match.auth"),
        ("event_missing", "limits.user.msgs"),
        ("after_unknown_reply", "limits.x.deny.after.denials"),
        ("override_on", "overrides.0.set.user.msgs"),
        ("bad_name", "replies"),
        ("share_above_one", "limiter.local_share"),
        ("route_without_match", "routes.0"),
    ],
)
def test_the_schema_refuses_what_has_no_form(name: str, path: str) -> None:
    value = document.load((ROOT / f"tests/bad/policies/{name}.yaml").read_bytes(), source="x").value
    assert [".".join(map(str, error.absolute_path)) for error in VALIDATOR.iter_errors(value)] == [path]
