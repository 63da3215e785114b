"""`build_defs`: the whole code location from settings; the same for production, tests and the command line.

Here: putting together. Not here: any single definition.
"""

import datetime as dt
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import dagster as dg

from assets.notebook.files import is_scratch
from dagster_project import checks, code_location, jobs, schedules, sensors, sql_jobs
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
    A file of these folders that is no job is left out, and the check of the asset `code_location` says why.
    Raises SettingsError where something is wrong with an environment variable or with a file that it names.
    """
    with warnings.catch_warnings():
        # Backfill policies are marked beta; what we use of them is pinned with Dagster's version, and tested.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _build(settings or environment.load(), sql_folder, notebook_folder, first, overrides)


def _build(settings, sql_folder, notebook_folder, first, overrides) -> dg.Definitions:
    partitions = hourly(first or first_hour(settings))
    tables = (*TABLES, *ORDER_TABLES)
    assets = [*line_assets(partitions), backfill_asset(partitions), *order_assets(), *ranker_assets()]
    taken = {code_location.NAME, *_names(assets)}
    made, broken = sql_jobs.sql_assets(tables, partitions, sql_folder, taken)
    found, sql = [job for job, _ in made], [asset for _, asset in made]
    # A notebook may read the table of a file that is being mended.
    known = taken | {table.name for table in tables} | set(_names(sql)) | {path.stem for path in broken if path.suffix == ".sql"}
    notebooks, wrong = notebook_assets(notebook_folder, partitions, known)
    missing = code_location.left_out(broken | wrong, [path for path in wrong if is_scratch(path)])
    code_location.tell(missing)
    assets += [*sql, *notebooks, code_location.code_location(missing)]
    on_both = [job.name for job in found if job.head.engine is None]
    line_jobs = {**jobs.jobs([job.name for job in found], on_both), jobs.TIDY: jobs.tidy_job(), jobs.CHECK: jobs.check_job(), jobs.FRESH: jobs.fresh_job()}
    if on_both:
        line_jobs[jobs.CHECK_ENGINES] = jobs.engines_job(on_both)
    return dg.Definitions(
        assets=assets,
        asset_checks=checks.checks(found),
        jobs=list(line_jobs.values()),
        schedules=schedules.schedules(line_jobs, settings),
        sensors=[*sensors.sensors(line_jobs, settings), code_location.sensor(missing)],
        resources={**resources(settings), **overrides},
        executor=dg.in_process_executor if settings.executor == "in_process" else dg.multiprocess_executor,
    )


def _names(assets: Iterable[dg.AssetsDefinition]) -> Iterator[str]:
    return (key.to_user_string() for asset in assets for key in asset.keys)
