"""The few verbs with which Glasshouse writes and reads Delta tables: create, append once, replace window, commit, read.

Here: the two kinds of write, for Arrow tables (delta-rs, no JVM) and for Spark data frames, on the same tables, and
several of them in one commit. Not here: what a table means or holds (each stage declares its own `Table`), the commit
log itself (commits.py), and how Spark is started (spark.py).

Every time-partitioned table has the column `hour` (timestamp, UTC, the hour's start) and is partitioned by it.
A window is half-open, [start, end), in whole hours.

Every read sees a moment: the versions of all tables that belong together. `lake.open("events")` takes the newest moment;
`lake.pinned()` is a lake that stays at one, for whoever reads more than one table or reads twice. A lake that is not a
local folder has no commit log: there each table is read at its newest version.
"""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from assets.commits import CommitError, CommitLog, Moment

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    from pyspark.sql import DataFrame, SparkSession

TIME = pa.timestamp("us", "UTC")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
COMMIT_APP = "glasshouse/commits"  # in each Delta commit: the number of the moment that it belongs to
CONFLICT_TRIES = 6
COMMITTERS = 4
# Delta's own 100: a commit then reads up to a hundred others first, and takes 50 ms in place of 15.
CONFIGURATION = {"delta.checkpointInterval": "20"}
HOUR_FOLDER = "hour=%Y-%m-%d%%20%H%%3A00%%3A00.000000"
HOUR = pa.field("hour", TIME, metadata={"comment": "start of the hour, UTC; the partition"})


class LakeError(Exception):
    """A write or a read that the lake refuses; the message says what to do next."""


class Moved(Exception):
    """Somebody has written to what a commit was made from; read it again."""


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


def windows(hours: Iterable[dt.datetime]) -> list[Window]:
    """Hours as windows, neighbours in one."""
    found: list[Window] = []
    for hour in sorted(hours):
        if found and found[-1].end == hour:
            found[-1] = Window(found[-1].start, hour + dt.timedelta(hours=1))
        else:
            found.append(Window(hour, hour + dt.timedelta(hours=1)))
    return found


def _sql_time(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Write:
    """Rows for one table: appended, or (with a window, or several) in place of the rows of just these windows."""

    table: Table
    data: pa.Table
    window: Window | Sequence[Window] | None = None

    @property
    def windows(self) -> list[Window] | None:
        """None for an append."""
        return [self.window] if isinstance(self.window, Window) else None if self.window is None else list(self.window)


# A table's part of a commit, as it stands in the intent: table, adds, window (whose files go), removes (paths that go, perhaps).
Step = dict[str, Any]
Probe = Callable[[str], None]


@dataclass(frozen=True)
class Lake:
    """A folder (or an object-store prefix) of Delta tables.

    root: local path or URI. storage_options: handed to delta-rs as they are (credentials, endpoint). moment: what reads
    see; None for the newest at the time of each read.
    """

    root: str
    storage_options: dict[str, str] = field(default_factory=dict)
    moment: Moment | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets: not the tables that this one has open."""
        return {"root": self.root, "storage_options": self.storage_options, "moment": self.moment}

    @cached_property
    def log(self) -> CommitLog | None:
        """The commit log, None for a lake that is not a local folder."""
        return None if "://" in str(self.root) else CommitLog(self.root)

    def path(self, name: str) -> str:
        return f"{str(self.root).rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        return DeltaTable.is_deltatable(self.path(name), self.storage_options or None)

    # --- reading -----------------------------------------------------------------------------------------------------

    def pinned(self, moment: int | None = None) -> Lake:
        """The lake as it is now, or at a moment that is still kept: all its reads belong together."""
        if self.log is None or (self.moment and moment is None):
            return self
        try:
            return replace(self, moment=self.log.newest() if moment is None else self.log.moment(moment))
        except CommitError as error:
            raise LakeError(str(error)) from error

    def open(self, name: str, version: int | None = None) -> DeltaTable:
        """Open a table as the moment has it, or at the version given. Raises LakeError where there is none."""
        if version is None:
            moment = self.moment or (self.log.newest() if self.log else None)
            version = moment.tables.get(name) if moment else None
        return self._once("table", name, version, lambda: self._open(name, version))

    @cached_property
    def _opened(self) -> dict[tuple[str, str, int], Any]:
        return {}

    def _once(self, what: str, name: str, version: int | None, make: Callable[[], Any]) -> Any:
        """What a pinned lake has made of a table's version before: its log is long, and a version does not change."""
        if self.moment is None or version is None:
            return make()
        found = self._opened.get((what, name, version))
        if found is None:
            found = self._opened[what, name, version] = make()
        return found

    def open_newest(self, name: str) -> DeltaTable:
        """A table as it is now, half a commit perhaps: for who tends the files, never for who reads the rows."""
        return self._open(name)

    def _open(self, name: str, version: int | None = None) -> DeltaTable:
        try:
            return DeltaTable(self.path(name), version=version, storage_options=self.storage_options or None)
        except TableNotFoundError as error:
            raise LakeError(
                f"the lake at {self.root} has no table `{name}`; materialize the asset `{name}`, or run `make demo`"
            ) from error

    def version(self, name: str) -> int:
        return self.open(name).version()

    def read(
        self,
        name: str,
        window: Window | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Read a table, a window of it or some columns of it into Arrow."""
        inside = None
        if window:
            start, end = pa.scalar(window.start, TIME), pa.scalar(window.end, TIME)
            inside = (pc.field("hour") >= start) & (pc.field("hour") < end)
        return self.dataset(name, version).to_table(columns=list(columns) if columns else None, filter=inside)

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset:
        """A table as an Arrow dataset, to be filtered by numbers and times while it is read.

        Never by texts: a column without bounds in Delta's log (the lake writes none of texts) gets the bound "null" from
        delta-rs, and a filter on it finds nothing. Filter the rows that were read.
        """
        from pyarrow import fs

        files = None
        if "://" not in str(self.root):
            # delta-rs's own file system is Python called from Arrow's threads: a process that ends soon after reading aborts.
            files = fs.SubTreeFileSystem(self.path(name), fs.LocalFileSystem())
        table = self.open(name, version)
        return self._once("dataset", name, table.version(), lambda: table.to_pyarrow_dataset(filesystem=files))

    def added(self, moment: Moment, table: Table) -> pa.Table:
        """The rows that a moment's commit added to a table. Raises LakeError where their files are gone."""
        paths = [f"{self.path(table.name)}/{path}" for path in moment.added.get(table.name, [])]
        try:
            parts = [_with_hour(pq.ParquetFile(path).read(), path, table) for path in paths]
        except FileNotFoundError as error:
            raise LakeError(f"the files of moment {moment.number} were tidied away: {error}") from error
        return pa.concat_tables(parts) if parts else table.empty()

    def span(self, name: str) -> Window | None:
        """From the first to the last hour for which the table holds rows; None without any, and without the table."""
        hours = self.hours(name) if self.exists(name) else []
        return Window(hours[0], hours[-1] + dt.timedelta(hours=1)) if hours else None

    def hours(self, name: str) -> list[dt.datetime]:
        """The hours for which the table holds rows, ascending."""
        found = self.open(name).get_add_actions(flatten=True)
        # As integers: Arrow's own conversion of timestamps would import pandas, half a second of every start of Dagster.
        values = pa.table(found).column("partition.hour").unique().cast(TIME).cast(pa.int64()).to_pylist()
        return sorted(EPOCH + dt.timedelta(microseconds=value) for value in values)

    def files(self, name: str, window: Window | None = None) -> pa.Table:
        """The table's data files, of a window's hours: Delta's add actions, flattened, hours as TIME. Empty without the table."""
        if not self.exists(name):
            return pa.table({"path": pa.array([], pa.string()), "partition.hour": pa.array([], TIME)})
        found = pa.table(self.open(name).get_add_actions(flatten=True))
        if window is None or not found.num_rows:
            return found
        hour = found["partition.hour"].cast(TIME)
        return found.filter(pc.and_(pc.greater_equal(hour, pa.scalar(window.start, TIME)), pc.less(hour, pa.scalar(window.end, TIME))))

    # --- writing -----------------------------------------------------------------------------------------------------

    def create(self, table: Table) -> None:
        """Create a table if it is not there yet. Done before the first write, so that concurrent appends agree."""
        if self.log and table.name in self.log.named:
            return
        newest = self.log.newest() if self.log else None
        if newest:
            self.log.named.update(newest.tables)
        if self.exists(table.name) and (self.log is None or (newest and table.name in newest.tables)):
            return
        DeltaTable.create(
            self.path(table.name),
            schema=table.schema,
            mode="ignore",
            partition_by=["hour"] if table.partitioned else None,
            name=table.name,
            description=table.description,
            configuration=CONFIGURATION,
            storage_options=self.storage_options or None,
        )
        self.publish("create", [table.name])  # else a reader would take its newest version, half a commit perhaps

    def appended(self, name: str, app: str) -> int | None:
        """The last version that `app` appended to the table, or None."""
        return self.open(name).transaction_version(app)

    def add_columns(self, name: str, fields: Sequence[pa.Field], *, by: str) -> list[str]:
        """Give a table the columns that it lacks, null in the rows it holds; returns their names. Local lakes only."""
        try:
            with self.log.locked():
                before = self._recovered()
                table = self._open(name)
                there = {field.name for field in table.schema().fields}
                new = [field for field in fields if field.name not in there]
                if new:
                    table.alter.add_columns(list(Schema.from_arrow(pa.schema(new)).fields))
                    self._published(before, by, {name: self._open(name).version()})
                return [field.name for field in new]
        except CommitError as error:
            raise LakeError(str(error)) from error

    def append_once(self, table: Table, data: pa.Table, app: str, version: int) -> bool:
        """Append `data` unless this (app, version) or a later one of the app is in the table already.

        Rows and transaction id become visible in one commit. Returns False where the append was recognised as a repeat.
        """
        if self.log is not None:
            self.create(table)
            seen = self.appended(table.name, app)
            if seen is not None and seen >= version:
                return False
            step = self.stage(Write(table, data))
            return self.commit([step], by=app, app=(app, version), of_table=True) is not None
        self.create(table)
        target = self.open(table.name)
        seen = target.transaction_version(app)
        if seen is not None and seen >= version:
            return False
        properties = CommitProperties(app_transactions=[Transaction(app, version)])
        write_deltalake(target, _conform(table, data), mode="append", commit_properties=properties, schema_mode="merge")
        return True

    def replace_window(self, table: Table, data: pa.Table, window: Window) -> int:
        """Replace the rows of [start, end) by `data` in one commit; returns the new version.

        Raises LakeError where a row of `data` lies outside of the window: it would never be replaced again.
        """
        if self.log is not None:
            return self.replace_windows([Write(table, data, window)], by=table.name).tables[table.name]
        self.create(table)
        data = _conform(table, data)
        _check_inside(table.name, data, window)
        write_deltalake(self.open(table.name), data, mode="overwrite", predicate=window.predicate)
        return self.version(table.name)

    def replace_windows(self, writes: Sequence[Write], *, by: str) -> Moment:
        """Replace windows of several tables in one moment. Raises LakeError as replace_window does."""
        return self.commit([self.stage(write) for write in writes], by=by)

    def stage(self, write: Write) -> Step:
        """Write the data files of a commit to come, one an hour; nobody sees them yet. Local lakes only."""
        table = write.table
        self.create(table)
        windows = write.windows
        if windows is None and not write.data.num_rows:
            return {"table": table.name, "window": None, "adds": []}
        data = _conform(table, write.data)
        if windows is not None:
            _check_inside(table.name, data, *windows)
        bounds = None if windows is None else [[one.start.isoformat(), one.end.isoformat()] for one in windows]
        adds = [_write_file(self.path(table.name), part, hour) for hour, part in _by_hour(table, data)]
        return {"table": table.name, "window": bounds, "adds": adds}

    def commit(
        self,
        steps: Sequence[Step],
        *,
        by: str,
        app: tuple[str, int] | None = None,
        of_table: bool = False,
        note: dict[str, Any] | None = None,
        fence: Callable[[], None] = lambda: None,
        probe: Probe = lambda point: None,
    ) -> Moment | None:
        """Make staged files visible, in all their tables at one moment. Local lakes only.

        app: (application, version); a version that has been seen is a repeat: its files are deleted and None is returned.
        of_table: the version counts what the application wrote to the one table of this commit, and the table knows it;
        else it counts the application's commits, and the moments know it. fence: called under the lock before anything is decided; what it raises stops the
        commit. probe: called with the name of each point passed (tests kill the process there).
        Raises LakeError where the lock is not to be had or the log is not ours alone.
        """
        try:
            with self.log.locked():
                before = self._recovered()
                fence()
                if app and self._repeated(before, steps, app, of_table):
                    self._unstage(steps)
                    return None
                number = before.number + 1 if before else 0
                intent = {
                    "moment": number, "by": by, "app": app, "of_table": of_table, "note": note or {}, "steps": list(steps)
                }  # fmt: skip
                self.log.decide(intent)
                probe("intent")
                return self._finish(intent, before, probe)
        except CommitError as error:
            raise LakeError(str(error)) from error

    def commit_unmoved(self, steps: Sequence[Step], then: Lake, looked: dict[str, Window], **named: Any) -> Moment:
        """Commit what was made from windows of tables as a pinned lake `then` showed them; `named` as for commit.

        Raises Moved where a window's files are others by now; what was staged can be committed by another try, or is left to tidy.
        """

        def paths(lake: Lake, name: str) -> set[str]:
            return set(lake.files(name, looked[name])["path"].to_pylist())

        def fence() -> None:
            if moved := [name for name in looked if paths(self, name) != paths(then, name)]:
                raise Moved(f"`{moved[0]}` was written to meanwhile")

        return self.commit(steps, fence=fence, **named)

    def publish(self, by: str, names: Sequence[str]) -> Moment | None:
        """Let readers see the newest version of tables that were written without `commit` (by Spark, say)."""
        if self.log is None:
            return None
        try:
            with self.log.locked():
                before = self._recovered()
                return self._published(before, by, {name: self._open(name).version() for name in names})
        except CommitError as error:
            raise LakeError(str(error)) from error

    def recover(self) -> Moment | None:
        """Finish what a killed writer had decided; returns the newest moment."""
        if self.log is None:
            return None
        try:
            with self.log.locked():
                return self._recovered()
        except CommitError as error:
            raise LakeError(str(error)) from error

    def _recovered(self) -> Moment | None:
        newest = self.log.newest()
        intent = self.log.intent()
        if intent is None or (newest and newest.number >= intent["moment"]):
            return newest
        return self._finish(intent, newest, lambda point: None)

    def _finish(self, intent: dict[str, Any], before: Moment | None, probe: Probe) -> Moment:
        versions, steps = {}, intent["steps"]
        # Side by side: a commit of Delta mostly waits for the disk.
        with ThreadPoolExecutor(COMMITTERS) as committers:
            for step, version in zip(steps, committers.map(lambda step: self._apply(step, intent), steps), strict=True):
                versions[step["table"]] = version
                probe(step["table"])
        moment = self._published(before, intent["by"], versions, intent)
        probe("published")
        return moment

    def _published(self, before, by: str, versions: dict[str, int], intent: dict[str, Any] | None = None) -> Moment:
        moment = Moment(
            number=before.number + 1 if before else 0,
            by=by,
            at=dt.datetime.now(dt.UTC).isoformat(),
            tables={**(before.tables if before else {}), **versions},
            apps={**(before.apps if before else {})},
        )
        if intent:
            if intent["app"] and not intent.get("of_table", len(intent["steps"]) == 1):  # older code did not say
                moment.apps[intent["app"][0]] = intent["app"][1]
            added = {step["table"]: [add["path"] for add in step["adds"]] for step in intent["steps"]}
            moment = replace(moment, added=added, note=intent["note"])
        self.log.publish(moment)
        return moment

    def _apply(self, step: Step, intent: dict[str, Any]) -> int:
        """One table's Delta commit, unless it is there already; returns the table's version after it."""
        ids = [Transaction(COMMIT_APP, intent["moment"])]
        if intent["app"]:
            ids.append(Transaction(*intent["app"]))
        for attempt in range(CONFLICT_TRIES):
            table = self._tracked(step["table"])
            seen = table.transaction_version(COMMIT_APP)
            if seen is not None and seen >= intent["moment"]:
                return table.version()
            try:
                table.create_write_transaction(
                    [*_removals(table, step["window"], step.get("removes")), *(_add_action(add) for add in step["adds"])], "append",
                    table.schema(), table.metadata().partition_columns or None,
                    commit_properties=CommitProperties(_described(step, intent), app_transactions=ids),
                )  # fmt: skip
                table.update_incremental()
                return table.version()
            except CommitFailedError as error:  # somebody compacts or vacuums the table just now
                failure = error
                time.sleep(0.05 * 2**attempt)
        raise LakeError(
            f"`{step['table']}`: {CONFLICT_TRIES} tries met commits of others ({failure}); the commit stays decided and "
            "is finished by the next writer, so start again"
        )

    def _tracked(self, name: str) -> DeltaTable:
        """A table at its newest version, from the one that this lake opened last: the log is not read from its start."""
        path = self.path(name)
        if path not in self._handles:
            self._handles[path] = self._open(name)
            return self._handles[path]
        try:
            self._handles[path].update_incremental()
        except DeltaError:  # the folder is another one by now
            self._handles[path] = self._open(name)
        return self._handles[path]

    @cached_property
    def _handles(self) -> dict[str, DeltaTable]:
        return {}

    def _repeated(self, before: Moment | None, steps: Sequence[Step], app: tuple[str, int], of_table: bool) -> bool:
        name, version = app
        if of_table:
            seen = self._open(steps[0]["table"]).transaction_version(name)
        else:
            seen = before.apps.get(name) if before else None
        return seen is not None and seen >= version

    def _unstage(self, steps: Sequence[Step]) -> None:
        for step in steps:
            for add in step["adds"]:
                Path(self.path(step["table"]), add["path"]).unlink(missing_ok=True)

    # --- Spark -------------------------------------------------------------------------------------------------------

    def frame(self, spark: SparkSession, name: str, version: int | None = None) -> DataFrame:
        """A table as a Spark data frame, as the moment has it or at the version given."""
        version = self.open(name, version).version()  # raises where there is none, with the message that says what to do
        return spark.read.format("delta").option("versionAsOf", version).load(self.path(name))

    def replace_window_frame(self, name: str, frame: DataFrame, window: Window) -> int:
        """Replace the rows of [start, end) by a Spark data frame that has an `hour` column; returns the new version.

        Spark itself refuses rows outside of the window (DELTA_REPLACE_WHERE_MISMATCH).
        """
        writer = frame.write.format("delta").mode("overwrite").partitionBy("hour")
        if self.exists(name):
            writer = writer.option("replaceWhere", window.predicate)
        writer.save(self.path(name))
        self.publish(name, [name])
        return self.version(name)


def _check_inside(name: str, data: pa.Table, *windows: Window) -> None:
    if "hour" not in data.column_names:
        raise LakeError(f"`{name}` has no column `hour`; only a time-partitioned table has windows")
    for hour in data.column("hour").unique().to_pylist():
        if hour is None or not any(window.start <= hour < window.end for window in windows):
            where = ", ".join(f"[{window.start}, {window.end})" for window in windows)
            raise LakeError(f"`{name}`: a row of hour {hour} lies outside of {where or 'every window, for none was given'}")


# --- data files ------------------------------------------------------------------------------------------------------


def _conform(table: Table, data: pa.Table) -> pa.Table:
    return data.select(table.schema.names).cast(table.schema)


def _by_hour(table: Table, data: pa.Table) -> list[tuple[dt.datetime | None, pa.Table]]:
    """The rows hour by hour, without the column that the partition stands for."""
    if not data.num_rows:
        return []
    if not table.partitioned:
        return [(None, data)]
    hours = sorted(data.column("hour").unique().to_pylist())
    rest = data.drop_columns(["hour"])
    if len(hours) == 1:
        return [(hours[0], rest)]
    return [(hour, rest.filter(pc.equal(data.column("hour"), pa.scalar(hour, TIME)))) for hour in hours]


def _write_file(folder: str, data: pa.Table, hour: dt.datetime | None) -> dict[str, Any]:
    """Write rows of one hour as a Parquet file; returns what Delta's log says of it."""
    # delta-rs's own names of folders; polars reads the hour from them and not from the log.
    place = f"{hour.astimezone(dt.UTC):{HOUR_FOLDER}}/" if hour else ""
    path = f"{place}{uuid.uuid4().hex}.parquet"
    target = Path(folder, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    names = set(data.column_names)
    pq.write_table(
        data, target, compression="zstd", compression_level=1, use_dictionary=[name for name in FEW_VALUES if name in names],
        write_statistics=[item.name for item in data.schema if item.type not in TEXT],
    )  # fmt: skip
    return {
        "path": path,
        "size": target.stat().st_size,
        "hour": f"{hour.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}" if hour else None,
        "rows": data.num_rows,
        "stats": _statistics(data),
    }


# Columns of few values: a dictionary of another one only costs time, as bounds of texts do that nobody skips files by.
FEW_VALUES = ("action", "channel", "source", "reason", "format", "kind", "labeled_by")
TEXT = (pa.string(), pa.binary())


def _statistics(data: pa.Table) -> str:
    """Delta's statistics of a file: rows, and bounds of times and whole numbers, by which readers skip it."""
    low, high = {}, {}
    for item in data.schema:
        if pa.types.is_timestamp(item.type) or pa.types.is_int64(item.type):
            bounds = pc.min_max(data.column(item.name).cast(pa.int64()))
            if bounds["min"].is_valid:
                as_text = _microseconds_text if pa.types.is_timestamp(item.type) else int
                low[item.name], high[item.name] = as_text(bounds["min"].as_py()), as_text(bounds["max"].as_py())
    nulls = {item.name: data.column(item.name).null_count for item in data.schema}
    return json.dumps({"numRecords": data.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls})


def _microseconds_text(value: int) -> str:
    return f"{EPOCH + dt.timedelta(microseconds=value):%Y-%m-%dT%H:%M:%S.%fZ}"


def _described(step: Step, intent: dict[str, Any]) -> dict[str, str]:
    """What the table's history says of the commit."""
    return {"rows": str(sum(add["rows"] for add in step["adds"])), "by": intent["by"], "moment": str(intent["moment"])}


def _add_action(add: dict[str, Any]) -> AddAction:
    values = {"hour": add["hour"]} if add["hour"] else {}
    return AddAction(add["path"], add["size"], values, int(time.time() * 1000), True, add["stats"])


def _removals(table: DeltaTable, window: list | None, removes: list[str] | None = None) -> list[RemoveAction]:
    """The files of the windows' hours: whole, since a file holds one hour. window: [[start, end], ...] of an intent.

    removes: further files, by their paths on disk.
    """
    if not window and not removes:
        return []
    window, named = window or [], set(removes or ())
    pairs = [window] if window and isinstance(window[0], str) else window  # an intent from before there could be several
    spans = [(dt.datetime.fromisoformat(start), dt.datetime.fromisoformat(end)) for start, end in pairs]
    files = pa.table(table.get_add_actions(flatten=True))
    if not files.num_rows:
        return []
    hours = files.column("partition.hour").cast(TIME).cast(pa.int64()).to_pylist()
    # As on disk: delta-rs hands paths out as they stand in the log, with a URL's escapes, and escapes what it is given.
    sizes, paths = files.column("size_bytes").to_pylist(), [unquote(path) for path in files.column("path").to_pylist()]
    times = [EPOCH + dt.timedelta(microseconds=hour) for hour in hours]
    inside = [any(start <= time < end for start, end in spans) for time in times]
    now = int(time.time() * 1000)
    return [RemoveAction(path, True, now, size) for path, size, yes in zip(paths, sizes, inside, strict=True) if yes or path in named]


def _with_hour(data: pa.Table, path: str, table: Table) -> pa.Table:
    if table.partitioned:
        hour = dt.datetime.strptime(Path(path).parent.name, HOUR_FOLDER).replace(tzinfo=dt.UTC)
        data = data.append_column("hour", pa.array([hour] * data.num_rows, TIME))
    for name in set(table.schema.names) - set(data.column_names):  # a column that came later
        data = data.append_column(name, pa.nulls(data.num_rows, table.schema.field(name).type))
    return _conform(table, data)
