"""Housekeeping of the lake: small files into few, and what no reader can need any more deleted.

Here: compaction, vacuum, old moments; rows of an older Glasshouse are given the columns that came since (upgrade.py). Not here: the live labeler's own files (it clears them itself, state.py), when this
runs (dagster_project/schedules.py).

A reader that pinned a moment less than `keep` ago finds every file of it: files are deleted that long after they left the
newest version, and moments that long after they were published; a moment that a follower has not fetched is kept whatever its
age. Compaction changes no row: a reader sees the same with fewer files.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable

import pyarrow as pa
from deltalake.exceptions import DeltaError

from assets import followers, upgrade
from assets.backfill.store import forget
from assets.lake import EPOCH, TIME, Lake, LakeError

KEEP = dt.timedelta(days=7)
FLOOR = dt.timedelta(hours=1)  # what no version names is kept so long in any case: a writer at work has staged it
SMALL_BYTES = 8 * 2**20  # an hour with two files smaller than this is worth compacting
TARGET_BYTES = 128 * 2**20


def tidy(
    lake: Lake,
    keep: dt.timedelta = KEEP,
    open_hours: int = 2,
    now: dt.datetime | None = None,
    say: Callable[[str], None] = lambda text: None,
    keep_plans: dt.timedelta | None = None,
) -> dict[str, dict[str, int]]:
    """Compact the hours of every table but the newest open_hours, then delete what is older than `keep`.

    Returns by table: files_before, files_after, hours_compacted, files_deleted; and under "moments": forgotten. A table
    that somebody writes to meanwhile is left for the next time (skipped: 1). Plans of backfills hold links of their own to
    what they need; they go when nothing was done with them for keep_plans (None: keep), and can then no longer be undone.
    Whatever `keep` says, files that no version has named yet stay for FLOOR.
    """
    now = now or dt.datetime.now(dt.UTC)
    moment = lake.recover()
    found: dict[str, dict[str, int]] = {}
    for name in sorted(moment.tables) if moment else []:
        found[name] = _tidy_table(lake, name, keep, open_hours)
        say(f"{name}: {found[name]}")
        lake.log.forget_sums(name)
    found["moments"] = {"forgotten": _forget_moments(lake, now - keep)}
    forget(lake, keep if keep_plans is None else keep_plans, now)
    return found


def _tidy_table(lake: Lake, name: str, keep: dt.timedelta, open_hours: int) -> dict[str, int]:
    counts = Counter(files_before=_files(lake, name), hours_compacted=0, files_deleted=0)
    try:
        upgrade.complete(lake, [name])  # before it is compacted: afterwards old rows could not be told from new ones
        for hour in _worn_hours(lake, name, open_hours):
            # Not under the lake's lock, since it may take long: a live commit in between is the newer version then, and the
            # moment published below, or that commit's own, names both.
            lake.open_newest(name).optimize.compact(
                partition_filters=[("hour", "=", f"{hour:%Y-%m-%d %H:%M:%S}")] if hour else None, target_size=TARGET_BYTES
            )
            counts["hours_compacted"] += 1
        if counts["hours_compacted"]:
            lake.publish("tidy", [name])  # durable, before what it took the place of is deleted
        # What a version has named and a later one no more, then what none names.
        for age, every in ((keep, False), (max(keep, FLOOR), True)):
            gone = lake.open_newest(name).vacuum(
                retention_hours=math.ceil(age / dt.timedelta(hours=1)), dry_run=False, enforce_retention_duration=False, full=every
            )
            counts["files_deleted"] += len(gone)
    except (DeltaError, LakeError) as error:  # somebody replaced those files just now
        counts["skipped"] = 1
        counts["why"] = str(error)[:200]
    counts["files_after"] = _files(lake, name)
    return dict(counts)


def _worn_hours(lake: Lake, name: str, open_hours: int) -> list[dt.datetime | None]:
    """Hours of two or more small files, oldest first, without the newest ones; [None] for a table without hours."""
    files = pa.table(lake.open_newest(name).get_add_actions(flatten=True))
    if not files.num_rows:
        return []
    sizes = files.column("size_bytes").to_pylist()
    if "partition.hour" not in files.column_names:
        return [None] if sum(size < SMALL_BYTES for size in sizes) > 1 else []
    values = files.column("partition.hour").cast(TIME).cast(pa.int64()).to_pylist()
    small = Counter(value for value, size in zip(values, sizes, strict=True) if size < SMALL_BYTES)
    closed = sorted(set(values))[: -open_hours or None]
    return [EPOCH + dt.timedelta(microseconds=value) for value in closed if small[value] > 1]


def _files(lake: Lake, name: str) -> int:
    return pa.table(lake.open_newest(name).get_add_actions(flatten=True)).num_rows


def _forget_moments(lake: Lake, before: dt.datetime) -> int:
    fetched = followers.least_cursor(lake)
    return lake.log.forget(before, upto=fetched)
