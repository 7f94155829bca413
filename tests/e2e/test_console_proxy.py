"""The console beside a real proxy: what it shows of it, and that it is obeyed."""

from __future__ import annotations

import json
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import argon2
import pytest
from browser import Browser
from consolepages import NOTE, assert_sound, expect, log_in
from consolesite import OPERATOR, PASSWORD
from peers.process import HOST, free_port, wait_until
from peers.redis import Redis
from peers.smtptools import SmtpSink
from stack import RELAY, Stack

from authsvc.proof.passwords import Passwords

ROOT = Path(__file__).parents[2]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "profile")
    yield made
    made.close()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[SmtpSink]:
    made = SmtpSink(tmp_path)
    yield made
    made.stop()


LIMITS = """\
version: 1
limiter: {timeout: 5s}
limits:
  msgs: {event: mail, rate: 1/1d, burst: 2, key: "{sender_domain}", deny: {reply: "450 4.7.1 slow"}}
"""


def test_a_proxy_is_seen_explained_and_steered(
    browser: Browser, start_stack: Callable[..., Stack], redis_server: Redis, sink: SmtpSink
) -> None:
    """One denial of a real proxy: its log, `gatectl policy explain` and the console name one rule and line."""
    port = free_port()
    console = {
        "bind": f"{HOST}:{port}",
        "operators": {OPERATOR: Passwords(argon2.profiles.CHEAPEST).make(PASSWORD.encode())},
    }
    stack = start_stack(
        [(HOST, sink.port)],
        listeners=[RELAY],
        store=redis_server.uri,
        policy={"limits.yaml": LIMITS},
        authsvc={"console": console},
    )
    for _ in range(3):
        with smtplib.SMTP(*stack.proxy) as client:
            client.docmd("MAIL FROM:<ann@busy.example>")
    (denied,) = stack.wait_for_event("denied", 1)
    asked = ("--ip", "127.0.0.1", "--sender", "ann@busy.example", "--event", "mail", "--json")
    told = subprocess.run(
        [ROOT / "tools/gatectl", "policy", "explain", *asked, "-c", stack.proxy_conf],
        capture_output=True,
        timeout=60,
        check=True,
    )
    refused = json.loads(told.stdout)["events"][0]["refused"]
    assert (refused["limit"], refused["source"]) == (denied["limit"], denied["rule"])
    assert denied["rule"].endswith("/limits.yaml:4")

    url = f"http://{HOST}:{port}"
    browser.open(url)
    log_in(browser)
    expect(browser, "h1", "Overview")
    said = []
    wait_until(lambda: bool(said.extend(_cells(browser, f"{url}/denials")) or said), "the denial is reported")
    assert said[:2] == [denied["limit"], denied["rule"]]
    assert _cells(browser, f"{url}/limits")[:2] == [denied["limit"], denied["rule"]]
    browser.open(f"{url}/explain?ip=127.0.0.1&sender=ann%40busy.example")
    assert "would be refused by msgs of busy.example" in browser.find("main").text
    assert denied["rule"] in [one.text for one in browser.all("tbody code")]

    browser.open(f"{url}/quotas/subject?limit=msgs&subject=busy.example")
    browser.find("form[action='/quotas/reset'] button").click()
    expect(browser, NOTE, "Reset msgs of busy.example.")
    with smtplib.SMTP(*stack.proxy) as client:
        assert client.docmd("MAIL FROM:<ann@busy.example>")[0] == 250

    browser.open(f"{url}/pools")
    browser.find("button[aria-label^='Drain core/']").click()
    expect(browser, NOTE, "Drained core/")
    wait_until(lambda: "drain" in _cells(browser, f"{url}/pools"), "the worker obeys")
    browser.find("button[aria-label^='Undrain core/']").click()
    expect(browser, NOTE, "core/")
    wait_until(lambda: "up" in _cells(browser, f"{url}/pools"), "the worker obeys")
    assert_sound(browser, "a real proxy")


def _cells(browser: Browser, url: str) -> list[str]:
    """Of the first row of a page's table, without its head; none where it says that there is nothing."""
    browser.open(url)
    cells = [one.text for one in browser.all("tbody tr:first-child td")]
    return cells if len(cells) > 1 else []
