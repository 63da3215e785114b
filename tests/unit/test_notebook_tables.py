"""The lake as a notebook sees it: any version, any window, without a JVM."""

import datetime as dt
import time

import polars as pl
import pyarrow as pa
import pytest

from assets.lake import HOUR, LakeError, Table, Window, utc_text
from assets.notebook.tables import Tables, bounds, parse_time

THING = Table("thing", pa.schema([HOUR, pa.field("x", pa.int64())]), "a thing")
T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def hour(n):
    return T0 + dt.timedelta(hours=n)


@pytest.fixture
def tables(lake):
    """Version 1: hours 0 and 30. Version 2: hour 30 replaced."""
    rows = pa.table({"hour": [hour(0), hour(30)], "x": [1, 2]}, schema=THING.schema)
    lake.replace_window(THING, rows, Window(hour(0), hour(31)))
    return Tables(lake)


def replace_hour_30(tables, x):
    rows = pa.table({"hour": [hour(30)], "x": [x]}, schema=THING.schema)
    tables.lake.replace_window(THING, rows, Window(hour(30), hour(31)))


def test_a_table_reads_at_any_version_as_a_polars_frame(tables):
    replace_hour_30(tables, 20)
    assert sorted(tables.table("thing")["x"]) == [1, 20]
    assert sorted(tables.table("thing", version=1)["x"]) == [1, 2]
    assert sorted(tables.scan("thing", version=1).filter(pl.col("x") > 1).collect()["x"]) == [2]
    assert tables.table("thing").to_arrow().column("hour").type == pa.timestamp("us", "UTC")


def test_a_moment_names_the_version_that_was_current_then(tables):
    time.sleep(0.01)
    moment = dt.datetime.now(dt.UTC)
    time.sleep(0.01)
    replace_hour_30(tables, 20)
    assert sorted(tables.table("thing", version=moment)["x"]) == [1, 2]
    assert sorted(tables.table("thing", version=moment.isoformat())["x"]) == [1, 2]


def test_history_lists_versions_with_the_rows_they_wrote(tables):
    replace_hour_30(tables, 20)
    history = tables.history("thing")
    assert history["version"].to_list() == [2, 1, 0]
    assert history["rows_written"].to_list()[1:] == [2, None]
    assert history["time"].dtype == pl.Datetime("us", "UTC")


def test_a_window_and_columns_narrow_what_is_read(tables):
    frame = tables.table("thing", window=("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"), columns=["x"])
    assert frame.to_dict(as_series=False) == {"x": [1]}


def test_the_list_of_tables_says_what_each_holds(tables):
    assert tables.tables().row(0, named=True) == {
        "name": "thing", "version": 1, "rows": 2, "first_hour": hour(0), "last_hour": hour(30),
        "description": "a thing",
    }  # fmt: skip


def test_without_bounds_the_window_is_the_newest_day_of_the_table(tables):
    assert tables.window("thing") == ("2026-01-01T07:00:00Z", "2026-01-02T07:00:00Z")
    assert tables.window("thing", hours=1) == ("2026-01-02T06:00:00Z", "2026-01-02T07:00:00Z")
    assert tables.window("thing", "2026-01-01T00:00:00Z") == ("2026-01-01T00:00:00Z", "2026-01-02T07:00:00Z")
    given = ("2026-01-01T02:00:00+02:00", "2026-01-01T02:00:00Z")
    assert tables.window("thing", *given) == ("2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z")


def test_what_is_not_there_is_named_with_what_to_do(tables):
    with pytest.raises(LakeError, match="materialize the asset `nothing`"):
        tables.table("nothing")
    with pytest.raises(LakeError, match="versions 0 to 1, not 7"):
        tables.table("thing", version=7)
    tables.lake.replace_window(THING, THING.empty(), Window(hour(0), hour(31)))
    with pytest.raises(LakeError, match="is empty; give window_start"):
        tables.window("thing")
    with pytest.raises(LakeError, match="cannot list the lake"):
        Tables(type(tables.lake)("s3://bucket/lake")).tables()


def test_times_need_a_zone_and_windows_whole_hours():
    assert parse_time("2026-01-01T01:00:00+01:00") == T0
    assert utc_text(T0) == "2026-01-01T00:00:00Z"
    with pytest.raises(ValueError, match="needs a zone"):
        parse_time("2026-01-01T00:00:00")
    with pytest.raises(ValueError, match="full hour"):
        bounds("2026-01-01T00:30:00Z", "2026-01-01T02:00:00Z")
