"""Data files of tables by hour: which there are, whether their rows are still the same, links between two places.

Here: looking and linking. Not here: commits (assets/lake.py), what is swapped (swap.py).
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from assets import durable
from assets.backfill.store import BackfillError
from assets.events.contract import TYPED_NAMES
from assets.lake import EPOCH, TIME, Lake, LakeError, Window

Adds = list[dict[str, Any]]


def adds_of(lake: Lake, name: str, window: Window | None = None) -> Adds:
    """A table's data files as the adds of a commit: path, size, hour, rows, stats. Empty without the table."""
    found = lake.files(name, window)
    if not found.num_rows:
        return []
    hours = found["partition.hour"].cast(TIME).cast(pa.int64()).to_pylist()
    bounds = [one for one in found.column_names if one.split(".")[0] in ("min", "max", "null_count")]
    rows = found.select(["path", "size_bytes", "num_records", *bounds]).to_pylist()
    adds = []
    for value, row in zip(hours, rows, strict=True):
        hour = EPOCH + dt.timedelta(microseconds=value)
        adds.append({"path": unquote(row["path"]), "size": row["size_bytes"], "hour": f"{hour:%Y-%m-%d %H:%M:%S}",
                     "rows": row["num_records"], "stats": _stats(row)})  # fmt: skip
    return adds


def _stats(row: dict[str, Any]) -> str:
    found: dict[str, dict] = {"minValues": {}, "maxValues": {}, "nullCount": {}}
    for kind, name in (("min", "minValues"), ("max", "maxValues"), ("null_count", "nullCount")):
        for key, value in row.items():
            if key.startswith(f"{kind}.") and value is not None:
                found[name][key.split(".", 1)[1]] = _bound(value)
    return json.dumps({"numRecords": row["num_records"], **found})


def _bound(value: Any) -> Any:
    return f"{value:%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, dt.datetime) else value


def by_hour(adds: Adds) -> dict[str, list[str]]:
    """Paths by hour, sorted: what is compared to see whether hours have moved."""
    found: dict[str, list[str]] = {}
    for add in adds:
        found.setdefault(add["hour"], []).append(add["path"])
    return {hour: sorted(paths) for hour, paths in sorted(found.items())}


def moved(
    lake: Lake, name: str, then: dict[str, list[str]], window: Window, kept: Lake | None = None
) -> tuple[list[str], dict[str, list[str]]]:
    """(hours whose rows are others than in the files `then`, files now). Compaction changes files and no row.

    kept: a lake that still holds files which the table no longer names.
    """
    now = by_hour(adds_of(lake, name, window))
    differ = [hour for hour in sorted(then.keys() | now.keys()) if then.get(hour) != now.get(hour)]
    return [hour for hour in differ if not _same_rows(lake, kept, name, then.get(hour, []), now.get(hour, []))], now


def _same_rows(lake: Lake, kept: Lake | None, name: str, then: list[str], now: list[str]) -> bool:
    gone = [_place(lake, kept, name, path) for path in then if path not in now]
    come = [Path(lake.path(name), path) for path in now if path not in then]
    if not all(path.exists() for path in gone):
        return False
    held_good(lake, name, map(str, [*gone, *come]))
    return _checksum(gone) == _checksum(come)


def _place(lake: Lake, kept: Lake | None, name: str, path: str) -> Path:
    here = Path(lake.path(name), path)
    return here if here.exists() or kept is None else Path(kept.path(name), path)


def held_good(lake: Lake, name: str, paths: Iterable[str], within: Path | None = None) -> None:
    """Raises BackfillError where a data file of a plan is gone or is not what was written. within: folder of the files."""
    try:
        lake.check_files(name, paths, None if within is None else str(within))
    except LakeError as error:
        raise BackfillError(f"{error}, or plan the range again") from error


def _checksum(paths: Iterable[Path]) -> tuple[int, int]:
    import polars as pl

    rows = total = 0
    for path in paths:
        frame = pl.read_parquet(path, hive_partitioning=False)
        rows += frame.height
        # The typed columns are no part of what is compared: they say what the context says.
        total += int((frame.select(sorted(set(frame.columns) - set(TYPED_NAMES))).hash_rows(seed=1) // 2**20).sum())
    return rows, total


def link(source: Path, target: Path) -> None:
    """Give a file a second name; one that is there already is the same file. Fresh, so that no vacuum takes it for old.

    The name is not durable yet: durable.sync_all, for many at once.
    """
    durable.make_folder(target.parent)
    if not target.exists():
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        beside.unlink(missing_ok=True)
        try:
            os.link(source, beside)
        except OSError:  # a disk without hard links
            shutil.copyfile(source, beside)
        os.replace(beside, target)
    os.utime(target)
