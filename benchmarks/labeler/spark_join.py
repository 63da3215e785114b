"""What a Spark user would write: a stream-stream join of displays with what follows them, aggregated, into Delta.

Here: the streaming query, run in a process of its own, a minute's file a micro-batch, state in RocksDB, a Delta commit
each batch. Not here: a design that follows the rules. These rows differ (exact is False without looking): every display
opens a window of its own, where the rules count displays into one session; a click opens no window, so engagement has
to come within W of the display; `like` is true though `unlike` came later; orphans vanish in the join.

It handles the first MINUTES of the log and no more: at its pace all 120 would take half an hour. Its state is still
growing then and no display has been closed by a watermark yet: the whole log would not be faster.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from assets.attribution.rules import Rules
from assets.attribution.tables import FLAGS
from benchmarks.labeler.log import Log
from benchmarks.labeler.measure import watch
from benchmarks.labeler.table import Row

MINUTES = 12
MEMORY = "6g"
ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
SETTINGS = {
    "spark.sql.streaming.stateStore.providerClass": ROCKSDB,
    # Changes only, not a whole upload of RocksDB's files each batch.
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    "spark.sql.shuffle.partitions": "2",  # one a core
    "spark.sql.streaming.metricsEnabled": "false",
}


def run(log: Log, work: Path) -> Row:
    part = log.first(min(MINUTES, log.minutes))
    landing = work / "landing"
    landing.mkdir()
    for path in part.parquet:
        (landing / path.name).hardlink_to(path)
    command = [sys.executable, "-m", "benchmarks.labeler.spark_join", str(landing), str(work)]
    watched = watch(command, work / "spark.log")
    found = json.loads((work / "results.json").read_text())
    p50, p95 = np.percentile(found["batches"], (50, 95))
    note = f"the first {part.minutes} minutes only; other rules"
    details = {"wall_s": watched.wall_s, **found}
    return Row(
        "spark_join", part.events, part.events / found["seconds"], p50, p95, watched.peak_gib, False, note, details
    )


def query(events):
    """Displays with what followed within W: an outer join in event time, then one row a display."""
    from pyspark.sql import functions as f

    window, delay = (f"{int(span.total_seconds())} seconds" for span in (Rules().window, Rules().delay))
    display = ("user_id", "note_id", "session_start", "request_id", "channel", "position", "context")
    displays = (
        events.where("action = 'impression'")
        .withColumnRenamed("event_time", "session_start")
        .select(*display)
        .withWatermark("session_start", delay)
    )  # fmt: skip
    actions = (
        events.where("action <> 'impression'")
        .select(f.col("user_id").alias("by"), f.col("note_id").alias("on"), "action", "event_time", "dwell_ms")
        .withWatermark("event_time", delay)
    )
    within = f.expr(
        "user_id = by AND note_id = on AND event_time >= session_start "
        f"AND event_time < session_start + INTERVAL {window}"
    )
    clicked = f.col("action") == "click"
    return (
        displays.join(actions, within, "leftOuter")
        .groupBy(*display)
        .agg(
            f.max(f.coalesce(clicked, f.lit(False))).alias("clicked"),
            f.min(f.when(clicked, f.col("event_time"))).alias("first_click_time"),
            f.sum("dwell_ms").alias("dwell_ms"),
            *(f.max(f.coalesce(f.col("action") == flag, f.lit(False))).alias(flag) for flag in FLAGS),
        )
    )


def main() -> None:
    """The child process: every file of the landing folder, then the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("landing", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()

    from assets.spark import SparkSettings, get_spark

    spark = get_spark(SparkSettings(master="local[2]", memory=MEMORY, conf=SETTINGS))
    schema = spark.read.parquet(str(options.landing)).schema
    events = spark.readStream.schema(schema).option("maxFilesPerTrigger", 1).parquet(str(options.landing))
    began = time.perf_counter()
    stream = (
        query(events).writeStream.format("delta").outputMode("append").trigger(availableNow=True)
        .option("checkpointLocation", str(options.work / "checkpoint")).start(str(options.work / "sessions"))
    )  # fmt: skip
    stream.awaitTermination()
    seconds = time.perf_counter() - began
    batches = [progress["durationMs"]["triggerExecution"] / 1e3 for progress in stream.recentProgress
               if progress["numInputRows"]]  # fmt: skip
    rows = spark.read.format("delta").load(str(options.work / "sessions")).count()
    (options.work / "results.json").write_text(json.dumps({"seconds": seconds, "batches": batches, "rows": rows}))
    spark.stop()


if __name__ == "__main__":
    main()
