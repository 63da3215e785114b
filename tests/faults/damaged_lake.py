"""A small lake with everything that lies on disk, and ways to damage a file of it.

Here: the lake (live batches, a backfill that is applied, ranker versions, a follower), what uses each part, the damages. Not here:
assertions (test_damages.py).
"""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from assets.attribution import live
from assets.attribution.rules import Rules
from assets.backfill import store, swap
from assets.backfill.plan import plan
from assets.durable import sealed, write_durably
from assets.followers import Follower
from assets.lake import Lake, Window
from assets.ranking import checkpoint, registry
from tests.integration.test_label_live import cut, shaken
from tests.unit.test_label import big_log

HOUR = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TABLES = ("raw_events", "events", "impression_sessions", "click_sessions", "orphan_actions", "late_events", "labeled_hours", "sources")
BATCHES, MORE = 24, 2
DROPPED = ("labeled_at", "code", "landed_at")


def label(lake: Lake, landing: Path) -> None:
    live.run(lake, landing, Rules(), 0, threading.Event(), once=True, say=str, snapshot_batches=4, batch_bytes=1)


def rows(lake: Lake) -> dict[str, Counter]:
    now = lake.pinned()
    return {name: Counter(str({k: v for k, v in row.items() if k not in DROPPED}) for row in now.read(name).to_pylist()) for name in TABLES}


def build(folder: Path) -> None:
    """folder/lake, folder/landing (with files that are not labeled yet), folder/older (the lake some batches before)."""
    lake, landing, waiting = Lake(str(folder / "lake")), folder / "landing", folder / "waiting"
    events = shaken(big_log(3, count=30 * (BATCHES + MORE), keys=30, minutes=200), 3, 6)
    cut(waiting, events, 30)
    files = sorted(waiting.iterdir())
    landing.mkdir()
    for part in (files[: BATCHES - 3], files[BATCHES - 3 : BATCHES]):
        for path in part:
            path.rename(landing / path.name)
        label(lake, landing)
        _versions(lake)
        _followed(lake)
        if part[0] == files[0]:
            made = plan(lake, Window(HOUR, HOUR + dt.timedelta(hours=1)), Rules())["plan"]
            shutil.copytree(folder / "lake", folder / "older")
            swap.apply(lake, made)
    for path in files[BATCHES:]:
        path.rename(landing / path.name)


def _followed(lake: Lake) -> list[int]:
    seen: list[int] = []
    follower = Follower(lake, "test", lambda _, moment: seen.append(moment.number), live.APP, say=str)
    while follower.step():
        pass
    return seen


def _versions(lake: Lake) -> None:
    def write(place: Path) -> None:
        for name in registry.FILES:
            window = [f"{HOUR:%Y-%m-%dT%H:%M:%S}+00:00"] * 2
            (place / name).write_text(json.dumps({"a": 1, "b": "x" * 200, "window": window}))

    registry.promote(lake, registry.publish(lake, write), why="test")
    folder = registry.folder(lake) / ".training-x"
    with checkpoint.held(folder):
        checkpoint.write_down(folder, {"ranker": {}, "seed": 1})
        (checkpoint.begin(folder, 1) / "rank-0.pt").write_bytes(b"x" * 1000)
        checkpoint.finish(folder, 1, {"curve": [], "seconds": 0.0})


# --- what uses a part: the same of a whole lake and of a damaged one ----------------------------------------------------


def read(folder: Path):
    return rows(Lake(str(folder / "lake")))


def go_on(folder: Path):
    """Label what waits, as a labeler that starts does."""
    lake = Lake(str(folder / "lake"))
    label(lake, folder / "landing")
    return rows(lake), live.status(lake)["batch_id"]


def follow(folder: Path):
    """Moments of the labeler that are never handed on: none. Repeats are allowed."""
    lake = Lake(str(folder / "lake"))
    before = max(lake.log.numbers())
    label(lake, folder / "landing")
    seen = _followed(lake)
    return [number for number in lake.log.numbers() if number > before and number not in seen]


def follow_late(folder: Path):
    """The same of a follower that is some moments behind."""
    lake = Lake(str(folder / "lake"))
    path = lake.log.root / "followers" / "test.json"
    write_durably(path, sealed("followers/test.json", {"moment": max(lake.log.numbers()) - 4}))
    return _followed(lake)


def undo(folder: Path):
    lake = Lake(str(folder / "lake"))
    listed = [one["status"] for one in store.listed(lake)]
    (plan_id,) = (path.name for path in store.folder(lake).iterdir() if path.is_dir() and path.name != "running")
    shown = store.shown(lake, plan_id)
    swap.undo(lake, plan_id)
    return listed, shown["window"], shown["rows"], rows(lake), store.next_number(lake)


def models(folder: Path):
    lake = Lake(str(folder / "lake"))
    found = [(registry.checked(registry.folder(lake) / name).name, registry.read_metrics(lake, name), registry.read_config(lake, name)["a"])
             for name in registry.versions(lake)]  # fmt: skip
    run = registry.folder(lake) / ".training-x"
    meta = checkpoint.read_meta(checkpoint.newest(run))
    return found, registry.serving(lake), len(registry.history(lake)), checkpoint.read_job(run), meta


# --- damages: of a file, given the same file some batches before, or the one before it ----------------------------------


def missing(path: Path, older: Path) -> None:
    path.unlink()


def emptied(path: Path, older: Path) -> None:
    os.truncate(path, 0)


def truncated(path: Path, older: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def flipped(path: Path, older: Path, seed: int = 0) -> None:
    body = bytearray(path.read_bytes())
    dice = random.Random(f"{path.name}{seed}")
    body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    path.write_bytes(body)


def garbage(path: Path, older: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(max(64, path.stat().st_size)))


def older_copy(path: Path, older: Path) -> None:
    path.write_bytes(older.read_bytes())


DAMAGES: dict[str, Callable] = {one.__name__: one for one in (missing, emptied, truncated, flipped, garbage, older_copy)}


def newest(pattern: str, back: int = 0) -> Callable[[Path], tuple[Path, Path]]:
    """(the newest file of a pattern below the lake, or one `back` before it; what an older copy of it is)."""

    def find(folder: Path) -> tuple[Path, Path]:
        found = sorted((folder / "lake").glob(pattern))
        path = found[-1 - back]
        was = folder / "older" / path.relative_to(folder / "lake")
        before = found[-2 - back] if len(found) > 1 + back else path
        return path, was if was.exists() and was.read_bytes() != path.read_bytes() else before

    return find


# kind -> (which file, what uses it)
KINDS: dict[str, tuple[Callable, Callable]] = {
    "Delta entry, newest": (newest("events/_delta_log/*.json"), read),
    "Delta entry": (newest("impression_sessions/_delta_log/*.json", 2), read),
    "Delta entry of a table at rest": (newest("id_keys/_delta_log/*.json"), go_on),
    "Delta checkpoint": (newest("events/_delta_log/*.checkpoint.parquet"), read),
    "_last_checkpoint": (newest("events/_delta_log/_last_checkpoint"), read),
    "data file": (newest("events/hour=*/*.parquet", 3), read),
    "data file of sources": (newest("sources/*.parquet", 1), go_on),
    "moment, newest": (newest("_commits/0*.json"), go_on),
    "moment": (newest("_commits/0*.json", 1), follow_late),
    "follower's cursor": (newest("_commits/followers/*.json"), follow),
    "stream": (newest("_live/stream.json"), go_on),
    "epoch": (newest("_live/epochs/*.json"), go_on),
    "plan": (newest("_live/plans/*.json"), go_on),
    "progress": (newest("_live/batches/*.json"), go_on),
    "segment": (newest("_live/segments/*.arrow"), go_on),
    "segment of open sessions": (newest("_live/segments/*.arrow", 4), go_on),
    "snapshot: impressions": (newest("_live/snapshots/*/open_impressions.arrow"), go_on),
    "snapshot: clicks": (newest("_live/snapshots/*/open_clicks.arrow"), go_on),
    "snapshot: pending": (newest("_live/snapshots/*/pending.arrow"), go_on),
    "snapshot: consumed": (newest("_live/snapshots/*/consumed.json"), go_on),
    "backfill: plan": (newest("_backfills/*/plan.json"), undo),
    "backfill: journal": (newest("_backfills/*/journal.json"), undo),
    "backfill: report": (newest("_backfills/*/report.json"), undo),
    "backfill: number": (newest("_backfills/number.json"), undo),
    "backfill: a file before": (newest("_backfills/*/before/**/*.parquet"), undo),
    "backfill: rows' log": (newest("_backfills/*/rows/impression_sessions/_delta_log/*.json"), undo),
    "backfill: rows' moment": (newest("_backfills/*/rows/_commits/0*.json"), undo),
    "version: config": (newest("_models/ranker/*/config.json"), models),
    "version: metrics": (newest("_models/ranker/*/metrics.json"), models),
    "version: weights": (newest("_models/ranker/*/weights.pt"), models),
    "version: checksums": (newest("_models/ranker/*/sums.json"), models),
    "serving, newest": (newest("_models/ranker/.serving/0*.json"), models),
    "serving": (newest("_models/ranker/.serving/0*.json", 1), models),
    "serving: head": (newest("_models/ranker/.serving/head.json"), models),
    "training: job": (newest("_models/ranker/.training-x/job.json"), models),
    "training: checkpoint": (newest("_models/ranker/.training-x/step-1/rank-0.pt"), models),
    "training: meta": (newest("_models/ranker/.training-x/step-1/meta.json"), models),
}
