"""Every design on the same log, one after the other: `python -m benchmarks.labeler [--designs a,b] [--events N]`.

Here: which designs there are, in what order, and where results go. A design is a function of (log, work folder) that
answers a Row, with peak_gib of a process of its own (measure.watch) and exact by compare.differences.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.labeler import log as traffic
from benchmarks.labeler.log import Log
from benchmarks.labeler.table import Row, show, write

# design -> module of this package, function. Imported when it runs: one that cannot run here stops no other.
DESIGNS = {
    "glasshouse_live": ("glasshouse", "live"),
    "glasshouse_live_small_batches": ("glasshouse", "small_batches"),
    "glasshouse_whole_line": ("glasshouse", "whole_line"),
    "glasshouse_whole_line_json": ("glasshouse", "whole_line_json"),
    "glasshouse_2m": ("glasshouse", "two_million"),
    "glasshouse_10m": ("glasshouse", "ten_million"),
    "glasshouse_3x_keys": ("glasshouse", "three_times_the_keys"),
    "glasshouse_1_gib": ("glasshouse", "bounded"),
    "flink_rocksdb": ("flink", "rocksdb"),
    "flink_hashmap": ("flink", "hashmap"),
    "spark_join": ("spark_join", "run"),
}


def design(name: str) -> Callable[[Log, Path], Row]:
    module, function = DESIGNS[name]
    return getattr(importlib.import_module(f"benchmarks.labeler.{module}"), function)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.labeler", description=__doc__.splitlines()[0])
    parser.add_argument("--designs", default=",".join(DESIGNS), help="comma-separated; default: all")
    parser.add_argument("--events", type=int, default=traffic.EVENTS, help="of the log, about; fewer: another log")
    parser.add_argument("--minutes", type=int, default=60 * traffic.HOURS, help="only the log's first minutes")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--report", type=Path, default=Path("build/reports/labeler.json"))
    options = parser.parse_args()
    names = options.designs.split(",")
    if unknown := set(names) - set(DESIGNS):
        parser.error(f"no design {', '.join(sorted(unknown))}; there are {', '.join(DESIGNS)}")

    options.folder.mkdir(parents=True, exist_ok=True)
    log = traffic.make(options.folder, options.events, options.seed).first(options.minutes)
    print(f"{log.events:,} events in {log.minutes} minutes; {os.cpu_count()} cores", flush=True)
    rows, failed = [], []
    for name in names:
        print(f"{name} ...", flush=True)
        began = time.perf_counter()
        try:
            rows.append(_run(name, log, options.folder / "work" / name))
        except Exception as error:  # the other designs' rows are worth having; the exit status tells
            failed.append(name)
            print(f"{name} failed: {error}", file=sys.stderr, flush=True)
        else:
            print(f"  {rows[-1].events_per_s:,.0f} events/s; {time.perf_counter() - began:.0f} s in all", flush=True)
            write(rows, options.report)  # after each: a run of half an hour may be cut short
    show(rows)
    print(f"written to {options.report}" if rows else "no design ran")
    return 1 if failed else 0


def _run(name: str, log: Log, work: Path) -> Row:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    row = design(name)(log, work)
    shutil.rmtree(work)  # gigabytes of rows and state; kept where the design failed
    return row


if __name__ == "__main__":
    sys.exit(main())
