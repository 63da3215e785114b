"""What an address, a channel's name or a clock may hold, on the boards: the right number, or words; never an exception or a silent 0.

Here: pages by AppTest on a real endpoint. Not here: the same in a browser (tests/integration/test_pages_browser.py), who may ask
(test_web_doors.py).
"""

import datetime as dt
import io
import zoneinfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from assets.lake import Lake
from assets.metrics import endpoint, loader, schema
from assets.metrics.client import connect
from assets.orders.tables import ORDER_ATTRIBUTIONS
from tests import metrics_lake, pages
from tests.integration.test_pages_apptest import frame, tiles
from tests.integration.test_pages_boards import table, words
from tests.pages import VIEWS

pytestmark = pytest.mark.slow
START = dt.datetime(2026, 10, 24, 20, tzinfo=dt.UTC)  # five hours before Berlin's clocks are set back
CHANNELS = np.array(["home,feed", "toString", "__proto__", "back\\slash, = b"], dtype=object)
GREAT, SMALL = 2**63 - 1, -(2**63)
ALL_YEARS = [
    ("0001-01-01T00:00", "9999-12-31T23:59", "America/New_York"), ("0001-01-01T00:00", "9999-12-31T23:59", "Pacific/Kiritimati"),
    ("1900-01-01T00:00", "2106-02-07T06:28", "UTC"), ("1969-12-31T23:00", "2106-02-08T00:00", "Asia/Kolkata"),
    ("0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00", "UTC"), ("2026-10-01T00:00", "2299-12-31T00:00", "Pacific/Niue"),
]  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    window = metrics_lake.window(12, START)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_lake, "CHANNELS", CHANNELS)
        made = metrics_lake.tables(12, 3000, start=START)
    for one, rows in made.items():
        lake.replace_window(one, _with_ids(rows), window)
    at = START + dt.timedelta(hours=2, minutes=20)
    lake.replace_window(ORDER_ATTRIBUTIONS, _with_ids(metrics_lake.orders(at)), window)
    users = [0, 1, 2]
    lake.replace_window(schema.SPAM_ACCOUNTS, metrics_lake.flagged(users, window.hours), window)
    with endpoint.started(tmp_path_factory.mktemp("clickhouse")) as url:
        for part in (schema.FEED, schema.ORDERS, schema.SPAM):
            loader.load_window(lake, connect(url), window, part=part)
        yield lake, url


def _with_ids(rows: pa.Table) -> pa.Table:
    """Two notes get the greatest and the smallest id there is."""
    if "note_id" not in rows.schema.names:
        return rows
    place = rows.schema.get_field_index("note_id")
    ids = [{100: GREAT, 101: SMALL}.get(one, one) for one in rows["note_id"].to_pylist()]
    return rows.set_column(place, rows.schema.field(place), pa.array(ids, pa.int64()))


@pytest.fixture
def page(monkeypatch, served, tmp_path):
    lake, url = served

    def run(view, **query):
        monkeypatch.setenv("GLASSHOUSE_LAKE", str(lake.root))
        monkeypatch.setenv("GLASSHOUSE_HOME", str(tmp_path))
        monkeypatch.setenv("CLICKHOUSE_URL", url)
        app = pages.run(VIEWS / f"{view}.py", query)
        assert not app.error, [one.value for one in app.error]
        return app

    return run


def own(start, end, **more):
    return {"range": "own", "from": start, "to": end, "compare": "none", **more}


# --- years ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end", "zone"), ALL_YEARS)
def test_a_range_over_all_years_holds_every_event(served, page, start, end, zone):
    lake, _ = served
    app = page("overview", **own(start, end, zone=zone))
    shown = frame(lake, "impression_sessions")
    assert tiles(app)["Displays"] == f"{len(shown):,}"
    assert tiles(app)["Events"] == f"{frame(lake, 'events').height:,}" and tiles(app)["Clicks"] == f"{shown['clicked'].sum():,}"
    assert tiles(app)["Active users"] == f"{frame(lake, 'events')['user_id'].n_unique():,}"


@pytest.mark.parametrize("view", ["overview", "funnel", "attribution", "revenue", "spam", "quality"])
def test_every_page_over_all_years_shows_what_it_shows_over_all_there_is(page, view):
    whole = page(view, range="all", compare="none")
    app = page(view, **own("0001-01-01T00:00", "9999-12-31T23:59"))
    assert tiles(app) == tiles(whole) and tiles(whole)
    assert "Events lie in the years 2000 to 2099" in words(app)
    for one, other in zip(app.dataframe, whole.dataframe, strict=True):
        pd.testing.assert_frame_equal(one.value.drop(columns="link", errors="ignore"), other.value.drop(columns="link", errors="ignore"))
    if view == "attribution":
        of_note = page(view, **own("0001-01-01T00:00", "9999-12-31T23:59"), note=str(GREAT))
        assert tiles(of_note) == tiles(page(view, range="all", compare="none", note=str(GREAT)))


@pytest.mark.parametrize(("start", "end"), [("0001-01-01T00:00", "1950-01-01T00:00"), ("2150-01-01T00:00", "9999-12-31T23:59")])
def test_years_without_any_event_are_said(page, start, end):
    app = page("overview", **own(start, end))
    assert "Events lie in the years 2000 to 2099" in words(app) and "ends after it starts" in words(app)


def test_what_is_no_time_is_said(page):
    said = words(page("overview", **own("yesterday", "2026-10-26T25:00")))
    assert "yesterday is no time" in said and "25:00 is no time" in said.replace("\u2060", "").replace("\\", "")


def test_what_is_no_time_is_the_default_and_a_time_is_its_minute():
    from dashboards import data
    from dashboards import frame as around

    for text in ("", "x", "2026-13-01T00:00", "now", "1e9", "10000-01-01T00:00", "-0001-01-01", "2026-10-25T24:01", "\x00"):
        assert around._parsed(text, START) == START, text
    for text in ("2026-10-25T00:30:59.999999Z", "2026-10-25T02:30 02:00", "2026-10-25T02:30:10+02:00", "2026-10-25 00:30", "20261025T0030"):
        assert around._parsed(text, START) == dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC), text
    assert [around._parsed(text, START) for text in ("0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00")] == list(data.ALL_TIME)


def test_steps_of_a_range_of_years_are_those_of_its_events_and_strays_make_them_few(served, page):
    page("overview")
    from dashboards import data
    from dashboards import frame as around

    years = data.Choice(dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    assert years.step == 364 * 86400
    held = (START, START + dt.timedelta(hours=12))
    assert data.Choice(years.start, years.end, held=held).step == 300
    assert data.Choice(years.start, years.end, held=(years.start, held[1])).step == 28 * 86400
    assert data.Choice(years.start, years.start + dt.timedelta(days=1), held=held).step == 900, "no event in it"
    rows = pd.DataFrame({"time": pd.to_datetime(["2000-01-01", "2026-01-01"], utc=True), "n": [1, 2]})
    assert around.every_step(rows, 60, ("n",)) is rows, "13 million minutes are not drawn"


# --- clocks and zones -------------------------------------------------------------------------------------------------


def displays(lake, start, end):
    shown = frame(lake, "impression_sessions", *(dt.datetime.fromisoformat(f"{one}Z") for one in (start, end)))
    return f"{len(shown):,}"


def test_the_hour_that_a_zones_clock_shows_twice_is_a_range(served, page):
    lake, _ = served
    app = page("overview", **own("2026-10-25T00:30", "2026-10-25T01:30", zone="Europe/Berlin"))
    assert tiles(app)["Displays"] == displays(lake, "2026-10-25T00:30", "2026-10-25T01:30") != "0"
    said = words(app)
    assert "2026-10-25 02:30 (UTC+02:00) – 2026-10-25 02:30 (UTC+01:00) Europe/Berlin" in said
    assert "clocks are set back at 2026-10-25 03:00" in said
    assert app.query_params["from"] in ("2026-10-25T00:30", ["2026-10-25T00:30"])
    assert app.query_params["to"] in ("2026-10-25T01:30", ["2026-10-25T01:30"])
    app = page("overview", **own("2026-10-25T00:45", "2026-10-25T01:15", zone="Europe/Berlin"))  # 02:45 to 02:15
    assert tiles(app)["Displays"] == displays(lake, "2026-10-25T00:45", "2026-10-25T01:15") != "0"


def test_a_time_typed_into_the_hour_that_comes_twice_is_the_first_that_can_be(served, page):
    lake, _ = served
    app = page("overview", **own("2026-10-24T23:00", "2026-10-25T03:00", zone="Europe/Berlin"))
    typed = next(one for one in app.get("date_time_input") if one.label.startswith("To")) if app.get("date_time_input") else None
    assert typed is not None
    typed.set_value(dt.datetime(2026, 10, 25, 2, 30))
    app.run()
    assert not app.exception
    assert tiles(app)["Displays"] == displays(lake, "2026-10-24T23:00", "2026-10-25T00:30")


def test_what_a_clock_means_where_it_jumps():
    from dashboards import frame as around

    def meant(text, before, after=None):
        times = [one and dt.datetime.fromisoformat(f"{one}Z") for one in (before, after)]
        return around._moment(dt.datetime.fromisoformat(text), times[0], "Europe/Berlin", times[1]).isoformat()[:16]

    assert meant("2026-10-25T02:30", "2026-10-25T01:30") == "2026-10-25T01:30", "left as it was"
    assert meant("2026-10-25T02:30", "2026-10-25T05:00") == "2026-10-25T00:30", "the first"
    assert meant("2026-10-25T02:30", "2026-10-25T05:00", "2026-10-25T00:30") == "2026-10-25T01:30", "the second"
    assert meant("2026-03-29T02:30", "2026-03-29T05:00") == "2026-03-29T01:30", "a time that no clock showed"


@pytest.mark.parametrize(("view", "zone", "taken"), [
    ("overview", "Japan", "Japan"), ("overview", "EST", "EST"), ("funnel", "Etc/GMT+5", "Etc/GMT+5"), ("attribution", "europe/berlin", "Europe/Berlin"),
    ("quality", "utc", "UTC"), ("revenue", "CET", "CET"), ("health", "Japan", "Japan"), ("overview", "Factory", None), ("models", "localtime", None),
])  # fmt: skip
def test_a_zone_without_a_slash_or_in_other_letters_is_taken_and_what_is_none_is_said(page, view, zone, taken):
    app = page(view, **own("2026-10-24T21:00", "2026-10-25T03:00", zone=zone))
    assert app.selectbox[0].value == (taken or "UTC") and (f"No time zone is called {zone}" in words(app)) == (taken is None)
    assert view in ("health", "models") or f"{taken or 'UTC'}" in words(app)


def test_summers_after_2037_are_told_as_clickhouse_tells_them():
    from dashboards import data

    rows = data.in_zone(pd.DataFrame({"time": pd.to_datetime(["2040-07-01T12:00", "2099-12-31T12:00"], utc=True)}), "Europe/Berlin")
    assert [f"{one:%H:%M}" for one in rows["time"]] == ["14:00", "13:00"] and str(rows["time"].dt.tz) == "Europe/Berlin"


def test_every_zone_to_choose_is_one_that_clickhouse_knows_and_agrees_on(served):
    from dashboards import data

    client = connect(served[1])
    moments = [dt.datetime(year, month, 15, 11, 30, tzinfo=dt.UTC) for year in (2001, 2010, 2016, 2026) for month in (1, 7)]
    stamps = [int(one.timestamp()) for one in moments]
    for zone in sorted(data._known_zones()):
        text = "SELECT arrayMap(one -> toString(toDateTime(one, 'UTC'), {zone:String}), {stamps:Array(UInt32)})"
        found = client.query(text, parameters={"zone": zone, "stamps": stamps}).result_rows[0][0]
        there = zoneinfo.ZoneInfo(zone)
        assert list(found) == [f"{one.astimezone(there):%Y-%m-%d %H:%M:%S}" for one in moments], zone
        shown = data.in_zone(pd.DataFrame({"time": pd.to_datetime(moments, utc=True)}), zone)["time"]
        assert list(found) == [f"{one:%Y-%m-%d %H:%M:%S}" for one in shown], zone


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "name"), [*(("overview", name) for name in CHANNELS), ("funnel", CHANNELS[0]), ("attribution", CHANNELS[3])])
def test_a_channel_of_any_name_counts_and_its_link_opens_the_same(served, page, name, view):
    lake, _ = served
    wanted = f"{len(frame(lake, 'impression_sessions').filter(pl.col('channel') == name)):,}"
    app = page(view, range="all", compare="none")
    app.multiselect[0].set_value([name]).run()
    assert not app.exception and tiles(app)["Displays"] == wanted != "0"
    copied = app.query_params["channel"]
    copied = copied if isinstance(copied, str) else copied[0]
    assert tiles(page(view, range="all", compare="none", channel=copied))["Displays"] == wanted
    assert tiles(page(view, range="all", compare="none", channel=name))["Displays"] == wanted, "as it is, by hand"


def test_several_channels_in_a_link(served, page):
    lake, _ = served
    wanted = len(frame(lake, "impression_sessions").filter(pl.col("channel").is_in(["home,feed", "toString"])))
    for text in ("home\\,feed,toString", "home,feed,toString", "toString,home,feed", "toString,toString,home,feed,"):
        app = page("overview", range="all", channel=text)
        assert tiles(app)["Displays"] == f"{wanted:,}" and app.multiselect[0].value.count("toString") == 1
    assert "toString, “home,feed”" in words(app)


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a,b", "c"], ["a\\", "b"], ["a\\,b", ","], ["\\"], ["\\e", "e"], ["", "a"], [""], [" lead", "\n"], ["ä&=#+%"]])
def test_names_come_back_from_an_address(names):
    from dashboards import frame as around

    assert around.parted(around.joined(names)) == names


@pytest.mark.parametrize(
    ("text", "says"),
    [(str(2**64), "64 bits"), (str(-(2**63) - 1), "64 bits"), ("9" * 6000, "64 bits"), ("1_000", "whole number"), ("１２", "whole number"),
     ("1e3", "whole number"), ("5000", "not displayed")],
)  # fmt: skip
def test_a_note_that_cannot_be_is_said(page, text, says):
    assert says in words(page("attribution", range="all", note=text))


@pytest.mark.parametrize("note", [GREAT, SMALL])
def test_the_greatest_ids_are_found_shown_and_downloaded_to_the_last_digit(served, page, note):
    lake, _ = served
    shown = frame(lake, "impression_sessions").filter(pl.col("note_id") == note)
    assert tiles(page("attribution", range="all", note=str(note)))["Displays"] == f"{len(shown):,}" != "0"
    rows = table(page("revenue", range="all"), "note_id", "net")
    assert set(rows["note_id"]) == {str(GREAT), str(SMALL)}, "as text: a browser's numbers end at 2^53"
    from dashboards import frame as around

    back = pd.read_csv(io.StringIO(around.csv(pd.DataFrame({"note_id": [note, 1], "link": ["x", "y"]}))))
    assert list(back["note_id"]) == [note, 1]


@pytest.mark.parametrize("value", ["__proto__", "\x00💥 '; DROP TABLE events -- <script>alert(1)</script>"])
def test_odd_values_of_every_parameter(page, value):
    for view in ("overview", "attribution", "backfills", "models", "health"):
        page(view, **dict.fromkeys(("range", "compare", "spam", "zone", "device", "position", "plan", "version"), value))
    for name in ("note", "user"):
        page("attribution", **{name: value})
