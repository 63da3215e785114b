"""The pages on a real endpoint, without a browser: their numbers against Delta, their words when something is away."""

import datetime as dt
import subprocess
import sys

import polars as pl
import pyarrow as pa
import pytest

from assets.events.contract import EVENTS
from assets.lake import Lake
from assets.metrics import endpoint, loader, loads, schema
from assets.metrics.client import connect
from tests import metrics_lake, pages
from tests.pages import DASHBOARDS, VIEWS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    window = metrics_lake.fill(lake, hours=50, displays=6000)
    with endpoint.started(tmp_path_factory.mktemp("clickhouse")) as url:
        loader.load_window(lake, connect(url), window)
        yield lake, url


@pytest.fixture
def page(monkeypatch):
    def run(file, url, **query):
        monkeypatch.setenv("CLICKHOUSE_URL", url)
        return pages.run(file, query)

    return run


def tiles(app):
    return {metric.label: metric.value for metric in app.metric}


def frame(lake, name, start=None, end=None, column="session_start"):
    rows = pl.from_arrow(lake.read(name))
    return rows if start is None else rows.filter(pl.col(column).is_between(start, end, closed="left"))


def data_end(events):
    """Where the range `all` ends: after the newest event, on a full minute."""
    return events["event_time"].max().replace(second=0, microsecond=0) + dt.timedelta(minutes=1)


def busy_until(events):
    hours = events.group_by("hour").len()
    busy = hours.filter(pl.col("len") * 50 >= pl.col("len").max()).sort("hour").row(-1)
    minutes = events.filter(pl.col("hour").is_between(busy[0], busy[0] + dt.timedelta(hours=1)))
    minutes = minutes.group_by(pl.col("event_time").dt.truncate("1m").alias("minute")).len()
    return minutes.filter(pl.col("len") * 600 >= busy[1])["minute"].max() + dt.timedelta(minutes=1)


def test_stragglers_after_the_traffic_do_not_move_the_ranges(served, page):
    lake, url = served
    app = page(VIEWS / "overview.py", url)
    end = f"{busy_until(frame(lake, 'events')):%Y-%m-%d %H:%M} UTC"
    straggler = lake.read("events").slice(0, 1)
    late = metrics_lake.START + dt.timedelta(days=4)
    at = {"hour": late, "event_time": late + dt.timedelta(minutes=3)}
    for name, value in at.items():
        column = straggler.schema.get_field_index(name)
        field = straggler.schema.field(name)
        straggler = straggler.set_column(column, field, pa.array([value], field.type))
    client, load = connect(url), loads.fresh_number()
    loader._insert(client, EVENTS, straggler, load, {})
    loads.publish(client, [late], load, loads.NO_MOMENT, "straggler")
    try:
        assert any(end in words.value for words in page(VIEWS / "overview.py", url).caption)
    finally:
        loads.drop(client, schema.fed_by("events"), [late], load)
    assert any(end in words.value for words in app.caption)


def test_the_overviews_numbers_are_deltas(served, page):
    lake, url = served
    app = page(DASHBOARDS / "app.py", url, range="all")
    events, shown = frame(lake, "events"), frame(lake, "impression_sessions")
    clicks = shown["clicked"].sum()
    def users(days):
        end = data_end(events)
        return f"{events.filter(pl.col('event_time').is_between(end - dt.timedelta(days=days), end, closed='left'))['user_id'].n_unique():,}"

    assert tiles(app) == {
        "Users, last day": users(1), "Users, last 7 days": users(7), "Users, last 30 days": users(30),
        "Active users": f"{events['user_id'].n_unique():,}", "Displays": f"{len(shown):,}", "Clicks": f"{clicks:,}",
        "CTR": f"{clicks / len(shown):.2%}", "Events": f"{len(events):,}",
    }  # fmt: skip


def test_the_default_is_the_last_day_of_the_data(served, page):
    lake, url = served
    app = page(VIEWS / "overview.py", url)
    newest = frame(lake, "events")["event_time"].max()
    end = busy_until(frame(lake, "events"))
    shown = frame(lake, "impression_sessions", end - dt.timedelta(hours=24), end)
    events = frame(lake, "events", end - dt.timedelta(hours=24), end, "event_time")
    assert tiles(app)["Displays"] == f"{len(shown):,}"
    assert tiles(app)["Active users"] == f"{events['user_id'].n_unique():,}"
    assert f"data until {newest:%Y-%m-%d %H:%M:%S} UTC" in " ".join(words.value for words in app.markdown)


def test_a_channel_in_the_address_counts_everywhere_and_stays(served, page):
    lake, url = served
    app = page(VIEWS / "overview.py", url, range="all", channel="search,none")
    wanted = pl.col("channel").fill_null("none").is_in(["search", "none"])
    shown = frame(lake, "impression_sessions").filter(wanted)
    assert tiles(app)["Displays"] == f"{len(shown):,}"
    assert tiles(app)["Active users"] == f"{frame(lake, 'events').filter(wanted)['user_id'].n_unique():,}"
    app.multiselect[0].set_value(["search"]).run()
    assert app.query_params["channel"] in ("search", ["search"])
    assert tiles(app)["Displays"] == f"{len(shown.filter(pl.col('channel') == 'search')):,}"


def test_the_funnels_numbers_are_deltas(served, page):
    lake, url = served
    app = page(VIEWS / "funnel.py", url, range="all")
    shown = frame(lake, "impression_sessions")
    clicks = frame(lake, "click_sessions").filter(pl.col("attributed"))
    clicked = shown["clicked"].sum()
    assert tiles(app)["Clicks"] == f"{clicked:,}"
    assert tiles(app)["Likes / click"] == f"{clicks['like'].sum() / clicked:.2%}"
    assert tiles(app)["Long views / click"] == f"{(clicks['dwell_ms'] >= 10_000).sum() / clicked:.2%}"
    outside = app.dataframe[0].value.groupby("kind")["rows"].sum().to_dict()
    assert outside == {
        "orphan action": lake.read("orphan_actions").num_rows, "late event": lake.read("late_events").num_rows,
        "quarantined row": lake.read("quarantine").num_rows,
        "click without display": len(frame(lake, "click_sessions").filter(~pl.col("attributed"))),
    }  # fmt: skip


def band():
    position, found = pl.col("position"), pl.when(pl.lit(False)).then(pl.lit(""))
    for label, below in (("0", 1), ("1-2", 3), ("3-5", 6), ("6-9", 10)):
        found = found.when(position < below).then(pl.lit(label))
    return found.otherwise(pl.lit("10+"))


def test_users_of_days_weeks_and_months_are_exact(served, page):
    lake, url = served
    page(VIEWS / "overview.py", url)
    from dashboards import data

    end = metrics_lake.START + dt.timedelta(hours=49, minutes=33)
    found = data.fresh("active_users", **data.Choice(end - dt.timedelta(hours=1), end).parameters()).iloc[0]
    for name, days in (("dau", 1), ("wau", 7), ("mau", 30)):
        assert found[name] == frame(lake, "events", end - dt.timedelta(days=days), end, "event_time")["user_id"].n_unique()


def test_the_breakdowns_add_up_to_deltas(served, page, monkeypatch):
    """By channel, position and hour: rows in, rows out, against polars on the lake."""
    lake, url = served
    page(VIEWS / "funnel.py", url)  # sets the address and clears the caches
    from dashboards import data

    start, end = metrics_lake.START + dt.timedelta(hours=3, minutes=7), metrics_lake.START + dt.timedelta(hours=30)
    choice = data.Choice(start, end)
    shown = frame(lake, "impression_sessions", start, end)
    clicks = frame(lake, "click_sessions", start, end, "impression_session_start").filter(pl.col("attributed"))
    keys = {
        "funnel_by_channel": ("channel", pl.col("channel").fill_null("none"), pl.col("channel").fill_null("none")),
        "funnel_by_position": ("band", band(), band()),
        "funnel_by_hour": (
            "hour_of_day", pl.col("session_start").dt.hour(), pl.col("impression_session_start").dt.hour(),
        ),
    }  # fmt: skip
    for name, (column, of_display, of_click) in keys.items():
        found = data.fresh(name, **choice.parameters(long_view_ms=10_000))
        displays = shown.group_by(of_display.alias("key")).agg(pl.len(), pl.col("clicked").sum())
        likes = clicks.group_by(of_click.alias("key")).agg(pl.col("like").sum(), pl.col("hide").sum())
        expected = {key: (count, clicked) for key, count, clicked in displays.iter_rows()}
        assert dict(zip(found[column], zip(found["displays"], found["clicks"], strict=True), strict=True)) == expected
        acted = {key: (like, hide) for key, like, hide in likes.iter_rows()}
        got = zip(found[column], found["likes"], found["hides"], strict=True)
        assert {key: (like, hide) for key, like, hide in got if key in acted} == acted


def test_time_to_click_is_binned_and_summed_right(served, page):
    lake, url = served
    page(VIEWS / "funnel.py", url)
    from dashboards import data

    choice = data.Choice(metrics_lake.START, metrics_lake.START + dt.timedelta(hours=50))
    shown = frame(lake, "impression_sessions").filter(pl.col("clicked"))
    seconds = (shown["first_click_time"] - shown["session_start"]).dt.total_milliseconds() / 1000
    found = data.fresh("time_to_click", **choice.parameters())
    within = found["clicks"].cumsum()
    assert [(seconds <= bound).sum() for bound in found["up_to_s"]] == list(within)
    summary = data.fresh("time_to_click_summary", **choice.parameters()).iloc[0]
    assert abs(summary["median_s"] - seconds.ceil().median()) <= 1
    assert abs(summary["p90_s"] - seconds.ceil().quantile(0.9)) <= 1


def test_daily_users_are_exact(served, page):
    lake, url = served
    page(VIEWS / "overview.py", url)
    from dashboards import data

    choice = data.Choice(metrics_lake.START, metrics_lake.START + dt.timedelta(days=3))
    found = data.fresh("daily_users", **choice.parameters())
    day = pl.col("event_time").dt.date().alias("day")
    days = frame(lake, "events").group_by(day).agg(pl.col("user_id").n_unique())
    got = zip([str(day)[:10] for day in found["day"]], found["users"], strict=True)
    assert dict(got) == {str(day): users for day, users in days.iter_rows()}


def test_an_own_range_and_a_backwards_one(served, page):
    lake, url = served
    app = page(VIEWS / "overview.py", url, range="own", **{"from": "2026-03-01T02:00", "to": "2026-03-01T03:30"})
    start = metrics_lake.START + dt.timedelta(hours=2)
    shown = frame(lake, "impression_sessions", start, start + dt.timedelta(minutes=90))
    assert tiles(app)["Displays"] == f"{len(shown):,}"
    app = page(VIEWS / "overview.py", url, range="own", **{"from": "2026-03-02T00:00", "to": "2026-03-01T00:00"})
    assert "ends after it starts" in app.warning[0].value


@pytest.mark.parametrize("view", ["overview", "funnel"])
def test_a_range_without_rows_is_said_in_words(served, page, view):
    _, url = served
    app = page(VIEWS / f"{view}.py", url, range="own", **{"from": "2020-01-01T00:00", "to": "2020-01-01T01:00"})
    assert "Nothing in this range" in " ".join(words.value for words in app.caption)


@pytest.mark.parametrize("view", ["overview", "funnel"])
def test_without_clickhouse_the_page_says_what_to_start(page, view):
    probe = endpoint._listen("127.0.0.1", 0)
    port = probe.getsockname()[1]
    probe.close()
    app = page(VIEWS / f"{view}.py", f"http://127.0.0.1:{port}")
    assert "make up" in app.warning[0].value and not app.metric


def test_without_tables_the_page_says_what_to_run(page, tmp_path):
    with endpoint.started(tmp_path) as url:
        app = page(VIEWS / "overview.py", url)
    assert "make demo" in app.info[0].value


def test_a_page_loads_neither_spark_nor_torch():
    code = (
        "import sys; import dashboards.frame, dashboards.data; "
        "print([name for name in ('pyspark', 'torch', 'torchrec', 'dagster') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=DASHBOARDS.parent)
    assert found.stdout.strip().splitlines()[-1:] == ["[]"], found.stderr
