"""Rows from Delta into ClickHouse: a window of hours shown anew at one moment, or a live batch appended once.

Here: the two kinds of write. Not here: which load is visible (loads.py), tables (schema.py), whether ClickHouse holds what
Delta holds (verify.py), metrics (sql/clickhouse/queries/).

A window's rows are a load of their own, beside those that readers see; one insert shows all its tables, aggregates and hours
(loads.publish). A batch is appended to the visible load of its hours, an insert an hour and table, with a deduplication
token: a repeat of it, from any point on, changes nothing. A batch that a window's load holds already is left out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from assets import upgrade
from assets.counts import written
from assets.events.contract import TIME
from assets.lake import EPOCH, Lake, LakeError, Table, Window, windows
from assets.metrics import loads
from assets.metrics.client import LOAD_S, connect
from assets.metrics.loads import NO_MOMENT, LoadError, utc
from assets.metrics.schema import FEED, ORDERS, PARTS, fed_by, migrate, retain

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from assets.commits import Moment

SLICE_ROWS = 500_000  # rows of Delta in memory at a time; an hour is never split
BATCH_ROWS = 100_000
COPIES = 2  # hours that ClickHouse reads at a time
ONE_HOUR = dt.timedelta(hours=1)
# Rows of a load are new whatever they hold; what arrived is counted afterwards.
_LOAD_SETTINGS = {"insert_deduplicate": 0, "max_partitions_per_insert_block": 0}

_KINDS = {
    pa.int64(): "Int64", pa.int32(): "Int32", pa.bool_(): "Bool", pa.string(): "String", pa.binary(): "String",
    pa.float64(): "Float64", TIME: "DateTime64(6, \\'UTC\\')",
}  # fmt: skip

# progress(table, hours done, hours in all)
Progress = Callable[[str, int, int], None]
Probe = Callable[[str], None]  # called with the name of each point of a write; tests kill the process there


def _no_probe(point: str) -> None:
    pass


def load_window(
    lake: Lake, client: Client, window: Window, progress: Progress | None = None, reason: str = "window",
    part: str = FEED, probe: Probe = _no_probe,
) -> dict[str, int]:  # fmt: skip
    """Make ClickHouse's hours of the window what Delta has now; returns rows per table.

    Readers see the old hours until all tables and aggregates of all hours are there, then the new ones. All tables are read
    as of one moment; a table that the lake does not have yet counts as empty. Memory: SLICE_ROWS rows, or one hour.
    reason: kept in `loads`. part: which tables, see schema.PARTS. Raises LoadError where ClickHouse does not hold what was sent; then nothing has changed.
    """
    prepare(lake, client)
    upgrade.complete(lake, [table.name for table in PARTS[part]], window)
    number = loads.fresh_number()
    try:
        then = latest(lake)
        counts = {}
        for table in PARTS[part]:
            counts[table.name] = _copy(then, client, table, window, number, progress)
            probe(f"copied {table.name}")
        with loads.alone(lake):
            now = latest(lake)
            for table, hours in _changed(then, now, window, PARTS[part]):
                loads.drop(client, fed_by(table.name), hours.hours, number)
                _copy(now, client, table, hours, number)
            _check(client, now, window, number, PARTS[part])
            probe("checked")
            loads.publish(client, window.hours, number, now.moment.number if now.moment else NO_MOMENT, reason, part)
            probe("shown")
    except BaseException:
        _forget(client, window, number, part)
        raise
    loads.sweep(client)
    return counts


def load_missing(lake: Lake, client: Client, part: str = FEED) -> list[dt.datetime]:
    """Load the hours that Delta has and ClickHouse has never held, or as an older Glasshouse loaded them. Returns them."""
    prepare(lake, client)
    now, known, old = latest(lake), loads.visible(client, part), loads.outdated(client, part)
    known = {hour for hour, one in known.items() if one.load not in old}
    missing = {hour for table in PARTS[part] if now.exists(table.name) for hour in now.hours(table.name)} - known
    for window in windows(missing):
        load_window(lake, client, window, reason="missing", part=part)
    return sorted(missing)


def load_hours(lake: Lake, client: Client, hours: Iterable[dt.datetime], reason: str, part: str = FEED) -> None:
    """Load those of the hours that Delta has and ClickHouse has not, or that were written since ClickHouse took them."""
    if not (wanted := set(hours)):
        return
    prepare(lake, client)
    for window in windows(_stale(latest(lake), loads.visible(client, part), wanted, PARTS[part])):
        load_window(lake, client, window, reason=reason, part=part)


def _stale(now: Lake, known: dict[dt.datetime, loads.Visible], wanted: set[dt.datetime], tables: Sequence[Table]) -> set[dt.datetime]:
    """Hours that Delta has and that ClickHouse lacks, or took when their files were others.

    By the commit log, not by times: a clock that was set back writes hours anew that seem older than their load. A moment that is no
    longer kept says nothing, so its hours are stale. Only a lake without a commit log is asked for the times of its files.
    """
    if now.log is None:
        took = {hour: EPOCH + dt.timedelta(microseconds=one.load) for hour, one in known.items()}
        return {hour for hour, at in written(now, [table.name for table in tables], wanted).items() if at > took.get(hour, EPOCH)}
    files = {table.name: _files(now, table.name) for table in tables}
    there = {hour for held in files.values() for hour in held} & wanted
    found, loaded = there - known.keys(), there & known.keys()
    for moment in {known[hour].moment for hour in loaded}:
        hours = {hour for hour in loaded if known[hour].moment == moment}
        try:
            then = now.pinned(moment)
        except LakeError:
            found |= hours
            continue
        for name, held in files.items():
            before = _files(then, name)
            found |= {hour for hour in hours if before.get(hour) != held.get(hour)}
    return found


def prepare(lake: Lake, client: Client) -> None:
    """Bring the tables to what the files say. Alone: of two that begin on an empty server, the later would empty what the first has loaded."""
    with loads.alone(lake):
        migrate(client)


def append_moment(lake: Lake, client: Client, moment: Moment, probe: Probe = _no_probe) -> dict[str, int]:
    """Append what a live batch added, once: the same moment again changes nothing. Returns rows sent per table.

    An hour that ClickHouse has never held is loaded whole instead, as of now.
    """
    with loads.alone(lake):
        sent, missing = append_owed(lake, client, moment, probe)
    for window in windows(missing):
        load_window(lake, client, window, reason="new hour", probe=probe)
    return sent


def append_owed(
    lake: Lake, client: Client, moment: Moment, probe: Probe = _no_probe
) -> tuple[dict[str, int], set[dt.datetime]]:
    """append_moment for who holds loads.alone: rows sent per table, and the hours that must be loaded whole yet."""
    rows = {table: lake.added(moment, table) for table in PARTS[FEED] if moment.added.get(table.name)}
    shown = loads.visible(client)
    sent = {}
    for table, part in rows.items():
        if part.num_rows:
            sent[table.name] = _append(client, table, part, shown, moment)
            probe(f"appended {table.name}")
    _note(client, moment, rows)
    probe("noted")
    return sent, {hour for part in rows.values() for hour in _hours(part)} - shown.keys()


class LiveSink:
    """Follows the live labeler's commits: appends the rows of each batch to ClickHouse once.

    Called with (lake, moment) by assets.followers, which tries again while ClickHouse is away: a repeat is harmless.
    row_days, aggregate_days: see schema.retain. folder: see client.connect.
    """

    def __init__(
        self, url: str, row_days: int | None = None, aggregate_days: int | None = None, folder: Path | None = None
    ):
        self.url, self.days, self.folder = url, (row_days, aggregate_days), folder
        self._client: Client | None = None

    def __call__(self, lake: Lake, moment: Moment) -> None:
        if self._client is None:
            client = connect(self.url, timeout_s=LOAD_S, folder=self.folder)
            load_missing(lake, client)
            retain(client, *self.days)
            self._client = client
        try:
            append_moment(lake, self._client, moment)
        except Exception:
            self._client = None
            raise


class OrderSink:
    """Follows the takes of orders: loads anew the hours whose attributions a take has changed."""

    def __init__(self, url: str, folder: Path | None = None):
        self.url, self.folder = url, folder
        self._client: Client | None = None

    def __call__(self, lake: Lake, moment: Moment) -> None:
        if self._client is None:
            client = connect(self.url, timeout_s=LOAD_S, folder=self.folder)
            load_missing(lake, client, ORDERS)
            self._client = client
        table = PARTS[ORDERS][0].name
        hours = {dt.datetime.fromisoformat(hour) for hour in moment.note.get("hours", {}).get(table, [])}
        shown = loads.visible(self._client, ORDERS)
        late = {hour for hour in hours if hour not in shown or shown[hour].moment < moment.number}
        try:
            for window in windows(late):
                load_window(lake, self._client, window, reason="orders", part=ORDERS)
        except Exception:
            self._client = None
            raise


def latest(lake: Lake) -> Lake:
    """The lake pinned at its newest moment, whatever moment was pinned before."""
    return replace(lake, moment=None).pinned()


# --- a window -------------------------------------------------------------------------------------------------------


def _copy(lake: Lake, client: Client, table: Table, window: Window, load: int, progress: Progress | None = None) -> int:
    """Insert Delta's rows of the window as rows of `load`; returns how many."""
    version = lake.version(table.name) if lake.exists(table.name) else None
    if files := _readable_files(lake, client, table, version):
        return _copy_files(client, table, window, files, load, progress)
    hours, total = len(window.hours), 0
    for part, rows in slices(lake, table, window, version):
        if rows.num_rows:
            _insert(client, table, rows, load, _LOAD_SETTINGS)
        total += rows.num_rows
        if progress:
            progress(table.name, int((part.end - window.start) / ONE_HOUR), hours)
    return total


def _readable_files(lake: Lake, client: Client, table: Table, version: int | None) -> dict[dt.datetime, list[str]]:
    """Delta's data files by hour where ClickHouse can read them itself (the embedded one can), else nothing.

    A server may read files of one folder only, and none of another machine: it says so, and gets the rows sent.
    """
    from clickhouse_connect.driver.exceptions import ClickHouseError

    if version is None or lake.log is None or set("*?{}") & set(lake.path(table.name)):
        return {}
    files = {hour: [f"{lake.path(table.name)}/{unquote(one)}" for one in sorted(paths)]
             for hour, paths in _files(lake, table.name).items()}  # fmt: skip
    if any(len({one.rpartition("/")[0] for one in paths}) > 1 for paths in files.values()):
        return {}
    first = next(iter(files.values()), None)
    try:
        return files if first and client.query(f"SELECT 1 FROM {_source(table, first[:1])} LIMIT 1") else {}
    except ClickHouseError:
        return {}


def _copy_files(client: Client, table: Table, window: Window, files, load: int, progress: Progress | None) -> int:
    """Let ClickHouse read the files of each hour, which takes less time than sending the rows."""
    names = [field.name for field in table.schema if field.name != "hour"]
    target, hours = f"{table.name}_all (hour, load, {', '.join(names)})", window.hours

    def copy(hour: dt.datetime) -> None:
        if hour in files:
            client.command(
                f"INSERT INTO {target} SELECT toDateTime({int(hour.timestamp())}, 'UTC'), {load}, {', '.join(names)} "
                f"FROM {_source(table, files[hour])}",
                settings={**_LOAD_SETTINGS, "parallel_view_processing": 1},
            )

    # An hour is a file of one row group, which one thread reads: two hours at a time keep two cores busy.
    with ThreadPoolExecutor(COPIES) as copies:
        for number, _ in enumerate(copies.map(copy, hours)):
            if progress:
                progress(table.name, number + 1, len(hours))
    return client.query(f"SELECT count() FROM {table.name}_all WHERE load = {load}").result_rows[0][0]


def _source(table: Table, paths: list[str]) -> str:
    """Parquet files as a table function; a column that an older file lacks is null."""
    quoted = ["".join(f"\\{one}" if one in "'\\" else one for one in path) for path in paths]
    folder, _, _ = quoted[0].rpartition("/")  # of the hour; braces must not reach over a folder
    pattern = quoted[0] if len(quoted) == 1 else folder + "/{" + ",".join(one.rpartition("/")[2] for one in quoted) + "}"
    columns = ", ".join(f"{field.name} Nullable({_KINDS[field.type]})" for field in table.schema if field.name != "hour")
    return f"file('{pattern}', 'Parquet', '{columns}')"


def _check(client: Client, lake: Lake, window: Window, load: int, tables: Sequence[Table]) -> None:
    """Raises LoadError unless each hour of the load holds as many rows as Delta's."""
    inside = set(window.hours)
    for table in tables:
        version = lake.version(table.name) if lake.exists(table.name) else None
        wanted = {hour: n for hour, n in delta_counts(lake, table.name, version).items() if hour in inside}
        found = client.query(
            f"SELECT hour, count() FROM {table.name}_all WHERE load = {{load:UInt64}} GROUP BY hour", {"load": load}
        ).result_rows
        if {utc(hour): n for hour, n in found} != {hour: n for hour, n in wanted.items() if n}:
            raise LoadError(
                f"{table.name}: {sum(wanted.values())} rows were sent and {sum(n for _, n in found)} arrived; nothing "
                "has changed for readers, run the load again"
            )


def _changed(then: Lake, now: Lake, window: Window, tables: Sequence[Table]) -> Iterator[tuple[Table, Window]]:
    """Tables and runs of hours of the window whose files are others now than then: written by live batches meanwhile."""
    if then.moment == now.moment:
        return
    inside = set(window.hours)
    for table in tables:
        before, after = _files(then, table.name), _files(now, table.name)
        hours = {hour for hour in before.keys() | after.keys() if before.get(hour) != after.get(hour)}
        for part in windows(hours & inside):
            yield table, part


def _files(lake: Lake, name: str) -> dict[dt.datetime, set[str]]:
    """The table's files by hour; of a pinned lake none where its moment does not name the table, which then came later."""
    if not lake.exists(name) or (lake.moment is not None and name not in lake.moment.tables):
        return {}
    actions = pa.table(lake.open(name).get_add_actions(flatten=True))
    found: dict[dt.datetime, set[str]] = {}
    for hour, path in zip(actions["partition.hour"].to_pylist(), actions["path"].to_pylist(), strict=True):
        found.setdefault(utc(hour), set()).add(path)
    return found


def _forget(client: Client, window: Window, load: int, part: str) -> None:
    """Take back the rows of a load that was not published; what is left where ClickHouse is away, `sweep` finds."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    try:
        for table in PARTS[part]:
            loads.drop(client, fed_by(table.name), window.hours, load)
    except (ClickHouseError, OSError):
        pass


# --- a batch --------------------------------------------------------------------------------------------------------


def _append(client: Client, table: Table, rows: pa.Table, shown: dict, moment: Moment) -> int:
    """Insert a batch's rows into the visible loads of their hours; returns how many were sent.

    An insert an hour: a part is there or not, so that a crash between two leaves no half of one. The token names moment, table
    and hour: a repeat is dropped, in the aggregates too, by the deduplication windows of each table.
    """
    sent = 0
    for hour in _hours(rows):
        one = shown.get(hour)
        if one is None or moment.number <= one.moment:
            continue  # loaded whole: afterwards, or already with what this batch brought
        part = rows.filter(pc.equal(rows["hour"], pa.scalar(hour, rows["hour"].type)))
        settings = {
            "insert_deduplication_token": f"{moment.number}:{table.name}:{loads.partition(hour, one.load)}",
            "deduplicate_blocks_in_dependent_materialized_views": 1,
        }
        _insert(client, table, part, one.load, settings)
        sent += part.num_rows
    return sent


def _note(client: Client, moment: Moment, rows: dict[Table, pa.Table]) -> None:
    """Write down that a batch is in: for freshness, and for who asks what is still owed."""
    times = [part["event_time"] for table, part in rows.items() if "event_time" in table.schema.names and part.num_rows]
    newest = max((pc.max(column).as_py() for column in times), default=None)
    client.insert(
        "batches",
        [[moment.number, str(moment.note.get("batch_id", "")), sum(part.num_rows for part in rows.values()), newest,
          dt.datetime.fromisoformat(moment.at)]],
        column_names=["moment", "batch_id", "rows", "newest", "committed_at"],
    )  # fmt: skip


def _hours(rows: pa.Table) -> list[dt.datetime]:
    return sorted(utc(hour) for hour in rows["hour"].unique().to_pylist())


# --- rows -----------------------------------------------------------------------------------------------------------


def _insert(client: Client, table: Table, rows: pa.Table, load: int, settings: dict) -> None:
    rows = rows.select(table.schema.names).cast(table.schema)
    rows = rows.append_column("load", pa.repeat(pa.scalar(load, pa.uint64()), len(rows)))
    client.raw_insert(
        f"{table.name}_all", column_names=rows.schema.names, insert_block=_ipc(rows), fmt="ArrowStream",
        settings=settings,
    )  # fmt: skip


def _ipc(rows: pa.Table) -> Iterator[bytes]:
    """The rows as an Arrow stream, piece by piece: never the whole stream in memory."""
    sink = _Pieces()
    # Delta's field comments are of no use to ClickHouse.
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), rows.schema.remove_metadata()) as writer:
        for batch in rows.replace_schema_metadata(None).to_batches(max_chunksize=BATCH_ROWS):
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, names=batch.schema.names))
            yield sink.take()
    yield sink.take()


class _Pieces:
    """A file to write to, from which what was written can be taken."""

    closed = False

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held


def slices(lake: Lake, table: Table, window: Window, version: int | None) -> Iterator[tuple[Window, pa.Table]]:
    """The window in runs of hours of at most SLICE_ROWS rows (or one hour), with Delta's rows."""
    counts = delta_counts(lake, table.name, version)
    start, held = window.start, 0
    for hour in window.hours:
        rows = counts.get(hour, 0)
        if held and held + rows > SLICE_ROWS:
            yield _read(lake, table, Window(start, hour), version, held)
            start, held = hour, 0
        held += rows
    yield _read(lake, table, Window(start, window.end), version, held)


def _read(lake: Lake, table: Table, part: Window, version: int | None, rows: int) -> tuple[Window, pa.Table]:
    if not rows:
        return part, table.empty()
    return part, lake.read(table.name, part, version=version).select(table.schema.names).cast(table.schema)


def delta_counts(lake: Lake, name: str, version: int | None) -> dict[dt.datetime, int]:
    """Rows per hour by Delta's own log, without reading data. Raises LoadError for a file without its count."""
    if version is None:
        return {}
    actions = pa.table(lake.open(name, version).get_add_actions(flatten=True))
    counts: dict[dt.datetime, int] = {}
    hours, rows = actions.column("partition.hour").to_pylist(), actions.column("num_records").to_pylist()
    for hour, count in zip(hours, rows, strict=True):
        if count is None:
            raise LoadError(f"{name} {utc(hour):%Y-%m-%dT%H}: a data file does not say how many rows it holds; recompute it")
        counts[utc(hour)] = counts.get(utc(hour), 0) + count
    return counts
