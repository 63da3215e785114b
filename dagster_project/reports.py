"""What Dagster is told of a write: columns, rows of each hour, Delta versions.

Here: metadata. Not here: counting (assets/counts.py) or writing.
"""

from collections.abc import Iterable, Mapping

import dagster as dg

from assets.counts import rows_by_hour
from assets.engines.translate import spark_name
from assets.lake import Lake, Table, Window
from assets.samples.sql_job import SqlJob
from dagster_project.partitions import key_of

MANY_HOURS = 24 * 366


def table_metadata(table: Table) -> dict[str, object]:
    """A declared table's columns, for the asset's page."""
    columns = [
        dg.TableColumn(f.name, spark_name(f.type), (f.metadata or {}).get(b"comment", b"").decode() or None)
        for f in table.schema
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns), "dagster/table_name": table.name}


def job_metadata(job: SqlJob) -> dict[str, object]:
    """A SQL job's columns, what each comes from, and its text.

    The open-source UI hides the column lineage entry (Dagster+ draws it), so a column's description says it too.
    """
    columns = [dg.TableColumn(c.name, c.type or "?", _described(c.comment, c.sources)) for c in job.columns]
    lineage = {c.name: [dg.TableColumnDep(dg.AssetKey(table), name) for table, name in c.sources] for c in job.columns}
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/column_lineage": dg.TableColumnLineage(lineage),
        "dagster/table_name": job.name,
        "grain": ", ".join(job.head.grain),
        "lookback": str(job.head.lookback or "none"),
        "sql": dg.MetadataValue.md(f"```sql\n{job.template}\n```"),
    }


def _described(comment: str, sources: Iterable[tuple[str, str]]) -> str:
    origin = ", ".join(f"{table}.{column}" for table, column in sources)
    return f"{comment} ← {origin}".strip() if origin else comment


def report(context, lake: Lake, name: str, window: Window, more: Mapping[str, object] | None = None):
    """A MaterializeResult for a table: rows of the window and the Delta version; each partition gets its own rows."""
    key = dg.AssetKey(name)
    counts = rows_by_hour(lake, name, window)
    # Of a range over years, not of each empty hour between.
    told = counts if len(counts) <= MANY_HOURS else {hour: rows for hour, rows in counts.items() if rows}
    for hour, rows in told.items():
        row_count = {"dagster/partition_row_count": rows}
        context.add_asset_metadata(row_count, asset_key=key, partition_key=key_of(hour))
    total = sum(counts.values())
    return dg.MaterializeResult(
        asset_key=key, metadata={"rows_of_run": total, "delta_version": lake.version(name), **(more or {})}
    )


def progress(context):
    """A callback that the long computations tell what they do; each call is a line of the run's log.

    They say words, named values, or one dict of named values.
    """

    def tell(*said, **named):
        for part in said:
            named = {**part, **named} if isinstance(part, dict) else named
        words = [str(part) for part in said if not isinstance(part, dict)]
        context.log.info(" ".join([*words, *(f"{name}={_figure(value)}" for name, value in named.items())]))

    return tell


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
