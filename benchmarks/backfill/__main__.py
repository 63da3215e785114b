"""Backfilling a range, side by side: `python -m benchmarks.backfill [--designs a,b] [--events N]`, `make bench-backfill`.

Here: the log of benchmarks/labeler as hours of a lake, and the same range labeled anew by
- glasshouse: assets.backfill.plan in slices (fold, new rows as Delta files, comparison with the old ones, report);
- one_pass: the rules as one lazy polars query over the whole range, its rows written to Parquet; no comparison, no state;
- flink_rocksdb: the job of benchmarks/labeler over the same events.
Rows to build/reports/backfill.json: name, events, events_per_s, peak_gib of the process tree, times_real_time (at 42,000 events
a second, 3 billion displays a day), exact. Not here: what is measured how (benchmarks/labeler/measure.py).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from benchmarks.labeler import log as traffic
from benchmarks.labeler import measure
from benchmarks.labeler.log import HOURS, START, Log

DESIGNS = ("glasshouse", "one_pass", "flink_rocksdb")
REAL_TIME = 42_000  # events a second of 3 billion displays a day


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.backfill", description=__doc__.splitlines()[0])
    parser.add_argument("--designs", default=",".join(DESIGNS), help="comma-separated; default: all")
    parser.add_argument("--events", type=int, default=traffic.EVENTS, help="of the log, about")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--report", type=Path, default=Path("build/reports/backfill.json"))
    options = parser.parse_args()
    names = options.designs.split(",")
    if unknown := set(names) - set(DESIGNS):
        parser.error(f"no design {', '.join(sorted(unknown))}; there are {', '.join(DESIGNS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    log = traffic.make(options.folder, options.events)
    rows, failed = [], []
    for name in names:
        print(f"{name} ...", flush=True)
        try:
            rows.append(_row(name, log, options.folder / "work" / f"backfill-{name}"))
        except Exception as error:  # the other designs' rows are worth having; the exit status tells
            failed.append(name)
            print(f"{name} failed: {error}", file=sys.stderr, flush=True)
            continue
        print(f"  {rows[-1]['events_per_s']:,.0f} events/s, {rows[-1]['peak_gib']:.1f} GiB", flush=True)
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps({"rows": rows, "ratios": _ratios(rows)}, indent=1) + "\n")
    _show(rows)
    return 1 if failed else 0


def _row(name: str, log: Log, work: Path) -> dict:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if name == "flink_rocksdb":
        from benchmarks.labeler.flink import rocksdb

        found = rocksdb(log, work)
        said = {"events": found.events, "seconds": found.events / found.events_per_s, "exact": found.exact, "note": found.note}
        peak = found.peak_gib
    else:
        if name == "glasshouse":
            _process("prepare", log, work)
        watched = _process(name, log, work)
        said, peak = json.loads((work / "said.json").read_text()), watched.peak_gib
    shutil.rmtree(work)
    rate = said["events"] / said["seconds"]
    return {"name": name, "events_per_s": rate, "peak_gib": peak, "times_real_time": rate / REAL_TIME, **said}


def _process(what: str, log: Log, work: Path) -> measure.Watched:
    command = [sys.executable, "-m", "benchmarks.backfill.measured", what, str(log.folder), str(work), START.isoformat(), str(HOURS)]
    return measure.watch(command, work / f"{what}.txt", env={**os.environ, "PYTHONPATH": "."})


def _ratios(rows: list[dict]) -> dict[str, float]:
    rate = {row["name"]: row["events_per_s"] for row in rows}
    return {f"glasshouse/{name}": rate["glasshouse"] / value for name, value in rate.items() if name != "glasshouse" and "glasshouse" in rate}


def _show(rows: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("name", "events", "events/s", "peak GiB", "× real time", "exact", "note"):
        table.add_column(name, justify="left" if name in ("name", "note") else "right")
    for row in rows:
        exact = {True: "yes", False: "no", None: "–"}[row["exact"]]
        table.add_row(row["name"], f"{row['events']:,}", f"{row['events_per_s']:,.0f}", f"{row['peak_gib']:.1f}",
                      f"{row['times_real_time']:.1f}", exact, row["note"])  # fmt: skip
    Console(width=None if Console().is_terminal else 140).print(table)


if __name__ == "__main__":
    sys.exit(main())
