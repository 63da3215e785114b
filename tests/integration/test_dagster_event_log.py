"""The batched event log answers as Dagster's own does, for the same run."""

import pytest
from dagster import (
    AssetCheckResult,
    AssetKey,
    BackfillPolicy,
    DagsterEventType,
    DagsterInstance,
    HourlyPartitionsDefinition,
    MaterializeResult,
    asset,
    asset_check,
    define_asset_job,
    Definitions,
)

from dagster_project import instance, settings
from dagster_project.event_log import BATCH_SETTING, BatchedSqliteEventLog

pytestmark = pytest.mark.slow

HOURS = HourlyPartitionsDefinition("2026-01-01-00:00", end_offset=0)
FIRST, LAST, COUNT = "2026-01-01-00:00", "2026-01-02-15:00", 40


@asset(partitions_def=HOURS, backfill_policy=BackfillPolicy.single_run())
def labels():
    return MaterializeResult(metadata={"rows": 7}, tags={"rules": "1"})


@asset(partitions_def=HOURS, backfill_policy=BackfillPolicy.single_run(), deps=[labels])
def samples():
    return MaterializeResult(metadata={"rows": 3})


@asset_check(asset=labels, blocking=True)
def accounted():
    return AssetCheckResult(passed=True)


def run_a_range(dagster: DagsterInstance) -> str:
    job = Definitions(assets=[labels, samples], asset_checks=[accounted], jobs=[define_asset_job("line")]).resolve_job_def("line")
    tags = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": LAST}
    result = job.execute_in_process(instance=dagster, tags=tags)
    assert result.success
    return result.run_id


def answers(dagster: DagsterInstance, run_id: str) -> dict:
    """What the UI asks for."""
    found = {}
    for key in (AssetKey("labels"), AssetKey("samples")):
        record = dagster.get_asset_records([key])[0].asset_entry
        newest = record.last_materialization_record
        events = dagster.fetch_materializations(key, limit=1000, ascending=True).records
        found[key] = (
            sorted(dagster.get_materialized_partitions(key)),
            newest.storage_id,
            newest.asset_materialization.partition,
            [(event.storage_id, event.partition_key, event.asset_materialization.metadata["rows"].value) for event in events],
        )
    log = dagster.all_logs(run_id)
    found["types"] = sorted(event.dagster_event_type.value for event in log if event.is_dagster_event)
    return found


@pytest.fixture
def ours(tmp_path, monkeypatch):
    monkeypatch.delenv(BATCH_SETTING, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", "")
    with instance.open_instance(settings.load({"GLASSHOUSE_HOME": str(tmp_path / "home")})) as dagster:
        yield dagster
    monkeypatch.delenv(BATCH_SETTING, raising=False)


def test_the_home_of_the_project_batches_and_answers_as_dagsters_own(ours, tmp_path, monkeypatch):
    assert isinstance(ours.event_log_storage, BatchedSqliteEventLog)
    batches = []
    write = BatchedSqliteEventLog.store_event_batch

    def noted(self, events):
        batches.append(len(events))
        write(self, events)

    monkeypatch.setattr(BatchedSqliteEventLog, "store_event_batch", noted)
    batched = answers(ours, run_a_range(ours))
    assert batches.count(COUNT) == 2  # the materializations of each asset
    assert batched[AssetKey("labels")][0][0] == FIRST and len(batched[AssetKey("labels")][0]) == COUNT
    assert batched["types"].count(DagsterEventType.ASSET_MATERIALIZATION.value) == 2 * COUNT

    monkeypatch.delenv(BATCH_SETTING)
    (tmp_path / "plain").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "plain")) as plain:
        one_by_one = answers(plain, run_a_range(plain))
    assert one_by_one["types"] == batched["types"]
    for key in (AssetKey("labels"), AssetKey("samples")):
        assert one_by_one[key][0] == batched[key][0]
        assert [row[1:] for row in one_by_one[key][3]] == [row[1:] for row in batched[key][3]]
        assert batched[key][1] == batched[key][3][-1][0]
        assert one_by_one[key][2] == batched[key][2]


def test_a_batch_that_fails_leaves_nothing_behind_in_the_run(ours, monkeypatch):
    """Dagster then stores the events one by one: none may stand there twice."""

    def full(self, conn, event, event_id):
        if not self.__dict__.get("failed"):
            self.failed = True
            raise OSError("disk full")
        return store(self, conn, event, event_id)

    store = BatchedSqliteEventLog._store_asset_event
    monkeypatch.setattr(BatchedSqliteEventLog, "_store_asset_event", full)
    found = answers(ours, run_a_range(ours))
    assert found["types"].count(DagsterEventType.ASSET_MATERIALIZATION.value) == 2 * COUNT
    assert len(found[AssetKey("labels")][3]) == COUNT
