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
from assets.events.contract import EVENTS, ID_KEYS, QUARANTINE
from assets.events.mapping import load_mapping
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
    """What became of a log. events: id -> row. quarantine: (row, reason, body). repeats: rows; said: the labeler's lines.

    originals: (kind, key) -> the text id, what the table id_keys holds. repeated_keys: rows that hold a key twice.
    """

    events: dict[str, dict]
    quarantine: list[tuple[int, str, bytes]]
    rows: int
    repeats: int
    said: list[str] = field(default_factory=list)
    originals: dict[tuple[str, int], str] = field(default_factory=dict)
    repeated_keys: int = 0

    @property
    def accounted(self) -> bool:
        return self.rows == len(self.events) + len(self.quarantine) + self.repeats


def came(way: str, path: Path, folder: Path, mapping: Path | None = None) -> Came:
    """Read the log `path` by one of WAYS, as the mapping file says; `folder` is an empty one for a lake."""
    if way == "label":
        found = intake.read_log([path], load_mapping(mapping) if mapping else None)
        return Came(_events(found.events), _quarantine(found.quarantine), found.rows, found.repeats, originals=_originals(found.id_keys), repeated_keys=found.repeated_keys)
    home = folder / way
    (home / "landing").mkdir(parents=True)
    if mapping:
        (home / "landing" / "mapping.toml").write_bytes(mapping.read_bytes())
    (home / "landing" / path.name).write_bytes(path.read_bytes())
    return (by_live if way == "live" else by_batch)(home)


def by_live(home: Path, **settings) -> Came:
    """Let the live labeler take what lies in home/landing, until nothing waits."""
    lake, said = Lake(str(home / "lake")), []
    live.run(lake, home / "landing", Rules(), 0, threading.Event(), once=True, say=said.append, **settings)
    stats = [live.Store(lake).progress(batch).stats for batch in range(live.Store(lake).committed() + 1)]
    rows = sum(one["read"] for one in stats)
    return Came(
        _events(lake.read("events")), _quarantine(lake.read("quarantine")), rows, sum(one["repeats"] for one in stats), said,
        _originals(lake.read("id_keys")), sum(one["repeated_keys"] for one in stats),
    )


def by_batch(home: Path) -> Came:
    """Land and accept what lies in home/landing, as the assets do."""
    lake = Lake(str(home / "lake"))
    rows = repeated_keys = 0
    for batch in landing.batches(home / "landing"):
        landed = intake.land(lake, batch.paths, batch.mapping, keep_going=True)
        rows, repeated_keys = rows + landed.rows, repeated_keys + landed.repeated_keys
    for table in (EVENTS, QUARANTINE, ID_KEYS):  # of files without a row nothing is accepted
        lake.create(table)
    hours = sorted({*lake.hours("raw_events"), *lake.hours("quarantine")})
    repeats = 0
    for hour in hours:
        for start in (hour, hour + dt.timedelta(hours=1)):
            accepted = intake.accept(lake, Window(start, start + dt.timedelta(hours=1)))
            repeats += accepted.counts["repeats"] if start == hour else 0
    return Came(
        _events(lake.read("events")), _quarantine(lake.read("quarantine")), rows, repeats, originals=_originals(lake.read("id_keys")),
        repeated_keys=repeated_keys,
    )


def _events(table) -> dict[str, dict]:
    return {row["event_id"]: row for row in pl.from_arrow(table).to_dicts()}


def _originals(table) -> dict[tuple[str, int], str]:
    return {(row["kind"], row["key"]): row["original"] for row in table.to_pylist()}


def _quarantine(table) -> list[tuple[int, str, bytes]]:
    return sorted((row["row"], row["reason"], row["body"]) for row in pl.from_arrow(table).to_dicts())
