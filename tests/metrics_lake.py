"""A small lake in the declared schemas, for tests of metrics and pages: plausible rows, not the labeler's.

Here: rows made by numpy from a seed. Not here: assertions.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa

from assets.attribution.tables import CLICK_SESSIONS, FLAGS, IMPRESSION_SESSIONS, LATE_EVENTS, ORPHAN_ACTIONS
from assets.events.contract import EVENTS, QUARANTINE
from assets.lake import Lake, Table, Window
from assets.metrics.schema import SPAM_ACCOUNTS
from assets.orders.tables import ORDER_ATTRIBUTIONS

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
W = 20 * 60 * 1_000_000  # µs
CHANNELS = np.array(["homefeed", "search", "follow", None], dtype=object)
RATES = {"like": 0.2, "fav": 0.08, "comment": 0.04, "share": 0.03, "follow": 0.02, "hide": 0.01, "profile_enter": 0.06}


def window(hours: int, start: dt.datetime = START) -> Window:
    return Window(start, start + dt.timedelta(hours=hours))


def fill(lake: Lake, hours: int = 26, displays: int = 4000, seed: int = 1, start: dt.datetime = START) -> Window:
    """Write all six tables for `hours` hours; returns the window. About 1.5 events a display."""
    span = window(hours, start)
    for table, rows in tables(hours, displays, seed, start).items():
        lake.replace_window(table, rows, span)
    return span


def tables(hours: int, displays: int, seed: int = 1, start: dt.datetime = START) -> dict[Table, pa.Table]:
    rng = np.random.default_rng(seed)
    zero = int(start.timestamp()) * 1_000_000
    time = np.sort(rng.integers(0, hours * 3_600_000_000 - 2 * W, displays)) + zero
    shown = {
        "user_id": rng.integers(-50, max(60, displays // 20), displays),
        "note_id": rng.integers(0, 500, displays),
        "request_id": np.array([f"r{i // 8}" for i in range(displays)], dtype=object),
        "channel": CHANNELS[rng.choice(4, displays, p=[0.6, 0.25, 0.13, 0.02])],
        "position": rng.integers(0, 12, displays).astype(np.int32),
        "context": np.array(['{"device":"ios"}', '{"device":"android"}'], dtype=object)[rng.integers(0, 2, displays)],
    }
    clicked = rng.random(displays) < 0.18 * np.exp(-shown["position"] / 12)
    delay = np.minimum(rng.lognormal(1.5, 1.4, displays) * 1e6, W - 1).astype(np.int64)
    made: dict[Table, pa.Table] = {}
    none = np.zeros(displays, bool)
    made[IMPRESSION_SESSIONS] = _rows(
        IMPRESSION_SESSIONS, time,
        {**shown, "session_start": time, "session_end": time + W, "impressions": np.ones(displays, np.int32),
         "clicked": clicked, "first_click_time": _masked(time + delay, clicked),
         "dwell_ms": np.zeros(displays, np.int64), **{name: none for name in FLAGS}},
    )  # fmt: skip
    made[CLICK_SESSIONS] = _clicks(shown, time, delay, clicked, rng)
    made[EVENTS] = _events(shown, time, delay, clicked, made[CLICK_SESSIONS])
    made[ORPHAN_ACTIONS] = made[EVENTS].slice(0, 60).select(ORPHAN_ACTIONS.schema.names)
    made[LATE_EVENTS] = made[EVENTS].slice(100, 25)
    broken = time[:15]
    made[QUARANTINE] = _rows(
        QUARANTINE, broken,
        {"source": np.array(["f00d"] * 15, object), "row": np.arange(15),
         "body": np.array([b"\xff{broken " + bytes([i]) for i in range(15)], object),
         "reason": np.array(["action: unknown", "event_time: ahead of ingest_time", "note_id: missing"] * 5, object)},
    )  # fmt: skip
    return made


def _clicks(shown, time, delay, clicked, rng) -> pa.Table:
    attributed = rng.random(clicked.sum()) < 0.95
    start = (time + delay)[clicked]
    count = clicked.sum()
    return _rows(
        CLICK_SESSIONS, start,
        {**{name: values[clicked] for name, values in shown.items()},
         "session_start": start, "session_end": start + W, "clicks": np.ones(count, np.int32), "attributed": attributed,
         "impression_session_start": _masked(time[clicked], attributed),
         "dwell_ms": rng.lognormal(9, 1, count).astype(np.int64),
         **{name: rng.random(count) < rate for name, rate in RATES.items()}},
    )  # fmt: skip


def _events(shown, time, delay, clicked, clicks: pa.Table) -> pa.Table:
    likes = clicks.filter(clicks.column("like"))
    like_time = likes.column("session_start").cast(pa.int64()).to_numpy() + 3_000_000
    parts = [("impression", time, shown), ("click", (time + delay)[clicked], {k: v[clicked] for k, v in shown.items()})]
    parts.append(("like", like_time, {k: np.array(likes.column(k).to_pylist(), v.dtype) for k, v in shown.items()}))
    tables = []
    for action, when, columns in parts:
        ids = np.array([f"{action}-{i}" for i in range(len(when))], object)
        columns = {**columns, "event_id": ids, "action": np.array([action] * len(when), object), "event_time": when,
                   "ingest_time": when + 400_000, "dwell_ms": pa.nulls(len(when), pa.int32())}  # fmt: skip
        tables.append(_rows(EVENTS, when, columns))
    return pa.concat_tables(tables)


def _masked(values, keep) -> pa.Array:
    return pa.array(values, mask=~keep)


def _rows(table: Table, time, columns) -> pa.Table:
    hour = time // 3_600_000_000 * 3_600_000_000
    arrays = {"hour": pa.array(hour), **{name: _array(values) for name, values in columns.items()}}
    made = [field for field in table.schema if field.name in arrays]  # the typed columns are made of the context
    rows = pa.table([arrays[field.name].cast(field.type) for field in made], schema=pa.schema(made))
    return (table.completed(rows) if table.completed else rows).select(table.schema.names).cast(table.schema)


def _array(values) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)


def orders(at: dt.datetime) -> pa.Table:
    """Eight orders of one moment, six of them planted by notes 100 and 101, one refunded in part."""
    rows = [
        {"hour": at.replace(minute=0), "order_id": str(i), "user_id": 1, "product_id": 2, "placed_at": at, "status": "paid",
         "note_id": 100 + i % 2 if i < 6 else None, "author_id": 7 if i < 6 else None, "channel": "search" if i < 6 else None,
         "click_time": None, "amount_cents": 1000, "gross_cents": 1000, "refunded_cents": 400 if i == 0 else 0,
         "net_cents": 600 if i == 0 else 1000, "rules": "x"}
        for i in range(8)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, ORDER_ATTRIBUTIONS.schema)


def flagged(users: list[int], hours: list[dt.datetime]) -> pa.Table:
    """The same users in each hour."""
    rows = [
        {"hour": hour, "user_id": user, "reasons": "rate,device", "score": 2.5, "actions": 1, "active_minutes": 1,
         "accounts_on_device": 4}
        for hour in hours for user in users
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SPAM_ACCOUNTS.schema)
