"""A lake of many events for the benchmark: rows of a feed's shape, drawn by numpy, not labeled by the labeler.

Here: events, impression_sessions and click_sessions of a week, some hours a commit. Made once for a size, under build/.
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from assets.attribution.tables import CLICK_SESSIONS, FLAGS, IMPRESSION_SESSIONS
from assets.events.contract import EVENTS
from assets.lake import Lake, Table, Window, Write

START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
DAYS = 7
HOUR_US = 3_600_000_000
CHANNELS = np.array(["homefeed", "search", "follow", "nearby"], object)
DEVICES = ("android", "ios", "web")
OTHERS = np.array(["view_end", "like", "fav", "comment", "share", "follow", "profile_enter", "hide"], object)
CONTEXTS = np.array([f'{{"device":"{device}","app_version":"8.4{i}.0"}}' for device in DEVICES for i in range(3)], object)


def make(root: Path, events: int, say=print) -> tuple[Lake, Window]:
    """The lake of about so many events under `root`, made if it is not there, and the window that it fills."""
    folder = Path(root) / f"metrics-{events}"
    window = Window(START, START + dt.timedelta(days=DAYS))
    if not folder.exists():
        say(f"making {events:,} events, once; {folder.name} keeps them")
        beside = folder.with_suffix(".part")
        shutil.rmtree(beside, ignore_errors=True)
        _fill(Lake(str(beside)), events // (24 * DAYS), window.hours, say)
        beside.rename(folder)
    return Lake(str(folder)), window


def _fill(lake: Lake, an_hour: int, hours: list[dt.datetime], say) -> None:
    for table in (EVENTS, IMPRESSION_SESSIONS, CLICK_SESSIONS):
        lake.create(table)
    for number, hour in enumerate(hours):
        steps = [lake.stage(Write(table, rows)) for table, rows in _hour(hour, an_hour).items()]
        lake.commit(steps, by="benchmark")
        if (number + 1) % 24 == 0:
            say(f"  {number + 1} of {len(hours)} hours")


def _hour(hour: dt.datetime, n: int) -> dict[Table, pa.Table]:
    """Of n events 82 % displays, 10 % clicks, 8 % of what follows; sessions as if none reached into the next hour."""
    zero = int(hour.timestamp()) * 1_000_000
    dice = np.random.default_rng([7, zero // HOUR_US])
    shown, clicked = int(0.82 * n), int(0.10 * n)
    user = (1_000_000 * dice.random(n) ** 1.6).astype(np.int64)
    note = (300_000 * dice.random(n) ** 2).astype(np.int64)
    time = zero + np.sort(dice.integers(0, HOUR_US, n))
    channel = CHANNELS[dice.choice(4, n, p=[0.7, 0.14, 0.1, 0.06])]
    position = dice.integers(0, 12, n).astype(np.int32)
    context = pa.DictionaryArray.from_arrays(pa.array(user % len(CONTEXTS)), pa.array(CONTEXTS)).cast(pa.string())
    kinds = np.concatenate([np.full(shown, "impression", object), np.full(clicked, "click", object),
                            OTHERS[np.arange(n - shown - clicked) % len(OTHERS)]])  # fmt: skip
    action = kinds[dice.permutation(n)]
    number = pa.array(np.arange(n) + zero // 1_000_000 * 1_000_000)
    ids = {"user_id": user, "note_id": note, "request_id": pa.array(np.arange(n) // 8).cast(pa.string()),
           "channel": channel, "position": position, "context": context}  # fmt: skip
    dwell = pa.array(dice.lognormal(9, 1, n).astype(np.int32), mask=action != "view_end")
    events = {**ids, "event_id": number.cast(pa.string()), "action": action, "event_time": time,
              "ingest_time": time + 800_000, "dwell_ms": dwell}  # fmt: skip
    displays, clicks = action == "impression", action == "click"
    none = np.zeros(n, bool)
    met = dice.random(n) < clicked / shown
    delay = np.minimum(dice.lognormal(1.5, 1.4, n) * 1e6, 1.1e9).astype(np.int64)
    sessions = {**ids, "session_start": time, "session_end": time + 1_200_000_000, "impressions": np.ones(n, np.int32),
                "clicked": met, "first_click_time": pa.array(time + delay, mask=~met), "dwell_ms": np.zeros(n, np.int64),
                **dict.fromkeys(FLAGS, none)}  # fmt: skip
    follows = {**ids, "session_start": time, "session_end": time + 1_200_000_000, "clicks": np.ones(n, np.int32),
               "attributed": ~none, "impression_session_start": np.maximum(zero, time - delay),
               "dwell_ms": dice.lognormal(9, 1, n).astype(np.int64),
               **{name: dice.random(n) < 0.05 for name in FLAGS}}  # fmt: skip
    return {
        EVENTS: _rows(EVENTS, zero, events, None),
        IMPRESSION_SESSIONS: _rows(IMPRESSION_SESSIONS, zero, sessions, displays),
        CLICK_SESSIONS: _rows(CLICK_SESSIONS, zero, follows, clicks),
    }


def _rows(table: Table, hour: int, columns: dict, keep: np.ndarray | None) -> pa.Table:
    n = len(columns["user_id"])
    columns = {"hour": np.full(n, hour), **columns}
    arrays = []
    made = [field for field in table.schema if field.name in columns]  # the typed columns are made of the context
    for field in made:
        values = columns[field.name]
        array = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
        arrays.append(array.view(field.type) if array.type == pa.int64() and pa.types.is_timestamp(field.type) else array.cast(field.type))
    rows = table.completed(pa.table(arrays, schema=pa.schema(made))).select(table.schema.names)
    return rows if keep is None else rows.filter(pa.array(keep))
