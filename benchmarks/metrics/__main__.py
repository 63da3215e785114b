"""`python -m benchmarks.metrics [--events N] [--skip ...]`: load, questions, freshness; prints tables and writes a report."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from assets.lake import Lake, Window
from assets.metrics import endpoint, loader
from assets.metrics.client import LOAD_S, connect
from benchmarks.labeler.measure import tree_rss
from benchmarks.metrics import boards, data, fresh

PARTS = ("rows", "duckdb", "fresh")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.metrics", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--skip", default="", help=f"comma-separated, of {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--report", type=Path, default=Path("build/reports/metrics.json"))
    options = parser.parse_args()
    skip = set(filter(None, options.skip.split(",")))
    if unknown := skip - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    work = options.folder / "metrics-work"
    shutil.rmtree(work, ignore_errors=True)
    # What is skipped keeps the figures of the run before.
    report: dict = json.loads(options.report.read_text()) if skip and options.report.exists() else {}
    report["cores"] = os.cpu_count()
    if "fresh" not in skip:
        found = fresh.run(work / "fresh")
        report |= {"freshness_p50_s": found["p50_s"], "freshness_p95_s": found["p95_s"]}
        print(f"landed to answered: p50 {found['p50_s']:.1f} s, p95 {found['p95_s']:.1f} s", flush=True)
        _write(report, options.report)
    lake, window = data.make(options.folder, options.events)
    with endpoint.started(work / "clickhouse") as url:
        report |= _load(lake, window, url)
        _write(report, options.report)
        client = connect(url)
        report["settled_s"] = _settled(client)
        report |= _yardstick(client)
        report["queries"] = [one for one in report.get("queries", []) if boards.PART_OF.get(one["of"]) in skip]
        for part, ask in (("aggregates", boards.aggregates), ("rows", boards.raw)):
            if part not in skip:
                report["queries"] += [asdict(one) for one in ask(client, window)]
                _write(report, options.report)
                print(f"{part}: asked", flush=True)
    if "duckdb" not in skip:
        report["queries"] += [asdict(one) for one in boards.duckdb(lake, window, options.folder)]
        _write(report, options.report)
    _show(report)
    shutil.rmtree(work)
    return 0


def _load(lake: Lake, window: Window, url: str) -> dict:
    """Seconds by table from the first row read to the load being shown."""
    marks, began = {}, time.perf_counter()

    def probe(point: str) -> None:
        marks[point] = time.perf_counter() - began

    def progress(table: str, hours: int, of: int) -> None:
        if hours % 24 == 0 or hours == of:
            print(f"  {table}: {hours} of {of} hours", flush=True)

    client = connect(url, timeout_s=LOAD_S)
    counts = loader.load_window(lake, client, window, progress, probe=probe)
    took = time.perf_counter() - began
    rows = sum(counts.values())
    return {
        "events": counts["events"], "rows": rows, "load_s": took, "load_rows_per_s": rows / took,
        "load_events_per_s": counts["events"] / marks["copied events"], "load_marks_s": marks,
        "loader_gib": tree_rss(os.getpid()) / 2**30,
    }  # fmt: skip


def _yardstick(client, rows: int = 10_000_000, times: int = 50) -> dict:
    """What the engine does on this machine today, to hold the figures against: rows it makes itself into a table with a view of users a minute, `SELECT 1`."""
    for statement in _YARDSTICK:
        client.command(statement)
    began = time.perf_counter()
    client.command(
        "INSERT INTO yardstick.made SELECT number, cityHash64(number) % 1000000, cityHash64(number, 1) % 300000, ['display', 'click'][number % 2 + 1], "
        f"toDateTime64('2026-01-05 00:00:00', 6, 'UTC') + number / 1000 FROM numbers({rows})"
    )
    made = rows / (time.perf_counter() - began)
    client.command("DROP DATABASE yardstick")
    began = time.perf_counter()
    for _ in range(times):
        client.query("SELECT 1")
    return {"engine_rows_per_s": made, "select_1_ms": 1000 * (time.perf_counter() - began) / times}


_YARDSTICK = (
    "DROP DATABASE IF EXISTS yardstick",
    "CREATE DATABASE yardstick",
    "CREATE TABLE yardstick.made (event_id UInt64, user_id UInt64, note_id UInt64, action LowCardinality(String), event_time DateTime64(6, 'UTC')) "
    "ENGINE = MergeTree ORDER BY (event_time, user_id)",
    "CREATE TABLE yardstick.users (minute DateTime('UTC'), users AggregateFunction(groupBitmap, UInt64)) ENGINE = AggregatingMergeTree ORDER BY minute",
    "CREATE MATERIALIZED VIEW yardstick.feed TO yardstick.users AS "
    "SELECT toStartOfMinute(event_time, 'UTC') AS minute, groupBitmapState(user_id) AS users FROM yardstick.made GROUP BY minute",
)


def _settled(client, patience_s: float = 180.0) -> float:
    """Wait until ClickHouse has merged what the load left, as it has some moments after any load; returns seconds."""
    began = quiet = time.perf_counter()
    while (now := time.perf_counter()) - quiet < 5 and now - began < patience_s:
        if client.query("SELECT count() FROM system.merges").result_rows[0][0]:
            quiet = now
        time.sleep(0.5)
    return time.perf_counter() - began


def _write(report: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def _show(report: dict) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140)
    print(f"{report['events']:,} events loaded with their aggregates: {report['load_events_per_s']:,.0f} a second; "
          f"{report['rows']:,} rows of all tables: {report['load_rows_per_s']:,.0f} a second; "
          f"the engine's own rows with one view: {report['engine_rows_per_s']:,.0f} a second; SELECT 1: {report['select_1_ms']:.1f} ms")  # fmt: skip
    table = Table("question", "of", "runs", "p50 ms", "p99 ms")
    for one in report["queries"]:
        table.add_row(one["name"], one["of"], str(one["runs"]), f"{one['p50_ms']:.1f}", f"{one['p99_ms']:.1f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
