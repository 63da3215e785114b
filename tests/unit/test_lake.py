"""The lake's verbs on real Delta tables, without a JVM."""

import datetime as dt

import pyarrow as pa
import pytest

from assets.lake import HOUR, LakeError, Table, Window

THING = Table("thing", pa.schema([HOUR, pa.field("x", pa.int64())]), "a thing")
T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def hour(n):
    return T0 + dt.timedelta(hours=n)


def rows(*pairs):
    return pa.table({"hour": [hour(h) for h, _ in pairs], "x": [x for _, x in pairs]}, schema=THING.schema)


def content(lake):
    table = lake.read("thing")
    return sorted(zip(table["hour"].to_pylist(), table["x"].to_pylist(), strict=True))


def test_an_append_that_is_repeated_changes_nothing(lake):
    assert lake.append_once(THING, rows((0, 1)), "app", 1)
    assert not lake.append_once(THING, rows((0, 1)), "app", 1)
    assert lake.append_once(THING, rows((0, 2)), "app", 2)
    assert not lake.append_once(THING, rows((0, 1)), "app", 1)
    assert lake.append_once(THING, rows((0, 1)), "other", 1)
    assert content(lake) == [(hour(0), 1), (hour(0), 1), (hour(0), 2)]


def test_replacing_a_window_leaves_its_neighbours(lake):
    lake.append_once(THING, rows((0, 1), (1, 2), (2, 3), (3, 4)), "app", 1)
    lake.replace_window(THING, rows((1, 20)), Window(hour(1), hour(3)))
    assert content(lake) == [(hour(0), 1), (hour(1), 20), (hour(3), 4)]


def test_a_window_can_be_replaced_by_nothing(lake):
    lake.append_once(THING, rows((0, 1), (1, 2)), "app", 1)
    lake.replace_window(THING, THING.empty(), Window(hour(1), hour(2)))
    assert content(lake) == [(hour(0), 1)]
    assert lake.hours("thing") == [hour(0)]


def test_a_row_outside_of_the_window_is_refused(lake):
    with pytest.raises(LakeError, match="outside"):
        lake.replace_window(THING, rows((3, 1)), Window(hour(0), hour(3)))


def test_an_old_version_can_be_read(lake):
    lake.append_once(THING, rows((0, 1)), "app", 1)
    version = lake.version("thing")
    lake.replace_window(THING, rows((0, 9)), Window(hour(0), hour(1)))
    assert lake.read("thing", version=version)["x"].to_pylist() == [1]
    assert lake.read("thing", Window(hour(0), hour(1)), columns=["x"])["x"].to_pylist() == [9]


def test_a_missing_table_is_named_with_what_to_do(lake):
    with pytest.raises(LakeError, match="materialize the asset `nothing`"):
        lake.read("nothing")


@pytest.mark.parametrize("start, end", [(hour(1), hour(1)), (hour(2), hour(1)), (T0.replace(minute=5), hour(1))])
def test_a_window_that_is_none_is_refused(start, end):
    with pytest.raises(ValueError, match="window"):
        Window(start, end)
