"""What Dagster shows of live batches: a materialization of every table that was written, closed hours as partitions."""

import datetime as dt

import dagster as dg
import pytest

from assets.events import intake
from assets.followers import Follower
from assets.lake import Window
from dagster_project import instance, settings
from dagster_project.live_reports import STAGES, Reporter
from tests.integration.test_label_live import arriving, cut, go
from tests.unit.labeling import T0, event, moment

pytestmark = pytest.mark.slow
HOURS = {"2026-01-01-00:00", "2026-01-01-01:00"}  # 145 minutes less delay and window


def reported(home):
    follower = Follower(home.lake, "dagster", Reporter(home), by="live")
    while follower.step():
        pass


def test_each_batch_is_a_materialization_of_every_table_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = settings.load({"GLASSHOUSE_HOME": str(tmp_path / "home")})
    landing = tmp_path / "landing"
    cut(landing, arriving([event(f"e{i}", i * 5, "impression" if i % 3 else "like", user=i % 4) for i in range(30)]), 10)
    go(home.lake, landing, batch_bytes=1)
    reported(home)
    with instance.open_instance(home) as dagster:
        events = dagster.fetch_materializations(dg.AssetKey("events"), limit=100, ascending=True).records
        batches = [record.asset_materialization for record in events if not record.partition_key]
        assert [one.metadata["batch"].value for one in batches] == [0, 1, 2]
        assert [one.metadata["rows"].value for one in batches] == [10, 10, 10]
        last = batches[-1].metadata
        assert {f"{stage}_s" for stage in STAGES if stage != "commit"} <= last.keys()
        assert last["open_sessions"].value > 0 and last["delta_version"].value == home.lake.version("events")
        assert dt.datetime.fromisoformat(last["watermark"].value)
        closed = dagster.get_materialized_partitions(dg.AssetKey("impression_sessions"))
        assert closed == HOURS
        quarantine = dagster.fetch_materializations(dg.AssetKey("quarantine"), limit=10).records
        assert {record.partition_key for record in quarantine} == HOURS, "no batch wrote to it"


def test_a_first_batch_of_files_that_a_recompute_took_before_is_one_too(tmp_path, monkeypatch):
    """`make demo`, then `make up`: what landed for the one is read again by the other, and brings nothing."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = settings.load({"GLASSHOUSE_HOME": str(tmp_path / "home")})
    landing = tmp_path / "landing"
    cut(landing, arriving([event(f"e{i}", i * 5, "impression", user=i % 4) for i in range(10)]), 10)
    intake.land(home.lake, sorted(landing.iterdir()))
    intake.accept(home.lake, Window(moment(T0), moment(T0) + dt.timedelta(hours=3)))
    go(home.lake, landing)
    assert home.lake.log.newest().apps["live"] == 0 and home.lake.read("events").num_rows == 10
    reported(home)
    cut(landing, arriving([event(f"e{i}", i * 5, "impression", user=i % 4) for i in range(20)]), 10)
    go(home.lake, landing)
    reported(home)
    with instance.open_instance(home) as dagster:
        records = dagster.fetch_materializations(dg.AssetKey("events"), limit=10, ascending=True).records
        assert [one.asset_materialization.metadata["batch"].value for one in records if not one.partition_key] == [1]
