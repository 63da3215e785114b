"""How many rows a table holds, hour by hour, from Delta's own statistics; no data is read.

Here: counting for reports and checks. Not here: what a count should be (assets/attribution/accounting.py).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from assets.lake import EPOCH, TIME, Lake, Window


def rows_by_hour(lake: Lake, name: str, window: Window, version: int | None = None) -> dict[dt.datetime, int]:
    """Rows of a partitioned table in each hour of the window, zero where there are none.

    Raises LakeError where there is no such table.
    """
    counts = dict.fromkeys(window.hours, 0)
    files = pa.table(lake.open(name, version).get_add_actions(flatten=True))
    for hour, rows in zip(files["partition.hour"].to_pylist(), files["num_records"].to_pylist(), strict=True):
        hour = hour.replace(tzinfo=dt.UTC) if hour.tzinfo is None else hour.astimezone(dt.UTC)
        if hour in counts:
            counts[hour] += rows
    return counts


def by_hour(lake: Lake, name: str) -> dict[dt.datetime, int]:
    """Rows of a partitioned table in each hour for which it has any. Raises LakeError where there is no such table."""
    files = pa.table(lake.open(name).get_add_actions(flatten=True))
    # As integers: Arrow's own conversion of timestamps would import pandas, half a second of every start of Dagster.
    hour = files.column("partition.hour").cast(TIME).cast(pa.int64())
    rows = pc.fill_null(files.column("num_records"), 1)  # a file without its count holds some
    found = pa.table({"hour": hour, "rows": rows}).group_by("hour").aggregate([("rows", "sum")]).to_pydict()
    return {EPOCH + dt.timedelta(microseconds=hour): count for hour, count in zip(found["hour"], found["rows_sum"], strict=True)}


def rows(lake: Lake, name: str, window: Window) -> int:
    """Rows of a partitioned table in the window. Raises LakeError where there is no such table."""
    return sum(rows_by_hour(lake, name, window).values())


def total(lake: Lake, name: str) -> int:
    """Rows of a table, partitioned or not. Raises LakeError where there is no such table."""
    return sum(pa.table(lake.open(name).get_add_actions(flatten=True))["num_records"].to_pylist())


def written(lake: Lake, names: Iterable[str], hours: set[dt.datetime]) -> dict[dt.datetime, dt.datetime]:
    """When the newest file of an hour was written, over several tables."""
    found: dict[dt.datetime, dt.datetime] = {}
    span = Window(min(hours), max(hours) + dt.timedelta(hours=1))
    for name in names:
        files = lake.files(name, span)
        if not files.num_rows:
            continue
        there = files["partition.hour"].cast(TIME).cast(pa.int64()).to_pylist()
        times = files["modification_time"].cast(pa.timestamp("ms")).cast(pa.int64()).to_pylist()
        for hour, moment in zip(there, times, strict=True):
            hour, moment = EPOCH + dt.timedelta(microseconds=hour), EPOCH + dt.timedelta(milliseconds=moment)
            if hour in hours:
                found[hour] = max(moment, found.get(hour, moment))
    return found


def paths(lake: Lake, names: Iterable[str], hours: set[dt.datetime]) -> dict[dt.datetime, set[tuple[str, str]]]:
    """The data files of each of the hours that has any, over several tables: (table, path). Of a pinned lake what its moment names."""
    found: dict[dt.datetime, set[tuple[str, str]]] = {}
    wanted = pa.array(sorted(hours), TIME)
    for name in names:
        if lake.moment is not None and name not in lake.moment.tables:
            continue
        files = lake.files(name)
        files = files.filter(pc.is_in(files["partition.hour"].cast(TIME), wanted))
        there = files["partition.hour"].cast(TIME).cast(pa.int64()).to_pylist()
        for hour, path in zip(there, files["path"].to_pylist(), strict=True):
            found.setdefault(EPOCH + dt.timedelta(microseconds=hour), set()).add((name, path))
    return found
