"""Each file of sql/lake/ becomes an asset, with its inputs, columns and lineage.

Here: from SqlJob to asset. Not here: reading, checking and running a file (assets/samples/sql_job.py).
"""

from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from assets.lake import Table
from assets.samples.sql_job import SqlJob, load_sound_jobs, run_job
from dagster_project.line_assets import SINGLE_RUN
from dagster_project.partitions import window_of
from dagster_project.reports import job_metadata, report
from dagster_project.settings import ROOT, Settings

FOLDER = ROOT / "sql" / "lake"


def sql_assets(
    tables: Iterable[Table], partitions: dg.PartitionsDefinition, folder: Path = FOLDER, taken: Iterable[str] = ()
) -> tuple[list[tuple[SqlJob, dg.AssetsDefinition]], dict[Path, Exception]]:
    """Each job of the folder with its asset, and why the other files are none. taken: names that other assets have."""
    jobs, broken = load_sound_jobs(folder, tables, taken=taken)
    made = []
    for job in jobs:
        try:
            made.append((job, sql_asset(job, partitions)))
        except dg.DagsterInvalidDefinitionError as error:  # a name that Dagster keeps for itself
            broken[job.path] = error
    return made, broken


def sql_asset(job: SqlJob, partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        name=job.name,
        deps=list(job.inputs),
        description=job.head.description,
        owners=[job.head.owner],
        metadata=job_metadata(job),
        group_name="sql",
        kinds={job.head.engine or "duckdb", "sql", "delta"},
        partitions_def=partitions,
        backfill_policy=SINGLE_RUN,
    )
    def run(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]):
        window = window_of(context)
        done = run_job(job, settings.lake, settings.engines, window, settings.rules)
        for warning in done.warnings:
            context.log.warning(warning)
        read = {f"read_{name}_version": version for name, version in done.read.items()}
        ran = {
            "engine": done.engine.name, "engine_because": done.engine.why, "seconds": round(done.seconds, 3),
            "rows_to_read": done.engine.rows, "bytes_to_read": done.engine.bytes,
        }  # fmt: skip
        return report(context, settings.lake, job.name, window, read | ran)

    return run
