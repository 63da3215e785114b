"""The few verbs with which Glasshouse writes and reads Delta tables: create, append once, replace window, read.

Here: the two kinds of write, for Arrow tables (delta-rs, no JVM) and for Spark data frames, on the same tables.
Not here: what a table means or holds (each stage declares its own `Table`), and how Spark is started (spark.py).

Every time-partitioned table has the column `hour` (timestamp, UTC, the hour's start) and is partitioned by it.
A window is half-open, [start, end), in whole hours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TIME = pa.timestamp("us", "UTC")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
HOUR = pa.field("hour", TIME, metadata={"comment": "start of the hour, UTC; the partition"})


class LakeError(Exception):
    """A write or a read that the lake refuses; the message says what to do next."""


@dataclass(frozen=True)
class Table:
    """A table's declaration: its name is the same as asset key, Delta folder, ClickHouse table and metric source."""

    name: str
    schema: pa.Schema
    description: str
    partitioned: bool = True

    def empty(self) -> pa.Table:
        return self.schema.empty_table()


@dataclass(frozen=True)
class Window:
    """A half-open range [start, end) of event time in whole hours, UTC.

    Raises ValueError where a bound is naive, not on the hour, or start is not before end.
    """

    start: dt.datetime
    end: dt.datetime

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if bound.tzinfo is None:
                raise ValueError(f"a window's bound needs a time zone: {bound!r}")
            if bound.minute or bound.second or bound.microsecond:
                raise ValueError(f"a window's bound lies on a full hour: {bound.isoformat()}")
        if self.start >= self.end:
            raise ValueError(f"a window ends after it starts: [{self.start.isoformat()}, {self.end.isoformat()})")

    @property
    def predicate(self) -> str:
        """The window as SQL on `hour`, in the dialects of delta-rs and of Spark."""
        return f"hour >= '{_sql_time(self.start)}' AND hour < '{_sql_time(self.end)}'"

    @property
    def hours(self) -> list[dt.datetime]:
        count = int((self.end - self.start) / dt.timedelta(hours=1))
        return [self.start + dt.timedelta(hours=i) for i in range(count)]

    def widened(self, before: dt.timedelta = dt.timedelta(0), after: dt.timedelta = dt.timedelta(0)) -> Window:
        return Window(self.start - before, self.end + after)


def _sql_time(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Lake:
    """A folder (or an object-store prefix) of Delta tables.

    root: local path or URI. storage_options: handed to delta-rs as they are (credentials, endpoint).
    """

    root: str
    storage_options: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> str:
        return f"{str(self.root).rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        return DeltaTable.is_deltatable(self.path(name), self.storage_options or None)

    def open(self, name: str, version: int | None = None) -> DeltaTable:
        """Open a table, at its newest version or at the one given. Raises LakeError where there is none."""
        try:
            return DeltaTable(self.path(name), version=version, storage_options=self.storage_options or None)
        except TableNotFoundError as error:
            raise LakeError(
                f"the lake at {self.root} has no table `{name}`; materialize the asset `{name}`, or run `make demo`"
            ) from error

    def version(self, name: str) -> int:
        return self.open(name).version()

    def create(self, table: Table) -> None:
        """Create a table if it is not there yet. Done before the first write, so that concurrent appends agree."""
        DeltaTable.create(
            self.path(table.name),
            schema=table.schema,
            mode="ignore",
            partition_by=["hour"] if table.partitioned else None,
            name=table.name,
            description=table.description,
            storage_options=self.storage_options or None,
        )

    def appended(self, name: str, app: str) -> int | None:
        """The last version that `app` appended to the table, or None."""
        return self.open(name).transaction_version(app)

    def append_once(self, table: Table, data: pa.Table, app: str, version: int) -> bool:
        """Append `data` unless this (app, version) or a later one of the app is in the table already.

        Rows and transaction id become visible in one commit. Returns False where the append was recognised as a repeat.
        """
        self.create(table)
        target = self.open(table.name)
        seen = target.transaction_version(app)
        if seen is not None and seen >= version:
            return False
        write_deltalake(
            target,
            data.select(table.schema.names).cast(table.schema),
            mode="append",
            commit_properties=CommitProperties(app_transactions=[Transaction(app, version)]),
        )
        return True

    def replace_window(self, table: Table, data: pa.Table, window: Window) -> int:
        """Replace the rows of [start, end) by `data` in one commit; returns the new version.

        Raises LakeError where a row of `data` lies outside of the window: it would never be replaced again.
        """
        self.create(table)
        data = data.select(table.schema.names).cast(table.schema)
        _check_inside(table.name, data, window)
        target = self.open(table.name)
        write_deltalake(target, data, mode="overwrite", predicate=window.predicate)
        return self.version(table.name)

    def read(
        self,
        name: str,
        window: Window | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Read a table, a window of it or some columns of it into Arrow."""
        filters = [("hour", ">=", window.start), ("hour", "<", window.end)] if window else None
        return self.open(name, version).to_pyarrow_table(columns=list(columns) if columns else None, filters=filters)

    def hours(self, name: str) -> list[dt.datetime]:
        """The hours for which the table holds rows, ascending."""
        found = self.open(name).get_add_actions(flatten=True)
        # As integers: Arrow's own conversion of timestamps would import pandas, half a second of every start of Dagster.
        values = pa.table(found).column("partition.hour").unique().cast(TIME).cast(pa.int64()).to_pylist()
        return sorted(EPOCH + dt.timedelta(microseconds=value) for value in values)

    def frame(self, spark: SparkSession, name: str, version: int | None = None) -> DataFrame:
        """A table as a Spark data frame."""
        if not self.exists(name):
            self.open(name)  # raises, with the message that says what to do
        reader = spark.read.format("delta")
        return (reader if version is None else reader.option("versionAsOf", version)).load(self.path(name))

    def replace_window_frame(self, name: str, frame: DataFrame, window: Window) -> int:
        """Replace the rows of [start, end) by a Spark data frame that has an `hour` column; returns the new version.

        Spark itself refuses rows outside of the window (DELTA_REPLACE_WHERE_MISMATCH).
        """
        writer = frame.write.format("delta").mode("overwrite").partitionBy("hour")
        if self.exists(name):
            writer = writer.option("replaceWhere", window.predicate)
        writer.save(self.path(name))
        return self.version(name)


def _check_inside(name: str, data: pa.Table, window: Window) -> None:
    if "hour" not in data.column_names:
        raise LakeError(f"`{name}` has no column `hour`; only a time-partitioned table has windows")
    for hour in data.column("hour").unique().to_pylist():
        if hour is None or not window.start <= hour < window.end:
            raise LakeError(f"`{name}`: a row of hour {hour} lies outside of [{window.start}, {window.end})")
