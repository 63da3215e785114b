"""Glasshouse's live labeler on the log: `run` as it is, each minute's file a batch, every batch durable and committed.

Here: its rows of the table, and the process that is measured (`python -m benchmarks.labeler.glasshouse ...`). It reads the
accepted events as the peers do, and beyond what they do it looks for repeats and carries the strings of a display's context.
`whole_line` starts from landed files instead: raw rows, contract, and
`raw_events` too. Small batches: a file lands every few seconds and the labeler waits for it; a batch's time is that from the
landing of its file to the commit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.labeler import compare, measure
from benchmarks.labeler.log import Log
from benchmarks.labeler.table import Row

SMALL_EVENTS, SMALL_EVERY_S, SMALL_BATCHES = 10_000, 5.0, 36


def live(log: Log, work: Path) -> Row:
    """The labeler alone, one minute a batch."""
    said, watched = _measured(log, work, "events")
    wrong = compare.differences(log, _rows(work), until=log.watermark)
    seconds = said["batch_s"]
    return Row(
        "glasshouse_live", said["events"], said["events"] / said["wall_s"], *_quantiles(seconds), watched.peak_gib,
        not any(wrong.values()), "state durable, Delta committed each batch",
        {"stages_s": said["stages_s"], "differences": wrong, "state_mb": said["state_mb"], "open": said["open"], "peak_mb": said["peak_mb"],
         "first_quarter_s": float(np.median(seconds[len(seconds) // 4 : len(seconds) // 2])),
         "last_quarter_s": float(np.median(seconds[-len(seconds) // 4 :]))},
    )  # fmt: skip


def two_million(log: Log, work: Path) -> Row:
    """The first two million events; with ten_million and glasshouse_live: does history cost anything?"""
    return _scaled("glasshouse_2m", log.first_events(2_000_000), work)


def ten_million(log: Log, work: Path) -> Row:
    return _scaled("glasshouse_10m", log.first_events(10_000_000), work)


def three_times_the_keys(log: Log, work: Path) -> Row:
    """The whole log with a window of an hour in place of 20 minutes: three times the open sessions."""
    return _scaled("glasshouse_3x_keys", log, work, "--window", "60m")


def bounded(log: Log, work: Path) -> Row:
    """The whole log in a gigabyte."""
    return _scaled("glasshouse_1_gib", log, work, "--memory-mb", "1024")


def _scaled(name: str, log: Log, work: Path, *options: str) -> Row:
    said, watched = _measured(log, work, "events", None, *options)
    last = said["batch_s"][-20:]
    return Row(
        name, said["events"], said["events"] / said["wall_s"], *_quantiles(said["batch_s"]), watched.peak_gib, None,
        f"{said['open'] / 1e6:.1f} M open; last 20 batches {1e6 * sum(last) / sum(log.sizes[-20:]):.2f} µs an event; "
        f"{said['peak_mb']:,.0f} MB beside mapped files",
        {"stages_s": said["stages_s"], "state_mb": said["state_mb"], "open": said["open"], "options": options, "peak_mb": said["peak_mb"],
         "last_us_an_event": 1e6 * sum(last) / sum(log.sizes[-20:])},
    )  # fmt: skip


def whole_line(log: Log, work: Path) -> Row:
    """From landed Parquet files: raw rows, contract, repeats, labels. The first minutes only: raw bytes are many."""
    part = log.first(min(log.minutes, 30))
    said, watched = _measured(part, work, "landing")
    return Row(
        "glasshouse_whole_line", said["events"], said["events"] / said["wall_s"], *_quantiles(said["batch_s"]),
        watched.peak_gib, None, "landed Parquet -> raw_events -> contract -> labels", {"stages_s": said["stages_s"]},
    )  # fmt: skip


def whole_line_json(log: Log, work: Path) -> Row:
    """The same from JSON lines."""
    part = log.first(min(log.minutes, 15))
    folder = work / "jsonl"
    folder.mkdir(parents=True)
    for number, path in enumerate(part.parquet):
        _write_json_lines(path, folder / f"minute-{number:03}.jsonl")
    said, watched = _measured(part, work, "landing", folder)
    return Row(
        "glasshouse_whole_line_json", said["events"], said["events"] / said["wall_s"], *_quantiles(said["batch_s"]),
        watched.peak_gib, None, "landed JSON lines -> raw_events -> contract -> labels", {"stages_s": said["stages_s"]},
    )  # fmt: skip


def small_batches(log: Log, work: Path) -> Row:
    """10,000 events every 5 s, landing while the labeler runs; a batch's time is from landed to committed."""
    said, watched = _measured(log.first(1 + SMALL_EVENTS * SMALL_BATCHES // min(log.sizes)), work, "small")
    waits = said["waited_s"]
    return Row(
        "glasshouse_live_small_batches", said["events"], SMALL_EVENTS / SMALL_EVERY_S, *_quantiles(waits),
        watched.peak_gib, None, f"{SMALL_EVENTS:,} events every {SMALL_EVERY_S:g} s, landed to committed; whole line",
        {"stages_s": said["stages_s"]},
    )  # fmt: skip


def _write_json_lines(path: Path, target: Path) -> None:
    rows = pl.read_parquet(path)
    times = [pl.col(name).dt.epoch("us") for name in ("event_time", "ingest_time")]
    rows.with_columns(times).drop("context").write_ndjson(target)


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    return float(np.quantile(seconds, 0.5)), float(np.quantile(seconds, 0.95))


def _measured(log: Log, work: Path, mode: str, files: Path | None = None, *options: str) -> tuple[dict, measure.Watched]:
    """Run the labeler in a process of its own; what it says of itself, and its memory."""
    command = [sys.executable, "-m", "benchmarks.labeler.glasshouse", str(files or log.folder / "parquet"), str(work), mode,
               str(log.minutes), *options]  # fmt: skip
    work.mkdir(parents=True, exist_ok=True)
    watched = measure.watch(command, work / "output.txt", env={**os.environ, "PYTHONPATH": "."})
    return json.loads((work / "said.json").read_text()), watched


def _rows(work: Path) -> compare.Rows:
    root = work / "lake"
    return compare.Rows(*(pl.scan_delta(str(root / name)) for name in compare.TABLES))


# --- the measured process ----------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("mode", choices=("events", "landing", "small"))
    parser.add_argument("minutes", type=int)
    parser.add_argument("--window", default="20m")
    parser.add_argument("--memory-mb", type=int, default=4096)
    options = parser.parse_args()
    from assets.attribution import live
    from assets.attribution.rules import Rules, parse_duration
    from assets.lake import Lake

    landing = options.work / "landing"
    landing.mkdir(parents=True)
    waits: dict[str, float] = {}
    stop = threading.Event()
    paths = sorted(options.files.iterdir())[: options.minutes]
    if options.mode == "small":
        feeder = threading.Thread(target=_feed, args=(paths, landing, waits, stop), daemon=True)
        feeder.start()
    else:
        for path in paths:
            (landing / path.name).symlink_to(path.resolve())
    stats = []
    committed: list[float] = []

    def note(moment, figures):
        stats.append(figures)
        committed.append(time.time())

    began = time.perf_counter()
    live.run(
        Lake(str(options.work / "lake")), landing, Rules(window=parse_duration(options.window)), 0.02 if options.mode == "small" else 0, stop, on_commit=note,
        once=options.mode != "small", say=lambda line: None, batch_bytes=1, memory_bytes=options.memory_mb * 2**20,
        read=_read_events if options.mode == "events" else None,
    )  # fmt: skip
    wall = time.perf_counter() - began
    stages = {name: float(np.median([one["seconds"].get(name, 0) for one in stats])) for name in stats[-1]["seconds"]}
    said = {
        "events": sum(one["read"] for one in stats), "wall_s": wall, "stages_s": stages,
        "batch_s": [one["seconds"]["total"] for one in stats],
        "waited_s": [end - landed for end, landed in zip(committed, waits.values(), strict=False)],
        "peak_mb": max(one["peak_bytes"] or 0 for one in stats) / 2**20,
        "state_mb": max(one["state_bytes"] for one in stats) / 2**20,
        "open": max(one["open_impressions"] + one["open_clicks"] for one in stats),
    }  # fmt: skip
    (options.work / "said.json").write_text(json.dumps(said))


def _read_events(lake, folder, plan):
    """Accepted events as they are; the labeler alone is measured."""
    from assets.attribution.arrivals import Input
    from assets.events.context import completed
    from assets.events.contract import EVENT_SCHEMA, ID_KEYS, QUARANTINE, RAW_EVENTS, SOURCES

    rows = pa.concat_tables([pq.read_table(Path(folder, name)) for name in plan.files])
    events = completed(rows).select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
    return Input(
        events=events, quarantine=QUARANTINE.empty(), raw=RAW_EVENTS.empty(), sources=SOURCES.empty(),
        id_keys=ID_KEYS.empty(), rows=events.num_rows, stored=True,
    )  # fmt: skip


def _feed(paths: list[Path], landing: Path, waits: dict[str, float], stop: threading.Event) -> None:
    """Let a small file land every few seconds, then stop the labeler."""
    events = pl.concat([pl.read_parquet(path) for path in paths]).drop("context")
    for number in range(SMALL_BATCHES):
        began = time.monotonic()
        part = events.slice(number * SMALL_EVENTS, SMALL_EVENTS)
        beside = landing / f".{number:05}.part"
        part.write_parquet(beside)
        beside.rename(landing / f"{number:05}.parquet")
        waits[f"{number:05}"] = time.time()
        time.sleep(max(0.0, SMALL_EVERY_S - (time.monotonic() - began)))
    time.sleep(2)
    stop.set()


if __name__ == "__main__":
    main()
