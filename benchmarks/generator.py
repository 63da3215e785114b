"""How fast traffic is generated and read back: events per second of wall clock and of CPU, in each file format.

    .venv/bin/python -m benchmarks.generator [--events N] [--format jsonl.gz ...]

Each measurement runs in a process of its own, so that imports and thread pools are counted alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORMATS = ("jsonl.gz", "jsonl", "parquet")


def generate(folder: Path, events: int, file_format: str) -> int:
    from assets.events.generator import TrafficConfig, generate

    config = TrafficConfig(hours=24, events_per_hour=events / 24, file_format=file_format)
    return generate(config, folder / "landing", folder / "truth")["rows"]


def read(folder: Path, events: int, file_format: str) -> int:
    from assets.events.intake import read_log

    return read_log(sorted((folder / "landing").glob("events-*"))).rows


def _measured(step: str, folder: Path, events: int, file_format: str) -> dict:
    """Run one step in a new process; its rows, and the wall and CPU seconds of the work without the start."""
    code = [sys.executable, "-m", "benchmarks.generator", "--step", step, "--folder", str(folder)]
    began = time.perf_counter()
    done = subprocess.run([*code, "--events", str(events), "--format", file_format], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout) | {"process_s": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--step", choices=("generate", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        wall, cpu = time.perf_counter(), time.process_time()
        rows = {"generate": generate, "read": read}[options.step](options.folder, options.events, options.format[0])
        result = {"rows": rows, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps(result))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'format':<10}{'step':<10}{'rows':>10}{'rows/s':>11}{'rows/CPU s':>12}{'with start':>12}")
    for file_format in options.format:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("generate", "read"):
                found = _measured(step, Path(folder), options.events, file_format)
                print(
                    f"{file_format:<10}{step:<10}{found['rows']:>10,}{found['rows'] / found['wall_s']:>11,.0f}"
                    f"{found['rows'] / found['cpu_s']:>12,.0f}{found['process_s']:>10.1f} s"
                )


if __name__ == "__main__":
    main()
