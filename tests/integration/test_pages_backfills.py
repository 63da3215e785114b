"""The page Backfills on a real lake: its numbers against the tables, its words, a picture in a real Chromium."""

import datetime as dt
import os

import polars as pl
import pytest

from assets.attribution.rules import Rules
from assets.backfill import store
from assets.backfill.plan import plan
from assets.backfill.swap import apply, undo
from assets.lake import Lake, Window
from assets.metrics import endpoint, loader
from assets.metrics.client import connect
from tests import backfill_lake, browser, pages
from tests.backfill_lake import HOUR, START
from tests.integration.test_pages_apptest import tiles
from tests.integration.test_pages_boards import table, words
from tests.integration.test_pages_browser import SIZES, main_text, streamlit, until
from tests.pages import VIEWS

pytestmark = pytest.mark.slow
RANGE = Window(START + HOUR, START + 4 * HOUR)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    lake = Lake(str(home / "lake"))
    window = backfill_lake.fill(lake, home)
    found = plan(lake, RANGE, backfill_lake.STRICTER)
    with endpoint.started(home / "clickhouse") as url:
        loader.load_window(lake, connect(url), window)
        yield home, lake, url, found


@pytest.fixture
def page(monkeypatch, served):
    home, _, url, _ = served

    def run(view="backfills", where=home, **query):
        monkeypatch.setenv("GLASSHOUSE_HOME", str(where))
        monkeypatch.setenv("CLICKHOUSE_URL", url)
        return pages.run(VIEWS / f"{view}.py", query)

    return run


def code(app):
    return [one.value for one in app.code]


def test_a_plan_is_shown_with_its_numbers_and_how_to_apply_it(served, page):
    _, lake, _, found = served
    app = page(plan=found["plan"])
    shown = tiles(app)
    for kind in ("added", "removed", "changed"):
        assert shown[f"Rows {kind}"] == f"{sum(one[kind] for one in found['rows'].values()):,}"
    assert shown["Hours that change"] == str(len(found["hours_changed"])) and int(shown["Rows removed"]) > 10
    assert code(app) == [f"glasshouse backfill apply {found['plan']}"]
    said = words(app)
    assert "2026-01-05 04:00 – 2026-01-05 07:00 UTC: planned" in said
    assert "Rules clicks of 3 s" in said and "valid_click_dwell" in said
    rate = found["rates"]["ctr"]
    assert f"ctr {rate['before']:.2%} → {rate['after']:.2%}" in said and rate["after"] < rate["before"]
    before = pl.from_arrow(lake.read("click_sessions", Window(*(dt.datetime.fromisoformat(one) for one in found["swap"]))))
    assert found["totals"]["clicks"]["before"] == len(before)
    assert len(app.get("vega_lite_chart")) >= 6


def test_examples_show_events_and_no_users_id(served, page, monkeypatch):
    _, _, _, found = served
    rows = table(page(plan=found["plan"]), "user", "note_id", "events")
    ids = {str(one["row"]["user_id"]) for one in found["examples"]["removed"]}
    assert len(rows) == 10 and rows["user"].str.fullmatch("[0-9a-f]{12}").all()
    assert rows["events"].str.contains(r"click \+0.0 s").any()
    monkeypatch.setenv("GLASSHOUSE_SHOW_USER_IDS", "1")
    assert set(table(page(plan=found["plan"]), "user", "note_id", "events")["user"]) == ids


def test_a_user_of_the_lake_has_the_code_that_clickhouse_gives(served, page):
    _, lake, _, found = served
    page(plan=found["plan"])
    from dashboards import data

    user = lake.read("events", RANGE)["user_id"][0].as_py()
    choice = data.Choice(START, START + 6 * HOUR)
    codes = set(data.fresh("top_users", **choice.parameters(**data.user_parameters()))["user"])
    assert data.shown_user(user) in codes or len(codes) < 200


def test_the_state_moves_with_apply_and_undo(served, page):
    _, lake, _, found = served
    apply(lake, found["plan"])
    try:
        app = page(plan=found["plan"])
        assert code(app) == [f"glasshouse backfill undo {found['plan']}"] and "UTC: applied" in words(app)
        quality = page("quality", range="all")
        rows = table(quality, "before", "after", "by")
        assert set(rows["by"]) == {f"apply {found['plan']}"} and (rows["difference"] != 0).all()
    finally:
        undo(lake, found["plan"])
    assert code(page(plan=found["plan"])) == [f"glasshouse backfill apply {found['plan']}"]


def test_a_plan_of_which_a_file_is_damaged_is_said_and_the_others_are_listed(served, page):
    _, lake, _, found = served
    for name in ("report", "plan"):
        path = store.Folder(lake, found["plan"]).root / f"{name}.json"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        try:
            app = page(plan=found["plan"])
            assert "is damaged" in app.error[0].value and f"glasshouse backfill show {found['plan']}" in app.error[0].value
            assert table(app, "state", "rows_that_change")["from"].isna().all()
        finally:
            path.write_bytes(whole)


def test_an_unknown_plan_the_newest_one_and_one_at_work(served, page):
    _, lake, _, found = served
    app = page(plan="nobody")
    assert "No plan is called nobody" in app.warning[0].value and app.selectbox[1].value == found["plan"]
    run = store.Folder(lake, "20990101T000000-beef")
    run.write("plan", {"window": store.texts(RANGE), "fingerprint": Rules().fingerprint})
    run.write("journal", {"status": "computing", "window": store.texts(RANGE), "changed_at": START.isoformat()})
    try:
        app = page()
        assert "is being computed, or was cut short" in app.info[0].value
        assert len(table(app, "state", "rows_that_change")) == 2
    finally:
        store.discard(lake, run.plan_id)


def test_a_plan_that_changes_nothing_says_so(served, page):
    _, lake, _, _ = served
    found = plan(lake, Window(START, START + HOUR), Rules())
    try:
        said = words(page(plan=found["plan"]))
        assert "No rate changes." in said and "No row changes." in said and "No row is removed." in said
    finally:
        store.discard(lake, found["plan"])


def test_without_a_plan_the_page_says_how_to_make_one(page, tmp_path):
    assert "glasshouse backfill plan" in page(where=tmp_path).info[0].value


@browser.NEEDED
def test_the_page_draws_and_fits_light_dark_and_on_a_phone(served):
    home, _, url, found = served
    with streamlit(url, {**os.environ, "GLASSHOUSE_HOME": str(home)}) as site:
        for size, (width, height, dark) in SIZES.items():
            with browser.chromium(width, height, dark) as driver:
                driver.get(f"{site}/backfills?plan={found['plan']}")
                until(lambda: "Plans that are kept" in main_text(driver), "the page does not end")
                browser.settled(driver, 6)
                browser.picture(driver, f"backfills_{size}")
                assert "Traceback" not in main_text(driver)
                assert driver.execute_script("return document.documentElement.scrollWidth") <= width
                assert f"plan={found['plan']}" in driver.current_url
                assert not [line["message"] for line in driver.get_log("browser") if "Uncaught" in line["message"]]
