"""A check that fails stops what is downstream, in the same run: a loss is planted and nothing is loaded from it."""

import datetime as dt

import dagster as dg
import pytest

from assets.attribution import label
from assets.attribution.state import Store
from assets.attribution.tables import CLICK_SESSIONS
from assets.events import generator
from assets.events.contract import EVENTS
from assets.lake import Window
from dagster_project import jobs
from dagster_project.settings import load

pytestmark = pytest.mark.slow

START = dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC)
WINDOW = Window(START, START + dt.timedelta(hours=2))
TO_LABELS = list(jobs.TO_LABELS)
EVENTS_RAW = "raw_events"
COPIES = [f"clickhouse/{name}" for name in jobs.COPIED]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def settings(tmp_path):
    found = load({"GLASSHOUSE_HOME": str(tmp_path)})
    config = generator.TrafficConfig(seed=3, users=100, notes=100, start=START, hours=2, events_per_hour=2_000)
    generator.generate(config, found.landing, found.truth)
    return found


def run(settings, selection):
    with dg.DagsterInstance.ephemeral() as instance:
        result = jobs.run_line(instance, WINDOW, selection=selection, settings=settings, run_config=QUIET)
        loaded = instance.get_materialized_partitions(dg.AssetKey(["clickhouse", "events"]))
    failed = {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}
    return result, failed, loaded


def test_a_lost_session_stops_the_load(settings, monkeypatch):
    whole = label.label_window

    def losing(lake, window, rules, **more):
        counts = whole(lake, window, rules, **more)
        sessions = lake.read(CLICK_SESSIONS.name, window)
        assert sessions.num_rows
        lake.replace_window(CLICK_SESSIONS, sessions.slice(1), window)
        return counts

    monkeypatch.setattr(label, "label_window", losing)
    result, failed, loaded = run(settings, TO_LABELS + COPIES)
    assert not result.success
    assert failed == {"accounted_for", "same_as_recomputed"}
    assert not loaded


def test_an_event_written_twice_stops_the_labels(settings, monkeypatch):
    from assets.events import intake

    whole = intake.accept

    def doubling(lake, window, *more, **named):
        accepted = whole(lake, window, *more, **named)
        events = lake.read(EVENTS.name, window)
        hours = events["hour"].to_pylist()
        lake.replace_window(EVENTS, events.take([*range(len(hours)), 0]), window)
        return intake.Accepted(accepted.counts, [(window, lake.log.newest().number)])

    monkeypatch.setattr(intake, "accept", doubling)
    result, failed, _ = run(settings, TO_LABELS)
    assert not result.success
    assert {"raw_is_events_quarantine_and_repeats"} <= failed
    assert not settings.lake.exists("impression_sessions")


def test_without_a_fault_the_same_run_passes(settings):
    result, failed, _ = run(settings, TO_LABELS)
    assert result.success
    assert not failed


def test_what_landed_is_left_to_a_live_labeler_that_works(settings):
    with Store(settings.lake).owned():
        result, failed, _ = run(settings, [EVENTS_RAW])
    assert result.success and not failed
    assert settings.lake.read(EVENTS_RAW).num_rows == 0
    result, _, _ = run(settings, [EVENTS_RAW])
    assert result.success and settings.lake.read(EVENTS_RAW).num_rows > 0
