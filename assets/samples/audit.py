"""Was it known at the display? Features of a sample of training rows, computed anew from `events` and compared.

Here: the audit of training_samples, and the count of rows that break a grain. Not here: the features (sql/lake/*.sql).
Their rule is written a second time on purpose: one row at a time, plain comparisons of times, nothing shared with SQL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from assets.attribution.rules import Rules
from assets.events.context import typed
from assets.lake import Lake, Window

HOUR_US = 3_600_000_000
WEEK = dt.timedelta(days=7)
DAY = dt.timedelta(days=1)
SAMPLE = 200  # displays looked at in a run
SPREAD = 8  # hours they are drawn from
TOLERANCE = 1e-9
EVENT_COLUMNS = ["event_id", "user_id", "note_id", "action", "event_time", "ingest_time", "dwell_ms", "context"]
COUNTED = {
    "impressions": "impression", "clicks": "click", "views": "view_end", "likes": "like", "favs": "fav",
    "comments": "comment", "shares": "share", "follows": "follow", "hides": "hide", "profile_enters": "profile_enter",
}  # fmt: skip
HISTORIES = {"clicked": "click", "liked": "like"}
HISTORY = 20  # entries a list


@dataclass(frozen=True)
class Audit:
    """rows: displays looked at. wrong: one line a feature that differs from what was known."""

    rows: int
    wrong: list[str] = field(default_factory=list)


def audit(lake: Lake, window: Window, rules: Rules, rows: int = SAMPLE, seed: int = 0) -> Audit:
    """Recompute the user's and the note's features of up to `rows` displays of the window and compare every one.

    The rule: at the display's hour h, take the newest hour p with h - 7 days <= p < h in which something of the key
    became known; count its events with known hour in (p - 7 days, p], leaving out those received more than a day late.
    An event's known hour is that of max(event_time, ingest_time). The counters of user and topic, and the lists of the last
    clicks and likes, follow the same rule; a list holds the HISTORY events that became known last, newest first.
    """
    lake = lake.pinned()
    samples = _sample(lake, window, rows, seed)
    wrong: list[str] = []
    for side in ("user", "note"):
        events = _events_of(lake, f"{side}_id", samples, window)
        for sample in samples.iter_rows(named=True):
            own = events.get(sample[f"{side}_id"], _NOTHING)
            hour = int(sample["hour"].timestamp()) // 3600
            wrong += _differences(sample, {f"{side}_{n}": v for n, v in _features(own, hour, rules).items()})
            if side == "user":
                wrong += _differences(sample, _topic_features(own, sample["topic"], hour, rules))
                wrong += _differences(sample, _histories(own, hour))
    return Audit(samples.height, wrong)


def _sample(lake: Lake, window: Window, rows: int, seed: int) -> pl.DataFrame:
    # Drawn from a few hours spread over the window, so that weeks are audited without reading weeks.
    hours = [hour for hour in lake.hours("training_samples") if window.start <= hour < window.end]
    places = np.unique(np.linspace(0, len(hours) - 1, min(len(hours), SPREAD)).astype(int)) if hours else []
    picked = [hours[place] for place in places]
    parts = []
    for hour in picked:
        found = pl.from_arrow(lake.read("training_samples", Window(hour, hour + dt.timedelta(hours=1))))
        parts.append(found.sample(min(found.height, -(-rows // len(picked))), seed=seed))
    return pl.concat(parts) if parts else pl.from_arrow(lake.read("training_samples", window))


@dataclass(frozen=True)
class _Events:
    """One key's events. known, happened: hours since the epoch, int64 [n]; action, topic: str [n]; dwell: int64 ms [n];
    order: (moment known, event time, event id) of each; entry: (note, topic, author) of each.
    """

    known: np.ndarray
    happened: np.ndarray
    action: np.ndarray
    dwell: np.ndarray
    topic: np.ndarray
    order: list[tuple]
    entry: list[tuple]

    def of(self, keep: np.ndarray) -> _Events:
        places = np.flatnonzero(keep)
        arrays = (self.known, self.happened, self.action, self.dwell, self.topic)
        return _Events(*(a[places] for a in arrays), *([part[i] for i in places] for part in (self.order, self.entry)))


_NOTHING = _Events(*(np.empty(0, kind) for kind in (np.int64, np.int64, object, np.int64, object)), [], [])


def _events_of(lake: Lake, key: str, samples: pl.DataFrame, window: Window) -> dict[int, _Events]:
    keys = samples[key].unique().to_arrow()
    # A profile of up to seven days ago counts what became known in seven days before it, up to a day late.
    start = pa.scalar(window.start - 2 * WEEK - DAY, pa.timestamp("us", "UTC"))
    end = pa.scalar(window.end, pa.timestamp("us", "UTC"))
    inside = (pc.field("hour") >= start) & (pc.field("hour") < end) & pc.field(key).isin(keys)
    data = lake.dataset("events").to_table(columns=EVENT_COLUMNS, filter=inside)
    return {group[0]: _as_events(rows) for group, rows in pl.from_arrow(data).group_by(key)}


def _as_events(rows: pl.DataFrame) -> _Events:
    happened = rows["event_time"].to_physical().to_numpy()
    received = rows["ingest_time"].fill_null(rows["event_time"]).to_physical().to_numpy()
    known = np.maximum(happened, received)
    topic, author = typed(rows["context"]).select("topic", "author_id")  # of the context, whatever the columns say
    return _Events(
        known=known // HOUR_US,
        happened=happened // HOUR_US,
        action=rows["action"].to_numpy(),
        dwell=rows["dwell_ms"].fill_null(0).cast(pl.Int64).to_numpy(),
        topic=np.array(topic.to_list(), dtype=object),
        order=list(zip(known.tolist(), happened.tolist(), rows["event_id"], strict=True)),
        entry=list(zip(rows["note_id"], topic, author, strict=True)),
    )


def _differences(sample: dict, expected: dict[str, float | list | None]) -> list[str]:
    where = f"user {sample['user_id']}, note {sample['note_id']}, display at {sample['session_start'].isoformat()}"
    return [
        f"{where}: {name} is {sample[name]}, known was {value}"
        for name, value in expected.items()
        if not _equal(sample[name], value)
    ]


def _equal(found: float | list | None, expected: float | list | None) -> bool:
    if found is None or expected is None or isinstance(expected, list):
        return found == expected
    return abs(found - expected) <= TOLERANCE


def _seen(events: _Events, display_hour: int) -> _Events | None:
    """The events that a profile taken at the display's hour counts; None where there is no such profile."""
    in_time = events.known <= events.happened + 24
    earlier = events.known[in_time & (events.known < display_hour) & (events.known >= display_hour - 168)]
    if not earlier.size:
        return None
    profile_hour = earlier.max()
    return events.of(in_time & (events.known <= profile_hour) & (events.known > profile_hour - 168))


def _features(events: _Events, display_hour: int, rules: Rules) -> dict[str, float | None]:
    names = [*COUNTED, "long_views", "dwell_ms", "ctr", "like_rate", "long_view_rate"]
    seen = _seen(events, display_hour)
    if seen is None:
        return dict.fromkeys(names)
    count = {name: int((seen.action == action).sum()) for name, action in COUNTED.items()}
    long_view = rules.long_view // dt.timedelta(milliseconds=1)
    count["long_views"] = int(((seen.action == "view_end") & (seen.dwell >= long_view)).sum())
    count["dwell_ms"] = int(seen.dwell.sum())
    return {
        **count,
        "ctr": (count["clicks"] + 2) / (count["impressions"] + 20),
        "like_rate": (count["likes"] + 1) / (count["clicks"] + 10),
        "long_view_rate": (count["long_views"] + 3) / (count["clicks"] + 10),
    }


def _topic_features(events: _Events, topic: str | None, display_hour: int, rules: Rules) -> dict[str, float | None]:
    counted = np.isin(events.action, ["impression", "click", "view_end", "like"])
    same = np.array([topic is not None and one == topic for one in events.topic], dtype=bool)
    found = _features(events.of(counted & same), display_hour, rules)
    return {f"user_topic_{name}": found[name] for name in ("impressions", "clicks", "long_views", "likes", "ctr")}


def _histories(events: _Events, display_hour: int) -> dict[str, list | None]:
    seen = _seen(events.of(np.isin(events.action, list(HISTORIES.values()))), display_hour)
    found: dict[str, list | None] = {}
    for name, action in HISTORIES.items():
        parts: list = [None] * 3
        if seen is not None:
            newest = sorted(np.flatnonzero(seen.action == action), key=lambda i: seen.order[i], reverse=True)[:HISTORY]
            parts = [[seen.entry[i][part] for i in newest] for part in range(3)]
        found |= {f"{name}_{part}": value for part, value in zip(("notes", "topics", "authors"), parts, strict=True)}
    return found


def repeated_grain(lake: Lake, name: str, grain: Sequence[str], window: Window) -> int:
    """Rows of the window whose grain another row of it has already."""
    keys = pl.from_arrow(lake.read(name, window, list(dict.fromkeys(grain))))
    return keys.height - keys.n_unique()
