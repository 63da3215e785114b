"""Both pages in a real Chromium, light, dark and on a phone; pictures in build/screens/."""

import contextlib
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from assets.lake import Lake
from assets.metrics import endpoint, loader
from assets.metrics.client import connect
from tests import browser, metrics_lake

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/usr/bin/chromedriver").exists(), reason="needs chromium and chromium-driver"),
]
ROOT = Path(__file__).resolve().parents[2]
PAGES = {"overview": ("/", 5), "funnel": ("/funnel", 5)}
SIZES = {"light": (1400, 900, False), "dark": (1400, 900, True), "phone": (400, 850, False)}


@contextlib.contextmanager
def streamlit(url, env):
    port = endpoint._listen("127.0.0.1", 0)
    number = port.getsockname()[1]
    port.close()
    command = [sys.executable, "-m", "streamlit", "run", "dashboards/app.py", "--server.address=127.0.0.1",
               f"--server.port={number}"]  # fmt: skip
    child = subprocess.Popen(command, cwd=ROOT, env={**env, "CLICKHOUSE_URL": url}, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{number}/_stcore/health", timeout=1)
                break
            assert time.monotonic() < end and child.poll() is None, "streamlit did not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{number}"
    finally:
        child.terminate()
        child.wait(20)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    import os

    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    window = metrics_lake.fill(lake, hours=72, displays=20_000)
    with endpoint.started(tmp_path_factory.mktemp("clickhouse")) as url:
        loader.load_window(lake, connect(url), window)
        with streamlit(url, dict(os.environ)) as address:
            yield address


@pytest.mark.parametrize("size", SIZES)
def test_both_pages_draw_and_fit(site, size):
    width, height, dark = SIZES[size]
    with browser.chromium(width, height, dark) as driver:
        for name, (path, charts) in PAGES.items():
            driver.get(f"{site}{path}")
            browser.settled(driver, charts)
            browser.picture(driver, f"{name}_{size}")
            text = driver.find_element("css selector", '[data-testid="stMain"]').text
            assert "data until" in text and "CTR" in text and "Traceback" not in text
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            ground = driver.execute_script("return getComputedStyle(document.querySelector('.stApp')).backgroundColor")
            assert (ground == "rgb(16, 23, 22)") == dark


def test_the_choice_stays_in_the_address_across_pages_and_links(site):
    with browser.chromium(1400, 900) as driver:
        driver.get(f"{site}/?range=all&channel=search")
        browser.settled(driver, 5)
        shown = driver.find_elements("css selector", '[data-testid="stMetricValue"]')[1].text
        driver.find_element("css selector", 'a[href$="/funnel"]').click()
        end = time.monotonic() + 60
        while "/funnel" not in driver.current_url or "range=all" not in driver.current_url:
            assert time.monotonic() < end, driver.current_url
            time.sleep(0.2)
        browser.settled(driver, 5)
        assert "channel=search" in driver.current_url
        assert driver.find_elements("css selector", '[data-testid="stMetricValue"]')[0].text == shown
