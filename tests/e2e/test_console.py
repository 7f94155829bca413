"""The console in a real browser: every page at both widths and in both colours, every action, and what strangers get.

SMTPGATE_SCREENSHOTS names a folder that the pictures of the pages are kept in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from consolepages import NOTE, assert_sound, expect, log_in
from consolesite import BIDI, OPERATOR, POLICIES, RULE, SCRIPT, ConsoleSite, session_id
from pagechecks import CONTRAST, OVERLAPS, SIDEWAYS, UNNAMED
from peers.process import wait_until
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.programs

WIDTHS = {1280: 900, 390: 844}
SCHEMES = ("light", "dark")
TEXTS = "return [...document.querySelectorAll('tbody td')].map((cell) => cell.innerText.trim())"
EXPLAIN = "/explain?ip=198.51.100.7&user=ann%40example.com&sender=ann%40example.com&rcpt=bob%40example.net"
PAGES = {
    "overview": "/",
    "sessions": "/sessions",
    "limits": "/limits",
    "denials": "/denials",
    "quotas": "/quotas?subject=*&limit=",
    "quota": "/quotas/subject?limit=msgs&subject=ann%40example.com",
    "pools": "/pools",
    "policies": "/policies",
    "explain": EXPLAIN,
    "explain-fault": "/explain?ip=nonsense",
    "not-found": "/nowhere",
}
BROKEN = POLICIES.replace("rate: 10/1d, burst: 10, key", "rate: 10/1d, burst: ten, key").replace("mta2", "mta3")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleSite]:
    made = ConsoleSite(tmp_path_factory.mktemp("site"))
    try:
        made.spend()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("SMTPGATE_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    try:
        made.look(1280, 900, "light")
        yield made
    finally:
        made.close()


@pytest.fixture
def inside(site: ConsoleSite, browser: Browser) -> Browser:
    """Logged in."""
    browser.open(f"{site.url}/")
    if browser.driver.current_url.endswith("/login"):
        log_in(browser)
    expect(browser, "h1", "Overview")
    browser.said()
    return browser


def test_contrast_is_enough(inside: Browser, site: ConsoleSite) -> None:
    """WCAG 2.2 AA: 4.5 to 1, of every text, in both colours."""
    for scheme in SCHEMES:
        inside.look(1280, 900, scheme)
        for name, path in PAGES.items():
            inside.open(site.url + path)
            assert inside.run(CONTRAST) == [], f"{name} {scheme}"
        inside.said()
    inside.look(1280, 900, "light")


def test_names_for_those_who_hear_the_page(inside: Browser, site: ConsoleSite) -> None:
    for path in PAGES.values():
        inside.open(site.url + path)
        assert inside.run(UNNAMED) == [], path
        assert [len(inside.all(css)) for css in ("header", "main", "nav[aria-label]")] == [1, 1, 1]
    inside.said()


def test_the_keyboard_alone(inside: Browser, site: ConsoleSite) -> None:
    """The first stop is the link past the menu, and every stop is seen."""
    inside.open(site.url + "/quotas?subject=*&limit=")
    body = inside.find("body")
    body.send_keys(Keys.TAB)
    first = inside.driver.switch_to.active_element
    assert first.text == "Skip to the content"
    stops = []
    while (focused := inside.driver.switch_to.active_element).tag_name != "body":
        outline = inside.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", focused.get_attribute("outerHTML")
        stops.append(focused.tag_name)
        focused.send_keys(Keys.TAB)
    assert stops.count("a") >= len(inside.all("nav a")) + 1
    assert stops.count("input") == 2
    inside.open(site.url + "/quotas?subject=*&limit=")
    inside.find("body").send_keys(Keys.TAB)
    inside.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert inside.driver.switch_to.active_element.get_attribute("id") == "main"


def test_what_a_client_sends_is_text(inside: Browser, site: ConsoleSite) -> None:
    inside.open(f"{site.url}/sessions")
    texts = inside.run(TEXTS)  # at once: the page renews itself
    assert SCRIPT in texts
    assert "\\u202e" + BIDI[1:] in texts  # the sign that turns text around is shown, and does not
    inside.open(f"{site.url}/sessions?words=user7%40")
    assert [row.text for row in inside.all("tbody th")] == [session_id("u", 7)]
    inside.open(f"{site.url}/denials")
    assert SCRIPT in inside.run(TEXTS)
    assert_sound(inside, "denials")


def test_the_rule_is_named_everywhere_alike(inside: Browser, site: ConsoleSite) -> None:
    for path in ("/limits", "/denials", EXPLAIN):
        inside.open(site.url + path)
        rules = [one.text for one in inside.all("tbody code")]
        assert RULE in rules, path
    inside.open(f"{site.url}/policies")
    assert RULE in [one.text for one in inside.all("td")]


def test_grant_and_reset(inside: Browser, site: ConsoleSite) -> None:
    inside.open(f"{site.url}/quotas")
    inside.find("#subject").send_keys("ann@example.com", Keys.ENTER)
    expect(inside, "caption", "What is counted now")
    inside.find("tbody a[href*='limit=msgs&subject=ann']").click()
    expect(inside, "h1", "Quota")
    inside.find("#tokens").send_keys("3", Keys.ENTER)
    assert expect(inside, NOTE, "msgs of ann@example.com: 2").endswith("of 10.")
    inside.find("#tokens").send_keys("-1", Keys.ENTER)
    expect(inside, NOTE, "Expected a number of tokens above 0.")
    inside.find("form[action='/quotas/reset'] button").click()
    expect(inside, NOTE, "Reset msgs of ann@example.com.")
    assert "Nothing is counted" in inside.find("tbody").text
    site.spend()
    assert_sound(inside, "quota")
    done = [line for line in site.log() if line["event"] == "console_action"]
    assert [(line["operator"], line["action"], line["limit"], line["subject"]) for line in done[-2:]] == [
        (OPERATOR, "quota_grant", "msgs", "ann@example.com"),
        (OPERATOR, "quota_reset", "msgs", "ann@example.com"),
    ]


def test_a_ban_is_lifted(inside: Browser, site: ConsoleSite) -> None:
    inside.open(f"{site.url}/quotas/subject?limit=conns&subject=192.0.2.66")
    inside.find("form[action='/quotas/unban'] button").click()
    expect(inside, NOTE, "Lifted the ban of 192.0.2.66.")
    assert inside.all("form[action='/quotas/unban']") == []


def test_drain_and_undrain(inside: Browser, site: ConsoleSite, shots: Path) -> None:
    inside.open(f"{site.url}/pools")
    inside.find("button[aria-label='Drain core/mta1']").click()
    expect(inside, NOTE, "Drained core/mta1")
    assert [(one.pool, one.backend, one.by) for one in site.board.orders()] == [
        ("core", "mta1", f"{OPERATOR} (console)")
    ]

    def drained() -> bool:
        inside.open(f"{site.url}/pools")
        return "drain" in inside.find("tbody tr td:nth-of-type(3)").text

    wait_until(drained, "the workers' reports show it")
    inside.shoot(shots / "console-drained-1280-light.png")
    inside.find("button[aria-label='Undrain core/mta1']").click()
    expect(inside, NOTE, "core/mta1 gets sessions again.")
    assert site.board.orders() == []
    assert_sound(inside, "pools")


def test_a_pending_edit_is_shown_with_its_problems(inside: Browser, site: ConsoleSite, shots: Path) -> None:
    site.edit(BROKEN)

    def rejected() -> bool:
        inside.open(f"{site.url}/policies")
        return bool(inside.all("#pending-head"))

    wait_until(rejected, "the folder is rejected")
    assert "p.yaml:8" in inside.find(".troubles").text
    assert "burst: ten" in " ".join(one.text for one in inside.all(".diff ins"))
    for width, height in WIDTHS.items():
        for scheme in SCHEMES:
            inside.look(width, height, scheme)
            assert_sound(inside, "pending")
            inside.shoot(shots / f"console-pending-{width}-{scheme}.png")
    inside.look(1280, 900, "light")
    site.edit(POLICIES.replace("10/1d, burst: 10, key", "12/1d, burst: 12, key"))

    def edited() -> bool:
        inside.open(f"{site.url}/policies")
        return bool(inside.all("#last-head"))

    wait_until(edited, "the edit is in force")
    assert "rate: 10/1d" not in inside.find(".changes").text
    assert '"10/1d"' in inside.find(".changes").text
    assert '"12/1d"' in inside.find(".changes").text
    inside.shoot(shots / "console-edited-1280-light.png")
    site.edit(POLICIES)


def test_the_page_renews_itself_until_it_is_told_not_to(inside: Browser, site: ConsoleSite) -> None:
    inside.open(f"{site.url}/")
    first = inside.find("#clock").text
    wait_until(lambda: inside.find("#clock").text != first, "the script has renewed the page")
    pause = inside.find(".pause")
    pause.click()
    assert pause.text == "Resume updates"
    assert_sound(inside, "renewed")


def test_colours_are_chosen_without_a_script(site: ConsoleSite, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "profile", script=False)
    try:
        browser.look(390, 844, "light")
        browser.open(f"{site.url}/login")
        log_in(browser)
        expect(browser, "h1", "Overview")
        assert browser.all(".plot svg") != []
        browser.find("button[value=dark]").click()
        expect(browser, "button[value=dark][aria-pressed=true]", "dark")
        assert browser.find("html").get_attribute("data-theme") == "dark"
        assert browser.find("body").value_of_css_property("background-color") == "rgba(20, 23, 26, 1)"
        browser.find("button[value=auto]").click()
        expect(browser, "button[value=auto][aria-pressed=true]", "auto")
        assert browser.find("body").value_of_css_property("background-color") == "rgba(246, 247, 248, 1)"
        assert browser.all(".pause") == []
        for path in PAGES.values():
            browser.open(site.url + path)
            assert len(browser.all("h1")) == 1
    finally:
        browser.close()


def test_login_wrong_right_and_out(site: ConsoleSite, inside: Browser, shots: Path) -> None:
    browser = inside
    browser.find("form[action='/logout'] button").click()
    expect(browser, NOTE, "Logged out.")
    browser.open(f"{site.url}/pools")
    assert browser.find("h1").text == "Log in"
    log_in(browser, "wrong")
    expect(browser, "[role=alert]", "Name or password is wrong.")
    assert [line for line in browser.said() if "403" not in line] == []
    for width, height in WIDTHS.items():
        for scheme in SCHEMES:
            browser.look(width, height, scheme)
            browser.open(f"{site.url}/login")
            assert_sound(browser, "login")
            browser.shoot(shots / f"console-login-{width}-{scheme}.png")
    browser.look(1280, 900, "light")
    log_in(browser)
    expect(browser, "h1", "Overview")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_fits(inside: Browser, site: ConsoleSite, shots: Path, width: int, scheme: str) -> None:
    inside.look(width, WIDTHS[width], scheme)

    def drawn() -> bool:
        inside.open(f"{site.url}/")
        return len(inside.all(".plot > svg")) == 4

    wait_until(drawn, "there are samples to draw")
    for name, path in PAGES.items():
        inside.open(site.url + path)
        assert_sound(inside, f"{name} {width} {scheme}")
        assert len(inside.all("h1")) == 1
        overlapping = inside.run(OVERLAPS)
        assert overlapping == [], f"{name} {width} {scheme}: {overlapping}"
        if width >= 1280:
            assert inside.run(SIDEWAYS) == [], f"{name} {width} {scheme}"
        inside.shoot(shots / f"console-{name}-{width}-{scheme}.png")
    inside.look(1280, 900, "light")
