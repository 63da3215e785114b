"""The pages in a real Chromium, light, dark and on a phone, and while ClickHouse goes and comes; pictures in build/screens/."""

import contextlib
import datetime as dt
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from assets.events.contract import EVENTS
from assets.lake import Lake, Write
from assets.metrics import endpoint, loader, schema
from assets.metrics.client import connect
from assets.orders.tables import ORDER_ATTRIBUTIONS
from dagster_project import services
from tests import browser, metrics_lake
from tests.integration.test_pages_models import HEADS, version

pytestmark = [
    pytest.mark.slow,
    browser.NEEDED,
]
ROOT = Path(__file__).resolve().parents[2]
# path and least number of charts
PAGES = {
    "overview": ("/", 5), "funnel": ("/funnel", 5), "attribution": ("/attribution", 5), "quality": ("/quality", 1),
    "revenue": ("/revenue", 3), "spam": ("/spam", 2), "models": ("/models", 4), "backfills": ("/backfills", 0), "health": ("/health", 0),
}  # fmt: skip
SIZES = {"light": (1440, 900, False), "dark": (1440, 900, True), "phone": (390, 844, False)}
DARK = {"overview", "funnel", "attribution"}  # the others draw with the same parts


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
def served(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    with pytest.MonkeyPatch.context() as patch:  # names that a browser's objects have already: charts are drawn all the same
        patch.setattr(metrics_lake, "CHANNELS", np.array(["toString", "search", "__proto__", None], dtype=object))
        window = metrics_lake.fill(lake, hours=72, displays=20_000)
    at = metrics_lake.START + dt.timedelta(hours=60, minutes=20)
    lake.replace_window(ORDER_ATTRIBUTIONS, metrics_lake.orders(at), window)
    users = pl.from_arrow(lake.read("events"))["user_id"].unique().sort().to_list()[:3]
    lake.replace_window(schema.SPAM_ACCOUNTS, metrics_lake.flagged(users, window.hours[-20:]), window)
    for shift in (0.0, 0.01):
        version(lake, shift)
    folder = tmp_path_factory.mktemp("clickhouse")
    with endpoint.started(folder) as url:
        for part in schema.PARTS:
            loader.load_window(lake, connect(url), window, part=part)
        env = {"GLASSHOUSE_LAKE": str(lake.root), "GLASSHOUSE_HOME": str(tmp_path_factory.mktemp("home"))}
        with streamlit(url, {**os.environ, **env}) as address:
            yield lake, address


@pytest.fixture(scope="module")
def site(served):
    return served[1]


def main_text(driver):
    return driver.find_element("css selector", '[data-testid="stMain"]').text


def values(driver):
    """The tiles by label."""
    tiles = driver.find_elements("css selector", '[data-testid="stMetric"]')
    part = lambda tile, name: tile.find_element("css selector", f'[data-testid="stMetric{name}"]').text  # noqa: E731
    return {part(tile, "Label"): part(tile, "Value") for tile in tiles}


def until(found, what, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not (got := found()):
        assert time.monotonic() < end, what
        time.sleep(0.2)
    return got


@pytest.mark.parametrize("size", SIZES)
def test_every_page_draws_and_fits(site, size):
    width, height, dark = SIZES[size]
    with browser.chromium(width, height, dark) as driver:
        for name, (path, charts) in PAGES.items():
            if dark and name not in DARK:
                continue
            driver.get(f"{site}{path}")
            until(lambda: "data until" in main_text(driver), f"{path} shows no freshness")
            browser.settled(driver, charts)
            browser.picture(driver, f"{name}_{size}")
            assert "Traceback" not in main_text(driver)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            ground = driver.execute_script("return getComputedStyle(document.querySelector('.stApp')).backgroundColor")
            assert (ground == "rgb(16, 23, 22)") == dark
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            illegal = [line["message"] for line in driver.get_log("browser") if "Uncaught" in line["message"]]
            assert not illegal


def test_a_link_restores_the_state_and_its_numbers_are_deltas(served, tmp_path):
    lake, site = served
    shown = pl.from_arrow(lake.read("impression_sessions"))
    start = metrics_lake.START
    asked = {
        "range=all&channel=search&device=ios": shown.filter(
            (pl.col("channel") == "search") & pl.col("context").str.contains('"ios"')
        ),
        "range=own&from=2026-03-01T02:00&to=2026-03-01T10:30&position=0,1-2&zone=Europe/Berlin&compare=none": shown.filter(
            pl.col("session_start").is_between(
                start + dt.timedelta(hours=2), start + dt.timedelta(hours=10, minutes=30), closed="left"
            ) & (pl.col("position") <= 2)
        ),
    }  # fmt: skip
    with browser.chromium(1440, 900) as driver:
        for query, rows in asked.items():
            driver.get(f"{site}/?{query}")
            browser.settled(driver, 5)
            until(lambda: "Displays" in values(driver), "no tiles")
            clicked = rows["clicked"].sum()
            found = values(driver)
            assert (found["Displays"], found["Clicks"]) == (f"{len(rows):,}", f"{clicked:,}")
            assert found["CTR"] == f"{clicked / len(rows):.2%}"
        assert "2026-03-01 03:00 – 2026-03-01 11:30 Europe/Berlin · positions 0, 1-2" in main_text(driver)
        downloaded = download(driver, f"{site}/funnel?range=all&compare=none", "funnel_by_channel", tmp_path, 5)
    expected = shown.group_by(pl.col("channel").fill_null("none")).agg(pl.len(), pl.col("clicked").sum())
    assert {(row["channel"], row["displays"], row["clicks"]) for row in downloaded.to_dicts()} == set(expected.iter_rows())


# What each page says of the whole lake, by its tiles, and the same in SQL on the Delta tables.
DISPLAYS, CLICKS = "SELECT count(*) FROM impression_sessions", "SELECT count(*) FROM impression_sessions WHERE clicked"
USERS, FLAGGED = "SELECT count(DISTINCT user_id) FROM events", "SELECT count(DISTINCT user_id) FROM spam_accounts"
ORDERS = "SELECT count(*) FROM order_attributions"
COUNTS = {"Displays": DISPLAYS, "Clicks": CLICKS, "CTR": (CLICKS, DISPLAYS)}  # two: a share
SAID = {
    "overview": {**COUNTS, "Events": "SELECT count(*) FROM events", "Active users": USERS},
    "funnel": {
        **COUNTS, "Likes / click": ('SELECT count(*) FROM click_sessions WHERE attributed AND "like"', CLICKS),
        "Long views / click": ("SELECT count(*) FROM click_sessions WHERE attributed AND dwell_ms >= 10000", CLICKS),
    },
    "attribution": COUNTS,
    "revenue": {
        "Net": "SELECT sum(net_cents) / 100.0 FROM order_attributions", "Gross": "SELECT sum(gross_cents) / 100.0 FROM order_attributions",
        "Refunds": "SELECT sum(refunded_cents) / 100.0 FROM order_attributions", "Orders": ORDERS,
        "Attributed": (f"{ORDERS} WHERE note_id IS NOT NULL", ORDERS),
    },
    "spam": {"Flagged accounts": FLAGGED, "of all users": (FLAGGED, USERS)},
    "quality": {
        "Late events": "SELECT count(*) FROM late_events", "Orphan actions": "SELECT count(*) FROM orphan_actions",
        "Clicks without display": "SELECT count(*) FROM click_sessions WHERE NOT attributed", "Quarantined rows": "SELECT count(*) FROM quarantine",
    },
}  # fmt: skip
MONEY = {"Net", "Gross", "Refunds"}


@pytest.mark.parametrize("page", SAID)
def test_the_numbers_of_each_page_are_sql_on_delta(served, page):
    lake, site = served
    tables = ("impression_sessions", "click_sessions", "events", "order_attributions", "spam_accounts", "late_events", "orphan_actions", "quarantine")
    sql = pl.SQLContext({name: pl.from_arrow(lake.read(name)) for name in tables}, eager=True)

    def told(label, query):
        if isinstance(query, tuple):
            part, whole = (sql.execute(one).item() for one in query)
            return f"{part / whole:.2%}"
        number = sql.execute(query).item()
        return f"{number:,.2f}" if label in MONEY else f"{number:,}"

    path, charts = PAGES[page]
    with browser.chromium(1440, 900) as driver:
        driver.get(f"{site}{path}?range=all&compare=none")
        browser.settled(driver, charts)
        found = values(driver)
    assert {label: found.get(label) for label in SAID[page]} == {label: told(label, query) for label, query in SAID[page].items()}


def test_tables_of_health_and_models_hold_what_delta_and_the_versions_hold(served, tmp_path):
    lake, site = served
    with browser.chromium(1440, 900) as driver:
        held = download(driver, f"{site}/health", "loads", tmp_path)
        heads = download(driver, f"{site}/models", "model_heads", tmp_path, 4)
    held = dict(zip(held["table"], held["rows"], strict=True))
    assert all(held[name] == lake.read(name).num_rows for name in ("events", "impression_sessions", "click_sessions", "order_attributions"))
    assert dict(zip(heads["head"], heads["auc"].round(6), strict=True)) == {name: round(auc + 0.01, 6) for name, auc in HEADS.items()}


def download(driver, address, name, folder, charts=0):
    """The rows that the CSV button of a panel gives."""
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    driver.get(address)
    browser.settled(driver, charts)
    button = until(lambda: driver.find_elements("css selector", f".st-key-csv_{name} button"), "no CSV button")[0]
    driver.execute_script("arguments[0].click()", button)
    path = folder / f"{name}.csv"
    until(path.exists, "nothing was downloaded")
    return pl.read_csv(path)


def test_it_says_when_clickhouse_is_away_and_recovers_and_does_not_flicker(tmp_path):
    """Its own ClickHouse, stopped and started again at the same port; no chart is gone while new rows come in."""
    lake = Lake(str(tmp_path / "lake"))
    window = metrics_lake.fill(lake, hours=4, displays=2000)
    port = services.free_port()
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(contextlib.ExitStack())
        url = up.enter_context(endpoint.started(tmp_path / "clickhouse", port))
        loader.load_window(lake, connect(url), window)
        env = {**os.environ, "GLASSHOUSE_LAKE": str(lake.root), "GLASSHOUSE_HOME": str(tmp_path / "home")}
        site = stack.enter_context(streamlit(url, env))
        driver = stack.enter_context(browser.chromium(1440, 900))
        driver.get(f"{site}/?range=all")
        browser.settled(driver, 5)
        before = values(driver)
        marks = '[data-testid="stVegaLiteChart"] .marks'
        at = pl.from_arrow(lake.read("events"))["event_time"].max() + dt.timedelta(seconds=20)
        put = {"event_id": [f"new-{i}" for i in range(40)], "event_time": [at] * 40,
               "hour": [at.replace(minute=0, second=0, microsecond=0)] * 40}  # fmt: skip
        more = lake.read("events").slice(0, 40)
        for name, column in put.items():
            place, field = more.schema.get_field_index(name), more.schema.field(name)
            more = more.set_column(place, field, pa.array(column, field.type))
        step = lake.stage(Write(EVENTS, more))
        loader.append_moment(lake, connect(url), lake.commit([step], by="live", app=("live", 0), note={"batch_id": "more-0"}))
        grown = f"{int(before['Events'].replace(',', '')) + 40:,}"
        driver.execute_script(f"document.querySelectorAll('{marks}').forEach(found => found.marked = true)")
        drawn = []

        def refreshed():
            drawn.append(len(driver.find_elements("css selector", marks)))
            return grown in main_text(driver)

        until(refreshed, "the page did not refresh itself")
        assert min(drawn) >= 5, "a chart was gone while the page refreshed"
        kept = f"return [...document.querySelectorAll('{marks}')].filter(found => found.marked).length"
        assert driver.execute_script(kept) >= 4, "charts were drawn anew in place of taking the new rows"
        browser.settled(driver, 5)
        up.close()
        until(lambda: "ClickHouse does not answer; these are the last known" in main_text(driver), "the page does not say it")
        assert values(driver)["Events"] == grown
        stack.enter_context(endpoint.started(tmp_path / "clickhouse", port))
        until(lambda: "does not answer" not in main_text(driver), "the page does not recover")
        assert values(driver)["Events"] == grown


def test_the_choice_stays_in_the_address_across_pages_and_links(site):
    with browser.chromium(1440, 900) as driver:
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
