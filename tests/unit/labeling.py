"""Helpers of the labeler's tests: events written briefly, tables as plain rows that compare with reference.py."""

import datetime as dt

import pyarrow as pa
from hypothesis import strategies as st

from assets.events.contract import EVENT_SCHEMA
from tests.unit import reference
from tests.unit.reference import MINUTE, ORDER

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00Z
HOUR = 60 * MINUTE
TIMES = {"event_time", "ingest_time", "session_start", "session_end", "first_click_time", "impression_session_start"}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def moment(us):
    return EPOCH + dt.timedelta(microseconds=us)


def event(event_id, minute, action, user=1, note=1, dwell=None, **other):
    at = T0 + int(minute * MINUTE)
    row = {"event_id": event_id, "user_id": user, "note_id": note, "action": action, "event_time": at,
           "ingest_time": at, "dwell_ms": dwell, "request_id": f"r-{event_id}", "channel": "homefeed",
           "position": 3, "context": f'{{"device":"{event_id}"}}', "device": event_id,
           **dict.fromkeys(["author_id", "topic", "device_id", "app_version"])}  # fmt: skip
    return {**row, **other}


def table(events):
    rows = [{k: moment(v) if k in TIMES and v is not None else v for k, v in e.items()} for e in events]
    return pa.Table.from_pylist(rows, EVENT_SCHEMA)


def rows(arrow, drop=("hour",)):
    """A table as dicts with integer times, in a canonical order."""
    kept = [name for name in arrow.column_names if name not in drop]
    columns = {
        name: arrow[name].cast(pa.int64()).to_pylist() if name in TIMES else arrow[name].to_pylist() for name in kept
    }
    return canonical(dict(zip(kept, values, strict=True)) for values in zip(*columns.values(), strict=True))


def canonical(dicts):
    return sorted(
        (dict(sorted(row.items())) for row in dicts),
        key=lambda r: (r["user_id"], r["note_id"], r.get("session_start", r.get("event_time")), r.get("event_id", "")),
    )


def same(labels, expected):
    """Assert that Labels (or three tables) are the reference's rows."""
    if hasattr(labels, "impression_sessions"):
        labels = (labels.impression_sessions, labels.click_sessions, labels.orphan_actions)
    for got, want in zip(labels, expected, strict=True):
        assert rows(got) == canonical(want)


def expected(events, window=20 * MINUTE):
    return reference.label(events, window)


@st.composite
def logs(draw, minutes=100, max_events=60, users=2, notes=2, step=MINUTE // 2):
    """Logs that are likely to hit edges: few keys, times on a coarse grid (so exact ends and ties are common)."""
    grid = int(minutes * MINUTE / step)
    count = draw(st.integers(0, max_events))
    names = draw(st.permutations([f"e{i}" for i in range(count)]))
    made = []
    for name in names:
        action = draw(st.sampled_from(ORDER + ["impression"] * 4 + ["click"] * 4))
        made.append(
            event(
                name, draw(st.integers(0, grid)) * step / MINUTE, action,
                user=draw(st.integers(1, users)), note=draw(st.integers(-1, notes - 2)),
                dwell=draw(st.none() | st.integers(0, 2**31 - 1)) if action == "view_end" else None,
            )
        )  # fmt: skip
    return made
