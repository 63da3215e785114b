"""Sums of an hour's rows: the same in any order, pieces and place; another as soon as one value is."""

import datetime as dt

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from assets.attribution.label import label
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, ORPHAN_ACTIONS
from assets.backfill import sums
from assets.backfill.files import adds_of
from assets.backfill.sums import Sums, of_files
from assets.events.contract import TYPED_NAMES
from assets.lake import Lake, Write
from tests.unit.labeling import table
from tests.unit.test_label import big_log

TABLES = (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS)


@pytest.fixture(scope="module")
def labels():
    found = label(table(big_log(5, count=1500, keys=40, minutes=150)), Rules())
    return dict(zip((one.name for one in TABLES), (found.impression_sessions, found.click_sessions, found.orphan_actions), strict=True))


def added(name, *parts):
    found = Sums()
    for part in parts:
        found.add(name, part)
    return found


def hours_of(rows):
    return sorted({hour.astimezone(dt.UTC) for hour in rows["hour"].to_pylist()})


def totals(found):
    return {name: sum(one.get(name, 0) for one in found.figures) for name in {key for one in found.figures for key in one} - {"hour", "channel"}}


@pytest.mark.parametrize("one", TABLES, ids=lambda one: one.name)
def test_rows_in_another_order_and_in_pieces_add_up_to_the_same(labels, one):
    rows = labels[one.name]
    shuffled = pl.from_arrow(rows).sample(fraction=1, shuffle=True, seed=1).to_arrow().cast(one.schema)
    whole, pieces = added(one.name, rows), added(one.name, shuffled.slice(0, 7), shuffled.slice(7))
    assert len(hours_of(rows)) > 1
    for hour in hours_of(rows):
        here, there = whole.of(one.name, hour), pieces.of(one.name, hour)
        assert here.same(there)
        assert here.rows == pc.sum(pc.equal(rows["hour"], pa.scalar(hour, rows["hour"].type))).as_py()
        assert totals(here) == totals(there)


@pytest.mark.parametrize("one", TABLES, ids=lambda one: one.name)
def test_files_add_up_to_what_was_written_into_them(tmp_path, labels, one, monkeypatch):
    monkeypatch.setattr(sums, "PIECE_ROWS", 10)
    lake, rows = Lake(str(tmp_path / "lake")), labels[one.name]
    lake.create(one)
    half = rows.num_rows // 2
    for part in (rows.slice(0, half), rows.slice(half)):
        lake.commit([lake.stage(Write(one, part))], by="test")
    written = added(one.name, rows)
    for hour in hours_of(rows):
        adds = [add for add in adds_of(lake, one.name) if add["hour"] == f"{hour:%Y-%m-%d %H:%M:%S}"]
        read = of_files(lake, one.name, hour, adds)
        assert read.same(written.of(one.name, hour))
        assert totals(read) == totals(written.of(one.name, hour))


@pytest.mark.parametrize("one", TABLES, ids=lambda one: one.name)
def test_one_changed_value_of_any_column_shows(labels, one):
    rows = pl.from_arrow(labels[one.name])
    rows = rows.filter(pl.col("hour") == rows["hour"][0])
    hour = rows["hour"][0].astimezone(dt.UTC)
    whole = added(one.name, rows).of(one.name, hour)
    for name in (name for name in rows.columns if name != "hour" and name not in TYPED_NAMES):  # these say what the context says
        other = rows.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(_other(rows, name)).otherwise(pl.col(name)).alias(name))
        assert not other.equals(rows), name
        assert not added(one.name, other).of(one.name, hour).same(whole), name
    assert not added(one.name, rows, rows.head(1)).of(one.name, hour).same(whole)
    assert not added(one.name, rows.slice(1)).of(one.name, hour).same(whole)


def _other(rows, name):
    kind, value = rows.schema[name], rows[name][3]
    if value is None:
        base = pl.Series([0]).cast(kind) if kind != pl.String else pl.Series(["x"])
        return pl.lit(base.first(), kind)
    if kind == pl.Boolean:
        return ~pl.col(name)
    return pl.col(name) + (pl.lit("x") if kind == pl.String else pl.duration(microseconds=1) if kind == pl.Datetime else pl.lit(1, kind))
