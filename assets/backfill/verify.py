"""Whether the labels of closed hours are what their events say: every difference is a late event, or it is a bug.

Here: labeling hours once more beside the tables, without the late events that wait, and counting rows that come out
otherwise. Not here: the fold, the comparison of an hour (report.py), plans.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from assets.attribution.label import EPOCH, ONE_HOUR, LabelError, WindowRun, refuse_what_is_live
from assets.attribution.provenance import code_version, known
from assets.attribution.rules import Rules
from assets.attribution.tables import LABELED_HOURS, LATE_EVENTS
from assets.backfill import files, report, store
from assets.events.contract import EVENTS
from assets.lake import Lake, Window

NO_LATE_EVENTS = Window(EPOCH, EPOCH + ONE_HOUR)  # of no event: none of the late ones is used
LEFT_AFTER_S = 86_400  # so old, a folder of a check is one that a killed process left


def same_as_recomputed(lake: Lake, window: Window, progress: Callable[..., None] = lambda **_: None) -> dict[str, Any]:
    """Label the closed hours of a window anew, each by its own rules, of all events but the late ones, and compare.

    hours: compared. open_hours: left out, since the live labeler has not closed them. late_events: that wait for a recompute
    of these hours, and are all that may differ. differences: rows that come out otherwise, which must be 0; wrong_hours:
    hour -> differences. codes: of the labeler that the hours were made by; code: of this one. Nothing is kept.
    Raises BackfillError for a lake that is not a local folder, LakeError where there are no events.
    """
    lake.recover()
    now = lake.pinned()
    book = {row["hour"].astimezone(dt.UTC): row for row in _book(now, window.widened(after=ONE_HOUR))}
    rules = {hour: _rules(row, known(now)) for hour, row in book.items()}
    hours = [hour for hour in window.hours if hour in book]
    closed = [hour for hour in hours if not _is_open(lake, hour, rules[hour])]
    wrong: dict[str, int] = {}
    for part in _parts(closed, rules):
        wrong |= _differing(now, part, rules[part.start], rules.get(part.end), progress)
    return {
        "hours": len(closed), "open_hours": len(hours) - len(closed), "late_events": _waiting(now, closed),
        "differences": sum(wrong.values()), "wrong_hours": wrong,
        "codes": sorted({book[hour].get("code") or "unknown" for hour in closed}), "code": code_version(),
    }  # fmt: skip


def _book(now: Lake, window: Window) -> list[dict[str, Any]]:
    return now.read(LABELED_HOURS.name, window).to_pylist() if now.exists(LABELED_HOURS.name) else []


def _rules(row: dict[str, Any], by_name: dict[str, Rules]) -> Rules:
    """The rules of an hour; of one from before rules had fingerprints, the default ones with its window."""
    named = (row.get("rules") or "").split(",")[-1]
    return by_name.get(named) or Rules(window=dt.timedelta(microseconds=row["window_us"]))


def _is_open(lake: Lake, hour: dt.datetime, rules: Rules) -> bool:
    try:
        refuse_what_is_live(lake, Window(hour, hour + ONE_HOUR), rules)
    except LabelError:
        return True
    return False


def _parts(hours: list[dt.datetime], rules: dict[dt.datetime, Rules]) -> list[Window]:
    """The hours as windows of neighbours with the same rules."""
    numbered = enumerate(hours)
    groups = groupby(numbered, lambda one: (one[1] - ONE_HOUR * one[0], rules[one[1]].fingerprint))
    return [Window(part[0], part[-1] + ONE_HOUR) for part in ([hour for _, hour in group] for _, group in groups)]


def _differing(
    now: Lake, part: Window, rules: Rules, after: Rules | None, progress: Callable[..., None]
) -> dict[str, int]:  # fmt: skip
    """Hour -> rows that a recompute makes otherwise, of the hours with such rows."""
    root = store.folder(now)
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob("check-*"):
        if time.time() - left.stat().st_mtime > LEFT_AFTER_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="check-", dir=root) as place:
        shadow = Lake(str(Path(place)))
        run = WindowRun(
            now, part, rules, version=now.version(EVENTS.name), target=shadow, late=NO_LATE_EVENTS, settles=False,
            after=after, by="check",
        )  # fmt: skip
        run.go(lambda **done: progress(stage="labeling again", **done))
        found = {hour.isoformat(): report.count_changes(now, shadow, hour) for hour in part.hours}
    return {hour: rows for hour, rows in found.items() if rows}


def _waiting(now: Lake, hours: list[dt.datetime]) -> int:
    if not hours or not now.exists(LATE_EVENTS.name):
        return 0
    there = set(hours)
    adds = files.adds_of(now, LATE_EVENTS.name, Window(hours[0], hours[-1] + ONE_HOUR))
    return sum(add["rows"] for add in adds if dt.datetime.fromisoformat(f"{add['hour']}+00:00") in there)
