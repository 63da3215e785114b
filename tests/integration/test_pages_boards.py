"""The boards beyond overview and funnel, on a real endpoint without a browser: numbers against Delta, ids, zones, words."""

import datetime as dt
import json
import re

import pandas as pd
import polars as pl
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from assets.followers import FOLDER
from assets.lake import Lake
from assets.metrics import endpoint, loader, ranges, schema
from assets.metrics.client import connect
from assets.metrics.verify import verify_window
from assets.orders.tables import ORDER_ATTRIBUTIONS
from tests import metrics_lake, pages
from tests.integration.test_pages_apptest import frame, tiles
from tests.pages import VIEWS

pytestmark = pytest.mark.slow
KEY = "a key of sixteen characters at least"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    window = metrics_lake.fill(lake, hours=50, displays=6000)
    with endpoint.started(tmp_path_factory.mktemp("clickhouse")) as url:
        loader.load_window(lake, connect(url), window)
        yield lake, url


@pytest.fixture
def page(monkeypatch, served, tmp_path):
    lake, url = served

    def run(view, **query):
        for name, value in {"LAKE": str(lake.root), "HOME": str(tmp_path), "USER_KEY": KEY}.items():
            monkeypatch.setenv(f"GLASSHOUSE_{name}", value)
        monkeypatch.setenv("CLICKHOUSE_URL", url)
        return pages.run(VIEWS / f"{view}.py", query)

    return run


def words(app):
    kinds = (app.caption, app.markdown, app.info, app.warning, app.subheader)
    return " ".join(element.value for kind in kinds for element in kind)


def table(app, *columns):
    return next(found.value for found in app.dataframe if set(columns) <= set(found.value.columns))


def code_of(url, user_id):
    from dashboards import data

    text = "SELECT substring(lower(hex(SHA256(concat({k:String}, ':', toString({u:Int64}))))), 1, 12)"
    found = connect(url).query(text, parameters={"k": KEY, "u": user_id}).result_rows[0][0]
    assert data.USER_CODE.fullmatch(found)
    return found


def test_device_and_position_filters_count_as_delta_does(served, page):
    lake, _ = served
    app = page("overview", range="all", device="ios", position="1-2,3-5", compare="none")
    wanted = pl.col("context").str.contains('"ios"') & pl.col("position").is_between(1, 5)
    shown = frame(lake, "impression_sessions").filter(wanted)
    users = frame(lake, "events").filter(wanted)["user_id"].n_unique()
    assert tiles(app)["Displays"] == f"{len(shown):,}" and tiles(app)["Active users"] == f"{users:,}"
    app = page("attribution", range="all", device="ios", position="1-2,3-5")
    assert tiles(app)["Displays"] == f"{len(shown):,}" and tiles(app)["Clicks"] == f"{shown['clicked'].sum():,}"
    assert "ios" in words(app) and "positions 1-2, 3-5" in words(app)


def test_a_zone_moves_days_hours_and_words(served, page):
    lake, _ = served
    asked = {"range": "own", "from": "2026-03-01T00:00", "to": "2026-03-02T00:00"}
    app = page("overview", zone="Asia/Kolkata", **asked)
    assert "2026-03-01 05:30 – 2026-03-02 05:30 Asia/Kolkata" in words(app)
    from dashboards import data

    choice = data.Choice(metrics_lake.START, metrics_lake.START + dt.timedelta(days=2), zone="Asia/Kolkata")
    local = pl.col("event_time").dt.convert_time_zone("Asia/Kolkata").dt.date().alias("day")
    until = frame(lake, "events").filter(pl.col("event_time") < choice.end)
    days = until.group_by(local).agg(pl.col("user_id").n_unique()).sort("day")
    found = data.ask("daily_users", choice)
    assert list(found["users"]) == days["user_id"].to_list()
    assert str(data.ask("displays_over_time", choice, step=3600)["time"].dt.tz) == "Asia/Kolkata"
    assert "No time zone is called Mars/Base" in words(page("overview", zone="Mars/Base", **asked))


def test_comparison_shows_the_change_and_says_where_there_is_nothing_to_compare(served, page):
    lake, _ = served
    asked = {"range": "own", "from": "2026-03-01T12:00", "to": "2026-03-01T18:00"}
    app = page("overview", compare="before", **asked)
    start = metrics_lake.START + dt.timedelta(hours=12)
    now = len(frame(lake, "impression_sessions", start, start + dt.timedelta(hours=6)))
    before = len(frame(lake, "impression_sessions", start - dt.timedelta(hours=6), start))
    shown = {metric.label: metric.delta for metric in app.metric}
    assert shown["Displays"] == f"{now / before - 1:+.1%}"
    app = page("overview", compare="week", **asked)
    assert "nothing to compare with: the data begins at" in words(app) and not any(m.delta for m in app.metric)


def test_a_note_in_the_address_opens_its_funnel(served, page):
    lake, _ = served
    shown = frame(lake, "impression_sessions")
    note_id = shown["note_id"].mode()[0]
    app = page("attribution", range="all", note=str(note_id))
    of_note = shown.filter(pl.col("note_id") == note_id)
    assert tiles(app)["Displays"] == f"{len(of_note):,}"
    assert tiles(app)["Audience"] == f"{of_note['user_id'].n_unique():,}"
    assert "whole number" in words(page("attribution", note="x")) and "not displayed" in words(page("attribution", note="-3"))


def test_a_user_is_found_by_the_code_alone_and_shown_newest_first(served, page, monkeypatch):
    lake, url = served
    events = frame(lake, "events")
    user_id = events["user_id"].mode()[0]
    listed = table(page("attribution", range="all"), "user", "events")
    assert code_of(url, user_id) in set(listed["user"]) and "user_id" not in listed
    app = page("attribution", range="all", user=code_of(url, user_id))
    rows = table(app, "time_of_event", "action")
    mine = events.filter(pl.col("user_id") == user_id).sort("event_time", descending=True)
    assert len(rows) == min(500, len(mine))
    assert rows["time_of_event"].iloc[0].to_pydatetime() == mine["event_time"][0].replace(tzinfo=None)
    assert not re.search(rf"\b{user_id}\b", words(app))
    assert "No user" in words(page("attribution", range="all", user="0" * 12))
    assert "twelve hexadecimal digits" in words(page("attribution", user="'; DROP TABLE events"))
    monkeypatch.setenv("GLASSHOUSE_SHOW_USER_IDS", "1")
    assert str(user_id) in set(table(page("attribution", range="all"), "user", "events")["user_id"])


def test_quality_counts_reasons_and_hides_digits(served, page, monkeypatch):
    lake, _ = served
    app = page("quality", range="all")
    unattributed = frame(lake, "click_sessions").filter(~pl.col("attributed"))
    assert tiles(app) == {
        "Late events": "25", "Orphan actions": "60", "Clicks without display": f"{len(unattributed):,}",
        "Quarantined rows": "15",
    }  # fmt: skip
    reasons = frame(lake, "quarantine")["reason"].value_counts()
    found = table(app, "reason", "rows")
    assert dict(zip(found["reason"], found["rows"], strict=True)) == dict(reasons.iter_rows())
    assert not any(re.search(r"\d", text) for text in table(app, "received")["received"])
    assert "book of labeled hours has none" in words(app)


def test_models_and_health_say_what_is_missing(page):
    assert "There is no model yet" in words(page("models"))
    app = page("health")
    assert "No live labeler has run" in words(app)
    held = table(app, "table", "rows").set_index("table")
    assert (held.loc[["events", "feed_totals", "user_totals"], "rows"] > 0).all() and not held["replaced_rows"].any()


def test_revenue_and_spam_without_and_with_their_tables(served, page):
    lake, url = served
    assert "no orders in ClickHouse yet" in words(page("revenue", range="all"))
    assert "No accounts have been looked at yet" in words(page("spam", range="all"))
    client, at = connect(url), dt.datetime(2026, 3, 1, 10, 20, tzinfo=dt.UTC)
    users = frame(lake, "events")["user_id"].unique().sort().to_list()[:3]
    window = metrics_lake.window(50)
    lake.replace_window(ORDER_ATTRIBUTIONS, metrics_lake.orders(at), window)
    hours = [hour for hour in window.hours if hour >= at - dt.timedelta(hours=1)]
    lake.replace_window(schema.SPAM_ACCOUNTS, metrics_lake.flagged(users, hours), window)
    for part in (schema.ORDERS, schema.SPAM):
        loader.load_window(lake, client, window, part=part)
        assert verify_window(lake, client, window, part) == []
    try:
        app = page("revenue", range="all", compare="none")
        assert tiles(app) == {"Net": "76.00", "Gross": "80.00", "Refunds": "4.00", "Orders": "8", "Attributed": "75.00%"}
        notes = table(app, "note_id", "net").set_index("note_id")["net"]
        assert dict(notes) == {100: 26.0, 101: 30.0}
        app = page("spam", range="all", compare="none")
        events = frame(lake, "events")
        theirs = events["user_id"].is_in(users).mean()
        assert tiles(app)["Flagged accounts"] == "3" and tiles(app)["of events"] == f"{theirs:.2%}"
        found = table(app, "user", "score")
        assert set(found["user"]) == {code_of(url, user) for user in users} and set(found["reasons"]) == {"device, rate"}
        app = page("overview", range="all", compare="none", spam="without")
        out = pl.col("user_id").is_in(users) & pl.col("hour").is_in(hours)
        shown = frame(lake, "impression_sessions").filter(~out)
        kept = events.filter(~out)
        assert tiles(app)["Events"] == f"{len(kept):,}" and tiles(app)["Displays"] == f"{len(shown):,}"
        assert tiles(app)["Active users"] == f"{kept['user_id'].n_unique():,}"
        assert len(kept) < len(events)
    finally:
        client.command("ALTER TABLE loads DELETE WHERE part != 'feed' SETTINGS mutations_sync = 2")


def test_every_board_query_has_a_twin_without_spam_that_agrees_where_nobody_is_flagged(served, page):
    lake, url = served
    page("overview")
    from dashboards import data

    start, end = metrics_lake.START + dt.timedelta(hours=3, minutes=7), metrics_lake.START + dt.timedelta(hours=31)
    choice = data.Choice(start, end, channels=("homefeed", "none"), devices=("ios",), zone="Asia/Kolkata")
    twins = sorted(path.stem for path in data.QUERIES.glob(f"*{data.WITHOUT_SPAM}.sql"))
    assert len(twins) > 9
    for twin in twins:
        more = {"long_view_ms": 10_000, "step": 3600, "lengths": [10.0, 60.0, 1200.0]}
        one, other = (data.fresh(name, **choice.parameters(**more)) for name in (twin.removesuffix(data.WITHOUT_SPAM), twin))
        if twin.startswith("time_to_click_summary"):  # whole seconds, rounded up, beside exact ones
            assert abs(one["median_s"][0] - other["median_s"][0]) <= 1.5
        else:
            pd.testing.assert_frame_equal(one, other, check_dtype=False)


def test_numbers_stay_as_last_known_while_clickhouse_is_away(tmp_path, monkeypatch, served):
    lake, _ = served
    monkeypatch.setenv("GLASSHOUSE_HOME", str(tmp_path))
    st.cache_resource.clear()
    st.cache_data.clear()
    from dashboards import data

    window = metrics_lake.window(50)
    with endpoint.started(tmp_path / "clickhouse") as url:
        loader.load_window(lake, connect(url), window)
        monkeypatch.setenv("CLICKHOUSE_URL", url)
        app = AppTest.from_file(str(VIEWS / "overview.py"), default_timeout=60)
        app.query_params["range"] = "all"
        app.run()
        before = tiles(app)
    data.forget()
    app.run()
    assert not app.exception and tiles(app) == before and "these are the last known numbers" in words(app)


def test_limits_reach_clickhouse_and_are_said_in_words(served, page, monkeypatch):
    from dashboards import data

    monkeypatch.setitem(data.LIMITS, "max_rows_to_read", "10")
    app = page("overview", range="all")
    assert "more than a page may ask" in words(app)
    monkeypatch.setitem(data.LIMITS, "max_rows_to_read", "2000000000")
    page("overview", range="all")
    client = data._client(data._settings().pages_clickhouse)
    with pytest.raises(Exception, match="readonly|READONLY|read-only"):
        client.command("CREATE TABLE t (x Int8) ENGINE = Memory")
    asked = connect(served[1], read_only=True).query("SELECT getSetting('readonly')").result_rows
    assert asked == [(2,)]
    values = {name: client.query(f"SELECT toString(getSetting('{name}'))").result_rows[0][0] for name in data.LIMITS}
    assert values == data.LIMITS


def test_nobody_is_asked_to_log_in_unless_the_secrets_say_so(served, monkeypatch):
    monkeypatch.setenv("CLICKHOUSE_URL", served[1])
    app = AppTest.from_file(str(VIEWS.parent / "app.py"), default_timeout=60).run()
    assert app.metric
    app = AppTest.from_file(str(VIEWS.parent / "app.py"), default_timeout=60)
    app.secrets["auth"] = {"client_id": "x"}
    app.run()
    assert not app.metric and (app.error or app.button)


def test_twenty_viewers_at_once_get_the_same_numbers(served):
    """What twenty open overviews and funnels ask, all at one time, through one client as Streamlit's threads share it."""
    from concurrent.futures import ThreadPoolExecutor

    _, url = served
    from dashboards import data

    client = connect(url, read_only=True)
    start, end = metrics_lake.START, metrics_lake.START + dt.timedelta(hours=49, minutes=30)
    asked = ranges.bound(data.Choice(start, end).parameters(step=900, long_view_ms=10_000))
    names = ("totals", "active_users", "actions_over_time", "daily_users", "displays_over_time", "funnel_by_hour", "time_to_click")

    def view(_):
        return [client.query(data.sql(name), parameters=asked).result_rows for name in names]

    alone = view(0)
    with ThreadPoolExecutor(20) as viewers:
        for seen in viewers.map(view, range(20)):
            assert seen == alone


def test_health_names_who_has_not_heard_of_the_newest_commits(served, page):
    lake, _ = served
    for _ in range(30):
        lake.publish("somebody", [])
    cursor = lake.log.root / FOLDER / "dagster.json"
    cursor.parent.mkdir(exist_ok=True)
    newest = lake.log.newest().number
    for moment, far in ((newest, False), (newest - 30, True)):
        cursor.write_text(json.dumps({"moment": moment}))
        assert ("dagster: far behind" in words(page("health"))) == far
    cursor.unlink()
