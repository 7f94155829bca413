"""`gatectl policy check`, `diff` and `schema` in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tools.commands.gatectl import gatectl

ROOT = Path(__file__).parents[3]
GOOD = """\
version: 1
sets: {vip: {file: vip.txt, type: user}}
limits:
  msgs: {event: mail, rate: 60/1m, key: "{user}", match: {user: "@vip"}, deny: {reply: "450 4.7.1 slow"}}
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gatectl, ["policy", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.yaml").write_text(GOOD)
    (folder / "vip.txt").write_text("ann@example.com\n")
    return folder


def test_check_of_a_folder(folder: Path) -> None:
    done = run("check", folder)
    assert done.exit_code == 0
    assert done.output.startswith(f"{folder}: valid, version ")
    assert done.output.endswith(": 1 limits, 1 sets, 0 exempt, 0 overrides, 0 routes, 0 pools\n")
    checked = json.loads(run("check", folder, "--json").output)
    assert (checked["valid"], checked["problems"], checked["limits"]) == (True, [], 1)
    assert checked["version"] in done.output


def test_check_of_the_configurations_folder(folder: Path) -> None:
    conf = folder.parent / "proxy.yaml"
    text = "server_name: a.example\nlisteners: [{name: mx, bind: '127.0.0.1:25', auth: [none]}]\n"
    conf.write_text(f"{text}policies: x/../policies\n")
    (folder.parent / "x").mkdir()
    assert run("check", "-c", conf).output.startswith(f"{folder}: valid, ")
    conf.write_text(f"{text}auth_http: {{url: 'http://[::1]/'}}\n")
    done = run("check", "-c", conf)
    assert (done.exit_code, done.stderr) == (
        2,
        f"{conf}: names no policies; expected policies: FOLDER in it, or a folder as argument\n",
    )
    conf.write_text("server_name: 7\n")
    assert run("check", "-c", conf).exit_code == 2


def test_check_tells_every_problem(folder: Path) -> None:
    (folder / "b.yaml").write_text(
        'limits: {x: {event: mail, rate: 60, key: "{user}", deny: {replay: "450 4.7.1 a"}}}\n'
    )
    done = run("check", folder)
    lines = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (2, "")
    assert [line.partition(": ")[0] for line in lines] == [f"{folder}/b.yaml:1:{at}" for at in (27, 52, 59)]
    done = run("check", folder, "--json")
    assert done.exit_code == 2
    checked = json.loads(done.stdout)
    assert checked["valid"] is False
    first = checked["problems"][0]
    assert (first["file"], first["line"], first["column"], first["path"]) == (
        f"{folder}/b.yaml",
        1,
        27,
        "limits.x.rate",
    )
    assert first["expected"]


def test_check_of_no_folder(tmp_path: Path) -> None:
    done = run("check", tmp_path / "nowhere")
    assert (done.exit_code, done.stderr) == (
        2,
        f"{tmp_path}/nowhere:1:1: cannot be read: No such file or directory\n",
    )


def test_diff(folder: Path) -> None:
    new = folder.parent / "new"
    new.mkdir()
    (new / "a.yaml").write_text(GOOD.replace("60/1m", "30/1m") + "mode: shadow\n")
    (new / "vip.txt").write_text("".join(f"u{i:02}@example.com\n" for i in range(12)))
    done = run("diff", folder, new)
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "settings",
        f"  + mode  {new}/a.yaml:5",
        '      "shadow"',
        "sets",
        f"  ~ vip (used by limits msgs)  {new}/a.yaml:2",
        "      12 members added, 1 removed",
        *(f"      + u{i:02}@example.com" for i in range(10)),
        "      + and 2 more",
        "      - ann@example.com",
        "limits",
        f'  ~ msgs (mail, user: "@vip")  {new}/a.yaml:4',
        '      rate: "60/1m" -> "30/1m"',
    ]
    done = run("diff", folder, new, "--json")
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert (told["same"], [change["name"] for change in told["changes"]]) == (False, ["mode", "vip", "msgs"])
    assert told["changes"][2]["fields"] == [{"path": "rate", "old": '"60/1m"', "new": '"30/1m"'}]
    assert told["changes"][1]["members"]["added"] == 12
    assert told["old"] != told["new"]


def test_diff_of_the_same(folder: Path) -> None:
    done = run("diff", folder, folder)
    assert (done.exit_code, done.output) == (0, "no difference\n")
    done = run("diff", folder, folder, "--json")
    assert (done.exit_code, json.loads(done.output)["same"]) == (0, True)


def test_diff_of_what_is_broken(folder: Path) -> None:
    broken = folder.parent / "broken"
    broken.mkdir()
    (broken / "a.yaml").write_text("version: 3\n")
    done = run("diff", broken, folder.parent / "nowhere")
    assert (done.exit_code, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{broken}/a.yaml:1:1: version: 3 is not a version")
    assert second == f"{folder.parent}/nowhere:1:1: cannot be read: No such file or directory"


def test_schema_is_the_shipped_one() -> None:
    done = run("schema")
    assert done.exit_code == 0
    assert json.loads(done.output) == json.loads((ROOT / "policies" / "schema.json").read_text())


def test_help_names_every_command() -> None:
    told = run("--help").output
    for command in ("check", "diff", "explain", "schema", "simulate"):
        assert f"\n  {command} " in told
        assert run(command, "--help").exit_code == 0
