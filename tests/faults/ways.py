"""A log by every way in: the command's reading, the live labeler, and landing with acceptance. Not here: what should come out."""

from __future__ import annotations

import datetime as dt
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from assets.attribution import live
from assets.attribution.rules import Rules
from assets.events import intake, landing
from assets.lake import Lake, Window

T0 = dt.datetime(2026, 1, 5, 10, tzinfo=dt.UTC)
US = int(T0.timestamp()) * 1_000_000
WAYS = ("label", "live", "batch")


def event(number: int = 0, **changes) -> dict:
    row = {"event_id": f"e{number}", "user_id": 1, "note_id": 2, "action": "impression", "event_time": US + number}
    return row | changes


def line(row: dict | bytes) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row).encode()


@dataclass
class Came:
    """What became of a log. events: id -> row. quarantine: (row, reason, body). repeats: rows; said: the labeler's lines."""

    events: dict[str, dict]
    quarantine: list[tuple[int, str, bytes]]
    rows: int
    repeats: int
    said: list[str] = field(default_factory=list)

    @property
    def accounted(self) -> bool:
        return self.rows == len(self.events) + len(self.quarantine) + self.repeats


def came(way: str, path: Path, folder: Path) -> Came:
    """Read the log `path` by one of WAYS; `folder` is an empty one for a lake."""
    if way == "label":
        found = intake.read_log([path])
        return Came(_events(found.events), _quarantine(found.quarantine), found.rows, found.repeats)
    home = folder / way
    (home / "landing").mkdir(parents=True)
    (home / "landing" / path.name).write_bytes(path.read_bytes())
    return (by_live if way == "live" else by_batch)(home)


def by_live(home: Path, **settings) -> Came:
    """Let the live labeler take what lies in home/landing, until nothing waits."""
    lake, said = Lake(str(home / "lake")), []
    live.run(lake, home / "landing", Rules(), 0, threading.Event(), once=True, say=said.append, **settings)
    stats = [live.Store(lake).progress(batch).stats for batch in range(live.Store(lake).committed() + 1)]
    rows = sum(one["read"] for one in stats)
    return Came(
        _events(lake.read("events")), _quarantine(lake.read("quarantine")), rows, sum(one["repeats"] for one in stats), said
    )


def by_batch(home: Path) -> Came:
    """Land and accept what lies in home/landing, as the assets do."""
    lake = Lake(str(home / "lake"))
    rows = 0
    for batch in landing.batches(home / "landing"):
        rows += intake.land(lake, batch.paths, batch.mapping, keep_going=True).rows
    hours = sorted({*lake.hours("raw_events"), *lake.hours("quarantine")})
    repeats = 0
    for hour in hours:
        for start in (hour, hour + dt.timedelta(hours=1)):
            accepted = intake.accept(lake, Window(start, start + dt.timedelta(hours=1)))
            repeats += accepted.counts["repeats"] if start == hour else 0
    return Came(_events(lake.read("events")), _quarantine(lake.read("quarantine")), rows, repeats)


def _events(table) -> dict[str, dict]:
    return {row["event_id"]: row for row in pl.from_arrow(table).to_dicts()}


def _quarantine(table) -> list[tuple[int, str, bytes]]:
    return sorted((row["row"], row["reason"], row["body"]) for row in pl.from_arrow(table).to_dicts())
