"""Work whose power is cut: `python -m tests.chaos.powercut_victim WORK LAKE ...`, under powercut.Recording.

Here: nothing but the work and its marks: what a user has been told of.
"""

from __future__ import annotations

import datetime as dt
import sys
import threading
from pathlib import Path

import pyarrow as pa

from assets.lake import TIME, Lake, Table, Window
from tests.chaos.powercut import mark

HOUR = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
EXTRA = Table("extra", pa.schema([("hour", TIME), ("number", pa.int64())]), "rows of the test")


def live(root: str, landing: str) -> None:
    from assets.attribution import live
    from assets.attribution.rules import Rules

    live.run(
        Lake(root), Path(landing), Rules(), 0, threading.Event(), lambda moment, stats: mark(str(stats["batch"])), once=True,
        say=str, snapshot_batches=3, batch_bytes=1,
    )  # fmt: skip


def backfill(root: str) -> None:
    from assets.attribution.rules import Rules
    from assets.backfill.plan import plan
    from assets.backfill.swap import apply, undo

    lake = Lake(root)
    found = plan(lake, Window(HOUR, HOUR + dt.timedelta(hours=1)), Rules())
    mark(f"planned {found['plan']}")
    apply(lake, found["plan"])
    mark(f"applied {found['plan']}")
    undo(lake, found["plan"])
    mark(f"undone {found['plan']}")


def tidy(root: str) -> None:
    from assets.tidy import tidy

    lake = Lake(root)
    for number in range(25):
        rows = pa.table({"hour": [HOUR], "number": [number]}, schema=EXTRA.schema)
        lake.append_once(EXTRA, rows, "test", number)
        mark(str(number))
        if number % 8 == 7:
            tidy(lake, keep=dt.timedelta(0), open_hours=0)
    lake.add_columns(EXTRA.name, [pa.field("later", pa.string())], by="test")


def versions(root: str) -> None:
    from assets.ranking import checkpoint, registry

    lake = Lake(root)

    def write(place: Path) -> None:
        for name in registry.FILES:
            (place / name).write_text("{}" + " " * 3000)

    for _ in range(3):
        name = registry.publish(lake, write)
        mark(f"version={name}")
        registry.promote(lake, name, why="test")
        mark(f"serving={name}")
    folder = registry.folder(lake) / ".training-x"
    for step in range(1, 4):
        with checkpoint.held(folder):
            (checkpoint.begin(folder, step) / "rank-0.pt").write_bytes(b"x" * 5000)
            checkpoint.finish(folder, step, {"curve": [], "seconds": 0.0})
        mark(f"step={step}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
