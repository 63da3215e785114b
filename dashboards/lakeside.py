"""What the pages read from the lake and the labeler's own files, not from ClickHouse: labels' book, batches, versions.

Here: small reads of files, each cheap enough for every refresh. Not here: ClickHouse (data.py), looks, pages (views/).
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import pandas as pd
import streamlit as st

from assets import hours
from assets.lake import Lake, LakeError, Window

LABELS = ("impression_sessions", "click_sessions", "orphan_actions", "late_events")
RECOMPUTED_BY = ("label_window", "backfill")
MOMENTS = 300  # looked at, at most, for recomputations: each costs a small file


def _hours(start: dt.datetime, end: dt.datetime) -> Window:
    floor = start.replace(minute=0, second=0, microsecond=0)
    ceiling = end.replace(minute=0, second=0, microsecond=0)
    return Window(floor, max(ceiling if ceiling == end else ceiling + dt.timedelta(hours=1), floor + dt.timedelta(hours=1)))


@st.cache_data(ttl=30, show_spinner=False)
def _coverage(root: str, start: dt.datetime, end: dt.datetime) -> pd.DataFrame:
    try:
        book = Lake(root).read("labeled_hours", _hours(start, end), ["hour", "labeled_by", "window_us"])
    except LakeError:
        return pd.DataFrame({"hour": pd.Series(dtype="datetime64[us, UTC]"), "labeled_by": [], "window_us": []})
    return book.to_pandas().sort_values("hour", ignore_index=True)


def coverage(lake: Lake, start: dt.datetime, end: dt.datetime, seen=None) -> pd.DataFrame:
    """hour, labeled_by, window_us of the labeled hours that touch the range, ascending; empty where there is no book."""
    return _coverage(str(lake.root), start, end)


@st.cache_data(ttl=60, show_spinner=False)
def _recomputations(root: str, start: dt.datetime, end: dt.datetime) -> pd.DataFrame:
    lake, window = Lake(root), _hours(start, end)
    found, counted = [], {}

    def counts(name: str, version: int) -> dict:
        if (name, version) not in counted:
            counted[name, version] = _counts(lake, name, version)
        return counted[name, version]

    numbers = lake.log.numbers()[-MOMENTS:] if lake.log else []
    for before, after in zip(numbers, numbers[1:], strict=False):
        now = lake.log.moment(after)
        if now.by not in RECOMPUTED_BY:
            continue
        then = lake.log.moment(before)
        tables = [name for name in LABELS if name in then.tables and then.tables[name] != now.tables.get(name)]
        for name in tables:
            old, new = counts(name, then.tables[name]), counts(name, now.tables[name])
            for hour in sorted(old.keys() | new.keys()):
                # An hour without rows before was labeled for the first time: there is nothing to compare.
                if window.start <= hour < window.end and old.get(hour) and old.get(hour) != new.get(hour, 0):
                    found.append({"hour": hour, "table": name, "before": old[hour], "after": new.get(hour, 0),
                                  "difference": new.get(hour, 0) - old[hour], "recomputed": now.at, "by": _by(now)})  # fmt: skip
    columns = ["hour", "table", "before", "after", "difference", "recomputed", "by"]
    frame = pd.DataFrame(found, columns=columns)
    for column in ("hour", "recomputed"):
        frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame


def _by(moment) -> str:
    return f"{moment.note['what']} {moment.note['plan']}" if "plan" in moment.note else "label"


def recomputations(lake: Lake, start: dt.datetime, end: dt.datetime, seen=None) -> pd.DataFrame:
    """Hours whose count of rows a recomputation changed: hour, table, before, after, difference, recomputed (when), by
    (`label`, or which plan was applied or undone).

    Counted from Delta's own statistics, no row is read. Raises LakeError for a lake that cannot be read.
    """
    return _recomputations(str(lake.root), start, end)


def _counts(lake: Lake, name: str, version: int) -> dict[dt.datetime, int]:
    import pyarrow as pa

    try:
        adds = pa.table(lake.open(name, version).get_add_actions(flatten=True)).select(["partition.hour", "num_records"])
    except (LakeError, KeyError):
        return {}
    frame = adds.to_pandas()
    hours = pd.to_datetime(frame["partition.hour"], utc=True)
    return {hour.to_pydatetime(): int(rows) for hour, rows in frame["num_records"].groupby(hours).sum().items()}


# --- the ranker's versions -------------------------------------------------------------------------------------------


@st.cache_data(ttl=30, show_spinner=False)
def model_versions(root: str) -> list[dict]:
    """Every version with its `config` and `metrics`, oldest first; a version that cannot be read is left out."""
    from assets.ranking import registry

    lake = Lake(root)
    if "://" in root:
        return []
    found = []
    for name in registry.versions(lake):
        folder = registry.folder(lake) / name
        try:
            config, metrics = (json.loads((folder / f"{part}.json").read_text()) for part in ("config", "metrics"))
        except (OSError, ValueError):
            continue
        found.append({"version": name, "config": config, "metrics": metrics})
    return found


@st.cache_data(ttl=10, show_spinner=False)
def model_history(root: str) -> list[dict]:
    """What assets.ranking.registry.history gives, oldest first: promotions, rollbacks, verdicts of the gate."""
    from assets.ranking import registry

    return [] if "://" in root else registry.history(Lake(root))


# --- backfills -------------------------------------------------------------------------------------------------------


def backfills(lake: Lake) -> list[dict]:
    """The plans that are kept, oldest first, as assets.backfill.store.listed gives them; none for a lake without any."""
    from assets.backfill import store

    try:
        return store.listed(lake)
    except store.BackfillError:  # not a local folder, or a plan was tidied away between two looks
        return []


def backfill(lake: Lake, plan: str) -> dict | None:
    """A plan's report and its `status`; None while it is computed."""
    from assets.backfill import store

    try:
        return store.shown(lake, plan)
    except store.BackfillError:
        return None


@st.cache_data(ttl=30, show_spinner=False)
def _stray_hours(root: str) -> list[str]:
    return hours.warnings(hours.of(Lake(root)), dt.datetime.now(dt.UTC))


def stray_hours(lake: Lake) -> list[str]:
    """What assets.hours.warnings tells of the lake: hours that have no partition of their own."""
    return _stray_hours(str(lake.root))


# --- the live labeler and who follows it -----------------------------------------------------------------------------


class StateUnreadable(Exception):
    """The live labeler's files are damaged; the message says which, and what to do."""


def live(lake: Lake, landing: Path, count: int) -> tuple[dict | None, list[dict]]:
    """The last batch's figures (with lag_s, and what waits in the landing folder) and those of the newest `count`, oldest
    first; None and nothing where no labeler has run. Raises StateUnreadable."""
    if lake.log is None or not Path(lake.root, "_live").is_dir():
        return None, []
    from assets.attribution import live, state  # numba comes with it: seconds, only where there is something to show

    try:
        return live.status(lake, landing), state.Store(lake).last(count)
    except state.LiveError as error:
        raise StateUnreadable(str(error)) from error


def followers(lake: Lake) -> pd.DataFrame:
    """follower, at (its moment), behind (moments it has not fetched)."""
    from assets.followers import FOLDER, read_cursor

    rows, numbers = [], lake.log.numbers() if lake.log else []
    for path in sorted((lake.log.root / FOLDER).glob("*.json")) if lake.log else []:
        cursor = read_cursor(path)
        rows.append({"follower": path.stem, "at": cursor, "behind": sum(number > cursor for number in numbers)})
    return pd.DataFrame(rows, columns=["follower", "at", "behind"])


def moments(lake: Lake, count: int) -> pd.DataFrame:
    """The newest commits, newest first: moment, at, by, tables (those that it changed)."""
    numbers = lake.log.numbers()[-count - 1 :] if lake.log else []
    found = [lake.log.moment(number) for number in numbers]
    rows = [
        {"moment": now.number, "at": pd.Timestamp(now.at), "by": now.by,
         "tables": ", ".join(sorted(name for name, version in now.tables.items() if then.tables.get(name) != version))}
        for then, now in zip(found, found[1:], strict=False)
    ]  # fmt: skip
    frame = pd.DataFrame(rows[::-1], columns=["moment", "at", "by", "tables"])
    frame["at"] = pd.to_datetime(frame["at"], utc=True)
    return frame


def disk(home: Path) -> tuple[int, int]:
    """Bytes free and in all on the disk that holds the home folder."""
    found = shutil.disk_usage(home if home.exists() else home.anchor)
    return found.free, found.total
