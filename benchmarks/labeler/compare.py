"""Is a design exact? Its rows against those of the labeler's one fold over the whole log, row by row.

Here: the truth (assets.attribution.label.label, which its own tests hold against a plain Python fold), cut by user so
that memory stays small, kept beside the log; the comparison. Not here: how a design's rows are read (its module).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from assets.attribution.label import label
from assets.attribution.rules import Rules
from assets.events.context import completed
from assets.events.contract import EVENT_SCHEMA
from benchmarks.labeler.log import Log

SLICES = 8
TABLES = ("impression_sessions", "click_sessions", "orphan_actions")
_KEYS = {
    "impression_sessions": ["user_id", "note_id", "session_start"],
    "click_sessions": ["user_id", "note_id", "session_start"],
    "orphan_actions": ["user_id", "note_id", "event_time", "action", "event_id"],
}
_ENDS = {"impression_sessions": "session_end", "click_sessions": "session_end", "orphan_actions": "event_time"}


@dataclass(frozen=True)
class Rows:
    """A design's rows, in the tables' columns or some of them; times as timestamps or as int64 µs.

    An event_id that is a number is the event's place in the log.
    """

    impression_sessions: pl.LazyFrame | pl.DataFrame
    click_sessions: pl.LazyFrame | pl.DataFrame
    orphan_actions: pl.LazyFrame | pl.DataFrame


def differences(log: Log, rows: Rows, until: int | None = None) -> dict[str, int]:
    """Rows that only the truth has or only the design has, by table; a row that differs in one column counts as both.

    until: a watermark in µs, for a design that leaves open what that watermark has not closed; None: it closed all.
    """
    folder, wrong = truth(log), dict.fromkeys(TABLES, 0)
    for part in range(SLICES):
        for table in TABLES:
            known = pl.scan_parquet(folder / f"{table}-{part}.parquet")
            given = _of_slice(getattr(rows, table).lazy(), part)
            wrong[table] += _unlike(_closed(known, table, until), given, _KEYS[table])
    return wrong


def truth(log: Log) -> Path:
    """The folder of the log's labels, computed the first time: TABLE-SLICE.parquet, every session closed."""
    folder = log.folder / f"truth-{log.minutes}"
    if not folder.exists():
        beside = folder.with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        for part in range(SLICES):
            _label_slice(log, part, beside)
        beside.rename(folder)
    return folder


def _label_slice(log: Log, part: int, folder: Path) -> None:
    events = _of_slice(pl.scan_parquet(log.parquet).with_row_index("seq"), part).collect()
    labels = label(completed(events.drop("seq").to_arrow()).select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA), Rules())
    places = events.select("event_id", pl.col("seq").cast(pl.Int64))
    for table in TABLES:
        rows = pl.from_arrow(getattr(labels, table))
        if table == "orphan_actions":
            rows = rows.join(places, on="event_id", how="left")
        pq.write_table(rows.to_arrow(), folder / f"{table}-{part}.parquet", compression="zstd")


def _of_slice(rows: pl.LazyFrame, part: int) -> pl.LazyFrame:
    return rows.filter(pl.col("user_id") % SLICES == part)


def _closed(rows: pl.LazyFrame, table: str, until: int | None) -> pl.LazyFrame:
    if until is None:
        return rows
    end = pl.col(_ENDS[table]).dt.epoch("us")
    return rows.filter(end < until if table == "orphan_actions" else end <= until)


def _unlike(known: pl.LazyFrame, given: pl.LazyFrame, key: list[str]) -> int:
    if given.collect_schema().get("event_id") == pl.Int64:
        known = known.drop("event_id").rename({"seq": "event_id"})
    names = [name for name in known.collect_schema().names() if name in given.collect_schema().names()]
    if missing := set(key) - set(names):
        raise ValueError(f"the design's rows lack {sorted(missing)}")
    known, given = (_plain(rows.select(names)).collect().sort(key) for rows in (known, given))
    if known.equals(given):
        return 0
    both = pl.concat([known.with_columns(side=1), given.with_columns(side=-1)])
    # Not two anti joins: these would not see a row that is there twice.
    return both.group_by(names).agg(pl.col("side").sum())["side"].abs().sum()


def _plain(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Times as int64, integers of one width: a design's choice of types is not an error."""
    schema = rows.collect_schema()
    times = [name for name, kind in schema.items() if kind.is_temporal()]
    numbers = [name for name, kind in schema.items() if kind.is_integer()]
    return rows.with_columns(
        *(pl.col(name).dt.epoch("us") for name in times), *(pl.col(name).cast(pl.Int64) for name in numbers)
    )
