"""The log that every design labels: two hours of the project's own traffic as accepted events, a file a minute.

Here: traffic from assets/events/generator.py, less what has no one answer in all designs (repeats, broken rows, wrong
clocks, late events), in order of arrival. Made once for a size and seed, under build/. Not here: labels (compare.py).

    parquet/minute-000.parquet     the contract's columns, the rows that arrived in that minute, in order of arrival
    flink/minute-000-0.bin, -1.bin the same rows for Flink, the first and the second half of the minute, so that its two
                                   readers are busy with one minute and each sees its rows in order of arrival

Flink's package brings no Parquet reader, so it reads fixed-width rows of FLINK_ROW. These leave out request_id and
context (90 bytes an event, which the other designs read, carry and write), ingest_time, and the text of event_id and
of channel: all of it favours Flink. `seq`, the row's place in the log, stands for event_id.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from assets.attribution.rules import Rules
from assets.events.contract import ACTIONS, EVENT_FIELDS, MAX_CLOCK_AHEAD
from assets.events.generator import CHANNELS, TrafficConfig, generate

START = dt.datetime(2026, 1, 5, 13, tzinfo=dt.UTC)  # hours of about the day's mean traffic
HOURS = 2
EVENTS = 21_000_000

# Measured: events left for each one that TrafficConfig.events_per_hour asks for, at these hours.
YIELD = 1.156

FLINK_ROW = np.dtype(
    [("user", "<i8"), ("note", "<i8"), ("time", "<i8"), ("seq", "<i8"), ("dwell", "<i4"), ("position", "<i2"),
     ("channel", "i1"), ("action", "i1")]
)  # fmt: skip
READERS = 2
_EXTRA = ("device", "app_version", "author_id", "topic")


@dataclass(frozen=True)
class Log:
    """A folder of minutes; sizes[i] events arrived in minute i. watermarks[i]: µs, the labeler's after that minute."""

    folder: Path
    sizes: tuple[int, ...]
    watermarks: tuple[int, ...]

    @property
    def minutes(self) -> int:
        return len(self.sizes)

    @property
    def events(self) -> int:
        return sum(self.sizes)

    @property
    def watermark(self) -> int:
        return self.watermarks[-1]

    @property
    def parquet(self) -> list[Path]:
        return [self.folder / "parquet" / f"minute-{i:03}.parquet" for i in range(self.minutes)]

    @property
    def binary(self) -> list[Path]:
        names = [f"minute-{i:03}-{part}.bin" for i in range(self.minutes) for part in range(READERS)]
        return [self.folder / "flink" / name for name in names]

    def first_events(self, events: int) -> Log:
        """The least number of first minutes that hold so many events."""
        return self.first(min(self.minutes, 1 + int(np.searchsorted(np.cumsum(self.sizes), events))))

    def first(self, minutes: int) -> Log:
        """The log as if it had ended after so many minutes."""
        return replace(self, sizes=self.sizes[:minutes], watermarks=self.watermarks[:minutes])


def make(root: Path, events: int = EVENTS, seed: int = 7, say=print) -> Log:
    """The log of about so many events under `root`, made if it is not there."""
    folder = Path(root) / f"labeler-{events}-{seed}-received"  # by which rule late rows were left out
    if not folder.exists():
        say(f"generating {events:,} events, once; {folder.name} keeps them")
        beside = folder.with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)
        _generate(beside, events, seed)
        beside.rename(folder)
    index = json.loads((folder / "index.json").read_text())
    return Log(folder, tuple(index["sizes"]), tuple(index["watermarks"]))


def _generate(folder: Path, events: int, seed: int) -> None:
    config = TrafficConfig(
        seed=seed, start=START, hours=HOURS, events_per_hour=events / HOURS / YIELD, users=max(10, events // 10),
        notes=max(100, events // 20), file_format="parquet", file_minutes=1, broken=0, duplicates=0, tail=False,
    )  # fmt: skip
    generate(config, folder / "landing", folder / "truth")
    (folder / "parquet").mkdir()
    (folder / "flink").mkdir()
    moved, sizes, watermarks = np.iinfo(np.int64).min, [], []
    for minute, landed in enumerate(sorted((folder / "landing").iterdir())):
        rows, moved = _accepted(pl.read_parquet(landed), moved)
        _write_parquet(folder / "parquet" / f"minute-{minute:03}.parquet", rows)
        _write_binary(folder / "flink", minute, rows, first=sum(sizes))
        sizes.append(rows.height)
        watermarks.append(moved - _us(Rules().delay))
    for name in ("landing", "truth", "orders"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "index.json").write_text(json.dumps({"sizes": sizes, "watermarks": watermarks}))


def _us(span: dt.timedelta) -> int:
    return span // dt.timedelta(microseconds=1)


def _accepted(rows: pl.DataFrame, moved: int) -> tuple[pl.DataFrame, int]:
    """Rows in order of arrival without wrong clocks and late ones, and the greatest min(event_time, ingest_time) so far."""
    rows = rows.filter(pl.col("event_time") - pl.col("ingest_time") <= _us(MAX_CLOCK_AHEAD))
    time = rows["event_time"].to_numpy()
    seen = np.maximum.accumulate(np.concatenate([[moved], np.minimum(time, rows["ingest_time"].to_numpy())]))
    # Not `seen - delay`: before the first event that would leave int64.
    return rows.filter(time + _us(Rules().delay) >= seen[:-1]), int(seen[-1])


def _write_parquet(path: Path, rows: pl.DataFrame) -> None:
    table = rows.with_columns(context=pl.struct(_EXTRA).struct.json_encode()).select(f.name for f in EVENT_FIELDS).to_arrow()
    pq.write_table(table.cast(pa.schema(EVENT_FIELDS)), path, compression="zstd", compression_level=1)


def _write_binary(folder: Path, minute: int, events: pl.DataFrame, first: int) -> None:
    binary = np.zeros(events.height, FLINK_ROW)
    binary["user"], binary["note"] = events["user_id"].to_numpy(), events["note_id"].to_numpy()
    binary["time"], binary["seq"] = events["event_time"].to_numpy(), first + np.arange(events.height)
    binary["dwell"], binary["position"] = events["dwell_ms"].fill_null(0).to_numpy(), events["position"].to_numpy()
    for name, values in (("channel", CHANNELS), ("action", ACTIONS)):
        binary[name] = events[name].cast(pl.Enum(values)).to_physical().to_numpy()
    for part, rows in enumerate(np.array_split(binary, READERS)):
        rows.tofile(folder / f"minute-{minute:03}-{part}.bin")
