"""Rows from Delta into ClickHouse: a window replaced hour by hour, or a batch appended once.

Here: the two kinds of write, and the comparison with Delta. Not here: tables (schema.py), metrics
(sql/clickhouse/queries/).

A window goes through a staging table; ALTER TABLE ... REPLACE PARTITION then swaps each hour atomically, so a reader
sees the old hour or the new one and a retry repeats nothing. An append carries an insert_deduplication_token, so a
repeat of a batch changes nothing. REPLACE PARTITION forgets the tokens of its hour: load an hour that the live labeler
has finished (its sessions have closed), as its recomputation must too.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from assets.lake import Lake, Table, Window
from assets.metrics.client import connect
from assets.metrics.schema import TABLES, migrate

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from assets.commits import Moment

SLICE_ROWS = 500_000  # rows of Delta in memory at a time; an hour is never split
BATCH_ROWS = 100_000
SWAPS = 200  # hours swapped by one statement
BY_NAME = {table.name: table for table in TABLES}

# progress(table, hours done, hours in all)
Progress = Callable[[str, int, int], None]


class LoadError(Exception):
    """A load that did not come out as Delta has it; the message says what to do."""


@dataclass(frozen=True)
class Difference:
    """An hour of a table in which ClickHouse and Delta disagree. rows_* are counts; equal counts, other contents."""

    table: str
    hour: dt.datetime
    rows_delta: int
    rows_clickhouse: int

    def __str__(self) -> str:
        what = "the same count, other rows" if self.rows_delta == self.rows_clickhouse else (
            f"{self.rows_delta} rows in Delta, {self.rows_clickhouse} in ClickHouse"
        )  # fmt: skip
        return f"{self.table} {self.hour:%Y-%m-%dT%H:%M}Z: {what}"


def load_window(lake: Lake, client: Client, window: Window, progress: Progress | None = None) -> dict[str, int]:
    """Make ClickHouse's hours of the window what Delta has now; returns rows per table.

    All tables are read as of one moment. An hour that is empty in Delta becomes empty in ClickHouse; a table that
    the lake does not have yet counts as empty. Memory: SLICE_ROWS rows, or one hour. Raises LoadError where the
    staging table does not hold what was sent.
    """
    migrate(client)
    _drop_stale_staging(client)
    lake = lake.pinned()
    return {table.name: _load_table(lake, client, table, window, progress) for table in TABLES}


def append_batch(client: Client, tables: dict[str, pa.Table], batch_id: str) -> dict[str, int]:
    """Append a batch of the live labeler once: the same batch_id again changes nothing. Returns rows sent per table.

    tables: name to rows in the lake's schema. The rows of a batch_id must always be the same, in the same order.
    Raises LoadError for a table that ClickHouse does not hold.
    """
    if unknown := sorted(set(tables) - set(BY_NAME)):
        raise LoadError(f"ClickHouse holds no table {unknown[0]}; it holds: {', '.join(BY_NAME)}")
    for name, rows in tables.items():
        if rows.num_rows:
            settings = {"insert_deduplication_token": f"{batch_id}:{name}", "max_partitions_per_insert_block": 0}
            _insert(client, BY_NAME[name], name, rows, settings)
    return {name: rows.num_rows for name, rows in tables.items()}


class LiveSink:
    """Follows the live labeler's commits: appends the rows of each batch to ClickHouse once.

    Called with (lake, moment) by assets.followers, which tries again while ClickHouse is away: the batch's id makes the
    repeat harmless.
    """

    def __init__(self, url: str):
        self.url = url
        self._client: Client | None = None

    def __call__(self, lake: Lake, moment: Moment) -> None:
        if self._client is None:
            client = connect(self.url)
            migrate(client)
            self._client = client
        rows = {table.name: lake.added(moment, table) for table in TABLES if moment.added.get(table.name)}
        try:
            append_batch(self._client, rows, moment.note["batch_id"])
        except Exception:
            self._client = None
            raise


def verify_window(lake: Lake, client: Client, window: Window) -> list[Difference]:
    """Where ClickHouse differs from Delta in the window: counts, and a checksum of all columns, per hour and table.

    An empty list means: the same rows. Both sides are hashed by the same code, slice by slice.
    """
    now = lake.pinned()
    return [found for table in TABLES for found in _verify_table(now, client, table, window)]


def _load_table(lake: Lake, client: Client, table: Table, window: Window, progress: Progress | None) -> int:
    version = lake.version(table.name) if lake.exists(table.name) else None
    present = _counts(client, table.name, window)
    hours, total = len(window.hours), 0
    with _staging(client, table.name) as staging:
        for part, rows in _slices(lake, table, window, version):
            loaded = _stage(client, table, staging, rows)
            _swap(client, table.name, staging, part.hours, loaded, present)
            if loaded:
                client.command(f"TRUNCATE TABLE {staging}")
            total += sum(loaded.values())
            if progress:
                progress(table.name, int((part.end - window.start) / dt.timedelta(hours=1)), hours)
    return total


def _swap(client: Client, name: str, staging: str, hours: list, loaded: dict, present: dict) -> None:
    """Replace the hours that were loaded, drop those that ClickHouse has and Delta has not. Each hour is atomic.

    DROP, because a server refuses to replace by a partition that is not there.
    """
    replace = [f"REPLACE PARTITION ID '{_partition(hour)}' FROM {staging}" for hour in hours if hour in loaded]
    drop = [f"DROP PARTITION ID '{_partition(hour)}'" for hour in hours if hour in present and hour not in loaded]
    changes = replace + drop
    for i in range(0, len(changes), SWAPS):  # a request for each hour would cost more than the swap
        client.command(f"ALTER TABLE {name} {', '.join(changes[i : i + SWAPS])}")


def _stage(client: Client, table: Table, staging: str, rows: pa.Table) -> dict[dt.datetime, int]:
    """Put the rows into staging; returns the rows per hour, as ClickHouse counts them."""
    if not rows.num_rows:
        return {}
    # The blocks of a fresh staging table are all new, even where two hold equal rows.
    _insert(client, table, staging, rows, {"insert_deduplicate": 0, "max_partitions_per_insert_block": 0})
    loaded = dict(client.query(f"SELECT hour, count() FROM {staging} GROUP BY hour").result_rows)
    if sum(loaded.values()) != rows.num_rows:
        raise LoadError(
            f"{table.name}: {rows.num_rows} rows were sent and {sum(loaded.values())} arrived; nothing was replaced, "
            "run the load again"
        )
    return {_utc(hour): count for hour, count in loaded.items()}


def _insert(client: Client, table: Table, target: str, rows: pa.Table, settings: dict) -> None:
    rows = rows.select(table.schema.names).cast(table.schema)
    client.raw_insert(
        target, column_names=table.schema.names, insert_block=_ipc(rows), fmt="ArrowStream", settings=settings
    )


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


@contextlib.contextmanager
def _staging(client: Client, name: str) -> Iterator[str]:
    staging = f"staging_{name}_{uuid.uuid4().hex[:12]}"
    client.command(f"CREATE TABLE {staging} AS {name}")
    try:
        yield staging
    finally:
        client.command(f"DROP TABLE IF EXISTS {staging}")


def _drop_stale_staging(client: Client) -> None:
    """Staging tables of loads that were killed. A day: no load of now is that old."""
    stale = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'staging\\_%' "
        "AND metadata_modification_time < now() - INTERVAL 1 DAY"
    )
    for (name,) in stale.result_rows:
        client.command(f"DROP TABLE IF EXISTS {name}")


def _slices(lake: Lake, table: Table, window: Window, version: int | None) -> Iterator[tuple[Window, pa.Table]]:
    """The window in runs of hours of at most SLICE_ROWS rows (or one hour), with Delta's rows."""
    counts = _delta_counts(lake, table.name, version)
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


def _delta_counts(lake: Lake, name: str, version: int | None) -> dict[dt.datetime, int]:
    """Rows per hour by Delta's own log, without reading data."""
    if version is None:
        return {}
    actions = pa.table(lake.open(name, version).get_add_actions(flatten=True))
    counts: dict[dt.datetime, int] = {}
    hours, rows = actions.column("partition.hour").to_pylist(), actions.column("num_records").to_pylist()
    for hour, count in zip(hours, rows, strict=True):
        # A file without statistics counts as a full slice: only the slicing depends on it.
        counts[_utc(hour)] = counts.get(_utc(hour), 0) + (SLICE_ROWS if count is None else count)
    return counts


def _counts(client: Client, name: str, window: Window) -> dict[dt.datetime, int]:
    found = client.query(
        f"SELECT hour, count() FROM {name} WHERE hour >= {{start:DateTime('UTC')}} AND hour < {{end:DateTime('UTC')}} "
        "GROUP BY hour",
        parameters={"start": window.start, "end": window.end},
    )
    return {_utc(hour): count for hour, count in found.result_rows}


def _verify_table(lake: Lake, client: Client, table: Table, window: Window) -> Iterator[Difference]:
    version = lake.version(table.name) if lake.exists(table.name) else None
    for part, rows in _slices(lake, table, window, version):
        ours, theirs = _checksums(rows), _checksums(_fetch(client, table, part))
        for hour in sorted(ours.keys() | theirs.keys()):
            if ours.get(hour) != theirs.get(hour):
                yield Difference(table.name, hour, ours.get(hour, (0, 0))[0], theirs.get(hour, (0, 0))[0])


def _fetch(client: Client, table: Table, part: Window) -> pa.Table:
    rows = client.query_arrow(
        f"SELECT {', '.join(table.schema.names)} FROM {table.name} "
        "WHERE hour >= {start:DateTime('UTC')} AND hour < {end:DateTime('UTC')}",
        parameters={"start": part.start, "end": part.end},
        settings={"output_format_arrow_low_cardinality_as_dictionary": 0, "output_format_arrow_string_as_string": 0},
    )
    columns = [_cast(rows.column(field.name), field.type) for field in table.schema]
    return pa.Table.from_arrays(columns, schema=table.schema.remove_metadata())


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(kind) and not pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64()).cast(pa.timestamp("s", "UTC"))  # DateTime comes as seconds
    return column.cast(kind)


def _checksums(rows: pa.Table) -> dict[dt.datetime, tuple[int, int]]:
    """Per hour: rows, and a sum over row hashes, which does not depend on the order of rows."""
    import polars as pl

    if not rows.num_rows:
        return {}
    frame = pl.from_arrow(rows)
    hashes = frame.hash_rows(seed=1) // 2**24  # 2^24 rows of an hour fit before the sum would leave 64 bits
    summed = pl.DataFrame({"hour": frame["hour"], "hash": hashes}).group_by("hour").agg(pl.len(), pl.col("hash").sum())
    return {_utc(hour): (count, checksum) for hour, count, checksum in summed.iter_rows()}


def _partition(hour: dt.datetime) -> int:
    """The id of an hour's partition: ClickHouse takes the number behind a DateTime, seconds since the epoch."""
    return int(hour.timestamp())


def _utc(time: dt.datetime) -> dt.datetime:
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
