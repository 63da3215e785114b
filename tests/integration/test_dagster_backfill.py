"""Backfills in Dagster on a small generated log: plan, apply and undo as one run of a range, and the daily check."""

import datetime as dt

import dagster as dg
import pytest

from assets.attribution.rules import Rules
from assets.attribution.tables import CLICK_SESSIONS, LATE_EVENTS
from assets.backfill import store, verify
from assets.events import generator
from assets.lake import Window
from dagster_project import jobs
from dagster_project.backfill_assets import NAME
from dagster_project.build import build_defs
from dagster_project.partitions import key_of, known_hours, range_tags
from dagster_project.settings import load

pytestmark = pytest.mark.slow

START = dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
WINDOW = Window(START, START + 6 * HOUR)
RANGE = Window(START + HOUR, START + 4 * HOUR)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
LABELS = ("impression_sessions", "click_sessions", "orphan_actions")
RULES = Rules(like_stay=dt.timedelta(minutes=10), valid_click_dwell=dt.timedelta(seconds=3), version="clicks of 3 s")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A line of six hours, through Dagster."""
    settings = load({"GLASSHOUSE_HOME": str(tmp_path_factory.mktemp("home"))})
    config = generator.TrafficConfig(seed=3, users=200, notes=100, start=START, hours=6, events_per_hour=2_000, tail=False)
    generator.generate(config, settings.landing, settings.truth)
    with dg.DagsterInstance.ephemeral() as instance:
        names = [*jobs.TO_LABELS, *(f"clickhouse/{name}" for name in jobs.COPIED)]
        assert jobs.run_line(instance, WINDOW, selection=names, settings=settings, run_config=QUIET).success
        (settings.home / "rules.toml").write_text(RULES.to_toml())
        yield settings, instance


def launch(home, window=RANGE, **options):
    settings, instance = home
    config = {"ops": {NAME: {"config": options}}} if options else {}
    return build_defs(settings, first=START).resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, tags=range_tags(window), asset_selection=[dg.AssetKey(NAME)], run_config={**config, **QUIET},
        raise_on_error=False,
    )  # fmt: skip


def refusal(result):
    assert not result.success
    event = next(event for event in result.all_events if event.is_step_failure)
    return event.event_specific_data.user_failure_data.description


def events_of(result, name):
    return [event.materialization for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey(name.split("/"))]


def state(lake):
    return {name: sorted(lake.read(name).to_pylist(), key=str) for name in LABELS}


def counted(settings):
    """Click sessions of the range in ClickHouse."""
    from assets.metrics import endpoint
    from assets.metrics.client import connect

    with endpoint.started(settings.clickhouse_folder) as url:
        return connect(url).query("SELECT count() FROM click_sessions").result_rows[0][0]


def test_a_range_is_planned_applied_and_undone_each_as_one_run(home):
    settings, instance = home
    lake = settings.lake
    before, clicks = state(lake), counted(settings)
    assert clicks == len(before["click_sessions"])
    runs = len(instance.get_runs())

    planned = launch(home, rules=str(settings.home / "rules.toml"))
    assert planned.success and len(instance.get_runs()) == runs + 1
    assert state(lake) == before
    found = events_of(planned, NAME)
    assert [one.partition for one in found] == [key_of(hour) for hour in RANGE.hours]
    report = store.shown(lake, found[0].metadata["plan"].value)
    assert report["window"] == store.texts(RANGE)
    removed = sum(kinds["removed"] for kinds in report["rows"].values())
    assert found[0].metadata["rows_removed"].value == removed > 10
    rates, click = found[0].metadata["Rates"].value, report["rates"]["ctr"]
    assert f"| ctr | {click['before']:.3%} | {click['after']:.3%} |" in rates
    assert "clicks of 3 s" in found[0].metadata["Range and rules"].value
    assert f"| {report['hours_changed'][0][:16]} |" in found[0].metadata["By hour"].value
    assert found[0].metadata["Examples: removed"].value.count("\n") == 11
    lines = [entry.user_message for entry in instance.all_logs(planned.run_id) if entry.step_key == NAME]
    assert any("stage=labeling" in line and "hours_done=" in line for line in lines)

    applied = launch(home, mode="apply")
    assert applied.success, refusal(applied)
    after = state(lake)
    assert after != before and counted(settings) == len(after["click_sessions"]) < clicks
    done = events_of(applied, NAME)[0].metadata
    assert done["state"].value == "applied" and done["clickhouse_swapped"].value is True
    for name in (*LABELS, "clickhouse/click_sessions"):
        told = events_of(applied, name)
        assert {one.partition for one in told} == {key_of(dt.datetime.fromisoformat(hour)) for hour in report["hours_changed"]}
        assert {one.metadata["backfill"].value for one in told} == {report["plan"]}

    undone = launch(home, mode="undo", plan=report["plan"])
    assert undone.success, refusal(undone)
    assert state(lake) == before and counted(settings) == clicks
    assert events_of(undone, NAME)[0].metadata["state"].value == "undone"
    assert events_of(undone, "click_sessions")


def test_refusals_fail_the_run_with_the_cores_words(home):
    settings, _ = home
    other = Window(START, START + HOUR)
    assert "launch these partitions with mode: plan first" in refusal(launch(home, other, mode="apply"))
    assert "nothing of it is applied" in refusal(launch(home, other, mode="undo"))
    plan_id = events_of(launch(home, other), NAME)[0].metadata["plan"].value
    assert "select exactly the plan's partitions" in refusal(launch(home, RANGE, mode="apply", plan=plan_id))
    assert "it takes none" in refusal(launch(home, other, mode="plan", plan=plan_id))
    assert "plans: " in refusal(launch(home, other, mode="apply", plan="nobody"))
    assert "nowhere.toml" in refusal(launch(home, other, rules="nowhere.toml"))
    (settings.home / "broken.toml").write_text("[sessions]\nwindow = 'x'\n")
    assert "broken.toml" in refusal(launch(home, other, rules=str(settings.home / "broken.toml")))
    with store.claim(settings.lake, other, "a test"):
        assert "works on" in refusal(launch(home, Window(START, START + 2 * HOUR)))


def test_what_was_made_of_the_old_rows_is_named_and_stale(home, spark):
    settings, instance = home
    made = jobs.run_line(instance, WINDOW, selection=["hourly_funnel"], settings=settings, run_config=QUIET)
    assert made.success, [event.event_specific_data.error for event in made.all_events if event.is_step_failure]
    assert stale(home, "hourly_funnel") == {"FRESH"}
    planned = launch(home, rules=str(settings.home / "rules.toml"))
    plan_id = events_of(planned, NAME)[0].metadata["plan"].value
    assert "| hourly_funnel |" in events_of(planned, NAME)[0].metadata["Stale after apply"].value
    try:
        applied = launch(home, mode="apply", plan=plan_id)
        assert "| hourly_funnel |" in events_of(applied, NAME)[0].metadata["Launch now"].value
        seen = {one.partition: one.metadata["stale"].value for one in observed(applied, "hourly_funnel")}
        assert set(seen) >= {key_of(hour) for hour in RANGE.hours} and plan_id in seen[key_of(START + 2 * HOUR)]
        assert stale(home, "hourly_funnel") == {"STALE"}
        again = jobs.run_line(instance, RANGE, selection=["hourly_funnel"], settings=settings, run_config=QUIET)
        assert again.success and stale(home, "hourly_funnel") == {"FRESH"}
    finally:
        launch(home, mode="undo", plan=plan_id)


def observed(result, name):
    events = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    found = [event.event_specific_data.asset_observation for event in events]
    return [one for one in found if one.asset_key == dg.AssetKey(name)]


def stale(home, name):
    """What Dagster's UI asks of the partitions of RANGE."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    settings, instance = home
    graph = build_defs(settings, first=START).get_repository_def().asset_graph
    found = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {found.get_status(dg.AssetKey(name), key_of(hour)).value for hour in RANGE.hours}


def check(home, window=WINDOW):
    settings, instance = home
    result = build_defs(settings, first=START).resolve_job_def(jobs.CHECK).execute_in_process(
        instance=instance, tags=range_tags(window), run_config=QUIET, raise_on_error=False
    )  # fmt: skip
    (found,) = result.get_asset_check_evaluations()
    return found


def test_the_daily_check_passes_and_finds_a_row_that_nobody_can_explain(home):
    settings, _ = home
    lake = settings.lake
    found = check(home)
    assert found.passed and found.metadata["hours"].value == 6 and found.metadata["differences"].value == 0
    second = Window(START + HOUR, START + 2 * HOUR)
    whole = lake.read("click_sessions", second)
    lake.replace_window(CLICK_SESSIONS, whole.slice(1), second)
    try:
        found = check(home)
        assert not found.passed and found.metadata["differences"].value == 1
        assert f"| {second.start.isoformat()} | 1 |" in found.metadata["wrong_hours"].value
    finally:
        lake.replace_window(CLICK_SESSIONS, whole, second)
    assert not list(store.folder(lake).glob("check-*"))


def test_late_events_explain_themselves_and_a_missing_one_does_not(tmp_path):
    from tests.integration.test_backfill import HOURS, hour, live_lake

    lake, _ = live_lake(tmp_path)
    window = Window(hour(0), hour(HOURS + 1))
    found = verify.same_as_recomputed(lake, window)
    assert found["hours"] == HOURS and found["open_hours"] == 0 and found["late_events"] > 20
    assert found["differences"] == 0, found
    one = Window(hour(3), hour(4))
    late = lake.read("late_events", one)
    lake.replace_window(LATE_EVENTS, late.slice(late.num_rows), one)  # as if they had been on time
    assert verify.same_as_recomputed(lake, window)["differences"] > 0


def test_hours_of_other_rules_are_held_against_their_own(home):
    settings, _ = home
    launch(home, rules=str(settings.home / "rules.toml"))
    plan_id = store.listed(settings.lake)[-1]["plan"]
    try:
        assert launch(home, mode="apply", plan=plan_id).success
        found = check(home)
        assert found.passed, found.metadata
    finally:
        assert launch(home, mode="undo", plan=plan_id).success


def test_the_schedule_asks_for_the_newest_day_as_one_run(home):
    settings, _ = home
    definitions = build_defs(settings, first=START)
    context = dg.build_schedule_context(
        scheduled_execution_time=START + 20 * HOUR, repository_def=definitions.get_repository_def(), resources={}
    )
    (request,) = definitions.resolve_schedule_def("daily_label_check").evaluate_tick(context).run_requests
    asked = Window(known_hours(settings.lake)[0], WINDOW.end)
    assert request.tags.items() >= range_tags(asked).items()
