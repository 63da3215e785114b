"""A SQL job's run on Delta tables: its window and nothing else is replaced, and what it read is told."""

import datetime as dt
from dataclasses import replace

import pyarrow as pa
import pytest

from assets.attribution.rules import Rules
from assets.engines.choice import Engines, embedded_only, on_spark
from assets.events.contract import EVENTS
from assets.lake import LakeError, Window
from assets.samples.sql_job import SqlJobError, load_jobs, run_job
from dagster_project.line_assets import TABLES

pytestmark = pytest.mark.slow
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
HOURS = [START + dt.timedelta(hours=i) for i in range(3)]
DAY = Window(HOURS[0], HOURS[2] + dt.timedelta(hours=1))
SQL = """\
-- name: clicks
-- owner: team:feed
-- grain: hour
-- partition: hourly
-- description: Clicks of an hour.
select e.hour, -- the hour
    count(*) as clicks -- how many
from events as e
where e.hour >= {{ window_start }} and e.hour < {{ window_end }}
group by e.hour
"""


@pytest.fixture(params=["duckdb", "spark"])
def engines(request):
    return on_spark(request.getfixturevalue("spark")) if request.param == "spark" else embedded_only()


@pytest.fixture
def job(tmp_path):
    (tmp_path / "clicks.sql").write_text(SQL)
    (job,) = load_jobs(tmp_path, TABLES)
    return job


def changed(tmp_path, old, new):
    """The job after its file was changed."""
    assert old in SQL
    (tmp_path / "clicks.sql").write_text(SQL.replace(old, new))
    (job,) = load_jobs(tmp_path, TABLES)
    return job


def events(counts):
    hours = [hour for hour, count in zip(HOURS, counts, strict=False) for _ in range(count)]
    rows = [{"hour": hour, "event_id": f"e{i}", "action": "click"} for i, hour in enumerate(hours)]
    return pa.Table.from_pylist(rows, EVENTS.schema)


def clicks(lake):
    return {row["hour"].hour: row["clicks"] for row in lake.read("clicks").to_pylist()}


def test_a_window_is_replaced_and_the_rest_stays(lake, engines, job):
    lake.replace_window(EVENTS, events([1, 2, 3]), DAY)
    done = run_job(job, lake, engines, DAY, Rules())
    assert clicks(lake) == {0: 1, 1: 2, 2: 3}
    assert done.rows == dict.fromkeys(HOURS, 1)
    assert done.read == {"events": lake.version("events")}
    assert not done.warnings
    lake.replace_window(EVENTS, events([5, 5, 5]), DAY)
    again = run_job(job, lake, engines, Window(HOURS[1], HOURS[2]), Rules())
    assert clicks(lake) == {0: 1, 1: 5, 2: 3}
    assert again.version > done.version
    fields = lake.read("clicks").schema
    assert fields.field("clicks").metadata[b"comment"] == b"how many"


def test_no_jvm_is_started_for_a_job_that_does_not_need_one(lake, job):
    lake.replace_window(EVENTS, events([1, 2, 3]), DAY)
    engines = Engines(spark=lambda: pytest.fail("Spark was started"))
    assert run_job(job, lake, engines, DAY, Rules()).engine.name == "duckdb"
    with pytest.raises(pytest.fail.Exception, match="Spark was started"):
        run_job(replace(job, head=replace(job.head, engine="spark")), lake, engines, DAY, Rules())


def test_an_hour_without_events_becomes_empty_and_is_named(lake, engines, job):
    lake.replace_window(EVENTS, events([1, 2, 3]), DAY)
    run_job(job, lake, engines, DAY, Rules())
    lake.replace_window(EVENTS, events([0]), DAY)
    done = run_job(job, lake, engines, DAY, Rules())
    assert clicks(lake) == {}
    assert "the input `events` (version 2) has no rows in [2026-01-05 00:00, 2026-01-05 03:00)" in done.warnings[0]


def test_an_input_that_is_not_there_is_named(lake, engines, job):
    with pytest.raises(LakeError, match="no table `events`; materialize the asset `events`"):
        run_job(job, lake, engines, DAY, Rules())


def test_rows_outside_of_the_window_are_refused_from_the_first_write_on(lake, engines, job):
    lake.replace_window(EVENTS, events([1, 2, 3]), DAY)
    window = "where e.hour >= {{ window_start }} and e.hour < {{ window_end }}"
    wide = replace(job, template=job.template.replace(window, ""))
    with pytest.raises(Exception, match="DELTA_REPLACE_WHERE_MISMATCH|lies outside of"):
        run_job(wide, lake, engines, Window(HOURS[1], HOURS[2]), Rules())
    assert clicks(lake) == {}


def test_a_new_column_is_added_and_a_retyped_one_refused(lake, engines, job, tmp_path):
    lake.replace_window(EVENTS, events([1, 2, 3]), DAY)
    run_job(job, lake, engines, DAY, Rules())
    more = changed(tmp_path, "as clicks --", "as clicks, max(e.user_id) as greatest --")
    run_job(more, lake, engines, Window(HOURS[1], HOURS[2]), Rules())
    assert "greatest" in lake.read("clicks").column_names
    text = changed(tmp_path, "count(*)", "cast(count(*) as string)")
    with pytest.raises(SqlJobError, match="has another type for clicks"):
        run_job(text, lake, engines, DAY, Rules())
