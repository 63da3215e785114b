"""The line through Dagster, on a small generated log: one run over a range, checks, repeats, what the code location holds."""

import datetime as dt
import subprocess
import sys

import dagster as dg
import pytest

from assets.counts import rows_by_hour
from assets.events import generator
from assets.lake import Window
from dagster_project import jobs
from dagster_project.build import build_defs
from dagster_project.settings import ROOT, load

HOURS = 14
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
WINDOW = Window(START, START + dt.timedelta(hours=HOURS))
LABELS = ("impression_sessions", "click_sessions", "orphan_actions")
RANKER = {"ops": {"ranker": {"config": {"min_steps": 5}}}}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

KEYS = {
    "raw_events", "events", "quarantine", "impression_sessions", "click_sessions", "orphan_actions", "late_events",
    "label_backfill", "user_histories", "user_topic_profiles", "user_profiles", "note_profiles", "training_samples", "hourly_funnel", "daily_active_users", "ranker",
    "serving_ranker", "compare_versions",
    "clickhouse/events", "clickhouse/impression_sessions", "clickhouse/click_sessions", "clickhouse/orphan_actions",
    "clickhouse/late_events", "clickhouse/quarantine", "clickhouse/spam_accounts", "clickhouse/order_attributions", "labels", "metrics", "try_a_rule", "order_changes", "orders", "note_products",
    "order_quarantine", "order_attributions", "planting_actions", "account_actions", "account_hours", "spam_accounts", "code_location",
}  # fmt: skip


def test_the_code_location_holds_these_assets_and_jobs():
    defs = build_defs(load({"GLASSHOUSE_HOME": "build/none"}))
    found = {key.to_user_string() for asset in defs.assets for key in asset.keys}
    assert found == KEYS
    assert {job.name for job in defs.jobs} == {jobs.LINE, jobs.LAND, jobs.AFTER_LABELS, jobs.TRAIN, jobs.TIDY, jobs.ORDERS, jobs.CHECK, jobs.FRESH, jobs.CHECK_ENGINES}


@pytest.mark.slow
def test_loading_imports_no_engine():
    heavy = "[m for m in ('pyspark', 'torch', 'torchrec', 'numba', 'streamlit') if m in sys.modules]"
    code = f"import sys, dagster_project.definitions; assert not {heavy}, {heavy}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return load({"GLASSHOUSE_HOME": str(tmp_path_factory.mktemp("home"))})


@pytest.fixture(scope="module")
def instance():
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture(scope="module")
def result(settings, instance, spark):
    config = generator.TrafficConfig(seed=5, users=300, notes=200, start=START, hours=HOURS, events_per_hour=900, tail=False)
    generator.generate(config, settings.landing, settings.truth)
    return jobs.run_line(instance, WINDOW, settings=settings, run_config={**RANKER, **QUIET})


def content(lake, name):
    return sorted(lake.read(name, WINDOW).to_pylist(), key=str)


@pytest.mark.slow
def test_a_run_that_is_given_fourteen_partitions_does_fourteen(result, settings, instance):
    assert result.success
    for name in ("events", *LABELS[:2], "training_samples"):
        assert all(rows_by_hour(settings.lake, name, WINDOW).values()), name
        assert len(instance.get_materialized_partitions(dg.AssetKey(name))) == HOURS
    assert len(instance.get_runs()) == 1


@pytest.mark.slow
def test_every_check_ran_and_passed(result):
    checks = {(c.asset_key.to_user_string(), c.check_name): c.passed for c in result.get_asset_check_evaluations()}
    assert all(checks.values()), checks
    names = {name for _, name in checks}
    assert {"accounted_for", "no_leak", "event_id_is_unique", "one_row_a_display", "equals_delta", "grain_is_unique"} <= names
    assert "orders_reconcile" in names


@pytest.mark.slow
def test_the_model_was_trained_on_the_samples_and_compared_with_the_truth(result, settings):
    from assets.ranking import registry

    metrics = registry.read_metrics(settings.lake)
    samples = settings.lake.read("training_samples").num_rows
    assert metrics["train_samples"] + metrics["holdout_samples"] == samples
    assert metrics["heads"]["click"]["truth_auc"] > 0.65


@pytest.mark.slow
def test_a_second_run_over_a_part_changes_nothing(result, settings, instance):
    lake = settings.lake
    before = {name: content(lake, name) for name in ("events", *LABELS)}
    raw = lake.version("raw_events")
    part = Window(START + dt.timedelta(hours=4), START + dt.timedelta(hours=7))
    again = jobs.run_line(
        instance, part, selection=["raw_events", "events", "quarantine", *LABELS, "late_events"], settings=settings,
        run_config=QUIET,
    )  # fmt: skip
    assert again.success
    assert lake.version("raw_events") == raw
    assert {name: content(lake, name) for name in before} == before


@pytest.mark.slow
def test_a_lost_session_is_found(result, settings):
    from assets.attribution.accounting import CONTRADICTIONS, account
    from assets.attribution.tables import CLICK_SESSIONS

    lake, hour = settings.lake, Window(START + dt.timedelta(hours=5), START + dt.timedelta(hours=6))
    whole = lake.read("click_sessions", hour)
    assert not any(account(lake, hour, settings.rules)[name] for name in CONTRADICTIONS)
    lake.replace_window(CLICK_SESSIONS, whole.slice(1), hour)
    try:
        found = account(lake, hour, settings.rules)
        assert any(found[name] for name in CONTRADICTIONS), found
    finally:
        lake.replace_window(CLICK_SESSIONS, whole, hour)


def test_every_check_blocks_but_those_that_warn():
    defs = build_defs(load({"GLASSHOUSE_HOME": "build/none"}))
    specs = [spec for checks in defs.asset_checks for spec in checks.check_specs]
    assert specs and {spec.name for spec in specs if not spec.blocking} == {"spam_precision_recall", "same_on_spark"}
