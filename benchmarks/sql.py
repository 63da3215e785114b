"""Every SQL job on Spark and on the embedded engine over the same lake: seconds, memory, and whether the rows are the same.

Here: the measurement, `make bench-sql`. Each engine runs in a process of its own, its jobs in order over the whole window; Spark's
session is started before the clock is. Not here: what the jobs compute.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table as Shown

from assets.attribution.rules import Rules
from assets.durable import write_durably
from assets.engines.choice import EMBEDDED, SPARK, Engines
from assets.engines.embedded import EmbeddedSettings
from assets.lake import Lake, Window
from assets.samples.sql_job import SqlJob, load_jobs, run_job
from benchmarks.labeler.measure import watch
from dagster_project.line_assets import TABLES
from dagster_project.sql_jobs import FOLDER

START, HOURS = dt.datetime(2026, 1, 5, tzinfo=dt.UTC), 48
WINDOW = Window(START, START + dt.timedelta(hours=HOURS))
MEMORY_MB = 3072  # of the embedded engine; the process takes Python and what it writes beside it


def made(folder: Path, events: int) -> Lake:
    """A lake of about so many generated events, landed, accepted and labeled; made once."""
    from assets.attribution.label import label_window
    from assets.events import intake
    from assets.events.generator import TrafficConfig, generate

    if not (folder / "lake").exists():
        beside = folder.with_name(f"{folder.name}-making")
        shutil.rmtree(beside, ignore_errors=True)
        config = TrafficConfig(
            hours=HOURS, events_per_hour=events / HOURS, users=max(20_000, events // 100), notes=max(8_000, events // 250), abusers=150, start=START,
        )  # fmt: skip
        generate(config, beside / "landing", beside / "truth")
        lake = Lake(str(beside / "lake"))
        intake.land(lake, sorted((beside / "landing").iterdir()))
        intake.accept(lake, WINDOW)
        label_window(lake, WINDOW, Rules())
        shutil.rmtree(beside / "landing")
        beside.rename(folder)
    return Lake(str(folder / "lake"))


def run(engine: str, lake: Lake, out: Path) -> None:
    """All jobs on one engine; seconds and rows by job go to `out`."""
    from assets.spark import get_spark

    engines = Engines(spark=get_spark, wanted=engine, embedded=EmbeddedSettings(MEMORY_MB))
    if engine == SPARK:
        engines.spark().sql("select 1").collect()
    found = {}
    for job in load_jobs(FOLDER, TABLES):
        began = time.perf_counter()
        done = run_job(job, lake, engines, WINDOW, Rules())
        found[job.name] = {"seconds": time.perf_counter() - began, "rows": sum(done.rows.values())}
        print(f"{job.name}: {found[job.name]}", flush=True)
    out.write_text(json.dumps(found))


def equal(job: SqlJob, left: Lake, right: Lake) -> bool:
    """Whether both lakes hold the same rows of the job, hour by hour, with the same types."""
    import polars as pl

    for hour in WINDOW.hours:
        both = [lake.read(job.name, Window(hour, hour + dt.timedelta(hours=1))) for lake in (left, right)]
        if not both[0].schema.equals(both[1].schema):
            return False
        keys = ["hour", *(name for name in job.head.grain if name != "hour")]
        one, other = (pl.from_arrow(rows).sort(keys) for rows in both)
        if not one.equals(other, null_equal=True):
            return False
    return True


def measured(events: int, folder: Path, report: Path) -> list[dict]:
    base = made(folder / f"sql-{events}", events)
    figures, lakes, peaks = {}, {}, {}
    for engine in (EMBEDDED, SPARK):
        work = folder / f"sql-work-{engine}"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base.root, work / "lake", copy_function=os.link)  # no file of a lake is ever changed
        command = [sys.executable, "-m", "benchmarks.sql", "--engine", engine, "--lake", str(work / "lake"), "--out", str(work / "said.json")]
        peaks[engine] = watch(command, work / "output.txt", env={**os.environ, "PYTHONPATH": "."}).peak_gib
        figures[engine], lakes[engine] = json.loads((work / "said.json").read_text()), Lake(str(work / "lake"))
    rows = []
    for job in load_jobs(FOLDER, TABLES):
        spark, duck = figures[SPARK][job.name], figures[EMBEDDED][job.name]
        rows.append({
            "events": events, "job": job.name, "rows": duck["rows"], "spark_s": spark["seconds"], "duckdb_s": duck["seconds"],
            "equal": equal(job, lakes[EMBEDDED], lakes[SPARK]), "spark_gib": peaks[SPARK], "duckdb_gib": peaks[EMBEDDED],
        })  # fmt: skip
    kept = [row for row in json.loads(report.read_text()) if row["events"] != events] if report.exists() else []
    write_durably(report, json.dumps(kept + rows, indent=1).encode())
    for engine in lakes:
        shutil.rmtree(folder / f"sql-work-{engine}")
    return rows


def show(rows: list[dict]) -> None:
    shown = Shown("job", "rows", "Spark, s", "embedded, s", "times", "same rows", title=f"{rows[0]['events']:,} events; peak {rows[0]['duckdb_gib']:.1f} GiB embedded, {rows[0]['spark_gib']:.1f} Spark")
    for row in rows:
        shown.add_row(row["job"], f"{row['rows']:,}", f"{row['spark_s']:.1f}", f"{row['duckdb_s']:.2f}", f"{row['spark_s'] / row['duckdb_s']:.0f}", "yes" if row["equal"] else "NO")
    total = [sum(row[name] for row in rows) for name in ("spark_s", "duckdb_s")]
    shown.add_row("all", "", f"{total[0]:.1f}", f"{total[1]:.2f}", f"{total[0] / total[1]:.0f}", "")
    Console(width=120).print(shown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, action="append", help="default: 2 million and 20 million")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--report", type=Path, default=Path("build/reports/sql.json"))
    parser.add_argument("--engine", choices=(EMBEDDED, SPARK), help=argparse.SUPPRESS)
    parser.add_argument("--lake", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        run(options.engine, Lake(options.lake), options.out)
        return 0
    options.report.parent.mkdir(parents=True, exist_ok=True)
    found = []
    for events in options.events or (2_000_000, 20_000_000):
        found += (rows := measured(events, options.folder.absolute(), options.report))
        show(rows)
    return 0 if all(row["equal"] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
