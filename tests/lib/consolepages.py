"""What tests do on the console's pages in a browser, and what holds for every one of them."""

from __future__ import annotations

from browser import Browser
from consolesite import OPERATOR, PASSWORD
from peers.process import wait_until
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.keys import Keys

NOTE = ".note[role=status]"
"""Where a page tells what was done."""


def log_in(browser: Browser, password: str = PASSWORD) -> None:
    browser.find("#operator").send_keys(OPERATOR)
    browser.find("#password").send_keys(password, Keys.ENTER)


def assert_sound(browser: Browser, where: str) -> None:
    """Nothing runs over the page's edge, the browser complains of nothing, and no client's text is taken for ours."""
    sizes = browser.run("return [document.scrollingElement.scrollWidth, window.innerWidth]")
    assert sizes[0] <= sizes[1], f"{where}: {sizes[0]} px of content in {sizes[1]} px"
    assert [line for line in browser.said() if "404 (NOT FOUND)" not in line] == [], where
    assert "owned" not in browser.driver.title
    assert (
        browser.run("return document.querySelectorAll('main script, main img, main [onerror], main [style]').length")
        == 0
    )


def expect(browser: Browser, css: str, begins: str) -> str:
    """The text of a part of the page, once it begins so: a click returns before its answer is there."""

    def there() -> bool:
        try:
            return browser.find(css).text.startswith(begins)
        except WebDriverException:
            return False  # not yet, or not any more

    wait_until(there, f"{css} says {begins!r}")
    return browser.find(css).text
