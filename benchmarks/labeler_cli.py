"""How long the labeler takes: a bounded log from the command line, the fold alone, a window of the lake, live batches.

Run: python benchmarks/labeler_cli.py [--events 1000000] [--format jsonl.gz] [--folder build/benchmark]
Prints seconds of wall clock and of CPU (user + system, all threads), because a shared machine's wall clock says little.
Not here: assertions on time.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

CLI = """
import sys
from pathlib import Path
from assets.attribution.label import label_files
from assets.attribution.rules import Rules
label_files([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), None, Rules())
"""


def cpu_s(who=resource.RUSAGE_SELF) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


@contextmanager
def measured(name: str, events: int):
    wall, cpu = time.perf_counter(), cpu_s()
    yield
    wall, cpu = time.perf_counter() - wall, cpu_s() - cpu
    print(f"{name:<46} {wall:8.2f} s wall {cpu:8.2f} s CPU {events / wall:12,.0f} events/s", flush=True)


def traffic(folder: Path, events: int, file_format: str) -> list[Path]:
    """Landing files of about so many events of two hours, generated once."""
    from assets.events.generator import TrafficConfig, generate

    landing = folder / f"{events}-{file_format}" / "landing"
    if not landing.exists():
        beside = folder / "making"
        shutil.rmtree(beside, ignore_errors=True)
        config = TrafficConfig(
            hours=2, events_per_hour=events * 0.72 / 2, users=max(10, events // 10), notes=max(100, events // 20),
            file_format=file_format,
        )  # fmt: skip
        generate(config, beside / "landing", beside / "truth")
        beside.rename(landing.parent)
    return sorted(landing.iterdir())


def command_line(paths: list[Path], out: Path, events: int) -> None:
    wall, cpu = time.perf_counter(), cpu_s(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", CLI, str(out), *map(str, paths)], check=True)
    wall, cpu = time.perf_counter() - wall, cpu_s(resource.RUSAGE_CHILDREN) - cpu
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    name = "files to Parquet, process start included"
    print(f"{name:<46} {wall:8.2f} s wall {cpu:8.2f} s CPU {events / wall:12,.0f} events/s, {peak:.1f} GiB", flush=True)


def stages(table) -> None:
    """Sort, fold and tables of a log in memory, apart."""
    from assets.attribution.convert import from_frame, sorted_columns, to_labels
    from assets.attribution.fold import NEVER, fold, no_sessions, warm_up

    warm_up()
    count, window = table.num_rows, 20 * 60_000_000
    with measured("in memory: columns and sort", count):
        columns, frame = sorted_columns(table)
    with measured("in memory: fold", count):
        folded = fold(columns, no_sessions(), no_sessions(), window, NEVER)
    with measured("in memory: label tables", count):
        to_labels(folded, columns, from_frame(frame), window)


def in_the_lake(folder: Path, landing: Path, events: int) -> None:
    """The landing folder through the live labeler, and then the same hours labeled as a window."""
    from assets.attribution.label import label_window
    from assets.attribution.live import run, status
    from assets.attribution.rules import Rules
    from assets.attribution.state import Store
    from assets.lake import Lake, Window

    lake = Lake(str(folder / "lake"))
    with measured("live: landing files to Delta, catching up", events):
        run(lake, landing, Rules(), 0, threading.Event(), once=True, say=lambda line: None)
    commits = Store(lake).last(1000)
    totals = sorted(commit["seconds"]["total"] for commit in commits)
    print(f"  {len(totals)} batches, p50 {totals[len(totals) // 2]:.2f} s, greatest {totals[-1]:.2f} s")
    print(f"  the last one by stage: {status(lake)['seconds']}")
    live_rows = lake.read("impression_sessions").num_rows
    shutil.rmtree(Path(lake.root) / "_live")  # a window that live still owes rows of would be refused
    hours = lake.hours("events")
    with measured("window of the lake (Delta to Delta)", events):
        counts = label_window(lake, Window(hours[0], hours[-1] + (hours[1] - hours[0])), Rules())
    displays, late = counts["impression_sessions"], counts["late_used"]
    print(f"  {displays} displays, {live_rows} of them closed live before; {late} late events used")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--format", default="jsonl.gz", choices=("jsonl.gz", "jsonl", "parquet"))
    parser.add_argument("--folder", type=Path, default=Path("build/benchmark"))
    options = parser.parse_args()
    paths = traffic(options.folder, options.events, options.format)
    work = options.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    from assets.events.intake import read_log

    wall = time.perf_counter()
    intake = read_log(paths)
    print(f"{intake.rows:,} rows, {intake.events.num_rows:,} events in {len(paths)} files; "
          f"reading them alone {time.perf_counter() - wall:.2f} s")  # fmt: skip
    command_line(paths, work / "out", intake.rows)
    stages(intake.events)
    in_the_lake(work, paths[0].parent, intake.rows)


if __name__ == "__main__":
    main()
