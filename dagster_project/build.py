"""`build_defs`: the whole code location from settings; the same for production, tests and the command line.

Here: putting together. Not here: any single definition.
"""

import datetime as dt
import warnings
from pathlib import Path

import dagster as dg

from dagster_project import checks, jobs, schedules, sensors, sql_jobs
from dagster_project import settings as environment
from dagster_project.backfill_assets import backfill_asset
from dagster_project.line_assets import TABLES, line_assets
from dagster_project.notebook_jobs import notebook_assets
from dagster_project.order_assets import SHOWN as ORDER_TABLES
from dagster_project.order_assets import order_assets
from dagster_project.ranker_assets import ranker_assets
from dagster_project.partitions import first_hour, hourly
from dagster_project.resources import resources
from dagster_project.settings import ROOT, Settings

# Dagster warns of what it does itself when it copies a sensor, whenever it reads the definitions or makes a job of them.
warnings.filterwarnings("ignore", category=dg.BetaWarning, module=r"dagster\.")


def build_defs(
    settings: Settings | None = None,
    sql_folder: Path = sql_jobs.FOLDER,
    notebook_folder: Path = ROOT / "notebooks",
    first: dt.datetime | None = None,
    **overrides: object,
) -> dg.Definitions:
    """Everything that Dagster loads.

    settings: default from the environment. first: first partition, default by the settings and the lake.
    overrides: resources by name that take the place of the settings' own.
    Raises SettingsError, SqlJobError or NotebookError where something is wrong with an environment variable or a file.
    """
    with warnings.catch_warnings():
        # Backfill policies are marked beta; what we use of them is pinned with Dagster's version, and tested.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _build(settings or environment.load(), sql_folder, notebook_folder, first, overrides)


def _build(settings, sql_folder, notebook_folder, first, overrides) -> dg.Definitions:
    partitions = hourly(first or first_hour(settings))
    tables = (*TABLES, *ORDER_TABLES)
    found = sql_jobs.sql_jobs(tables, sql_folder)
    sql = [sql_jobs.sql_asset(job, partitions) for job in found]
    assets = [*line_assets(partitions), backfill_asset(partitions), *order_assets(), *ranker_assets(), *sql]
    known = {table.name for table in tables} | {key.to_user_string() for asset in assets for key in asset.keys}
    assets += notebook_assets(notebook_folder, partitions, known)
    line_jobs = {**jobs.jobs([job.name for job in found]), jobs.TIDY: jobs.tidy_job(), jobs.CHECK: jobs.check_job(), jobs.FRESH: jobs.fresh_job()}
    return dg.Definitions(
        assets=assets,
        asset_checks=checks.checks(found),
        jobs=list(line_jobs.values()),
        schedules=schedules.schedules(line_jobs, settings),
        sensors=sensors.sensors(line_jobs, settings),
        resources={**resources(settings), **overrides},
        executor=dg.in_process_executor if settings.executor == "in_process" else dg.multiprocess_executor,
    )
