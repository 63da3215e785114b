"""The processes that are measured: `python -m benchmarks.backfill.measured WHAT LOG WORK START HOURS`.

Here: prepare (the log's events as hours of a lake, labeled), glasshouse, one_pass. Each writes said.json: events, seconds,
exact, note. Not here: what is made of it (__main__.py).
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path

from assets import memory

if "glasshouse" in sys.argv:
    memory.give_back()  # as the command line does: before polars is loaded

import polars as pl  # noqa: E402

from assets.attribution.label import label_window
from assets.attribution.rules import Rules
from assets.attribution.tables import FLAGS
from assets.events.contract import EVENTS
from assets.lake import Lake, Window, Write

MINUTE_FILES = 12  # read at once when the lake is filled
W_US = 20 * 60 * 1_000_000


def prepare(log: Path, work: Path, window: Window) -> None:
    """Events in order of arrival, as the live labeler leaves them: several files an hour; then the labels of all hours."""
    lake = Lake(str(work / "lake"))
    lake.create(EVENTS)
    paths = sorted((log / "parquet").iterdir())
    for number in range(0, len(paths), MINUTE_FILES):
        rows = pl.read_parquet(paths[number : number + MINUTE_FILES])
        rows = rows.with_columns(hour=pl.col("event_time").dt.truncate("1h"))
        table = EVENTS.completed(rows.to_arrow(compat_level=pl.CompatLevel.oldest())).select(EVENTS.schema.names).cast(EVENTS.schema)
        lake.commit([lake.stage(Write(EVENTS, table))], by="benchmark")
    label_window(lake, _hours(lake, window), Rules())


def _hours(lake: Lake, window: Window) -> Window:
    return lake.span(EVENTS.name) or window


def glasshouse(log: Path, work: Path, window: Window) -> dict:
    """A plan by the same rules: everything a plan does, and a difference of nothing to prove that it is exact."""
    from assets.backfill.plan import plan

    lake = Lake(str(work / "lake"))
    began = time.perf_counter()
    found = plan(lake, _hours(lake, window), Rules())
    seconds = time.perf_counter() - began
    changed = sum(sum(kinds.values()) for kinds in found["rows"].values())
    return {"events": found["cost"]["events"], "seconds": seconds, "exact": changed == 0, "rows": found["cost"]["rows"],
            "note": "plan: fold in slices, new rows written, compared with the old ones, report"}  # fmt: skip


def one_pass(log: Path, work: Path, window: Window) -> dict:
    """Sessions by a join in time, all in memory: displays by fixed bins from each key's first event, clicks and actions joined.

    These are not the rules (fixed windows that open at an event need a running state, which no join has); it does the work that such
    a query does: sort, bin, two joins, aggregate, write.
    """
    began = time.perf_counter()
    events = pl.scan_parquet(sorted((log / "parquet").iterdir()))
    key = ["user_id", "note_id"]
    w = dt.timedelta(minutes=20)
    first = pl.col("event_time").min().over(key)
    displays = (
        events.filter(pl.col("action") == "impression").with_columns(slot=(pl.col("event_time") - first).dt.total_microseconds() // W_US)
        .sort("event_time").group_by([*key, "slot"]).agg(
            pl.col("event_time").first().alias("session_start"), pl.len().alias("impressions"),
            *(pl.col(name).first() for name in ("request_id", "channel", "position", "context")))
    )  # fmt: skip
    clicks = (
        events.filter(pl.col("action") == "click").with_columns(slot=(pl.col("event_time") - first).dt.total_microseconds() // W_US)
        .sort("event_time").group_by([*key, "slot"]).agg(pl.col("event_time").first().alias("click_start"), pl.len().alias("clicks"))
    )  # fmt: skip
    actions = events.filter(~pl.col("action").is_in(["impression", "click"])).select(*key, "event_time", "action", "dwell_ms")
    after = (
        actions.join(clicks.select(*key, "click_start"), on=key)
        .filter((pl.col("event_time") >= pl.col("click_start")) & (pl.col("event_time") < pl.col("click_start") + w))
        .group_by([*key, "click_start"]).agg(
            pl.col("dwell_ms").sum(), *((pl.col("action") == flag).any().alias(flag) for flag in FLAGS))
    )  # fmt: skip
    labeled = displays.join(clicks, on=key, how="left").filter(
        pl.col("click_start").is_null() | (pl.col("click_start") < pl.col("session_start") + w)
    )
    rows = labeled.join(after, on=[*key, "click_start"], how="left").collect()
    rows.write_parquet(work / "labels.parquet", compression="zstd", compression_level=1)
    seconds = time.perf_counter() - began
    count = pl.scan_parquet(sorted((log / "parquet").iterdir())).select(pl.len()).collect().item()
    return {"events": count, "seconds": seconds, "exact": None, "rows": rows.height,
            "note": "one polars query, all in memory; a join by time, not the rules"}  # fmt: skip


def main(what: str, log: str, work: str, start: str, hours: str) -> None:
    begin = dt.datetime.fromisoformat(start)
    window = Window(begin, begin + dt.timedelta(hours=int(hours)))
    said = {"prepare": prepare, "glasshouse": glasshouse, "one_pass": one_pass}[what](Path(log), Path(work), window)
    if said:
        Path(work, "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
