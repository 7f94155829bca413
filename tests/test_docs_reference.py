"""The pages of reference are complete, and say nothing that is not so: keys, metrics, events, alerts, commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from configkeys import NEEDED, is_default, models, told
from documents import ROOT
from markdown_it import MarkdownIt

from authsvc.config import _Keys as AuthsvcKeys
from smtpgate.config.keys import ProxyKeys
from tools import docs, reference

DOCS = ROOT / "docs"
FILES: dict[str, type[Any]] = {"proxy.yaml": ProxyKeys, "authsvc.yaml": AuthsvcKeys}
KEYS = told(DOCS / "configure.md")


@pytest.mark.parametrize("file", FILES)
def test_every_key_is_told_and_no_other(file: str) -> None:
    expected = {place: list(model.model_fields) for place, model in models(FILES[file]).items()}
    page = {place: [row.key for row in rows] for place, rows in KEYS[file].items()}
    assert {place: sorted(keys) for place, keys in page.items()} == {
        place: sorted(keys) for place, keys in expected.items()
    }


@pytest.mark.parametrize("file", FILES)
def test_defaults_are_those_of_the_program(file: str, tmp_path: Path) -> None:
    for place, model in models(FILES[file]).items():
        for row in KEYS[file][place]:
            assert is_default(model.model_fields[row.key], row.default, tmp_path), f"{file}: {place}.{row.key}"


def test_a_wrong_default_is_noticed(tmp_path: Path) -> None:
    fields = ProxyKeys.model_fields
    for key, wrong in [("workers", "2"), ("workers", NEEDED), ("server_name", "x"), ("graceful_timeout", "31s")]:
        assert not is_default(fields[key], wrong, tmp_path)
    assert not is_default(fields["policies"], "policies/", tmp_path)


@pytest.mark.parametrize("page", sorted(docs.PARTS.keys() - {"gatectl.md"}))
def test_generated_parts_are_up_to_date(page: str) -> None:
    """gatectl.md is the command's to check, below: what other tests did with the commands shows in their helps."""
    assert docs.is_fresh(DOCS / page), "tools/docs --write"


def test_a_stale_part_is_written_anew_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "metrics.md"
    text = (DOCS / "metrics.md").read_text()
    page.write_text(text.replace("| `smtpgate_workers` |", "| `smtpgate_labourers` |"))
    assert not docs.is_fresh(page)
    assert docs.renewed(page) == text
    page.write_text("nothing is generated here\n")
    with pytest.raises(LookupError, match="expected a line <!-- generated: metrics"):
        docs.renewed(page)


def test_the_metrics_of_alerts_and_dashboards_are_there() -> None:
    """And those of the page are all that the source has: the page is generated."""
    known = {one.name for one in reference.metrics()}
    known |= {f"{one.name}_{part}" for one in reference.metrics() for part in ("bucket", "sum", "count")}
    assert {"smtpgate_sessions_open", "smtpgate_workers", "smtpgate_authsvc_requests_total"} <= known
    conf = ROOT / "conf"
    told_of = [conf / "prometheus/smtpgate.rules.yml", *(conf / "grafana").glob("*.json"), *DOCS.glob("*.md")]
    for file in told_of:
        # A name with a wildcard or a placeholder behind it is a prefix.
        used = set(re.findall(r"\bsmtpgate_[a-z_]+[a-z]\b(?![_/])", file.read_text())) - {"smtpgate_users"}
        assert used <= known, file.name


# --- the log ------------------------------------------------------------------------------------------------


def _events_of_the_page() -> dict[str, tuple[str, set[str]]]:
    """Event -> (level, fields), of the tables that begin with `event`."""
    found: dict[str, tuple[str, set[str]]] = {}
    row: list[str] = []
    for token in MarkdownIt().enable("table").parse((DOCS / "log.md").read_text()):
        if token.type == "tr_open":
            row = []
        elif token.type == "inline":
            row.append(token.content)
        elif token.type == "tr_close" and len(row) == 4 and row[0] != "event":
            assert row[0] not in found, f"{row[0]} is told twice"
            found[row[0].strip("`")] = (row[1], set(re.findall(r"`(\w+)`", row[2])))
    return found


def test_every_event_of_the_log_is_told_and_no_other() -> None:
    assert sorted(_events_of_the_page()) == sorted(reference.events())


def test_every_field_of_an_event_is_told() -> None:
    page = _events_of_the_page()
    missing = {name: fields - page[name][1] for name, fields in reference.events().items()}
    assert {name: fields for name, fields in missing.items() if fields} == {}


def test_no_field_is_told_that_nobody_writes() -> None:
    written = reference.field_names()
    for event, (level, fields) in _events_of_the_page().items():
        assert fields <= written, event
        assert set(level.split(", ")) <= {"info", "warning", "error", "any"}, event


# --- the runbook --------------------------------------------------------------------------------------------


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() -> None:
    rules = yaml.safe_load((ROOT / "conf/prometheus/smtpgate.rules.yml").read_text())  # noqa: TID251 - Prometheus'
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    sections = re.findall(r"^## (\w+)$", (DOCS / "runbook.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(alerts)


# --- the command --------------------------------------------------------------------------------------------


def test_every_command_of_gatectl_has_a_heading() -> None:
    names = [name for name, _ in reference.commands()]
    assert {"gatectl", "gatectl policy explain", "gatectl drain", "gatectl user add"} <= set(names)
    assert re.findall(r"^## (gatectl.*)$", (DOCS / "gatectl.md").read_text(), re.MULTILINE) == names


def test_the_command_checks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    both = subprocess.run(
        [sys.executable, "-m", "tools.docs", "--check", "--write"], cwd=ROOT, capture_output=True, text=True
    )
    assert both.returncode == 2
