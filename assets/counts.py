"""How many rows a table holds, hour by hour, from Delta's own statistics; no data is read.

Here: counting for reports and checks. Not here: what a count should be (assets/attribution/accounting.py).
"""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from assets.lake import Lake, Window


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


def rows(lake: Lake, name: str, window: Window) -> int:
    """Rows of a partitioned table in the window. Raises LakeError where there is no such table."""
    return sum(rows_by_hour(lake, name, window).values())


def total(lake: Lake, name: str) -> int:
    """Rows of a table, partitioned or not. Raises LakeError where there is no such table."""
    return sum(pa.table(lake.open(name).get_add_actions(flatten=True))["num_records"].to_pylist())
