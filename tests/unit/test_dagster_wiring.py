"""The code location without running it: keys, jobs, partitions, schedules, sensors."""

import datetime as dt
import json
import os
from dataclasses import replace

import dagster as dg
import pyarrow as pa
import pytest

from assets.attribution.rules import Rules
from assets.events.contract import RAW_EVENTS
from assets.events.landing import batches
from assets.lake import Window
from dagster_project import partitions, schedules
from dagster_project import settings as environment
from dagster_project.build import build_defs
from dagster_project.order_assets import KEYS as ORDER_KEYS

HOUR = dt.timedelta(hours=1)
START = dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC)


@pytest.fixture
def settings(tmp_path):
    return environment.load({"GLASSHOUSE_HOME": str(tmp_path)})


@pytest.fixture
def repository(settings):
    return build_defs(settings).get_repository_def()


def raw(lake, *hours):
    rows = [{"hour": hour, "source": "s", "row": 1, "body": b"{}"} for hour in hours]
    lake.append_once(RAW_EVENTS, pa.Table.from_pylist(rows, RAW_EVENTS.schema), str(hours), 1)


def test_asset_keys(repository):
    assert sorted(key.to_user_string() for key in repository.asset_graph.executable_asset_keys) == [
        "account_actions", "account_hours", "click_sessions", "clickhouse/click_sessions", "clickhouse/events", "clickhouse/impression_sessions",
        "clickhouse/late_events", "clickhouse/order_attributions", "clickhouse/orphan_actions", "clickhouse/quarantine",
        "clickhouse/spam_accounts", "code_location", "compare_versions", "daily_active_users", "events",
        "hourly_funnel", "impression_sessions", "label_backfill", "labels", "late_events", "metrics", "note_products", "note_profiles",
        "order_attributions", "order_changes", "order_quarantine", "orders", "orphan_actions", "planting_actions", "quarantine", "ranker", "raw_events",
        "serving_ranker", "spam_accounts", "training_samples", "try_a_rule", "user_histories", "user_profiles", "user_topic_profiles",
    ]  # fmt: skip


def test_jobs_checks_schedules_and_sensors(repository):
    assert sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")) == [
        "after_labels", "check_engines", "check_labels", "fresh_ranker", "land_logs", "line", "new_orders", "tidy_lake", "train_ranker"
    ]  # fmt: skip
    assert sorted(key.to_user_string() for key in repository.asset_graph.asset_check_keys) == [
        "account_actions:grain_is_unique",
        "account_actions:same_on_spark",
        "account_hours:grain_is_unique",
        "account_hours:same_on_spark",
        "clickhouse/events:equals_delta",
        "clickhouse/order_attributions:equals_delta",
        "clickhouse/spam_accounts:equals_delta",
        "code_location:every_file_loads",
        "daily_active_users:grain_is_unique",
        "daily_active_users:same_on_spark",
        "events:event_id_is_unique",
        "events:raw_is_events_quarantine_and_repeats",
        "hourly_funnel:grain_is_unique",
        "hourly_funnel:same_on_spark",
        "impression_sessions:accounted_for",
        "impression_sessions:same_as_recomputed",
        "note_profiles:grain_is_unique",
        "note_profiles:same_on_spark",
        "order_attributions:orders_reconcile",
        "ranker:good_enough_to_promote",
        "spam_accounts:grain_is_unique",
        "spam_accounts:same_on_spark",
        "spam_accounts:spam_precision_recall",
        "training_samples:grain_is_unique",
        "training_samples:no_leak",
        "training_samples:one_row_a_display",
        "training_samples:same_on_spark",
        "user_histories:grain_is_unique",
        "user_histories:same_on_spark",
        "user_profiles:grain_is_unique",
        "user_profiles:same_on_spark",
        "user_topic_profiles:grain_is_unique",
        "user_topic_profiles:same_on_spark",
    ]
    assert sorted(s.name for s in repository.schedule_defs) == [
        "daily_engines_check", "daily_label_check", "daily_ranker", "hourly_after_labels", "hourly_tidy"
    ]  # fmt: skip
    assert sorted(s.name for s in repository.sensor_defs) == ["closed_samples", "files_left_out", "landing_folder"]
    started = [*repository.schedule_defs, *repository.sensor_defs]
    running = [s.name for s in started if s.default_status.value != "STOPPED"]
    assert running == ["hourly_tidy", "files_left_out"], "the housekeeping alone starts by itself, and who says which files are broken"


def test_every_check_blocks_but_three_and_every_backfill_is_one_run(repository):
    graph = repository.asset_graph
    warning = {key.name for key in graph.asset_check_keys if not graph.get_check_spec(key).blocking}
    assert warning == {"spam_precision_recall", "every_file_loads", "same_on_spark"}, "rules about people may err, nothing stands after a file, and a day's look at engines comes late: that stops nothing"
    policies = {key: graph.get(key).backfill_policy for key in graph.executable_asset_keys}
    assert {policy.policy_type.value for policy in policies.values()} == {"SINGLE_RUN"}


def test_a_range_over_the_line_needs_one_run(repository):
    graph = repository.asset_graph
    by_hour = {key for key in graph.executable_asset_keys if graph.get(key).is_partitioned}
    assert graph.executable_asset_keys - by_hour == {
        *(dg.AssetKey(name) for name in ("code_location", "ranker", "serving_ranker", *ORDER_KEYS)), dg.AssetKey(["clickhouse", "order_attributions"])
    }  # fmt: skip
    assert len({graph.get(key).partitions_def for key in by_hour}) == 1


def test_lineage_of_tables_and_columns_is_told(repository):
    graph = repository.asset_graph
    samples = graph.get(dg.AssetKey("training_samples"))
    assert {key.to_user_string() for key in samples.parent_keys} == {
        "impression_sessions", "click_sessions", "user_profiles", "note_profiles", "user_histories", "user_topic_profiles"
    }  # fmt: skip
    lineage = samples.metadata["dagster/column_lineage"].deps_by_column
    assert lineage["user_ctr"] == [dg.TableColumnDep(dg.AssetKey("user_profiles"), "ctr")]
    columns = {column.name: column for column in samples.metadata["dagster/column_schema"].columns}
    assert columns["label_like"].type == "INT"
    assert columns["label_like"].description.endswith("← click_sessions.like")
    assert graph.get(dg.AssetKey("user_profiles")).owners == ["team:feed"]


# --- partitions -------------------------------------------------------------------------------------------------------


def test_the_first_hour_is_the_setting_else_the_lakes_else_yesterday(settings):
    now = dt.datetime(2026, 5, 3, 14, 20, tzinfo=dt.UTC)
    assert partitions.first_hour(settings, now) == dt.datetime(2026, 5, 2, tzinfo=dt.UTC)
    raw(settings.lake, START + HOUR, START)
    assert partitions.first_hour(settings, now) == START
    assert partitions.first_hour(replace(settings, first_hour=START - HOUR), now) == START - HOUR


def test_the_running_hour_is_a_partition_and_the_next_is_not():
    hours = partitions.hourly(START)
    keys = hours.get_partition_keys(current_time=START + 2.5 * HOUR)
    assert keys == ["2026-01-05-03:00", "2026-01-05-04:00", "2026-01-05-05:00"]


def test_keys_are_hours_and_back():
    assert partitions.hour_of(partitions.key_of(START)) == START
    window = Window(START, START + 3 * HOUR)
    assert partitions.range_tags(window) == {
        "dagster/asset_partition_range_start": "2026-01-05-03:00",
        "dagster/asset_partition_range_end": "2026-01-05-05:00",
    }


@pytest.mark.parametrize("count", [1, 14, pytest.param(360, marks=pytest.mark.slow)])
def test_a_run_sees_all_its_partitions_as_one_window(count):
    hours = partitions.hourly(START)
    window = Window(START, START + count * HOUR)
    seen = []

    @dg.asset(partitions_def=hours, backfill_policy=dg.BackfillPolicy.single_run())
    def probe(context: dg.AssetExecutionContext):
        seen.append(partitions.window_of(context))
        return dg.MaterializeResult()

    @dg.asset_check(asset=probe, blocking=True)
    def probed(context: dg.AssetCheckExecutionContext):
        seen.append(partitions.window_of(context))
        return dg.AssetCheckResult(passed=True)

    result = dg.materialize([probe, probed], tags=partitions.range_tags(window))
    assert seen == [window, window]
    assert len(result.asset_materializations_for_node("probe")) == count


# --- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        ("2026-01-05T05:41:59+00:00", "2026-01-05T03:00:00+00:00"),
        ("2026-01-05T05:42:00+00:00", "2026-01-05T04:00:00+00:00"),  # 2 x 20 min + 2 min after its end
        ("2026-01-05T06:00:00+00:00", "2026-01-05T04:00:00+00:00"),
    ],
)
def test_an_hour_is_settled_two_windows_and_the_delay_after_its_end(now, newest):
    assert schedules.newest_settled(dt.datetime.fromisoformat(now), Rules()) == dt.datetime.fromisoformat(newest)


def test_the_minute_follows_from_the_rules():
    assert schedules.minute_of_hour(Rules()) == 42
    assert schedules.minute_of_hour(Rules(window=dt.timedelta(minutes=31))) == 4
    assert schedules.minute_of_hour(Rules(delay=dt.timedelta(seconds=90))) == 42


def evaluate(definitions, name, at):
    schedule = definitions.resolve_schedule_def(name)
    context = dg.build_schedule_context(
        scheduled_execution_time=at, repository_def=definitions.get_repository_def(), resources={}
    )
    return schedule.evaluate_tick(context)


def test_the_schedule_asks_for_the_settled_hour_if_something_happened_in_it(settings):
    raw(settings.lake, START)
    definitions = build_defs(settings)
    found = evaluate(definitions, "hourly_after_labels", START + HOUR + dt.timedelta(minutes=42))
    (request,) = found.run_requests
    assert (request.run_key, request.partition_key) == ("2026-01-05-03:00", "2026-01-05-03:00")
    nothing = evaluate(definitions, "hourly_after_labels", START + 5 * HOUR + dt.timedelta(minutes=42))
    assert not nothing.run_requests
    assert "no events of 2026-01-05-07:00" in nothing.skip_message


# --- sensors ----------------------------------------------------------------------------------------------------------


def look(definitions, cursor=None):
    context = dg.build_sensor_context(cursor=cursor, repository_def=definitions.get_repository_def(), resources={})
    return definitions.resolve_sensor_def("landing_folder").evaluate_tick(context)


def written_a_while_ago(path):
    path.write_text("{}\n")
    moment = path.stat().st_mtime - 60  # a file that is being written is left alone
    os.utime(path, (moment, moment))


def test_the_sensor_asks_once_for_what_has_landed(settings):
    definitions = build_defs(settings)
    assert "no logs in" in look(definitions).skip_message
    settings.landing.mkdir()
    written_a_while_ago(settings.landing / "a.jsonl")
    first = look(definitions)
    assert len(first.run_requests) == 1
    assert first.run_requests[0].partition_key == partitions.key_of(dt.datetime.now(dt.UTC).replace(minute=0))
    assert look(definitions, first.cursor).skip_message == "no new files"
    written_a_while_ago(settings.landing / "b.jsonl")
    second = look(definitions, first.cursor)
    assert len(second.run_requests) == 1
    assert second.run_requests[0].run_key != first.run_requests[0].run_key


def test_logs_that_have_not_settled_are_said_to_be_there(tmp_path):
    slow = environment.load({"GLASSHOUSE_HOME": str(tmp_path), "GLASSHOUSE_SETTLE": "1h"})
    slow.landing.mkdir()
    (slow.landing / "a.jsonl").write_text("{}\n")
    assert look(build_defs(slow)).skip_message == f"1 log in {slow.landing}, written to less than 3600 s ago: perhaps still growing"
    (slow.landing / "b.jsonl").write_text("{}\n")
    assert look(build_defs(slow)).skip_message.startswith("2 logs in")
    os.utime(slow.landing / "a.jsonl", (0, 0))
    assert look(build_defs(slow)).run_requests


def test_a_file_that_grew_is_new(settings):
    definitions = build_defs(settings)
    settings.landing.mkdir()
    path = settings.landing / "a.jsonl"
    written_a_while_ago(path)
    cursor = look(definitions).cursor
    os.utime(path, ns=(json.loads(cursor)[1] + 1, json.loads(cursor)[1] + 1))
    assert look(definitions, cursor).run_requests


def test_logs_are_found_by_folder_with_their_mapping(tmp_path):
    other = tmp_path / "kuairand"
    other.mkdir()
    for name in ("b.jsonl.gz", "a.parquet", ".hidden.jsonl", "c.jsonl.tmp", "notes.txt"):
        (tmp_path / name).touch()
    (other / "log.tsv.gz").touch()
    (other / "mapping.toml").touch()
    native, foreign = batches(tmp_path)
    assert [path.name for path in native.paths] == ["a.parquet", "b.jsonl.gz"]
    assert (native.mapping_file, native.mapping) == (None, None)
    assert (foreign.paths, foreign.mapping_file) == ([other / "log.tsv.gz"], other / "mapping.toml")
    assert batches(tmp_path / "nothing") == []
