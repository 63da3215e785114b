"""The accounting of events: right on what the labeler writes, and every kind of mistake is seen."""

import datetime as dt

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from assets.attribution.accounting import CONTRADICTIONS, account, account_raw, repeated_ids, slices
from assets.attribution.label import label
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS, LATE_EVENTS, ORPHAN_ACTIONS
from assets.events.contract import EVENT_SCHEMA, EVENTS, QUARANTINE, RAW_EVENTS, SOURCES
from assets.lake import Window

START = dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC)
WINDOW = Window(START, START + dt.timedelta(hours=2))
# The worked case of docs/attribution.md, and a session that reaches into the second hour.
CASE = [
    ("impression", 0), ("impression", 15), ("click", 19), ("impression", 25), ("like", 30), ("view_end", 38),
    ("like", 41), ("hide", 46), ("impression", 55), ("click", 58), ("like", 63),
]  # fmt: skip


def hour(time):
    return time.replace(minute=0)


def events():
    rows = [
        {"event_id": f"e{i}", "action": action, "event_time": START + dt.timedelta(minutes=minute)}
        for i, (action, minute) in enumerate(CASE)
    ]
    rows = [{"user_id": 1, "note_id": 2, "ingest_time": row["event_time"], **row} for row in rows]
    return pa.Table.from_pylist(rows, EVENT_SCHEMA)


def with_hour(table, column="event_time"):
    return table.add_column(0, "hour", pc.floor_temporal(table[column], unit="hour"))


@pytest.fixture
def labelled(lake):
    lake.replace_window(EVENTS, with_hour(events()), WINDOW)
    labels = label(events(), Rules())
    for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS, ORPHAN_ACTIONS):
        lake.replace_window(table, getattr(labels, table.name), WINDOW)
    lake.create(LATE_EVENTS)
    return lake


def change(lake, table, edit):
    lake.replace_window(table, edit(lake.read(table.name, WINDOW)), WINDOW)


def found(lake, window=WINDOW):
    counts = account(lake, window, Rules())
    return {name: counts[name] for name in CONTRADICTIONS if counts[name]}


def test_what_the_labeler_writes_is_accounted_for(labelled):
    counts = account(labelled, WINDOW, Rules())
    assert not found(labelled)
    assert (counts["events"], counts["in_click_session"], counts["in_impression_session"]) == (11, 5, 5)
    assert (counts["orphan"], counts["late"], counts["examples"]) == (1, 0, [])


def test_sessions_that_began_in_the_hour_before_count(labelled):
    assert not found(labelled, Window(START + dt.timedelta(hours=1), WINDOW.end))


def test_a_lost_orphan_is_missing(labelled):
    change(labelled, ORPHAN_ACTIONS, lambda t: t.slice(0, 0))
    counts = account(labelled, WINDOW, Rules())
    assert (counts["missing"], counts["examples"]) == (1, ["e7"])


def test_a_lost_session_leaves_its_events_missing(labelled):
    change(labelled, CLICK_SESSIONS, lambda t: t.slice(1))
    # The like at 30 lies in the impression session of minute 25 too: it is the click that gives the loss away.
    assert found(labelled)["missing"] >= 1


def test_an_orphan_that_is_in_a_session_is_there_twice(labelled):
    change(labelled, ORPHAN_ACTIONS, lambda t: t.set_column(1, "event_id", pa.array(["e4"])))
    assert found(labelled) == {"missing": 1, "twice": 1}


def test_an_orphan_that_is_no_event_is_seen(labelled):
    change(labelled, ORPHAN_ACTIONS, lambda t: pa.concat_tables([t, t.set_column(1, "event_id", pa.array(["nobody"]))]))
    assert found(labelled) == {"twice": 1}


def test_a_session_written_twice_overlaps(labelled):
    change(labelled, IMPRESSION_SESSIONS, lambda t: pa.concat_tables([t, t.slice(0, 1)]))
    assert found(labelled)["overlapping"] == 1


def test_a_wrong_count_is_seen(labelled):
    change(labelled, IMPRESSION_SESSIONS, lambda t: t.set_column(
        t.schema.get_field_index("impressions"), "impressions", pc.add(t["impressions"], 1)))  # fmt: skip
    assert found(labelled) == {"wrong_counts": 3}


def test_a_late_event_is_in_no_session_but_accounted_for(labelled):
    late = events().slice(4, 1)
    more = late.set_column(0, "event_id", pa.array(["late"]))
    change(labelled, EVENTS, lambda t: pa.concat_tables([t, with_hour(more)]))
    labelled.replace_window(LATE_EVENTS, with_hour(more), WINDOW)
    counts = account(labelled, WINDOW, Rules())
    assert (counts["late"], counts["events"]) == (1, 12)
    assert not found(labelled)


def test_an_orphan_that_is_late_too_is_there_twice(labelled):
    labelled.replace_window(LATE_EVENTS, with_hour(events().slice(7, 1)), WINDOW)
    assert found(labelled) == {"twice": 1}


def test_slices_cover_the_window():
    window = Window(START, START + dt.timedelta(hours=25))
    parts = slices(window, 12)
    assert [len(part.hours) for part in parts] == [12, 12, 1]
    assert [h for part in parts for h in part.hours] == window.hours


def test_repeated_ids_are_counted_across_hours(labelled):
    assert repeated_ids(labelled, WINDOW) == 0
    ids = pa.array(["same"] * 2 + [f"x{i}" for i in range(8)] + ["same"])
    change(labelled, EVENTS, lambda t: t.set_column(1, "event_id", ids))
    assert repeated_ids(labelled, WINDOW) == 2


@pytest.mark.parametrize(("repeats", "balanced"), [(2, True), (1, False)])
def test_raw_rows_are_events_quarantine_and_repeats(labelled, repeats, balanced):
    raw = {"hour": [START] * 15, "source": ["s"] * 15, "row": range(15), "body": [b"{}"] * 15}
    labelled.replace_window(RAW_EVENTS, pa.table(raw, RAW_EVENTS.schema), WINDOW)
    broken = pa.table({**raw, "reason": ["x: y"] * 15}, QUARANTINE.schema)
    labelled.replace_window(QUARANTINE, broken.slice(0, 2), WINDOW)
    labelled.append_once(SOURCES, pa.Table.from_pylist([{"source": "s", "name": "a.jsonl"}], SOURCES.schema), "t", 1)
    counts = account_raw(labelled, [(WINDOW, None)], repeats)
    assert (counts["raw"], counts["events"], counts["quarantine"]) == (15, 11, 2)
    assert counts["balanced"] is balanced
