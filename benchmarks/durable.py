"""What it costs that every file of a batch is on the disk before the batch is told of: live batches of 10,000 events, with fsync and without.

Here: the same batches in turns, so that a busy machine is one for both. `python -m benchmarks.durable`. Without fsync means without those
of data files, Delta logs and folders; plan, intent and moment are synced in both.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import tempfile
import threading
from pathlib import Path

from assets.attribution import live, repeats, resident
from assets.attribution.rules import Rules
from assets.lake import Lake

EVENTS, BATCHES = 10_000, 30
T0 = 1_767_225_600_000_000


def write_log(folder: Path, batches: int, seed: int = 1) -> None:
    """A landing file of EVENTS native events a minute."""
    folder.mkdir()
    dice = random.Random(seed)
    for batch in range(batches):
        lines = []
        for number in range(EVENTS):
            at = T0 + batch * 60_000_000 + number * 6_000
            lines.append(json.dumps({
                "event_id": f"{batch}-{number}", "user_id": dice.randrange(20_000), "note_id": dice.randrange(500),
                "action": dice.choice(("impression", "impression", "impression", "click", "view_end", "like")), "event_time": at, "ingest_time": at,
                "channel": "homefeed", "position": 1, "request_id": f"r{batch}-{number}",
            }))  # fmt: skip
        with gzip.open(folder / f"{batch:06d}.jsonl.gz", "wt", compresslevel=1) as file:
            file.write("\n".join(lines) + "\n")


def label(landing: Path) -> list[dict]:
    """Figures of each batch: seconds by stage."""
    found: list[dict] = []
    with tempfile.TemporaryDirectory(dir=landing.parent) as folder:
        live.run(
            Lake(str(Path(folder, "lake"))), landing, Rules(), 0, threading.Event(), lambda _, stats: found.append(stats["seconds"]),
            once=True, say=str, batch_bytes=1,
        )  # fmt: skip
    return found[2:]  # the first ones make tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=BATCHES)
    options = parser.parse_args()
    resident.warm_up()
    repeats.warm_up()
    try:
        from assets import durable
    except ImportError:  # code from before
        durable = None
    real = durable and durable._sync
    with tempfile.TemporaryDirectory(dir=".") as folder:
        landing = Path(folder).absolute() / "landing"
        write_log(landing, options.batches)
        rows: dict[str, list[dict]] = {"with": [], "without": []}
        for _ in range(options.rounds):
            for name in rows if durable else ("with",):
                if durable:
                    durable._sync = real if name == "with" else lambda path: None
                rows[name] += label(landing)
    for name, batches in rows.items():
        if batches:
            said = {stage: round(1000 * statistics.median(one[stage] for one in batches), 1) for stage in batches[0]}
            print(f"{name:8s} fsync: median ms a batch of {EVENTS:,} events, {len(batches)} batches: {said}")


if __name__ == "__main__":
    main()
