"""A real browser: Debian's chromium, driven by selenium, with a profile of its own and no word to the outside."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from peers.process import require
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
)
# Whatever is not on this machine is not found: a page that asks elsewhere fails its test.
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*"


class Browser:
    """width, height: of the page, in pixels. script: False is a browser without JavaScript."""

    def __init__(self, profile: Path, *, script: bool = True) -> None:
        options = Options()
        options.binary_location = require("chromium")
        for flag in (*FLAGS, ALONE, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        if not script:
            options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(require("chromium-driver")))

    def close(self) -> None:
        self.driver.quit()

    def look(self, width: int, height: int, scheme: str) -> None:
        """How the page is seen from now on. scheme: light or dark, as the system of the reader is set."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def open(self, url: str) -> None:
        self.driver.get(url)

    def find(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def said(self) -> list[str]:
        """What the console of the browser has said since the last time."""
        return [f"{line['level']}: {line['message']}" for line in self.driver.get_log("browser")]

    def shoot(self, path: Path) -> None:
        """The whole page as a PNG."""
        height = int(self.run("return document.scrollingElement.scrollHeight"))
        width = int(self.run("return window.innerWidth"))
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 4000), "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(shot["data"]))
