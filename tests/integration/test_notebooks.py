"""The shipped notebooks run by Dagster, SQL cells on their engines, a promoted cell as a job."""

import dataclasses
import datetime as dt
import json
import shutil

import dagster as dg
import polars as pl
import pytest
import yaml

from assets.attribution.rules import Rules
from assets.engines.choice import Engines, embedded_only, on_spark
from assets.notebook import files
from assets.notebook.promote import LINE_TABLES, promote
from assets.notebook.sql import ClickHouseSql, LakeSql, SqlError
from assets.samples.sql_job import load_jobs, run_job
from dagster_project.build import build_defs
from dagster_project.partitions import range_tags
from dagster_project.settings import load
from tests.conftest import ROOT
from tests.notebook_lake import START, WINDOW, fill
from tests.sql import test_sql_jobs as runner

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    found = load({"GLASSHOUSE_HOME": str(home)})
    fill(found.lake)
    return found


@pytest.fixture(scope="module")
def endpoint(settings):
    from assets.metrics.client import connect
    from assets.metrics.endpoint import started
    from assets.metrics.loader import load_window

    with started(settings.clickhouse_folder) as url:
        load_window(settings.lake, connect(url), WINDOW)
        yield url


def materialize(settings, name, folder=ROOT / "notebooks", **more):
    """Materialize one notebook for all hours of WINDOW as one run; returns the result and its asset's metadata."""
    defs = build_defs(settings, notebook_folder=folder, first=START, **more)
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=dg.DagsterInstance.ephemeral(), tags=range_tags(WINDOW), asset_selection=[dg.AssetKey(name)],
        raise_on_error=False,
    )  # fmt: skip
    found = [event.materialization for event in result.get_asset_materialization_events()]
    return result, found


def scalars(materialization):
    return {name: value.value for name, value in materialization.metadata.items()}


def frames(lake):
    return [pl.from_arrow(lake.read(name)) for name in ("impression_sessions", "click_sessions", "events")]


def test_the_labels_notebook_as_one_run_of_three_hours_says_what_the_lake_holds(settings):
    result, found = materialize(settings, "labels")
    assert result.success
    assert [m.partition for m in found] == ["2026-01-05-03:00", "2026-01-05-04:00", "2026-01-05-05:00"]
    displays, clicks, _ = frames(settings.lake)
    said = scalars(found[0])
    seconds = displays.filter("clicked").select(pl.col("first_click_time") - pl.col("session_start")).to_series()
    assert said["displays"] == len(displays) > 9000
    assert said["clicked"] == displays["clicked"].sum()
    assert said["click_rate"] == pytest.approx(displays["clicked"].mean())
    assert said["attributed_clicks"] == clicks["attributed"].sum()
    assert said["like_rate_given_click"] == pytest.approx(clicks.filter("attributed")["like"].mean())
    assert said["median_seconds_to_click"] == pytest.approx(seconds.median().total_seconds(), abs=0.002)
    assert said["events_behind_one_label"] >= 3
    shown_in_the_ui = found[0].metadata["Executed notebook"]
    assert isinstance(shown_in_the_ui, dg.NotebookMetadataValue)
    executed = json.loads(open(shown_in_the_ui.value).read())
    injected = [cell for cell in executed["cells"] if "injected-parameters" in cell["metadata"].get("tags", ())]
    assert 'window_start = "2026-01-05T03:00:00Z"' in "".join(injected[0]["source"])
    pictures = [o for cell in executed["cells"] for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3


def test_the_metrics_notebook_says_what_the_lake_holds(settings, endpoint):
    result, found = materialize(dataclasses.replace(settings, clickhouse_url=endpoint), "metrics")
    assert result.success
    displays, clicks, events = frames(settings.lake)
    said = scalars(found[0])
    shown = events.filter(pl.col("action") == "impression")
    per_minute = shown.group_by(pl.col("event_time").dt.truncate("1m")).len()
    assert said["active_users"] == events["user_id"].n_unique()
    assert said["events"] == len(events)
    assert said["clicks"] == (events["action"] == "click").sum()
    assert said["displays"] == len(displays)
    assert said["clicked"] == displays["clicked"].sum()
    assert said["likes"] == clicks.filter("attributed")["like"].sum()
    assert said["peak_displays_per_minute"] == per_minute["len"].max()
    assert said["orphan_actions"] == settings.lake.read("orphan_actions").num_rows


def test_both_notebooks_run_on_hours_in_which_nothing_happened(settings, endpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty = {"window_start": "2026-01-05T06:00:00Z", "window_end": "2026-01-05T07:00:00Z"}
    environment = {
        "GLASSHOUSE_HOME": str(settings.home), "GLASSHOUSE_CLICKHOUSE_URL": endpoint, "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    for name in ("labels", "metrics"):
        found = files.run(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb", empty, environment)
        assert found["displays"] == 0


def test_a_cell_that_fails_fails_the_run_and_keeps_the_notebook(settings, tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cells = [
        {"cell_type": "code", "source": "window_start = window_end = None", "metadata": {"tags": ["parameters"]}},
        {"cell_type": "code", "source": "raise ValueError('too few clicks')", "metadata": {}},
    ]
    for place, cell in enumerate(cells):
        cell |= {"id": str(place), "outputs": [], "execution_count": None}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    declared = {"glasshouse": {"description": "fails"}, "kernelspec": kernel}
    body = {"cells": cells, "metadata": declared, "nbformat": 4, "nbformat_minor": 5}
    (folder / "mine.ipynb").write_text(json.dumps(body))
    result, found = materialize(settings, "mine", folder)
    assert not result.success and found == []
    failure = next(event.event_specific_data for event in result.all_events if event.is_step_failure)
    assert "mine.ipynb: cell [3] failed: ValueError: too few clicks" in failure.error.message
    kept = failure.user_failure_data.metadata["Executed notebook"].value
    assert "too few clicks" in open(kept).read()


def test_a_notebook_that_reads_what_nobody_writes_is_left_out_and_named(settings, tmp_path, capsys):
    shutil.copy(ROOT / "notebooks" / "labels.ipynb", tmp_path / "mine.ipynb")
    text = (tmp_path / "mine.ipynb").read_text()
    (tmp_path / "mine.ipynb").write_text(text.replace("from impression_sessions as s", "from nowhere as s"))
    build_defs(settings, notebook_folder=tmp_path, first=START)
    assert "mine.ipynb is left out: reads nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["duckdb", "spark"])
def test_lake_cells_run_spark_sql_at_the_newest_version_and_name_what_is_wrong(settings, spark, name):
    engine = LakeSql(settings.lake, on_spark(spark) if name == "spark" else embedded_only(), Rules())
    values = {"window_start": "2026-01-05T03:00:00Z", "window_end": "2026-01-05T04:00:00Z", "surface": "search"}
    text = (
        "select hour, count(*) as n from impression_sessions "
        "where hour >= {{ window_start }} and hour < {{ window_end }} and channel = {{ surface }} group by hour"
    )
    displays = frames(settings.lake)[0]
    want = len(displays.filter(pl.col("hour") == START, pl.col("channel") == "search"))
    found = engine.query(text, values)
    assert found.to_dict(as_series=False) == {"hour": [START], "n": [want]}
    with pytest.raises(SqlError, match="colour") as error:
        engine.query("select colour from impression_sessions")
    assert "JVM" not in str(error.value)


def test_lake_cells_ask_spark_for_what_the_embedded_engine_does_not_know_where_that_is_left_open(settings, spark, capsys):
    text = "select round(2.5) as a, count(*) as n from impression_sessions"
    found = LakeSql(settings.lake, Engines(spark=lambda: spark), Rules()).query(text)
    assert found["n"][0] > 0 and "asking Spark: round has not been compared" in capsys.readouterr().err
    with pytest.raises(SqlError, match="GLASSHOUSE_SQL_ENGINE=spark asks Spark instead"):
        LakeSql(settings.lake, embedded_only(), Rules()).query(text)
    without = LakeSql(settings.lake, Engines(spark=lambda: pytest.fail("Spark was started")), Rules())
    for wrong in ("select colour from impression_sessions", "drop table impression_sessions", "select 1 / 0 as a from impression_sessions"):
        with pytest.raises(SqlError):
            without.query(wrong)


def test_clickhouse_cells_bind_the_notebooks_variables_and_cannot_write(settings, endpoint):
    engine = ClickHouseSql(endpoint)
    found = engine.query(
        "SELECT max(event_time) AS t, count() AS n FROM events WHERE hour >= {window_start:DateTime('UTC')}",
        {"window_start": "2026-01-05T05:00:00Z"},
    )
    late = frames(settings.lake)[2].filter(pl.col("hour") >= START.replace(hour=5))
    assert found["n"][0] == len(late) > 0
    assert found["t"].cast(pl.Datetime("us", "UTC"))[0] == late["event_time"].max()
    assert engine.window("events", hours=2) == ("2026-01-05T04:00:00Z", "2026-01-05T06:00:00Z")
    with pytest.raises(SqlError, match="nothing_of_that_name"):
        engine.query("SELECT * FROM nothing_of_that_name")
    with pytest.raises(SqlError, match="(?i)readonly"):
        engine.query("DROP TABLE events")


def test_a_promoted_cell_is_an_asset_runs_and_passes_its_row_test(settings, spark, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "sql" / "lake", tmp_path / "sql" / "lake")
    labels = ROOT / "notebooks" / "labels.ipynb"
    written = promote(labels, "click_rate_by_slot", "slot_rates", tmp_path, owner="team:feed")
    places = [str(path.relative_to(tmp_path)) for path in written]
    assert places == ["sql/lake/slot_rates.sql", "tests/sql/slot_rates.yaml"]
    job = next(job for job in load_jobs(tmp_path / "sql" / "lake", LINE_TABLES) if job.name == "slot_rates")
    assert job.head.grain == ("hour", "channel", "position")

    defs = build_defs(settings, sql_folder=tmp_path / "sql" / "lake", first=START)
    node = defs.resolve_asset_graph().get(dg.AssetKey("slot_rates"))
    assert {key.to_user_string() for key in node.parent_keys} == {"impression_sessions"}

    done = run_job(job, settings.lake, on_spark(spark), WINDOW, Rules())
    assert sum(done.rows.values()) > 20
    rates = pl.from_arrow(settings.lake.read("slot_rates"))
    assert rates["displays"].sum() == settings.lake.read("impression_sessions").num_rows

    ((name, begun),) = yaml.safe_load(written[1].read_text()).items()
    assert name.startswith("check me")
    monkeypatch.setitem(runner.JOBS, "slot_rates", job)
    monkeypatch.setitem(runner.KINDS, "slot_rates", {column.name: column.type for column in job.columns})
    runner.test_rows(spark, "slot_rates", begun)
    begun["expected"][0]["clicked"] += 1
    with pytest.raises(AssertionError):
        runner.test_rows(spark, "slot_rates", begun)


def test_a_rule_is_tried_and_nothing_is_applied(tmp_path):
    """Of generated traffic; the notebook's numbers against a label of the same hours by the same rule elsewhere."""
    from assets.attribution.label import label_window
    from assets.backfill import store
    from tests import backfill_lake

    tried = load({"GLASSHOUSE_HOME": str(tmp_path / "tried")})
    window = backfill_lake.fill(tried.lake, tmp_path, hours=3)
    before = {name: tried.lake.version(name) for name in ("impression_sessions", "click_sessions", "labeled_hours")}
    clicks = pl.from_arrow(tried.lake.read("click_sessions"))
    given = {"window_start": "2026-01-05T03:00:00Z", "window_end": "2026-01-05T06:00:00Z", "valid_click_dwell_s": 3}
    environment = {"GLASSHOUSE_HOME": str(tried.home), "PYTHONPATH": str(ROOT)}
    said = files.run(ROOT / "notebooks" / "try_a_rule.ipynb", tmp_path / "out.ipynb", given, environment)

    assert {name: tried.lake.version(name) for name in before} == before
    assert store.listed(tried.lake) == []
    stricter = dataclasses.replace(Rules(), like_stay=dt.timedelta(seconds=5), valid_click_dwell=dt.timedelta(seconds=3))
    label_window(tried.lake, window, stricter)
    after = pl.from_arrow(tried.lake.read("click_sessions"))
    assert (said["likes_before"], said["likes_after"]) == (clicks["like"].sum(), after["like"].sum())
    key = ["user_id", "note_id", "session_start"]
    short = tried.lake.read("short_clicks").num_rows
    assert said["rows_removed"] == clicks.join(after, on=key, how="anti").height > 5
    assert said["rows_added"] == short + after.join(clicks, on=key, how="anti").height
    pictures = [o for cell in json.loads((tmp_path / "out.ipynb").read_text())["cells"] for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 2
