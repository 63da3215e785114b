"""What Dagster shows of live batches: a materialization of every table that was written, closed hours as partitions."""

import datetime as dt

import dagster as dg
import pytest

from assets.followers import Follower
from dagster_project import instance, settings
from dagster_project.live_reports import STAGES, Reporter
from tests.integration.test_label_live import arriving, cut, go
from tests.unit.labeling import event

pytestmark = pytest.mark.slow
HOURS = {"2026-01-01-00:00", "2026-01-01-01:00"}  # 145 minutes less delay and window


def test_each_batch_is_a_materialization_of_every_table_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = settings.load({"GLASSHOUSE_HOME": str(tmp_path / "home")})
    landing = tmp_path / "landing"
    cut(landing, arriving([event(f"e{i}", i * 5, "impression" if i % 3 else "like", user=i % 4) for i in range(30)]), 10)
    go(home.lake, landing, batch_bytes=1)
    follower = Follower(home.lake, "dagster", Reporter(home), by="live")
    while follower.step():
        pass
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
