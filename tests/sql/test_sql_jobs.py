"""Rows in, rows out: each tests/sql/NAME.yaml holds cases for sql/lake/NAME.sql, run on both engines. Every job has a file.

A case: `window` (start, end), `inputs` (table -> rows; columns left out are null, `hour` and `ingest_time` follow from
the times given, device, topic and so on from the context), `expected` (rows in any order; only the columns named are compared).
"""

import datetime as dt
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import yaml

from assets.attribution.rules import Rules
from assets.engines.choice import embedded_only
from assets.engines.translate import arrow_type, schema_of
from assets.events.context import typed
from assets.lake import Table, Window
from assets.samples import sql_job
from dagster_project.line_assets import TABLES
from dagster_project.sql_jobs import FOLDER

HERE = Path(__file__).parent
JOBS = {job.name: job for job in sql_job.load_jobs(FOLDER, TABLES)}
KINDS = schema_of({table.name: table.schema for table in TABLES}) | {
    job.name: {column.name: column.type for column in job.columns} for job in JOBS.values()
}
CASES = [
    pytest.param(path.stem, case, id=f"{path.stem}: {name}")
    for path in sorted(HERE.glob("*.yaml"))
    for name, case in yaml.safe_load(path.read_text()).items()
]


def time(text):
    return text if isinstance(text, dt.datetime) else dt.datetime.fromisoformat(text)


def filled(table, row):
    """A row with all columns of its table, in their order, and with times as times."""
    unknown = set(row) - set(KINDS[table])
    assert not unknown, f"{table} has no column {unknown}"
    row = {name: time(value) if KINDS[table][name] == "TIMESTAMP" and value else value for name, value in row.items()}
    moment = row.get("event_time") or row.get("session_start")
    if moment:
        row.setdefault("hour", moment.replace(minute=0, second=0, microsecond=0))
    if row.get("context"):
        row |= typed(pl.Series([row["context"]])).row(0, named=True)
    if "event_time" in row and "ingest_time" in KINDS[table]:
        row.setdefault("ingest_time", row["event_time"])
    return [row.get(name) for name in KINDS[table]]


def frame(spark, table, rows):
    ddl = ", ".join(f"`{name}` {kind}" for name, kind in KINDS[table].items())
    return spark.createDataFrame([filled(table, row) for row in rows], ddl)


def comparable(value):
    if isinstance(value, float):
        return round(value, 9)
    return value.astimezone(dt.UTC).isoformat() if isinstance(value, dt.datetime) else value


def test_every_job_has_rows_in_rows_out():
    assert sorted(path.stem for path in HERE.glob("*.yaml")) == sorted(JOBS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), CASES)
def test_rows(spark, name, case):
    job = JOBS[name]
    for table in job.inputs:
        frame(spark, table, case["inputs"].get(table, [])).createOrReplaceTempView(table)
    window = Window(*map(time, case["window"]))
    same(name, case, spark.sql(sql_job.render(job, window, Rules())).toArrow().to_pylist())


@pytest.mark.parametrize(("name", "case"), CASES)
def test_rows_on_the_embedded_engine(lake, name, case):
    job = JOBS[name]
    for table in job.inputs:
        schema = pa.schema([pa.field(column, arrow_type(kind)) for column, kind in KINDS[table].items()])
        rows = [dict(zip(KINDS[table], filled(table, row), strict=True)) for row in case["inputs"].get(table, [])]
        lake.append_once(Table(table, schema, "rows of a test"), pa.Table.from_pylist(rows, schema), "test", 1)
    sql_job.run_job(job, lake, embedded_only(), Window(*map(time, case["window"])), Rules())
    same(name, case, lake.read(name).to_pylist())


def same(name, case, found):
    assert set(case["inputs"]) <= set(JOBS[name].inputs)
    expected = case["expected"]
    kinds = KINDS[name]
    columns = sorted({column for row in expected for column in row})
    times = {c for c in columns if kinds[c] == "TIMESTAMP"}
    expected = [{c: time(row[c]) if c in times and row[c] else row[c] for c in columns} for row in expected]
    as_rows = [sorted(repr([comparable(row[c]) for c in columns]) for row in rows) for rows in (found, expected)]
    assert as_rows[0] == as_rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(JOBS))
def test_types_shown_in_the_catalogue_are_those_of_spark(spark, name):
    job = JOBS[name]
    for table in job.inputs:
        frame(spark, table, []).createOrReplaceTempView(table)
    schema = spark.sql(sql_job.render(job, sql_job.EXAMPLE, Rules())).schema
    assert [(f.name, f.dataType.simpleString()) for f in schema] == [(c.name, c.type.lower()) for c in job.columns]
