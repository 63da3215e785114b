"""What the rows of an hour add up to: their number, a sum of their hashes, the report's figures.

Here: sums of rows as they are written and of files, by which hours with the same rows are known without the rows. Not
here: which rows differ, and what is made of the figures (report.py).
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from assets.attribution.tables import CLICK_SESSIONS, FLAGS, IMPRESSION_SESSIONS, ORPHAN_ACTIONS, SHORT_CLICKS
from assets.backfill.files import Adds
from assets.events.contract import TYPED_NAMES
from assets.lake import Lake, Table

PIECE_ROWS = 500_000  # rows of a file in memory at once
TABLES = {table.name: table for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS, SHORT_CLICKS, ORPHAN_ACTIONS)}
_SEED = 7
_HALF = 2**32  # a hash is added in halves: sums of whole ones would leave 64 bits
_OWN = ("hour", "channel", "rows", "low", "high")


@dataclass
class Sum:
    """Of one hour of one table. digest: sums of the halves of the rows' hashes; figures: dicts by channel, to be added up."""

    rows: int = 0
    digest: tuple[int, int] = (0, 0)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def same(self, other: Sum) -> bool:
        """Whether the rows are the same, in whatever order."""
        return self.rows == other.rows and self.digest == other.digest


class Sums:
    """Sums by table and hour of rows as they come, from any thread."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, dt.datetime], Sum] = {}
        self._lock = threading.Lock()

    def add(self, name: str, rows: pa.Table | pl.DataFrame) -> None:
        """Add rows of the table `name`, of any hours."""
        if not (rows.num_rows if isinstance(rows, pa.Table) else rows.height):
            return
        frame = rows if isinstance(rows, pl.DataFrame) else pl.from_arrow(rows, rechunk=False)
        groups = list(_grouped(TABLES[name], frame))
        with self._lock:
            for one in groups:
                hour = one["hour"].astimezone(dt.UTC)
                have = self._found.setdefault((name, hour), Sum())
                have.rows += one["rows"]
                have.digest = have.digest[0] + one["low"], have.digest[1] + one["high"]
                measures = {key: value for key, value in one.items() if key not in _OWN}
                have.figures.append({"hour": hour.isoformat(), "channel": one["channel"], **measures})

    def of(self, name: str, hour: dt.datetime) -> Sum:
        with self._lock:
            return self._found.get((name, hour), Sum())


def of_files(lake: Lake, name: str, hour: dt.datetime, adds: Adds) -> Sum:
    """The sum of the rows of an hour's data files; a file at a time, and in pieces."""
    lake.check_files(name, [add["path"] for add in adds])
    found = Sums()
    for add in adds:
        for frame in _pieces(Path(lake.path(name), add["path"]), add["rows"]):
            found.add(name, frame.with_columns(pl.lit(hour).alias("hour")))
    return found.of(name, hour)


def _pieces(path: Path, rows: int) -> Iterable[pl.DataFrame]:
    file = pl.scan_parquet(path, hive_partitioning=False)
    for start in range(0, rows, PIECE_ROWS):
        yield file.slice(start, PIECE_ROWS).collect()


def _grouped(table: Table, frame: pl.DataFrame) -> Iterable[dict[str, Any]]:
    # The typed columns say what the context says, and an older file lacks them.
    names = [name for name in table.schema.names if name != "hour" and name not in TYPED_NAMES]
    new = [name for name in names if name not in frame.columns]  # a column that came after the file
    if new:
        empty = pl.from_arrow(table.empty()).schema
        frame = frame.with_columns(pl.lit(None, empty[name]).alias(name) for name in new)
    hashes = frame.select(names).hash_rows(seed=_SEED)
    channel = pl.col("channel").fill_null("none") if "channel" in names else pl.lit("none").alias("channel")
    counted = [pl.len().alias("rows"), pl.col("low").sum(), pl.col("high").sum(), *_measures(table.name)]
    added = frame.lazy().with_columns(low=pl.lit(hashes % _HALF), high=pl.lit(hashes // _HALF))
    return added.group_by(pl.col("hour"), channel).agg(counted).collect().iter_rows(named=True)


def _measures(name: str) -> list[pl.Expr]:
    flags = [pl.col(flag).sum().alias(flag) for flag in FLAGS]
    if name == IMPRESSION_SESSIONS.name:
        return [
            pl.len().alias("displays"), pl.col("clicked").sum().alias("clicked_displays"),
            pl.col("dwell_ms").sum().alias("dwell_ms_without_click"), *(flag.name.suffix("_without_click") for flag in flags),
        ]  # fmt: skip
    if name == CLICK_SESSIONS.name:
        return [
            pl.len().alias("clicks"), pl.col("attributed").sum().alias("attributed_clicks"),
            pl.col("dwell_ms").sum().alias("dwell_ms"), *flags,
        ]  # fmt: skip
    return [pl.len().alias({ORPHAN_ACTIONS.name: "orphans", SHORT_CLICKS.name: "short_clicks"}[name])]
