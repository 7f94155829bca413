"""The documentation is true: every command is run, every configuration is read; no block is left that nobody checks.

What the blocks' first lines mean is in tests/lib/documents.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from certificates import Authority
from documents import PAGES, ROOT, SHOWN, Block, Machine, blocks, commands, missing

from authsvc import config as authsvc_config
from smtpgate import config as proxy_config
from smtpgate.drivers.policyfile import PolicyFolder
from smtpgate.drivers.sidefiles import FilesOnDisk

EVERYTHING = [block for page in PAGES for block in blocks(page)]
YAML_KINDS = ("proxy.yaml", "authsvc.yaml", "policies", "other")
WHOLE = {
    "proxy.yaml": """\
server_name: mail.example.com
auth_http: {url: "http://127.0.0.1:18080/auth"}
listeners: [{name: submission, bind: "127.0.0.1:20025"}]
""",
    "authsvc.yaml": "policies: policies/\nusers: [{file: users.yaml}]\n",
}
ROUTES = """\
routes: [{name: default, match: {}, pool: core}]
pools: {core: {backends: [{name: mta1, addr: "127.0.0.1:10025"}]}}
"""


def of(*words: str) -> list[Block]:
    return [block for block in EVERYTHING if block.words[: len(words)] == words]


def test_every_block_says_what_it_is() -> None:
    unknown = [
        f"{block}: {' '.join(block.words) or 'nothing'}"
        for block in EVERYTHING
        if not (
            block.kind in SHOWN
            or block.kind == "console"
            or (block.kind == "yaml" and len(block.words) > 1 and block.words[1] in YAML_KINDS)
        )
    ]
    assert unknown == []
    assert of("console")
    assert of("yaml")


@pytest.mark.parametrize("block", of("yaml", "policies"), ids=str)
def test_policies_of_the_documentation_compile(block: Block, tmp_path: Path) -> None:
    (tmp_path / "shown.yaml").write_text(block.text)
    rest = "" if re.search(r"^version:", block.text, re.MULTILINE) else "version: 1\n"
    if not re.search(r"^(routes|pools):", block.text, re.MULTILINE):
        rest += ROUTES
    (tmp_path / "rest.yaml").write_text(rest or "{}\n")
    PolicyFolder.check(tmp_path, side=FilesOnDisk())


@pytest.mark.parametrize("block", of("yaml", "proxy.yaml") + of("yaml", "authsvc.yaml"), ids=str)
def test_configurations_of_the_documentation_are_valid(block: Block, tmp_path: Path) -> None:
    kind = block.words[1]
    text = block.text
    if "part" in block.options:
        # The keys that are shown take the place of the whole one's.
        shown, rest = yaml.safe_load(text), yaml.safe_load(WHOLE[kind])  # noqa: TID251 - merged, and then read strictly
        text += yaml.safe_dump({key: value for key, value in rest.items() if key not in shown})
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/all.yaml").write_text("version: 1\n" + ROUTES)
    (tmp_path / "users.yaml").write_text("users: {}\n")
    pair = Authority(tmp_path).sign("server", "mail.example.com")
    pair.cert.rename(tmp_path / "cert.pem")
    pair.key.rename(tmp_path / "key.pem")
    path = tmp_path / kind
    path.write_text(text)
    environ = dict.fromkeys(re.findall(r"\$\{([A-Z_]+)\}", text), "value")
    environ["STATE_DIRECTORY"] = str(tmp_path)
    (proxy_config if kind == "proxy.yaml" else authsvc_config).load(path, environ)


@pytest.mark.parametrize("block", of("console", "elsewhere"), ids=str)
def test_commands_for_the_readers_machine_are_at_least_a_shells(block: Block) -> None:
    for command in commands(block):
        done = subprocess.run(["bash", "-n", "-c", command.text], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command.text


PAGES_TO_RUN = sorted({block.page for block in of("console") if "elsewhere" not in block.words})


@pytest.mark.programs
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES_TO_RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    if not machine.usable:
        machine.close()
        pytest.skip("needs a network namespace: unshare --net is not permitted here")
    try:
        for block in blocks(page):
            options = block.options
            if "file" in options:
                machine.write(options["file"], block.text)
            if block.kind != "console" or "elsewhere" in options:
                continue
            todo = commands(block)
            if "background" in options:
                [command] = todo
                machine.start(command.text, options["background"])
                continue
            for index, command in enumerate(todo):
                done = machine.run(command.text)
                last = index == len(todo) - 1
                expected = int(options.get("status", 0)) if last else 0
                assert done.returncode == expected, f"{block}: {command.text}\n{done.stdout}"
                absent = missing(command.promised, done.stdout)
                assert absent is None, f"{block}: {command.text}\nwithout: {absent}\n{done.stdout}"
    finally:
        machine.close()


def test_links_lead_somewhere() -> None:
    """Within the repository; what is elsewhere may be away without our doing."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            file = page if not path else (page.parent / path)
            assert file.exists(), f"{page.name}: {target}"
            if anchor and file.suffix == ".md":
                assert anchor in _anchors(file), f"{page.name}: {target}"


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_site_builds_and_asks_nobody_else(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    environ = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    made = sorted(site.rglob("*.html"))
    assert len(made) >= len(list((ROOT / "docs").glob("*.md")))
    for html in made:
        outside = re.findall(
            r"<(?:script|img|iframe|link)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]+\"", html.read_text()
        )
        assert outside == [], html
