"""From planted abusers to flagged accounts: generator, intake, the SQL jobs on Spark, precision and recall."""

import datetime as dt

import dagster as dg
import polars as pl
import pytest

from assets import spam
from assets.attribution.rules import Rules
from assets.engines.choice import on_spark
from assets.events import generator, intake, landing
from assets.lake import Lake, Window
from assets.samples import sql_job
from dagster_project import jobs
from dagster_project.line_assets import TABLES
from dagster_project.settings import load
from dagster_project.sql_jobs import FOLDER

pytestmark = pytest.mark.slow

START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
HOURS = 24
DAY = Window(START, START + dt.timedelta(hours=HOURS))
LAST = Window(DAY.end - dt.timedelta(hours=1), DAY.end)
JOBS = ("account_actions", "account_hours", "spam_accounts")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def accepted(folder, abusers):
    """The settings of a home that holds a day of accepted traffic."""
    settings = load({"GLASSHOUSE_HOME": str(folder)})
    config = generator.TrafficConfig(
        seed=5, users=1500, notes=2000, start=START, hours=HOURS, events_per_hour=2500, tail=False, abusers=abusers
    )
    generator.generate(config, settings.landing, settings.truth)
    for batch in landing.batches(settings.landing):
        intake.land(settings.lake, batch.paths, batch.mapping)
    intake.accept(settings.lake, DAY, Rules())
    return settings


def run(lake: Lake, spark, window, names=JOBS):
    known = {job.name: job for job in sql_job.load_jobs(FOLDER, TABLES)}
    for name in names:
        sql_job.run_job(known[name], lake, on_spark(spark), window, Rules())


@pytest.fixture(scope="module")
def world(tmp_path_factory, spark):
    settings = accepted(tmp_path_factory.mktemp("spam"), abusers=40)
    run(settings.lake, spark, DAY)
    return settings


def test_most_abusers_are_flagged_and_few_others(world):
    found = spam.measure(world.lake, DAY, world.truth)
    assert found.precision >= 0.9 and found.recall >= 0.8, found
    assert {kind: total for kind, (total, _) in found.by_kind.items()} == {"click_farm": 20, "rate": 10, "repeater": 10}
    assert all(flagged / total >= 0.6 for total, flagged in found.by_kind.values()), found.by_kind
    assert set(found.by_rule) == {"rate", "regular", "repetition", "author", "device"}
    assert sum(flagged for _, flagged in found.by_lookalike.values()) <= 1


def test_an_hour_alone_gives_what_the_range_gave(world, spark):
    before = world.lake.read(spam.TABLE, LAST).sort_by("user_id").to_pylist()
    assert before
    run(world.lake, spark, LAST, names=["spam_accounts"])
    assert world.lake.read(spam.TABLE, LAST).sort_by("user_id").to_pylist() == before


def test_the_check_tells_precision_and_recall(world):
    with dg.DagsterInstance.ephemeral() as instance:
        result = jobs.run_line(instance, DAY, selection=["spam_accounts"], settings=world, run_config=QUIET)
    assert result.success
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "spam_precision_recall"]
    found = spam.measure(world.lake, DAY, world.truth)
    assert check.passed and check.metadata["recall"].value == found.recall
    assert check.metadata["precision"].value == found.precision


def test_a_log_without_devices_and_truth_goes_without_them(tmp_path, spark):
    settings = accepted(tmp_path, abusers=0)
    run(settings.lake, spark, DAY)
    assert spam.measure(settings.lake, DAY, settings.truth) is None
    rows = pl.from_arrow(settings.lake.read(spam.TABLE, DAY))
    assert rows["user_id"].n_unique() <= 3, "honest readers, all 1,500 of them"
    assert (rows["accounts_on_device"] == 0).all() and not rows["reasons"].str.contains("device").any()
