"""Displays drawn from the generator's world as samples of the ranker, for experiments that know the truth.

Here: columns. Not here: the world (assets/events/generator.py), experiments.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from assets.events import generator
from assets.lake import HOUR, TIME, Table

BEHAVIOURS = generator.HEADS
SCHEMA = pa.schema(
    [
        HOUR, ("session_start", TIME), ("request_id", pa.string()), ("user_id", pa.int64()), ("note_id", pa.int64()),
        ("author_id", pa.int64()), ("topic", pa.string()), ("channel", pa.string()), ("device", pa.string()),
        ("position", pa.int32()), ("hour_of_day", pa.int32()), ("label_click", pa.int32()), ("engaged", pa.int32()),
        *((f"label_{head}", pa.int32()) for head in BEHAVIOURS), ("dwell_ms", pa.int64()),
    ]
)  # fmt: skip
SAMPLES = Table("training_samples", SCHEMA, "displays of an experiment: ids and labels, no counters and no lists")


def samples(displays: pl.DataFrame) -> pa.Table:
    """The columns of `training_samples` that do not need a history, of frames as generator.displays gives them."""
    time = pl.from_epoch("time", "us").dt.replace_time_zone("UTC")
    frame = displays.select(
        hour=time.dt.truncate("1h"), session_start=time, request_id=pl.lit("r") + pl.col("time").cast(pl.String),
        user_id="user_id", note_id="note_id", author_id="author_id", topic="topic", channel="channel", device="device",
        position="position", hour_of_day=time.dt.hour().cast(pl.Int32), label_click=pl.col("click").cast(pl.Int32),
        engaged=pl.col("click").cast(pl.Int32), **{f"label_{head}": pl.col(head).cast(pl.Int32) for head in BEHAVIOURS},
        dwell_ms=pl.col("click").cast(pl.Int64) * (3000 + 20_000 * pl.col("long_view").cast(pl.Int64)),
    )  # fmt: skip
    return frame.to_arrow().select(SCHEMA.names).cast(SCHEMA)


def truth(displays: pl.DataFrame) -> pa.Table:
    """The probabilities, as the generator's truth files hold them."""
    time = pl.from_epoch("time", "us").dt.replace_time_zone("UTC")
    return displays.select(
        pl.lit("r").add(pl.col("time").cast(pl.String)).alias("request_id"), "position", "user_id", "note_id",
        time.alias("event_time"), *(f"p_{head}" for head in ("click", *BEHAVIOURS)),
    ).to_arrow()  # fmt: skip
