"""A leak is planted into a job's SQL; the audit of training_samples must catch it, and be silent without one."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from assets.attribution.label import label
from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, IMPRESSION_SESSIONS
from assets.engines.choice import on_spark
from assets.events.context import retyped
from assets.events.contract import EVENT_SCHEMA, EVENTS
from assets.lake import Lake, Window
from assets.samples.audit import audit
from assets.samples.sql_job import load_jobs, run_job
from dagster_project.line_assets import TABLES
from dagster_project.sql_jobs import FOLDER

pytestmark = pytest.mark.slow
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
WINDOW = Window(START, START + dt.timedelta(hours=6))
JOBS = {job.name: job for job in load_jobs(FOLDER, TABLES)}
SAMPLES = ("user_profiles", "note_profiles", "user_histories", "user_topic_profiles", "training_samples")
HOUR_US = 3_600_000_000

OWN_HOUR = "l.place = {} and l.profile_hour >= l.hour - interval 168 hours\n),\nnote_hours"
OWN_HISTORY = "l.place = {} and l.history_hour >= l.hour - interval 168 hours"
OWN_TOPIC = "l.place = {} and l.profile_hour >= l.hour - interval 168 hours\n)\nselect"
RECEIVED = "date_trunc('HOUR', greatest(e.event_time, e.ingest_time)) as hour"
# What is planted: the job, then old and new text in turn.
LEAKS = {
    # The profile of the display's own hour: what happened after the display, the click on it included.
    "own hour": (
        "training_samples", "d.user_id, d.hour, 0 as place, cast(null as timestamp) as profile_hour",
        "d.user_id, d.hour, 2 as place, cast(null as timestamp) as profile_hour", OWN_HOUR.format(0), OWN_HOUR.format(2),
    ),
    "own hour's clicks": (
        "training_samples", "d.user_id, d.hour, 0 as place, cast(null as timestamp) as history_hour",
        "d.user_id, d.hour, 2 as place, cast(null as timestamp) as history_hour", OWN_HISTORY.format(0),
        OWN_HISTORY.format(2),
    ),
    "own hour's topic": (
        "training_samples", "d.topic, d.hour, 0 as place", "d.topic, d.hour, 2 as place",
        OWN_TOPIC.format(0), OWN_TOPIC.format(2),
    ),
    # By the time on the device: an event that was still on its way is counted as if it had been there.
    "not yet received": ("user_profiles", "greatest(e.event_time, e.ingest_time)", "e.event_time"),
    # A window one hour too wide at its upper end.
    "an hour ahead": ("note_profiles", "and current row", "and interval 1 hours following"),
    "clicks not yet received": ("user_histories", RECEIVED, "e.hour as hour"),
    "clicks an hour ahead": ("user_histories", "and current row", "and interval 1 hours following"),
    "topics not yet received": ("user_topic_profiles", RECEIVED, "e.hour as hour"),
    "topics an hour ahead": ("user_topic_profiles", "and current row", "and interval 1 hours following"),
}
# Which features then differ.
SIDES = {
    "own hour's clicks": ("clicked_", "liked_"), "own hour's topic": ("user_topic_",), "note_profiles": ("note_",),
    "user_histories": ("clicked_", "liked_"), "user_topic_profiles": ("user_topic_",),
}  # fmt: skip


def some_events():
    """3,000 events of 20 users and 10 notes over six hours, a quarter of them received up to two hours late."""
    rng = np.random.default_rng(5)
    n = 3_000
    time = int(START.timestamp() * 1e6) + np.sort(rng.integers(0, 6 * HOUR_US, n))
    late = np.where(rng.random(n) < 0.25, rng.integers(0, 2 * HOUR_US, n), 1_000_000)
    action = rng.choice(["impression", "click", "view_end", "like"], n, p=[0.6, 0.2, 0.15, 0.05])
    columns = {
        "event_id": [f"e{i}" for i in range(n)],
        "user_id": rng.integers(0, 20, n),
        "note_id": rng.integers(0, 10, n),
        "action": action,
        "event_time": time,
        "ingest_time": time + late,
        "dwell_ms": pa.array(rng.integers(0, 30_000, n), mask=action != "view_end"),
        "context": [None if i % 17 == 0 else f'{{"author_id": {i % 5}, "topic": "t{i % 3}"}}' for i in range(n)],
    }
    return retyped(pa.table({f.name: pa.array(columns.get(f.name, [None] * n)).cast(f.type) for f in EVENT_SCHEMA}))


@pytest.fixture(scope="module")
def lake(tmp_path_factory, spark):
    lake = Lake(str(tmp_path_factory.mktemp("leak") / "lake"))
    events = some_events()
    hour = pc.floor_temporal(events["event_time"], unit="hour")
    lake.replace_window(EVENTS, events.add_column(0, "hour", hour), WINDOW)
    labels = label(events, Rules())
    for table in (IMPRESSION_SESSIONS, CLICK_SESSIONS):
        lake.replace_window(table, getattr(labels, table.name), WINDOW)
    run(lake, spark)
    return lake


def run(lake, spark, *jobs):
    for job in jobs or [JOBS[name] for name in SAMPLES]:
        run_job(job, lake, on_spark(spark), WINDOW, Rules())


def test_the_jobs_as_they_are_leak_nothing(lake):
    found = audit(lake, WINDOW, Rules(), rows=400)
    assert found.wrong == []
    assert found.rows >= 390
    samples = lake.read("training_samples")
    for name in ("user_clicks", "clicked_notes", "liked_authors", "user_topic_clicks"):
        assert len(samples[name].drop_null()) > 500, name  # there was something to compare
    assert pc.max(pc.list_value_length(samples["clicked_notes"])).as_py() == 20


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_caught(lake, spark, leak):
    name, *edits = LEAKS[leak]
    template = JOBS[name].template
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert template.count(old) == 1
        template = template.replace(old, new)
    planted = replace(JOBS[name], template=template)
    try:
        run(lake, spark, *([planted] if name == "training_samples" else [planted, JOBS["training_samples"]]))
        found = audit(lake, WINDOW, Rules())
    finally:
        if name != "training_samples":  # each case makes that anew
            run(lake, spark, JOBS[name])
    assert len(found.wrong) > 20
    sides = SIDES.get(leak) or SIDES.get(name) or ("user_",)
    assert all(line.split(": ")[1].startswith(sides) for line in found.wrong)
