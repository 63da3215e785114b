"""The live labeler's open sessions on a Spark cluster: a bucket of keys a task, its state in a file that only it touches.

Here: the same answers as resident.Resident, from executors. Not here: the rules (fold.py), what a batch is (live.py), how Spark
is started (assets/spark.py).

Never is state shuffled: a task reads the state of its bucket, merges the events that the driver sends it, and writes the bucket's
next state beside. Files are named by version and number of buckets: a task that Spark runs twice writes the same again. They
are working files, not what a restart stands on: that are the snapshots and segments of state.py, which know no buckets, so their
number may change between two starts. The folder must be one that driver and executors share.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assets.attribution.fold import COUNTS, NONE, Columns, Folded, Limits, fold, no_sessions, widened
from assets.attribution.resident import sorted_sessions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from assets.attribution.rules import Rules

_NAMES = tuple(Columns.__dataclass_fields__)


def bucket_of(user: np.ndarray, note: np.ndarray, buckets: int) -> np.ndarray:
    """int64[n] in [0, buckets): a function of the key alone (splitmix64's finisher, as resident.py mixes keys)."""
    with np.errstate(over="ignore"):
        x = user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ note.astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (((x ^ (x >> np.uint64(31))) >> np.uint64(8)) % np.uint64(buckets)).astype(np.int64)


class ClusterSessions:
    """Open sessions in `buckets` files below `folder`; each fold is a Spark job of as many tasks."""

    def __init__(self, spark: SparkSession, folder: Path, buckets: int, rules: Rules | None = None):
        if buckets < 1:
            raise ValueError(f"at least one bucket, not {buckets}")
        self.context, self.folder, self.buckets = spark.sparkContext, Path(folder), buckets
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.version, self.sizes, self._fields = 0, (0, 0), no_sessions(rules).shape[0]
        self.load(no_sessions(), no_sessions())

    def load(self, open_impressions: np.ndarray, open_clicks: np.ndarray) -> None:
        """Take these sessions in place of all that are held."""
        self.version += 1
        for bucket in range(self.buckets):
            parts = []
            for sessions in (widened(one, self._fields) for one in (open_impressions, open_clicks)):
                mine = bucket_of(sessions[0], sessions[1], self.buckets) == bucket
                parts.append(sorted_sessions(sessions[:, mine]))
            _write(_path(self.folder, self.version, bucket, self.buckets), parts)
        self.sizes = (open_impressions.shape[1], open_clicks.shape[1])

    def fold(self, events: Columns, rules: Rules | Limits | int, watermark: int) -> Folded:
        """As Resident.fold: all events older than the watermark; open sessions stay where they are."""
        limits = Limits.of(rules)
        mine = bucket_of(events.user, events.note, self.buckets)
        tasks = []
        for bucket in range(self.buckets):
            rows = np.flatnonzero(mine == bucket)
            arrays = [getattr(events, name)[rows] for name in _NAMES]
            tasks.append(_Task(str(self.folder), self.version, bucket, self.buckets, arrays, rows, limits, watermark))
        answers = self.context.parallelize(tasks, self.buckets).map(_run).collect()
        shutil.rmtree(self.folder / f"{self.version:012d}", ignore_errors=True)
        self.version += 1
        self.sizes = tuple(sum(answer["open"][kind] for answer in answers) for kind in (0, 1))
        owners = np.full(events.time.size, NONE, np.int64)
        for task, answer in zip(tasks, answers, strict=True):
            owners[task.rows] = answer["owners"]
        closed = [np.concatenate([answer[name] for answer in answers], axis=1) for name in ("impressions", "clicks")]
        orphans = np.sort(np.concatenate([task.rows[answer["orphans"]] for task, answer in zip(tasks, answers, strict=True)]))
        none = np.empty((self._fields, 0), np.int64)
        counts = {name: sum(answer["counts"][name] for answer in answers) for name in COUNTS}
        return Folded(*closed, none, none, orphans, np.empty(0, np.int64), owners, counts)

    def export(self) -> tuple[np.ndarray, np.ndarray]:
        """Open impression and click sessions, int64[9, n] each, in no order."""
        parts = [_read(_path(self.folder, self.version, bucket, self.buckets)) for bucket in range(self.buckets)]
        return tuple(np.concatenate([part[kind] for part in parts], axis=1) for kind in (0, 1))

    @property
    def bytes(self) -> int:
        return sum(self.sizes) * self._fields * 8


@dataclass
class _Task:
    folder: str
    version: int
    bucket: int
    buckets: int
    arrays: list[np.ndarray]
    rows: np.ndarray
    limits: Limits
    watermark: int


def _run(task: _Task) -> dict:
    """In an executor: state and events of a bucket in, what closed and the next state out."""
    imps, clks = _read(_path(Path(task.folder), task.version, task.bucket, task.buckets))
    folded = fold(Columns(*task.arrays), imps, clks, task.limits, task.watermark)
    _write(
        _path(Path(task.folder), task.version + 1, task.bucket, task.buckets),
        [folded.open_impressions, folded.open_clicks],
    )
    return {
        "impressions": folded.impressions.copy(), "clicks": folded.clicks.copy(), "orphans": folded.orphans.copy(),
        "owners": folded.owners, "counts": folded.counts,
        "open": (folded.open_impressions.shape[1], folded.open_clicks.shape[1]),
    }  # fmt: skip


def _path(folder: Path, version: int, bucket: int, buckets: int) -> Path:
    return folder / f"{version:012d}" / f"{bucket:04d}-of-{buckets:04d}.npz"


def _write(path: Path, sessions: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    with open(beside, "wb") as file:
        np.savez(file, impressions=sessions[0], clicks=sessions[1])
    os.replace(beside, path)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as found:
        return found["impressions"], found["clicks"]
