"""DuckDB in this process over the lake's tables, each at one version, within a bound of memory.

Here: the connection, a view for each table, rows out as Arrow batches. Not here: what is asked (translate.py writes it),
what becomes of the rows.

A table is its files by Delta's log: none is scanned for them, and of a partitioned table a filter on `hour` opens no other hour's
file. The connection sees the lake's folder and its own spill folder, nothing else. duckdb is imported where it is used.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

import pyarrow as pa

from assets.engines import translate
from assets.lake import Lake, LakeError, Window

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 200_000
T = TypeVar("T")


@dataclass(frozen=True)
class EmbeddedSettings:
    """memory_mb: what the engine may hold; beyond it, it spills. threads: 0 for one a core. spill: folder, default the system's."""

    memory_mb: int = 3072
    threads: int = 0
    spill: Path | None = None


class EmbeddedError(Exception):
    """A query that failed in the embedded engine; the message is the engine's."""


def named_like_a_partition(lake: Lake) -> str | None:
    """A folder NAME=VALUE above the lake's tables, which the engine takes for a partition; None without one."""
    return next((part for part in Path(lake.root).absolute().parts if "=" in part), None)


class Answer:
    """The rows of a query, batch by batch, once. Iterating raises EmbeddedError where the engine fails on the way."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self.schema, self._reader = reader.schema, reader

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                return
            except (OSError, pa.ArrowException) as error:  # by Arrow's stream DuckDB's errors come so
                raise EmbeddedError(str(error)) from error
            yield batch

    def read_all(self) -> pa.Table:
        return pa.Table.from_batches(list(self), self.schema)


@contextlib.contextmanager
def connected(settings: EmbeddedSettings | None = None, folder: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in Spark's zone (UTC) and with Spark's division. folder: what it may read beside its spill folder."""
    import duckdb

    settings = settings or EmbeddedSettings()
    if settings.spill is not None:
        settings.spill.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="glasshouse-sql-", dir=settings.spill) as spill:
        wanted = {
            "memory_limit": f"{settings.memory_mb}MiB", "threads": settings.threads or os.cpu_count() or 1, "temp_directory": spill,
            "autoinstall_known_extensions": False, "autoload_known_extensions": False, "preserve_insertion_order": False,
        }  # fmt: skip
        seen = ", ".join(_quoted(str(Path(path).absolute()) + "/") for path in (folder, spill) if path)
        with duckdb.connect(config=wanted) as connection:
            for statement in (
                "SET TimeZone = 'UTC'", "SET python_enable_replacements = false", f"SET allowed_directories = [{seen}]", "SET enable_external_access = false", *translate.MACROS,
            ):
                connection.execute(statement).fetchall()
            yield connection


def ask(
    lake: Lake, read: Mapping[str, int], query: Callable[[dict[str, dict[str, str]]], str], use: Callable[[Answer], T],
    settings: EmbeddedSettings | None = None, window: Window | None = None,
) -> T:  # fmt: skip
    """What `use` makes of the answer to a query over tables at versions; the rows come batch by batch.

    read: the version of each table. query: given the tables' columns and Spark types, the SQL for DuckDB. window: hours whose files
    are held against their checksums first. `use` may be called a second time, after it has raised what an Answer raises. Raises EmbeddedError; LakeError for a lake that is no local folder, and for damage.
    """
    import duckdb

    if lake.log is None:
        raise LakeError(f"the embedded SQL engine reads lakes in a local folder, not {lake.root}; set GLASSHOUSE_SQL_ENGINE=spark")
    if folder := named_like_a_partition(lake):
        raise LakeError(f"{folder} would be read as a column by the embedded SQL engine; rename that folder, or set GLASSHOUSE_SQL_ENGINE=spark")
    tables = {name: _Table.of(lake, name, version, window) for name, version in read.items()}
    text = query({name: table.columns for name, table in tables.items()})
    with connected(settings, str(lake.root)) as connection:
        # Files of one table all have its columns, or some are older than one: looking into each of them costs, so it is done when it has to be.
        for each_file in (False, True):
            try:
                for name, table in tables.items():
                    connection.execute(table.view(name, connection, each_file)).fetchall()
                return use(Answer(connection.sql(text).to_arrow_reader(BATCH_ROWS)))
            except (duckdb.Error, EmbeddedError) as error:
                if each_file or not _of_a_column(error):
                    raise EmbeddedError(str(error)) from error
    raise AssertionError


def _of_a_column(error: Exception) -> bool:
    import duckdb

    return isinstance(error, duckdb.BinderException) or "schema mismatch" in str(error)


@dataclass(frozen=True)
class _Table:
    """A table at a version: its files, whether their folders tell the hour, its columns with Spark's types."""

    files: list[str]
    hourly: bool
    columns: dict[str, str]

    @classmethod
    def of(cls, lake: Lake, name: str, version: int, window: Window | None) -> _Table:
        table = lake.open(name, version)
        schema = pa.schema(table.schema().to_arrow())
        adds = lake.files(name, version=version)
        if window is not None:
            near = lake.files(name, window, version)
            lake.check_files(name, map(unquote, near["path"].to_pylist()))
        files = [f"{lake.path(name)}/{unquote(path)}" for path in adds["path"].to_pylist()]
        return cls(files, "hour" in table.metadata().partition_columns, translate.schema_of({name: schema})[name])

    def view(self, name: str, connection: duckdb.DuckDBPyConnection, each_file: bool) -> str:
        """CREATE VIEW with exactly the table's columns. each_file: whether each file is asked for those that it has."""
        kinds = {column: translate.duckdb_name(kind) for column, kind in self.columns.items()}
        if not self.files:
            source, there = "", set()
        else:
            hours = "hive_partitioning = true, hive_types = {'hour': TIMESTAMPTZ}" if self.hourly else "hive_partitioning = false"
            listed = ", ".join(map(_quoted, self.files))
            source = f" FROM read_parquet([{listed}], {hours}, union_by_name = {str(each_file).lower()})"
            there = {row[0] for row in connection.execute(f"DESCRIBE SELECT *{source}").fetchall()} if each_file else set(kinds)
        columns = [f'CAST({quoted_name(column) if column in there else "NULL"} AS {kind}) AS {quoted_name(column)}' for column, kind in kinds.items()]
        return f"CREATE OR REPLACE TEMP VIEW {quoted_name(name)} AS SELECT {', '.join(columns)}{source or ' WHERE false'}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def quoted_name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def ask_rows(tables: Mapping[str, pa.Table], query: Callable[[dict[str, dict[str, str]]], str]) -> pa.Table:
    """The answer to a query over rows in memory. query: as for `ask`. Raises EmbeddedError."""
    import duckdb

    text = query(translate.schema_of({name: table.schema for name, table in tables.items()}))
    with connected() as connection:
        try:
            for name, table in tables.items():
                connection.register(name, table)
            return connection.sql(text).to_arrow_table()
        except duckdb.Error as error:
            raise EmbeddedError(str(error)) from error


class Checker:
    """Whether the embedded engine understands queries, asked before there is a table; `close` it afterwards."""

    def __init__(self) -> None:
        self.opened = contextlib.ExitStack()
        self.connection = self.opened.enter_context(connected())
        self.made: dict[str, dict[str, str]] = {}

    def close(self) -> None:
        self.opened.close()

    def check(self, text: str, tables: Mapping[str, Mapping[str, str]]) -> None:
        """text: of translate.py. tables: columns and Spark types of what it reads. Raises EmbeddedError with the engine's words."""
        import duckdb

        try:
            for name, columns in tables.items():
                if self.made.get(name) != columns:
                    listed = ", ".join(f"{quoted_name(column)} {translate.duckdb_name(kind)}" for column, kind in columns.items())
                    self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {quoted_name(name)} ({listed})").fetchall()
                    self.made[name] = dict(columns)
            self.connection.execute(f"EXPLAIN {text}").fetchall()
        except duckdb.Error as error:
            raise EmbeddedError(str(error).split("\n")[0]) from error
