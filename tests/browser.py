"""A headless Chromium for tests of pages, and where its pictures go.

Here: start, wait, picture. Not here: assertions.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

CHROMEDRIVER = Path("/usr/bin/chromedriver")
# Set-up installs it as root with apt (`make test` does); elsewhere it is the machine's owner's to install.
NEEDED = pytest.mark.skipif(not CHROMEDRIVER.exists(), reason="needs chromium and chromium-driver, which set-up installs as root")
SCREENS = Path(__file__).resolve().parents[1] / "build" / "screens"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--disable-dev-shm-usage",
)  # fmt: skip


@contextlib.contextmanager
def chromium(width: int, height: int, dark: bool = False, flags: Sequence[str] = ()) -> Iterator:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    try:
        # Not the window's size: Chromium makes no window narrower than 500 px.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        yield driver
    finally:
        driver.quit()


def settled(driver, charts: int, timeout_s: float = 60) -> float:
    """Wait until the page has run and its charts are drawn; returns the seconds it took. Raises TimeoutError."""
    begun = time.monotonic()
    chart = '[data-testid="stVegaLiteChart"]'
    while time.monotonic() - begun < timeout_s:
        drawn = len(driver.find_elements("css selector", f"{chart} canvas, {chart} svg"))
        running = driver.find_elements("css selector", '[data-testid="stStatusWidget"], [data-stale="true"]')
        if drawn >= charts and not running:
            return time.monotonic() - begun
        time.sleep(0.1)
    text = driver.find_element("css selector", "body").text
    raise TimeoutError(f"the page at {driver.current_url} drew no {charts} charts within {timeout_s:g} s: {text}")


def picture(driver, name: str, whole: bool = True) -> Path:
    """Save what is seen (whole: the page down to its end) as build/screens/NAME.png."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    if whole:
        height = driver.execute_script("return document.querySelector('[data-testid=stMain]').scrollHeight + 60")
        width = driver.execute_script("return window.innerWidth")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        time.sleep(1.5)  # Streamlit lays the charts out again
    path = SCREENS / f"{name}.png"
    driver.save_screenshot(str(path))
    return path
