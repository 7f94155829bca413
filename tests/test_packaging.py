"""What is shipped beside the code: the installed commands, unit files, container files. They are run where a program
for it is here, and else held against the tree.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[1]
CONTAINER = ROOT / "conf/container"
UNITS = sorted((ROOT / "conf/systemd").glob("*.service"))
COMMANDS = ("smtpgate", "smtpgate-authsvc", "gatectl")
SAFE_ENOUGH = 2.0
"""systemd-analyze security's exposure level, at most: "OK" ends at 5."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a virtual environment with the project in it, from a copy of the tree; its dependencies are ours."""
    work = tmp_path_factory.mktemp("installed")
    source = work / "source"
    source.mkdir()
    for name in into_the_image():  # what an image is built from is enough for pip anywhere
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    venv.create(work / "venv", with_pip=False, symlinks=True)
    site = next((work / "venv").glob("lib/python*/site-packages"))
    (site / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(work / "venv/bin/python"), "install", "--quiet"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *options, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return work / "venv/bin"


def into_the_image() -> list[str]:
    """What the Containerfile copies from the project, for its build."""
    lines = (CONTAINER / "Containerfile").read_text().splitlines()
    steps = [line.split() for line in lines if line.startswith("COPY ")]
    return [name for step in steps if not step[1].startswith("--") for name in step[1:-1]]


def run(*argv: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """From an empty folder, so that nothing is found beside the working directory."""
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", **environ}
    return subprocess.run(
        [str(one) for one in argv], capture_output=True, text=True, cwd="/", env=environment, timeout=60
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_an_installed_command_tells_its_version_and_what_it_does(installed: Path, command: str) -> None:
    version = run(installed / command, "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert re.search(r"\b[0-9]+\.[0-9]+\.[0-9]+\b", version.stdout)
    told = run(installed / command, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"Usage: {command} ")


@pytest.mark.parametrize(("command", "conf"), [("smtpgate", "proxy.yaml"), ("smtpgate-authsvc", "authsvc.yaml")])
def test_an_installed_command_reads_its_configuration(
    installed: Path, tmp_path: Path, command: str, conf: str
) -> None:
    for folder in ("conf", "policies"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    path = tmp_path / "conf" / conf
    fine = run(installed / command, "-c", path, "--check")
    assert (fine.returncode, fine.stdout, fine.stderr) == (0, f"{path}: valid\n", "")
    path.write_text(path.read_text().replace("policies: ../policies/", "policies: nowhere/"))
    broken = run(installed / command, "-c", path, "--check")
    assert broken.returncode == 2
    assert "nowhere" in broken.stderr


def test_an_installed_gatectl_checks_policies(installed: Path) -> None:
    checked = run(installed / "gatectl", "policy", "check", ROOT / "policies")
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_and_finds_little_to_complain_of(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    text = unit.read_text()
    programs = set(re.findall(r"^Exec\w+=(/opt/\S+)", text, re.MULTILINE))
    assert {Path(program).name for program in programs} <= set(COMMANDS)
    # The programs are where the installation puts them; what stands in for them here only has to be one.
    verified = tmp_path / unit.name
    verified.write_text(re.sub(r"(?<==)/opt/smtpgate/bin/\S+", "/bin/true", text))
    done = run("systemd-analyze", "verify", "--man=no", verified)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", verified)
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure is not None, done.stdout
    assert float(exposure.group(1)) <= SAFE_ENOUGH


def test_the_logrotate_file_makes_a_file_that_workers_may_write() -> None:
    """Workers that are nobody's root find it within a second; what is renamed is compressed a day later."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "conf/logrotate/smtpgate").read_text(), flags=re.MULTILINE)
    path, body = re.fullmatch(r"(\S+) \{\n(.*)\}\n", text, re.DOTALL).groups()  # type: ignore[union-attr]
    directives = {line.split()[0]: line.split()[1:] for line in body.splitlines()}
    assert path in (ROOT / "docs/log.md").read_text()
    # Without words `create` keeps owner, group and mode (logrotate(8)); no `postrotate`: nobody is to be signalled.
    assert directives == {
        "daily": [], "rotate": ["14"], "missingok": [], "notifempty": [], "create": [], "delaycompress": [],
        "compress": [],
    }  # fmt: skip
    if shutil.which("logrotate") is not None:
        done = run("logrotate", "--debug", "--state", "/dev/null", ROOT / "conf/logrotate/smtpgate")
        assert done.returncode == 0, done.stderr


def test_the_container_files_copy_what_is_there() -> None:
    for file, context in ((CONTAINER / "Containerfile", ROOT), (CONTAINER / "Containerfile.postfix", CONTAINER)):
        lines = re.sub(r"\\\n", " ", file.read_text()).splitlines()
        steps = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        assert steps[0][0] == "FROM"
        for step in steps:
            if step[0] == "COPY" and not step[1].startswith("--from"):
                for source in step[1:-1]:
                    assert (context / source).exists(), f"{file.name}: {source}"
    text = (CONTAINER / "Containerfile").read_text()
    assert re.search(r"^USER 2525:2525$", text, re.MULTILINE)  # not root
    assert "HEALTHCHECK" in text


def test_the_image_has_all_that_its_build_reads() -> None:
    """pip would build without setup.py, and without the extension modules that it makes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    read = {"pyproject.toml", "setup.py", "MANIFEST.in", project["project"]["readme"]}
    read |= {project["project"]["license"]["file"], *project["tool"]["setuptools"]["dynamic"]["dependencies"]["file"]}
    read |= {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]} - {"smtpgate_commands"}
    read |= {path.split("/")[0] for path in project["tool"]["setuptools"]["package-dir"].values()}
    read |= set(re.findall(r'ROOT / "([^"]+)"', (ROOT / "setup.py").read_text())) - {"build"}  # where it writes
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        command, *words = line.split()
        read |= set(words if command == "include" else words[:1])
    assert read <= set(into_the_image())
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not read & set(ignored)


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.name)
def test_configuration_that_is_shipped_has_no_blanks_at_the_end_of_a_line(path: Path) -> None:
    assert [line for line in path.read_text().splitlines() if line != line.rstrip()] == []


def test_the_images_leave_out_what_is_not_theirs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "tests", "var"} <= set(ignored)


def test_the_compose_file_names_what_is_there() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())  # noqa: TID251 - compose reads YAML as PyYAML does
    services = compose["services"]
    assert set(services) == {"proxy", "authsvc", "redis", "postfix"}
    for name, service in services.items():
        if "build" in service:
            context = ROOT / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file(), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"], volume
        assert set(service.get("depends_on", ())) <= set(services)
        if name in ("proxy", "authsvc"):
            assert service["command"][0] in COMMANDS
            assert service["cap_drop"] == ["ALL"]
            assert service["read_only"] is True


@pytest.mark.parametrize(("command", "conf"), [("smtpgate", "proxy.yaml"), ("smtpgate-authsvc", "authsvc.yaml")])
def test_the_containers_configuration_is_valid(installed: Path, tmp_path: Path, command: str, conf: str) -> None:
    path = CONTAINER / "etc" / conf
    done = run(installed / command, "-c", path, "--check", SMTPGATE_AUTH_KEY="key", STATE_DIRECTORY=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: valid\n", "")
