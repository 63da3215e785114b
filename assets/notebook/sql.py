"""SQL cells: `%%sql lake` (Spark SQL on the Delta tables) and `%%sql clickhouse`, each giving a polars data frame.

Here: the two engines as a notebook uses them, and the cell magic. Not here: queries, settings, tables without SQL
(tables.py).

Why not JupySQL (0.11.1, tried): it does not import beside pyspark 4 without Spark Connect's packages; with them it
names a Spark result's columns "Field 1", runs each Spark query twice (count, then collect), renders a missing variable
as nothing, and starts the session when it connects rather than at the first query.
"""

from __future__ import annotations

import datetime as dt
import io
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from assets import templates
from assets.attribution.rules import Rules
from assets.engines import embedded, translate
from assets.engines.choice import AUTO, SPARK, Engines
from assets.lake import Lake, Window
from assets.notebook.files import SQL_MAGIC, tables_of
from assets.notebook.tables import bounds, parse_time
from assets.samples.sql_job import LOOKBACK, Head, variables

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What a SQL job's template may use; the same names mean the same in a cell.
JOB_VARIABLES = {"window_start", "window_end", "lookback_start", "window_ms", "delay_ms", "long_view_ms"}

_BOUND = re.compile(r"\{(\w+):([^{}]+)\}")
_SPARK_LOG = "SQLQueryContextLogger"  # pyspark 4 logs each refused query as a page of JSON besides raising it
_LOOKBACK = re.compile(r"^--\s*lookback:\s*(\S+)", re.MULTILINE)


class SqlError(Exception):
    """A SQL cell that cannot run; shown in a notebook as its message, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"SqlError: {self}"]


def render(text: str, values: Mapping[str, Any], rules: Rules) -> str:
    """Fill a query's {{ variables }}: those of a SQL job as a job gets them, others from `values` as SQL literals.

    values: the notebook's variables; window_start and window_end are RFC 3339 strings.
    Raises SqlError for a variable that is not there or cannot be a literal.
    """
    try:
        wanted = templates.names(text)
        job = _job_variables(text, values, rules) if wanted & JOB_VARIABLES else {}
        filled = {name: job[name] if name in job else _literal(name, values) for name in wanted}
        return templates.render(text, filled)
    except templates.TemplateRefused as error:
        raise SqlError(f"template, line {error.lineno or 1}: {error.message}") from error


def _job_variables(text: str, values: Mapping[str, Any], rules: Rules) -> dict[str, str | int]:
    try:
        window = Window(parse_time(values["window_start"]), parse_time(values["window_end"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SqlError(f"window_start and window_end are whole hours, like 2026-01-31T05:00:00Z ({error})") from error
    return variables(Head("cell", "team:notebook", ("hour",), "hourly", "a cell", _lookback(text)), window, rules)


def _lookback(text: str) -> dt.timedelta | None:
    found = _LOOKBACK.search(text)
    if not found:
        return None
    match = LOOKBACK.fullmatch(found[1])
    if not match:
        raise SqlError(f"a lookback is whole hours or days, like 6h or 7d, not `{found[1]}`")
    return dt.timedelta(hours=int(match[1]) * (24 if match[2] == "d" else 1))


def _literal(name: str, values: Mapping[str, Any]) -> str:
    from sqlglot import exp

    if name == "lookback_start":
        raise SqlError("lookback_start needs a line like `-- lookback: 7d` in the cell")
    if name not in values:
        raise SqlError(f"`{name}` is not defined: assign it in a cell above")
    try:
        return exp.convert(values[name]).sql("spark")
    except ValueError as error:
        raise SqlError(f"`{name}` is a {type(values[name]).__name__}, which is no SQL literal") from error


@dataclass(frozen=True)
class LakeSql:
    """Spark SQL over the lake: a table's name in a query is the Delta table at its newest version."""

    lake: Lake
    engines: Engines
    rules: Rules

    def query(self, text: str, values: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """Run one query on the embedded engine, or on Spark (it starts at the first query, 6 s): where the settings say so, or leave it
        open and the embedded engine does not know a function.

        Raises SqlError (query) or LakeError (no such table).
        """
        sql = render(text, values or {}, self.rules)
        try:
            names = tables_of(sql)
        except ValueError as error:
            raise SqlError(str(error)) from error
        if "" in names:
            raise SqlError("a query reads tables of the lake by their names; functions that read files or addresses are not for it")
        now = self.lake.pinned()
        for name in names:
            now.open(name)  # raises where there is none, with the message that says what to do
        if self.engines.chosen(now, names, None).name == SPARK:
            return _asked_spark(self.engines, now, names, sql)
        from sqlglot.errors import SqlglotError

        versions = {name: now.version(name) for name in names}
        try:
            return pl.from_arrow(embedded.ask(
                now, versions, lambda tables: translate.to_duckdb(sql, tables), embedded.Answer.read_all, self.engines.embedded
            ))  # fmt: skip
        except translate.NotAQuery as error:
            raise SqlError(str(error)) from None
        except translate.Untranslatable as error:
            if self.engines.wanted != AUTO:
                raise SqlError(f"{error}\n(GLASSHOUSE_SQL_ENGINE=spark asks Spark instead)") from None
            print(f"asking Spark: {error}", file=sys.stderr)
            return _asked_spark(self.engines, now, names, sql)
        except (embedded.EmbeddedError, SqlglotError) as error:
            raise SqlError(str(error)) from None


def _asked_spark(engines: Engines, now: Lake, names: Sequence[str], sql: str) -> pl.DataFrame:
    from pyspark.errors import PySparkException

    logging.getLogger(_SPARK_LOG).setLevel(logging.CRITICAL + 1)
    spark = _start(engines)
    for name in names:
        now.frame(spark, name).createOrReplaceTempView(name)
    try:
        return pl.from_arrow(spark.sql(sql).toArrow())
    except PySparkException as error:
        raise SqlError(str(error).split("\n\nJVM stacktrace")[0].split(";\n'")[0]) from None


def _start(engines: Engines) -> SparkSession:
    """The session, without the JVM's greetings in the cell; what it said is shown where it does not start."""
    with tempfile.TemporaryFile("w+") as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            return engines.spark()
        except Exception as error:
            said.seek(0)
            raise SqlError(f"Spark did not start: {error}\n{said.read()}") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


class ClickHouseSql:
    """Queries to ClickHouse, embedded or a server; `{name:Type}` is bound on the server. Nothing can be written."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = None

    def query(self, text: str, values: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """Run one query.

        values: what `{name:Type}` is bound to; for a DateTime an RFC 3339 string does.
        Raises SqlError where nothing answers, the query is refused or a bound name is not there.
        """
        from clickhouse_connect.driver.exceptions import ClickHouseError

        bound = {name: _bound(name, kind, values or {}) for name, kind in _BOUND.findall(text)}
        try:
            # Not Arrow: ClickHouse sends a DateTime there as a bare number of seconds.
            return pl.read_parquet(io.BytesIO(self._connected().raw_query(text, parameters=bound, fmt="Parquet")))
        except ClickHouseError as error:
            raise SqlError(str(error)) from None

    def window(self, table: str, start: str | None = None, end: str | None = None, hours: int = 24) -> tuple[str, str]:
        """The window as given, or, where a bound is None, the newest `hours` of a table; as RFC 3339 strings."""
        if start and end:
            return bounds(start, end)
        text = "SELECT max(hour) AS hour, count() AS rows FROM {table:Identifier}"
        newest = self.query(text, {"table": table}).row(0)
        if not newest[1]:
            raise SqlError(f"ClickHouse's `{table}` is empty; give window_start and window_end, or load it")
        return bounds(start, end, newest[0], hours)

    def _connected(self):
        from assets.metrics.client import ClickHouseDown, connect

        try:
            self._client = self._client or connect(self.url, read_only=True)
        except ClickHouseDown as error:
            raise SqlError(str(error)) from None
        return self._client


def _bound(name: str, kind: str, values: Mapping[str, Any]) -> Any:
    if values.get(name) is None:
        raise SqlError(f"`{name}` is not defined: assign it in a cell above")
    value = values[name]
    try:
        return parse_time(value) if kind.strip().startswith("DateTime") else value
    except (TypeError, ValueError) as error:
        raise SqlError(f"`{name}` is bound to a {kind}: {error}") from error


def register(shell, engines: Mapping[str, LakeSql | ClickHouseSql]) -> None:
    """Give an IPython shell the cell magic `%%sql ENGINE [--as NAME]`; NAME becomes a variable holding the result."""
    def sql(line: str, cell: str) -> pl.DataFrame:
        found = SQL_MAGIC.match(f"%%sql {line}\n")
        if not found or found["engine"] not in engines or found["rest"]:
            raise SqlError(f"write `%%sql ENGINE` or `%%sql ENGINE --as NAME`, ENGINE one of: {', '.join(engines)}")
        frame = engines[found["engine"]].query(cell, shell.user_ns)
        if found["name"]:
            shell.user_ns[found["name"]] = frame
        return frame

    shell.register_magic_function(sql, magic_kind="cell", magic_name="sql")
