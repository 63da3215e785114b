"""The few verbs with which Glasshouse writes and reads Delta tables: create, append once, replace window, commit, read.

Here: the two kinds of write, for Arrow tables (delta-rs, no JVM) and for Spark data frames, on the same tables, and
several of them in one commit. Not here: what a table means or holds (each stage declares its own `Table`), the commit
log itself (commits.py), and how Spark is started (spark.py).

Every time-partitioned table has the column `hour` (timestamp, UTC, the hour's start) and is partitioned by it.
A window is half-open, [start, end), in whole hours.

Every read sees a moment: the versions of all tables that belong together. `lake.open("events")` takes the newest moment;
`lake.pinned()` is a lake that stays at one, for whoever reads more than one table or reads twice. A lake that is not a
local folder has no commit log: there each table is read at its newest version.

What a local lake writes is durable before it is published, and what it reads is held against what was written: the table's
log against the moment (deltalog.py), each data file against the checksum in its name, when a read first touches it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from assets import deltalog, durable
from assets.commits import CommitError, CommitLog, Moment
from assets.durable import DamagedError

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    from pyspark.sql import DataFrame, SparkSession

TIME = pa.timestamp("us", "UTC")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FIRST_HOUR, LAST_HOUR = (time.replace(minute=0, second=0, microsecond=0, tzinfo=dt.UTC) for time in (dt.datetime.min, dt.datetime.max))
COMMIT_APP = "glasshouse/commits"  # in each Delta commit: the number of the moment that it belongs to
CONFLICT_TRIES = 6
COMMITTERS = 4
SUM_IN_NAME = re.compile(r"-([0-9a-f]{16})\.parquet$")
# Delta's own 100: a commit then reads up to a hundred others first, and takes 50 ms in place of 15.
CONFIGURATION = {"delta.checkpointInterval": "20"}
HOUR_FOLDER = "hour=%Y-%m-%d%%20%H%%3A00%%3A00.000000"
HOUR = pa.field("hour", TIME, metadata={"comment": "start of the hour, UTC; the partition"})


RESTORE = "put it back from a copy of the lake; `glasshouse check` lists all that is damaged"


class LakeError(Exception):
    """A write or a read that the lake refuses; the message says what to do next."""


class Moved(Exception):
    """Somebody has written to what a commit was made from; read it again."""


@dataclass(frozen=True)
class Table:
    """A table's declaration: its name is the same as asset key, Delta folder, ClickHouse table and metric source.

    completed: makes the columns that the rows of an older Glasshouse lack; None: they are null there.
    """

    name: str
    schema: pa.Schema
    description: str
    partitioned: bool = True
    completed: Callable[[pa.Table], pa.Table] | None = field(default=None, compare=False, repr=False)

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
        return f"hour >= '{utc_text(self.start)}' AND hour < '{utc_text(self.end)}'"

    @property
    def hours(self) -> list[dt.datetime]:
        count = int((self.end - self.start) / dt.timedelta(hours=1))
        return [self.start + dt.timedelta(hours=i) for i in range(count)]

    def widened(self, before: dt.timedelta = dt.timedelta(0), after: dt.timedelta = dt.timedelta(0)) -> Window:
        """With so much more on either side; no further than the first and the last hour there is."""
        return Window(self.start - min(before, self.start - FIRST_HOUR), self.end + min(after, LAST_HOUR - self.end))


def windows(hours: Iterable[dt.datetime]) -> list[Window]:
    """Hours as windows, neighbours in one."""
    found: list[Window] = []
    for hour in sorted(hours):
        if found and found[-1].end == hour:
            found[-1] = Window(found[-1].start, hour + dt.timedelta(hours=1))
        else:
            found.append(Window(hour, hour + dt.timedelta(hours=1)))
    return found


def utc_text(time: dt.datetime) -> str:
    """A time as RFC 3339 in UTC, whole seconds: for SQL, notebooks and people."""
    # Not strftime, whose %Y writes the year 1 as "1".
    return time.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


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
        if not DeltaTable.is_deltatable(self.path(name), self.storage_options or None):
            return False
        return self.log is None or not deltalog.begins_torn(Path(self.path(name))) or self._is_named(name)

    def _is_named(self, name: str) -> bool:
        """Whether the newest moment names a table; what no moment names, and begins torn, a power cut kept from being made."""
        newest = self._newest()
        return newest is not None and name in newest.tables

    # --- reading -----------------------------------------------------------------------------------------------------

    def pinned(self, moment: int | None = None) -> Lake:
        """The lake as it is now, or at a moment that is still kept: all its reads belong together."""
        if self.log is None or (self.moment and moment is None):
            return self
        try:
            found = self.log.newest() if moment is None else self.log.moment(moment)
        except CommitError as error:
            raise LakeError(str(error)) from error
        if moment is None and found and any(self._is_lost(found, name) for name in found.tables):
            return self.pinned()  # published meanwhile
        return replace(self, moment=found)

    def open(self, name: str, version: int | None = None) -> DeltaTable:
        """Open a table as the moment has it, or at the version given.

        Raises LakeError where there is none, and where its log is not what was committed.
        """
        moment = self.moment or self._newest()
        if version is None:
            version = moment.tables.get(name) if moment else None
            if self.moment is None and moment and version is not None and self._is_lost(moment, name):
                return self.open(name)  # published meanwhile
        return self._once("table", name, version, lambda: self._open(name, version, moment))

    def _newest(self) -> Moment | None:
        if self.log is None:
            return None
        try:
            return self.log.newest()
        except CommitError as error:
            raise LakeError(str(error)) from error

    def _is_lost(self, moment: Moment, name: str) -> bool:
        """Whether a newer moment than `moment` is there by now. Raises LakeError where one must have been, and is gone."""
        table, version = Path(self.path(name)), moment.tables[name]
        while deltalog.entry(table, version + 1).exists():
            now = self._newest()
            if now is not None and now.number > moment.number:
                return True
            if (self.log.root / "intent.json").exists():
                return False  # in the making
            version += 1
            try:
                seen = deltalog.transactions(deltalog.actions(table, version)).get(COMMIT_APP)
            except DamagedError:
                return False  # above the moment: of a writer that died
            if seen is not None and seen > moment.number and not self._published_meanwhile(moment):
                raise LakeError(
                    f"{self.log._path(seen)} is gone, or its intent: {deltalog.entry(table, version)} was committed with it; "
                    "put it back from a copy of the lake"
                )
        return False

    def _published_meanwhile(self, moment: Moment) -> bool:
        now = self._newest()
        return now is not None and now.number > moment.number

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

    def _open(self, name: str, version: int | None = None, moment: Moment | None = None) -> DeltaTable:
        if self.log is not None:
            moment = moment or self._newest()
            at = version if version is not None else moment.tables.get(name) if moment else None
            if at is not None:
                self._check_log(name, at, moment)
        try:
            return DeltaTable(self.path(name), version=version, storage_options=self.storage_options or None)
        except TableNotFoundError as error:
            if moment is not None and name in moment.tables:
                raise LakeError(f"{self.path(name)}/_delta_log is gone, or empty; {RESTORE}") from error
            raise self._no_table(name) from error
        except (DeltaError, OSError, ValueError) as error:
            if self.log is not None and deltalog.drop_stale_hint(Path(self.path(name))):
                return self._open(name, version, moment)
            if self.log is not None and version is None and deltalog.begins_torn(Path(self.path(name))) and not self._is_named(name):
                raise self._no_table(name) from error
            at = "" if version is None else f" at version {version}"
            raise LakeError(f"{self.path(name)}/_delta_log cannot be read{at} ({_first_line(error)}); {RESTORE}") from error

    def _no_table(self, name: str) -> LakeError:
        return LakeError(f"the lake at {self.root} has no table `{name}`; materialize the asset `{name}`, or run `make demo`")

    def _check_log(self, name: str, version: int, moment: Moment | None) -> None:
        """Raises LakeError where the table's log up to that version is not what was committed, or has a hole."""
        table = Path(self.path(name))
        try:
            if moment is None or moment.tables.get(name) != version:
                moment = self.log.of_version(name, version)
            chain = deltalog.chain_of(moment.logs.get(name)) if moment else None
            if chain is not None and chain.version == version:
                deltalog.check(table, chain)
            else:
                deltalog.check_unchained(table, version)
        except CommitError as error:
            raise LakeError(str(error)) from error
        except DamagedError as error:
            raise LakeError(f"{error}; {RESTORE}") from error

    def version(self, name: str) -> int:
        """A table's version, which a pinned lake's moment says. Raises LakeError where there is no table."""
        if self.moment is not None and name in self.moment.tables:
            return self.moment.tables[name]
        return self.open(name).version()

    def read(
        self,
        name: str,
        window: Window | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Read a table, a window of it or some columns of it into Arrow."""
        table, wanted = self.open(name, version), list(columns) if columns else None
        if window is None:
            return self._dataset(name, table).to_table(columns=wanted)
        # A dataset costs ten times what a look into the log does; the hours beside a window are often empty.
        if self.log is not None and not _inside(pa.table(table.get_add_actions(flatten=True)), window).num_rows:
            nothing = pa.schema(table.schema().to_arrow()).empty_table()
            return nothing.select(wanted) if wanted else nothing
        start, end = pa.scalar(window.start, TIME), pa.scalar(window.end, TIME)
        inside = (pc.field("hour") >= start) & (pc.field("hour") < end)
        return self._dataset(name, table).to_table(columns=wanted, filter=inside)

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset:
        """A table as an Arrow dataset, to be filtered by numbers and times while it is read.

        Never by texts: a column without bounds in Delta's log (the lake writes none of texts) gets the bound "null" from
        delta-rs, and a filter on it finds nothing. Filter the rows that were read.
        """
        return self._dataset(name, self.open(name, version))

    def _dataset(self, name: str, table: DeltaTable) -> ds.Dataset:
        from pyarrow import fs

        files = None
        if "://" not in str(self.root):
            # delta-rs's own file system is Python called from Arrow's threads: a process that ends soon after reading aborts.
            files = fs.SubTreeFileSystem(self.path(name), fs.LocalFileSystem())
        if files is None:
            return self._once("dataset", name, table.version(), lambda: table.to_pyarrow_dataset())
        return self._once("dataset", name, table.version(), lambda: _checked(self, name, table.to_pyarrow_dataset(filesystem=files)))

    def added(self, moment: Moment, table: Table) -> pa.Table:
        """The rows that a moment's commit added to a table. Raises LakeError where their files are gone, or damaged."""
        named = moment.added.get(table.name, [])
        if gone := [path for path in named if not Path(self.path(table.name), path).exists()]:
            raise LakeError(f"the files of moment {moment.number} were tidied away: {self.path(table.name)}/{gone[0]}")
        self.check_files(table.name, named)
        parts = [_with_hour(pq.ParquetFile(f"{self.path(table.name)}/{path}").read(), path, table) for path in named]
        return pa.concat_tables(parts) if parts else table.empty()

    def check_files(self, name: str, paths: Iterable[str], within: str | None = None) -> int:
        """Hold data files of a table against their checksums, each once as long as it is not touched; returns how many have one.

        paths: within the table, as on disk, or whole ones. within: another folder in which they lie. A lake that is not a local folder has none: 0.
        Raises LakeError naming the first that is gone or not what was written.
        """
        if self.log is None:
            return 0
        folder, known, count = within or self.path(name), None, 0
        for path in paths:
            place = path if path.startswith(f"{folder}/") else os.path.join(folder, path)
            wanted = SUM_IN_NAME.search(path)
            try:
                if wanted is None:
                    known = self.log.sums(name) if known is None else known
                    wanted = known.get(os.path.relpath(place, folder))
                else:
                    wanted = wanted[1]
                count += _check_file(place, wanted)
            except DamagedError as error:
                raise LakeError(f"{error}; {RESTORE}") from error
        return count

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

    def files(self, name: str, window: Window | None = None, version: int | None = None) -> pa.Table:
        """The table's data files, of a window's hours: Delta's add actions, flattened, hours as TIME. Empty without the table."""
        if version is None and not self.exists(name):
            return pa.table({"path": pa.array([], pa.string()), "partition.hour": pa.array([], TIME)})
        found = pa.table(self.open(name, version).get_add_actions(flatten=True))
        return found if window is None else _inside(found, window)

    # --- writing -----------------------------------------------------------------------------------------------------

    def create(self, table: Table) -> None:
        """Create a table if it is not there yet; one of an older Glasshouse gains the columns that it lacks.

        Done before the first write, so that concurrent appends agree.
        """
        if table.name in self._looked_at:
            return
        if self.log is None:
            if not self.exists(table.name):
                self._make(table)
            else:
                _add_columns(self._open(table.name), table.schema)
            self._looked_at.add(table.name)
            return
        if not self._is_made(table.name, self._newest()):
            self._create(table)
        elif _lacking(self.open(table.name), table.schema):
            self.add_columns(table.name, list(table.schema), by="create")
        self._looked_at.add(table.name)

    @cached_property
    def _looked_at(self) -> set[str]:
        """Tables that are there, with their columns."""
        return set()

    def _create(self, table: Table) -> None:
        try:
            with self.log.locked():
                before = self._recovered()  # what a power cut left of the table is out of the way then
                if self._is_made(table.name, before):
                    return
                self._make(table)
                # Else a reader would take its newest version, half a commit perhaps.
                self._published(before, "create", {table.name: self._open(table.name).version()})
        except CommitError as error:
            raise LakeError(str(error)) from error

    def _is_made(self, name: str, moment: Moment | None) -> bool:
        """Whether a moment names a table, and its log is there."""
        if moment is not None:
            self.log.named.update(moment.tables)
        return moment is not None and name in moment.tables and self.exists(name)

    def _make(self, table: Table) -> None:
        try:
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
        except (DeltaError, OSError) as error:
            raise LakeError(f"{self.path(table.name)} cannot be made ({_first_line(error)}); make room, or see who may write there") from error

    def appended(self, name: str, app: str) -> int | None:
        """The last version that `app` appended to the table, or None."""
        return self.open(name).transaction_version(app)

    def add_columns(self, name: str, fields: Sequence[pa.Field], *, by: str) -> list[str]:
        """Give a table the columns that it lacks, null in the rows it holds; returns their names. Local lakes only."""
        try:
            with self.log.locked():
                before = self._recovered()
                new = _add_columns(self._open(name), fields)
                if new:
                    self._published(before, by, {name: self._open(name).version()})
                return new
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
        adds = [_write_file(self.path(table.name), [part], hour) for hour, part in _by_hour(table, data)]
        self._sync_later(table, adds)
        return {"table": table.name, "window": bounds, "adds": adds}

    def stage_sorted(self, table: Table, window: Window, parts: Iterable[pa.Table]) -> Step:
        """As `stage`, of rows that come a part at a time, ascending by hour: a part is all that is held. Nothing stays of what raises."""
        self.create(table)
        pieces = (piece for part in parts for piece in self._pieces(table, window, part))
        adds: list[dict[str, Any]] = []
        try:
            for hour, of_hour in groupby(pieces, key=lambda piece: piece[0]):
                if adds and adds[-1]["hour"] > _hour_text(hour):
                    raise LakeError(f"`{table.name}`: rows of {hour} come after those of a later hour; order them by hour")
                adds.append(_write_file(self.path(table.name), (rows for _, rows in of_hour), hour, every_dictionary=True))
        except BaseException:
            for add in adds:
                Path(self.path(table.name), add["path"]).unlink(missing_ok=True)
            raise
        self._sync_later(table, adds)
        return {"table": table.name, "window": [[window.start.isoformat(), window.end.isoformat()]], "adds": adds}

    @staticmethod
    def _pieces(table: Table, window: Window, part: pa.Table) -> list[tuple[dt.datetime | None, pa.Table]]:
        data = _conform(table, part)
        _check_inside(table.name, data, window)
        return _by_hour(table, data)

    def _sync_later(self, table: Table, adds: Iterable[dict[str, Any]]) -> None:
        for add in adds:
            path = os.path.join(self.path(table.name), add["path"])
            self._syncing[path] = durable.sync_later(path)

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
            self._durable(steps)
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

    @cached_property
    def _syncing(self) -> dict[str, Future[None]]:
        """Data files that are on their way to the disk, by path."""
        return {}

    def _durable(self, steps: Sequence[Step]) -> None:
        """Wait until the staged files and their names are on the disk. Raises DiskError."""
        began = [(path, self._syncing.pop(path, None)) for path in self._staged(steps)]
        for path, future in began:
            if future is not None:
                future.result()
        durable.sync_all(path for path, future in began if future is None)
        folders = {os.path.dirname(path) for path, future in began if future is not None}
        durable.sync_folders([*folders, *{os.path.dirname(folder) for folder in {os.path.dirname(path) for path, _ in began}}])

    def _staged(self, steps: Sequence[Step]) -> list[str]:
        return [os.path.join(self.path(step["table"]), add["path"]) for step in steps for add in step["adds"]]

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
        try:
            intent = self.log.intent()
        except DamagedError as error:
            intent = self._without_intent(newest, error)
        try:
            self._drop_broken_ends(newest, intent["moment"] if intent else None)
        except DamagedError as error:
            raise LakeError(f"{error}; {RESTORE}") from error
        if intent is not None and newest and newest.number >= intent["moment"]:
            (self.log.root / "intent.json").unlink(missing_ok=True)  # published, only the forgetting of it was lost
            intent = None
        if intent is None:
            for name in newest.tables if newest else ():
                self._is_lost(newest, name)
            return newest
        return self._finish(intent, newest, lambda point: None)

    def _without_intent(self, newest: Moment | None, error: DamagedError) -> None:
        """Set a damaged intent aside where nothing of its commit was done yet; else raise LakeError."""
        number = newest.number if newest else -1
        for folder in Path(self.root).iterdir():
            version = newest.tables.get(folder.name, -1) + 1 if newest else 0
            while deltalog.entry(folder, version).exists():
                if deltalog.is_whole(deltalog.entry(folder, version)):
                    seen = deltalog.transactions(deltalog.actions(folder, version)).get(COMMIT_APP, -1)
                    if seen > number:
                        raise LakeError(f"{error}, and {deltalog.entry(folder, version)} is a part of its commit; {RESTORE}") from error
                version += 1
        durable.set_aside(error.path, error.why, "nothing of its commit was done yet: who made it makes it again")

    def unmade(self, moment: Moment | None) -> list[str]:
        """Names of folders of the lake that hold the first entry of a log, and that a moment does not name."""
        named = moment.tables if moment else {}
        found = [name for name in os.listdir(self.root) if name not in named and not name.startswith(("_", ".")) and not name.endswith(".damaged")]
        return sorted(name for name in found if deltalog.entry(Path(self.path(name)), 0).exists())

    def _drop_broken_ends(self, newest: Moment | None, decided: int | None) -> None:
        for name in self.unmade(newest):
            deltalog.drop_broken_end(Path(self.path(name)), -1, COMMIT_APP, decided)
        for name, version in newest.tables.items() if newest else ():
            table = Path(self.path(name))
            if deltalog.entry(table, version + 1).exists():
                deltalog.drop_broken_end(table, version, COMMIT_APP, decided)

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
            logs={**(before.logs if before else {}), **self._settled(before, versions)},
        )
        if intent:
            if intent["app"] and not intent.get("of_table", len(intent["steps"]) == 1):  # older code did not say
                moment.apps[intent["app"][0]] = intent["app"][1]
            added = {step["table"]: [add["path"] for add in step["adds"]] for step in intent["steps"]}
            moment = replace(moment, added=added, note=intent["note"])
        self.log.publish(moment)
        return moment

    def _settled(self, before: Moment | None, versions: dict[str, int]) -> dict[str, dict[str, Any]]:
        """Put what the tables' logs have gained since a moment on the disk, with the data files of others; returns their chains."""
        files: list[str] = []
        folders: list[str] = []
        for name, upto in versions.items():
            table = Path(self.path(name))
            since = before.tables.get(name, -1) if before else -1
            if since < 0:
                folders += [str(table), str(table.parent)]
            for version in range(min(since, upto) + 1, upto + 1):
                files += self._gained(name, table, version)
        durable.sync_all(files)
        durable.sync_folders(folders)
        try:
            return {
                name: deltalog.as_json(deltalog.advanced(
                    Path(self.path(name)), deltalog.chain_of(before.logs.get(name)) if before else None, upto
                ))
                for name, upto in versions.items()
            }  # fmt: skip
        except DamagedError as error:
            raise LakeError(f"{error}; {RESTORE}") from error

    def _gained(self, name: str, table: Path, version: int) -> list[str]:
        """Files behind an entry of a log that are not on the disk yet. The checksums of those that others wrote are kept."""
        found = [deltalog.entry(table, version)]
        if not found[0].exists():
            return []  # older than the log's retention
        if (point := deltalog.checkpoint(table, version)).exists():
            found += [point, hint] if (hint := table / deltalog.LOG / deltalog.HINT).exists() else [point]
        entry = deltalog.actions(table, version)
        if COMMIT_APP not in deltalog.transactions(entry):
            theirs = [path for path in deltalog.added(entry) if not SUM_IN_NAME.search(path) and (table / path).exists()]
            if theirs:
                self.log.note_sums(name, version, {path: durable.digest_of(table / path) for path in theirs})
            found += [table / path for path in theirs]
            durable.sync_folders({str((table / path).parent.parent) for path in theirs})
        return [str(path) for path in found]

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
            except (DeltaError, OSError) as error:
                raise LakeError(
                    f"{table.table_uri} cannot be written to ({_first_line(error)}); the commit stays decided and is finished by "
                    "the next writer: make room, see who may write there, and start again"
                ) from error
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
        for path in self._staged(steps):
            Path(path).unlink(missing_ok=True)

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
        else:
            self.recover()  # what a power cut left of the table would be in Spark's way
        writer.save(self.path(name))
        self.publish(name, [name])
        return self.version(name)


def _lacking(table: DeltaTable, fields: Iterable[pa.Field]) -> list[pa.Field]:
    there = {field.name for field in table.schema().fields}
    return [field for field in fields if field.name not in there]


def _add_columns(table: DeltaTable, fields: Iterable[pa.Field]) -> list[str]:
    new = _lacking(table, fields)
    if new:
        table.alter.add_columns(list(Schema.from_arrow(pa.schema(new)).fields))
    return [field.name for field in new]


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
    hours = data.column("hour").cast(pa.int64()).to_numpy()
    rest = data.drop_columns(["hour"])
    if (hours[1:] < hours[:-1]).any():  # a filter goes chunk by chunk: what is taken all at once may hold more text than a column can
        return [(_moment(hour), rest.filter(pa.array(hours == hour))) for hour in np.unique(hours).tolist()]
    starts = np.flatnonzero(np.concatenate([[True], hours[1:] != hours[:-1]]))
    ends = [*starts[1:].tolist(), len(hours)]
    return [(_moment(hours[first]), rest.slice(first, end - first)) for first, end in zip(starts.tolist(), ends, strict=True)]


def _moment(microseconds: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=int(microseconds))


def _write_file(folder: str, parts: Iterable[pa.Table], hour: dt.datetime | None, every_dictionary: bool = False) -> dict[str, Any]:
    """Write rows of one hour, one part at least, as a Parquet file; returns what Delta's log says of it.

    every_dictionary: of all columns, as counts and rates want it; else of FEW_VALUES.
    """
    # delta-rs's own names of folders; polars reads the hour from them and not from the log.
    place = f"{hour.astimezone(dt.UTC):{HOUR_FOLDER}}/" if hour else ""
    beside = Path(folder, f"{place}{uuid.uuid4().hex}.part")
    statistics = _Statistics()
    with durable.writing(beside):
        beside.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb") as handle:
                sink = durable.Hashing(handle)
                _write_parquet(sink, parts, statistics, every_dictionary)
                size = handle.tell()
            path = f"{place}{beside.stem}-{sink.digest}.parquet"
            os.rename(beside, Path(folder, path))
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    return {
        "path": path,
        "size": size,
        "hour": _hour_text(hour) if hour else None,
        "rows": statistics.rows,
        "stats": statistics.text(),
    }


def _write_parquet(sink: durable.Hashing, parts: Iterable[pa.Table], statistics: _Statistics, every_dictionary: bool) -> None:
    parts = iter(parts)
    first = next(parts)
    names = set(first.column_names)
    with pq.ParquetWriter(
        sink, first.schema, compression="zstd", compression_level=1,
        use_dictionary=True if every_dictionary else [name for name in FEW_VALUES if name in names],
        write_statistics=[item.name for item in first.schema if item.type not in TEXT + FLOATS],
    ) as writer:  # fmt: skip
        for part in chain([first], parts):
            writer.write_table(part)
            statistics.add(part)


def _hour_text(hour: dt.datetime) -> str:
    return f"{hour.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"


_checked_files: dict[str, tuple[int, int, int]] = {}  # path -> size, time and inode when its checksum was right


def _check_file(place: str, wanted: str | None) -> bool:
    """Raises DamagedError where a data file is gone or is not what its checksum says; False without a checksum."""
    try:
        status = os.stat(place)
    except FileNotFoundError:
        raise DamagedError(place, "is gone") from None
    if not status.st_size:
        raise DamagedError(place, "is empty")
    if wanted is None:
        return False
    now = (status.st_size, status.st_mtime_ns, status.st_ino)
    if _checked_files.get(place) != now:
        if durable.digest_of(place) != wanted:
            raise DamagedError(place, "is damaged: its checksum is another")
        if len(_checked_files) > 200_000:
            _checked_files.clear()
        _checked_files[place] = now
    return True


def _checked(lake: Lake, name: str, data: ds.Dataset) -> ds.Dataset:
    """The same dataset, whose files are held against their checksums when a scan first needs them."""
    import pyarrow.dataset as ds

    class Checked(ds.FileSystemDataset):
        def scanner(self, *args: Any, **how: Any) -> ds.Scanner:
            inside = how.get("filter")
            lake.check_files(name, [one.path for one in self.get_fragments(inside)])
            try:
                return super().scanner(*args, **how)
            except FileNotFoundError as error:
                raise LakeError(f"{error}; {RESTORE}") from error

    return Checked(list(data.get_fragments()), data.schema, data.format, data.filesystem)


def _inside(adds: pa.Table, window: Window) -> pa.Table:
    """Of a table's add actions, flattened, those of a window's hours."""
    if not adds.num_rows or "partition.hour" not in adds.column_names:  # a table without hours: its rows are filtered
        return adds
    hour = adds["partition.hour"].cast(TIME)
    return adds.filter(pc.and_(pc.greater_equal(hour, pa.scalar(window.start, TIME)), pc.less(hour, pa.scalar(window.end, TIME))))


def files_on_disk(table: DeltaTable) -> dict[str, int]:
    """Path within the table, as on disk -> bytes, of a table's data files."""
    found = pa.table(table.get_add_actions(flatten=True))
    return {unquote(path): size for path, size in zip(found["path"].to_pylist(), found["size_bytes"].to_pylist(), strict=True)}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


# Columns of few values: a dictionary of another one only costs time, as bounds of texts do that nobody skips files by.
FEW_VALUES = ("action", "channel", "source", "reason", "format", "kind", "labeled_by", "device", "author_id", "topic", "device_id", "app_version")
TEXT = (pa.string(), pa.binary())
FLOATS = (pa.float64(), pa.float32())  # their bounds leave NaN out, so that a reader that goes by them finds NaN below any bound


class _Statistics:
    """Delta's statistics of a file, of its rows part by part: how many, and bounds of times and whole numbers, by which readers skip it."""

    def __init__(self) -> None:
        self.rows = 0
        self.low: dict[str, int] = {}
        self.high: dict[str, int] = {}
        self.nulls: Counter[str] = Counter()
        self.times: set[str] = set()

    def add(self, data: pa.Table) -> None:
        self.rows += data.num_rows
        for item in data.schema:
            self.nulls[item.name] += data.column(item.name).null_count
            if pa.types.is_timestamp(item.type) or pa.types.is_int64(item.type):
                bounds = pc.min_max(data.column(item.name).cast(pa.int64()))
                if bounds["min"].is_valid:
                    low, high = bounds["min"].as_py(), bounds["max"].as_py()
                    self.low[item.name] = min(low, self.low.get(item.name, low))
                    self.high[item.name] = max(high, self.high.get(item.name, high))
                    self.times |= {item.name} if pa.types.is_timestamp(item.type) else set()

    def text(self) -> str:
        bounds = [{name: _microseconds_text(value) if name in self.times else value for name, value in of.items()} for of in (self.low, self.high)]
        return json.dumps({"numRecords": self.rows, "minValues": bounds[0], "maxValues": bounds[1], "nullCount": dict(self.nulls)})


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
    if table.completed:
        data = table.completed(data)
    for name in set(table.schema.names) - set(data.column_names):  # a column that came later
        data = data.append_column(name, pa.nulls(data.num_rows, table.schema.field(name).type))
    return _conform(table, data)
